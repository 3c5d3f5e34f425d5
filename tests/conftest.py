"""Real servers for tests that need them: one Kafka and one Redis for the whole run, topics by prefix for each test."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from roots import ROOT, SOURCE_ROOTS

for folder in (*SOURCE_ROOTS, ROOT / "examples/calculator", ROOT / "examples/binary_search"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


# A shell's background job and nohup leave these ignored, and the processes that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


# Laws are not timed tests: a busy machine breaks none of them.
settings.register_profile("leyden", deadline=None)
settings.load_profile("leyden")


def pytest_addoption(parser: pytest.Parser) -> None:
    help_text = "write what golden tests compare with anew; read the difference before you keep it"
    parser.addoption("--update-golden", action="store_true", help=help_text)


@pytest.fixture(scope="session")
def kafka_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real broker: the one `KAFKA_BOOTSTRAP_SERVERS` names, or one of our own for this run."""
    if servers := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield servers
        return
    from leyden.stack.kafka import KafkaBroker

    with KafkaBroker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker.bootstrap_servers


@pytest.fixture(scope="session")
def redis_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis: the one `REDIS_URL` names, or one of our own for this run."""
    if url := os.environ.get("REDIS_URL"):
        yield url
        return
    from leyden.stack.redis import RedisServer

    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="session")
def node_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/node with its packages, from the lock: installed once, in pytest's own cache where there is one."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not on this machine")
    cache, source = getattr(request.config, "cache", None), ROOT / "tests" / "node"
    folder: Path = cache.mkdir("node") if cache is not None else tmp_path_factory.mktemp("node")
    shutil.copytree(source, folder, dirs_exist_ok=True)
    lock, installed = (source / "package-lock.json").read_bytes(), folder / "installed.json"
    if not installed.exists() or installed.read_bytes() != lock:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=folder, check=True, timeout=240)
        installed.write_bytes(lock)
    return folder


@pytest.fixture
def topic_prefix() -> str:
    """Topics, groups and Redis keys of one test."""
    return f"t{secrets.token_hex(4)}."
