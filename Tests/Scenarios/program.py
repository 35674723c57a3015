"""Another process of the program, for scripts that signal one, or need two."""

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request

PATIENCE = 20


def until(condition, what):
    limit = time.monotonic() + PATIENCE
    while not (result := condition()):
        if time.monotonic() > limit:
            raise SystemExit(f"never came to be: {what}")
        time.sleep(0.005)
    return result


class Program:
    """Runs on a folder with ports of its own. `log` has the lines of the access log when it has ended."""

    def __init__(self, moongate, folder, *flags):
        self.process = subprocess.Popen(
            [moongate, "run", "--manifests", folder, "--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--admin",
             "127.0.0.1:0", *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        line = b""
        while b'"listening"' not in line:
            line = self.process.stdout.readline()
        listening = json.loads(line)
        self.http, self.https, self.admin = listening["http"], listening["https"], listening["admin"]
        self.log = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        until(self.is_ready, "ready")

    def read(self):
        self.log.extend(json.loads(line) for line in self.process.stdout if line.startswith(b"{"))

    def page(self, path):
        return urllib.request.urlopen(f"http://{self.admin}{path}").read().decode()

    def is_ready(self):
        try:
            return urllib.request.urlopen(f"http://{self.admin}/readyz").status == 200
        except urllib.error.HTTPError:
            return False

    def wait(self):
        """The exit status; the log is whole."""
        status = self.process.wait(PATIENCE)
        self.reader.join(10)
        return status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
