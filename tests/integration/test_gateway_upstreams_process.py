"""The gateway as a process does not start with a wrong file of upstreams, and says what is wrong with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from roots import ROOT

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("upstreams: [{name: judge, models: [m], base_url: 'http://x', api_key_env: LEYDEN_TEST_GONE}]",
         "upstream 'judge': api_key_env names LEYDEN_TEST_GONE, which is not set"),
        ("upstreams: [{name: judge, models: [m]}]", "upstreams.0 (judge).base_url: Field required"),
    ],
)  # fmt: skip
def test_a_wrong_file_stops_the_gateway_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "upstreams.yaml"
    path.write_text(text)
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT / 'services'}{os.pathsep}{ROOT / 'shared'}",
        "LEYDEN_DATA_DIR": str(tmp_path),
        "LEYDEN_GATEWAY_SECRET": "a secret of the tests",
        "LEYDEN_GATEWAY_API_KEYS": "key",
        "LEYDEN_GATEWAY_UPSTREAMS": str(path),
    }
    command = [sys.executable, "-m", "leyden.gateway"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
