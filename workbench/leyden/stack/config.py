"""What the user chooses about a local stack. Plain values that survive a trip through JSON; decides nothing."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from leyden.stack.models import DEFAULT_MODEL
from leyden.stack.ports import free_port

SERVICES = ("gateway", "ingest", "reward", "credit", "trainer", "registry", "policy")
"""In the order of their start, which is also the order of their ops ports."""


class Ports(BaseModel):
    """Where the parts listen on 127.0.0.1; 0 stands for any free port. Service number n has ops port `ops` + n."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gateway: int = 8080
    engine: int = 8100
    kafka: int = 9092
    kafka_controller: int = 9093
    redis: int = 6379
    ops: tuple[int, ...] = tuple(9100 + index for index in range(len(SERVICES)))

    @classmethod
    def auto(cls) -> Self:
        """Free ports everywhere, chosen at start."""
        return cls(gateway=0, engine=0, kafka=0, kafka_controller=0, redis=0, ops=(0,) * len(SERVICES))

    def resolved(self) -> Self:
        """The same with every 0 replaced by a free port."""
        singles = {name: port or free_port() for name, port in self.model_dump(exclude={"ops"}).items()}
        return type(self)(ops=tuple(port or free_port() for port in self.ops), **singles)


class StackConfig(BaseModel):
    """One local stack. Two stacks need two data folders and different ports."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Path(".leyden")
    """Everything that this stack writes: logs, Kafka's and Redis' data, checkpoints, its state."""
    model: str = DEFAULT_MODEL
    """`smollm2-135m`, `tiny`, a folder, or a hub id."""
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """auto: vLLM where it is installed, else our own on transformers."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    max_model_len: int = 1024
    engine_args: tuple[str, ...] = ()
    """More arguments for the engine's command line."""
    engine_timeout_s: float = 600.0
    """How long the engine may take to load."""
    policy: str = "policy"
    """The name that agents give as `model`."""
    run_file: Path | None = None
    """YAML with the sections reward, credit, trainer, policy; its folder is importable by the services."""
    topic_prefix: str = ""
    services: tuple[str, ...] = SERVICES
    ports: Ports = Ports()
    api_keys: tuple[str, ...] = ()
    """Keys that the gateway accepts; one is made and kept in the data folder when none is given."""
    env: dict[str, str] = Field(default_factory=dict)
    """More environment for every process."""
    process_env: dict[str, dict[str, str]] = Field(default_factory=dict)
    """More environment for one process, by its name."""
    memory_gib: float | None = None
    """Free memory asked for before the start; default by engine."""

    def absolute(self) -> "StackConfig":
        """The same with absolute paths and no port left open."""
        run_file = self.run_file.resolve() if self.run_file else None
        changed = {"data_dir": self.data_dir.resolve(), "run_file": run_file, "ports": self.ports.resolved()}
        return self.model_copy(update=changed)
