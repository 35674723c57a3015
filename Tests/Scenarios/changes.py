"""Changes a folder of manifests again and again, each time until the change is served.

Usage: changes.py PROXY FOLDER ADDRESS ADDRESS N

First the endpoints of Service shop/mark move between the two addresses, N times: a request must come from where they
are. Then the Ingress gets another path, N times: a request for it must be answered. What is counted as published was
seen by a client. How long it took goes to standard error.
"""

import http.client
import os
import statistics
import sys
import time

proxy, folder, first, second = sys.argv[1:5]
count = int(sys.argv[5])

SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: mark-1, namespace: shop, labels: {{ kubernetes.io/service-name: mark }} }}
addressType: IPv4
ports: [{{ name: http, port: {port}, protocol: TCP }}]
endpoints: [{{ addresses: ["{host}"], conditions: {{ ready: true }} }}]
"""
INGRESS = """\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{ name: web, namespace: shop }}
spec:
  ingressClassName: moongate
  rules:
    - host: shop.test
      http: {{ paths: [{{ path: /, pathType: Prefix, backend: {{ service: {{ name: mark, port: {{ number: 80 }} }} }} }}] }}
    - host: mark.test
      http: {{ paths: [{{ path: /{path}, pathType: Exact, backend: {{ service: {{ name: mark, port: {{ number: 80 }} }} }} }}] }}
"""


def write(name, text):
    with open(f"{folder}/{name}.new", "w") as file:
        file.write(text)
    os.rename(f"{folder}/{name}.new", f"{folder}/{name}")


def endpoints(i):
    # They begin at the first, so that the first change is one.
    turn = (i + 1) % 2
    host, port = (first, second)[turn].rsplit(":", 1)
    write("endpoints.yaml", SLICE.format(host=host, port=port))
    return "shop.test", "/", lambda status, body: status == 200 and body == "ab"[turn]


def manifests(i):
    # Two paths by turns: each is gone while the other one is served.
    path = ("even", "odd")[i % 2]
    write("web.yaml", INGRESS.format(path=path))
    return "mark.test", f"/{path}", lambda status, body: status == 200


connection = http.client.HTTPConnection(proxy)
for change in endpoints, manifests:
    took = []
    for i in range(count):
        host, path, served = change(i)
        begun = time.monotonic()
        while True:
            connection.request("GET", path, headers={"Host": host})
            response = connection.getresponse()
            body = response.read().decode()
            if served(response.status, body):
                break
            if time.monotonic() > begun + 20:
                sys.exit(f"{change.__name__}: change {i} is not served: {response.status} {body}")
            time.sleep(0.001)
        took.append((time.monotonic() - begun) * 1000)
    print(f"{change.__name__}: {len(took)} published")
    print(f"median {statistics.median(took):.0f} ms, slowest {max(took):.0f} ms", file=sys.stderr)
