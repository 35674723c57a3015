# ADDRESS CERT COMMAND NEWCERT: four connections ask without pause while COMMAND renews the certificate; one connection
# is kept from before to after. New connections must come to see the new certificate, and no request may fail.
import socket, ssl, subprocess, sys, threading, time

address, old, command, new = sys.argv[1:5]
host, port = address.rsplit(":", 1)
errors, stop = [], threading.Event()
REQUEST = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"


def connect(context):
    return context.wrap_socket(socket.create_connection((host, int(port)), timeout=20), server_hostname="shop.test")


def ask(stream):
    stream.sendall(REQUEST)
    got = b""
    while b"\r\n\r\na" not in got:
        part = stream.recv(65536)
        if not part:
            raise EOFError("cut after %r" % got)
        got += part
    if not got.startswith(b"HTTP/1.1 200"):
        raise ValueError(got)


def anyone():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def load():
    while not stop.is_set():
        try:
            with connect(anyone()) as stream:
                for _ in range(20):
                    ask(stream)
        except Exception as error:
            errors.append(repr(error))
            return


kept = connect(ssl.create_default_context(cafile=old))
ask(kept)
threads = [threading.Thread(target=load) for _ in range(4)]
for thread in threads:
    thread.start()
subprocess.run(command, shell=True, check=True)
deadline = time.monotonic() + 20
while True:
    try:
        with connect(ssl.create_default_context(cafile=new)) as stream:
            ask(stream)
        break
    except ssl.SSLCertVerificationError:
        if time.monotonic() > deadline:
            errors.append("the new certificate never came")
            break
ask(kept)
stop.set()
for thread in threads:
    thread.join()
print("\n".join(errors) or "renewed without an error")
