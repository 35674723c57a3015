"""Server-sent events through the proxy: each must be with the client before the next one is sent.

Usage: sse.py PROXY ENDPOINTS-FILE. A server of our own takes a free port and writes it as an EndpointSlice; clients are
curl's, over HTTP/1.1 and HTTP/2, that read the stream as it is and in every coding.
"""

import http.server
import os
import queue
import subprocess
import sys
import threading
import time

SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: events-1, namespace: shop, labels: {{ kubernetes.io/service-name: events }} }}
addressType: IPv4
ports: [{{ port: {port}, protocol: TCP }}]
endpoints: [{{ addresses: ["127.0.0.1"], conditions: {{ ready: true }} }}]
"""

EVENTS = 5
seen = queue.Queue()


class Events(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.flush()
        if self.path != "/events":
            return
        self.close_connection = True
        for n in range(EVENTS):
            self.wfile.write(f"data: event {n}\n\n".encode())
            self.wfile.flush()
            # Nothing more is sent before the client has this one.
            if seen.get(timeout=60) != n:
                return


def listen(host, address, version, coding):
    command = ["curl", "-sN", f"--http{version}", "--compressed", "-D", "/dev/stderr", "-H", f"Host: {host}",
               "-H", f"Accept-Encoding: {coding}", f"http://{address}/events"]
    curl = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    n = 0
    for line in curl.stdout:
        if line.strip():
            assert line == f"data: event {n}\n", line
            seen.put(n)
            n += 1
    curl.wait()
    head = curl.stderr.read().lower()
    coded = next((line.split()[1] for line in head.splitlines() if line.startswith("content-encoding:")), "as it is")
    print(f"{host} {version} {coding}: {n} events, {coded}")


def main():
    address, path = sys.argv[1:3]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Events)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with open(path + ".new", "w") as file:
        file.write(SLICE.format(port=server.server_address[1]))
    os.rename(path + ".new", path)
    # Until the endpoint is taken in, the proxy answers 503.
    end = time.monotonic() + 20
    while time.monotonic() < end:
        probe = subprocess.run(
            ["curl", "-s", "-o", "/dev/null", "-w", "%{response_code}", "-H", "Host: named.test",
             f"http://{address}/probe"],
            capture_output=True, text=True)
        if probe.stdout == "200":
            break
    for host in ("plain.test", "named.test"):
        for version in ("1.1", "2-prior-knowledge"):
            for coding in ("identity", "gzip", "br", "zstd"):
                listen(host, address, version, coding)


main()
