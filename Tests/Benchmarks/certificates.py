"""certificates.py MOONGATE [COUNT]: what so many certificates cost (default 10,000).

Each has a Secret, an Ingress and a host of its own; contents are alike, which nothing makes use of. One client asks for
every name in turn, twice: first each context has to be made, and beyond 2,048 others have to go.
"""
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

binary, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10_000


def indented(path):
    return "".join("    " + line for line in open(path))


def megabytes(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1024


with tempfile.TemporaryDirectory() as folder:
    key, chain, manifests = (os.path.join(folder, name) for name in ["key", "chain", "manifests"])
    subprocess.run(
        ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", key,
         "-out", chain, "-days", "30", "-subj", "/CN=many", "-addext", "subjectAltName=DNS:*.many.test"],
        check=True, stderr=subprocess.DEVNULL)
    os.mkdir(manifests)
    content = f"stringData:\n  tls.crt: |\n{indented(chain)}  tls.key: |\n{indented(key)}"
    for i in range(count):
        # A file may hold so much and no more.
        with open(os.path.join(manifests, f"{i // 100}.yaml"), "a") as file:
            file.write(
                f"---\napiVersion: v1\nkind: Secret\nmetadata: {{ name: c{i}, namespace: shop }}\n{content}"
                "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\n"
                f"metadata: {{ name: i{i}, namespace: shop }}\nspec:\n  ingressClassName: moongate\n"
                f"  tls: [{{ hosts: [h{i}.many.test], secretName: c{i} }}]\n"
                f"  rules: [{{ host: h{i}.many.test, http: {{ paths: [{{ path: /, pathType: Prefix, "
                "backend: { service: { name: a, port: { number: 80 } } } }] } }]\n")
    began = time.monotonic()
    process = subprocess.Popen(
        [binary, "run", "--manifests", manifests, "--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--admin",
         "127.0.0.1:0", "--workers", "1", "--access-log", "off"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        bound = json.loads(process.stdout.readline())
        host, port = bound["https"].rsplit(":", 1)
        print(f"{count} certificates: served after {time.monotonic() - began:.1f} s, {megabytes(process.pid):.0f} MiB")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for turn in ["first", "second"]:
            times = []
            for i in range(count):
                with socket.create_connection((host, int(port))) as plain:
                    start = time.perf_counter()
                    context.wrap_socket(plain, server_hostname=f"h{i}.many.test").close()
                    times.append((time.perf_counter() - start) * 1000)
                if i + 1 in (2048, count):
                    print(f"{turn} time, {i + 1} names: {megabytes(process.pid):.0f} MiB, a handshake takes "
                          f"{statistics.median(times):.2f} ms, 99% of them at most {sorted(times)[int(len(times) * .99)]:.2f} ms")
        start = time.perf_counter()
        for _ in range(200):
            with socket.create_connection((host, int(port))) as plain:
                context.wrap_socket(plain, server_hostname="h0.many.test").close()
        print(f"one name, 200 times: {(time.perf_counter() - start) * 5:.2f} ms each")
    finally:
        process.terminate()
        process.wait(30)
