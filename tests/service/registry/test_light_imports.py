"""Credit and registry run on machines that have no torch."""

import subprocess
import sys

import pytest

from roots import ROOT


@pytest.mark.parametrize("service", ["credit", "registry"])
def test_the_service_never_loads_torch(service: str) -> None:
    code = f"import sys; import leyden.{service}.app, leyden.{service}.__main__; sys.exit('torch' in sys.modules)"
    path = f"{ROOT / 'services'}:{ROOT / 'shared'}"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
