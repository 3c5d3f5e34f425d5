"""Real servers for tests that need them: one Kafka and one Redis for the whole run, topics by prefix for each test."""

import os
import secrets
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

import shared_servers
from node_packages import node_packages
from roots import ROOT, SOURCE_ROOTS

for folder in (*SOURCE_ROOTS, ROOT / "examples/calculator", ROOT / "examples/binary_search"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import orphans  # noqa: E402  # it needs the roots

SERVERS = pytest.StashKey[shared_servers.SharedServers]()
WATCHDOG = pytest.StashKey[orphans.Watchdog]()

# A shell's background job and nohup leave these ignored, and the processes that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


if "PYTEST_XDIST_WORKER" in os.environ:
    # As many workers as cores: operations that each take all the cores would wait for each other (5 times slower).
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Laws are not timed tests: a busy machine breaks none of them. A failure prints what repeats it.
settings.register_profile("leyden", deadline=None, print_blob=True)
settings.load_profile("leyden")


def pytest_addoption(parser: pytest.Parser) -> None:
    help_text = "write what golden tests compare with anew; read the difference before you keep it"
    parser.addoption("--update-golden", action="store_true", help=help_text)


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of pytest-xdist's workers."""
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    if not is_worker(config):
        config.stash[WATCHDOG] = orphans.watch()
        config.stash[SERVERS] = shared_servers.SharedServers()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not is_worker(config):
        config.stash[SERVERS].close()
        config.stash[WATCHDOG].communicate()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes give a test no name: gzip writes the time into them, and both workers must name a test alike."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if is_worker(config):
        import distribution

        items[:] = distribution.in_order(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    import distribution  # only where pytest-xdist is there, and used

    return distribution.ByFile(config, log)


@pytest.fixture(scope="session")
def kafka_servers() -> str:
    """A real broker: the one `KAFKA_BOOTSTRAP_SERVERS` names, or one of our own for this run."""
    return os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or shared_servers.address_of("kafka")


@pytest.fixture(scope="session")
def redis_server_url() -> str:
    """A real Redis: the one `REDIS_URL` names, or one of our own for this run."""
    return os.environ.get("REDIS_URL") or shared_servers.address_of("redis")


@pytest.fixture(scope="session")
def node_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/node with its packages."""
    return node_packages(request, tmp_path_factory, ROOT / "tests" / "node", timeout_s=240)


@pytest.fixture
def topic_prefix() -> str:
    """Topics, groups and Redis keys of one test."""
    return f"t{secrets.token_hex(4)}."
