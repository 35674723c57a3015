"""Keys and certificates beside a manifest folder, and manifests in it: for scripts that play servers and clients of TLS."""

import os
import subprocess


class Files:
    def __init__(self, folder):
        self.folder = folder
        self.work = os.path.join(folder, "..")

    def openssl(self, *words):
        subprocess.run(["openssl", *words], cwd=self.work, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    def authority(self, name):
        self.openssl("req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2",
                     "-keyout", name + ".key", "-out", name + ".crt", "-subj", "/CN=" + name)

    def certificate(self, name, by, names):
        self.openssl("req", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", name + ".key",
                     "-out", name + ".csr", "-subj", "/CN=" + name)
        with open(self.path(name + ".ext"), "w") as file:
            file.write("subjectAltName=" + names)
        self.openssl("x509", "-req", "-in", name + ".csr", "-CA", by + ".crt", "-CAkey", by + ".key",
                     "-CAcreateserial", "-days", "2", "-out", name + ".crt", "-extfile", name + ".ext")

    def path(self, name):
        return os.path.join(self.work, name)

    def read(self, name):
        with open(self.path(name)) as file:
            return file.read()

    def put(self, name, *documents):
        """Writes a file of the manifest folder, at once."""
        path = self.path(name + ".new")
        with open(path, "w") as file:
            file.write("---\n".join(documents))
        os.rename(path, os.path.join(self.folder, name + ".yaml"))

    def secret(self, name, **files):
        text = "apiVersion: v1\nkind: Secret\nmetadata: { name: %s, namespace: shop }\nstringData:\n" % name
        for key, value in files.items():
            text += "  %s: |\n" % key.replace("_", ".") + "".join("    %s\n" % line for line in value.splitlines())
        self.put(name, text)

    def pair(self, name):
        """The entries of a Secret for a certificate and its key."""
        return {"tls_crt": self.read(name + ".crt"), "tls_key": self.read(name + ".key")}


def endpoints(service, port):
    return """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: %s-1, namespace: shop, labels: { kubernetes.io/service-name: %s } }
addressType: IPv4
ports: [{ port: %d, protocol: TCP }]
endpoints: [{ addresses: ["127.0.0.1"], conditions: { ready: true } }]
""" % (service, service, port)
