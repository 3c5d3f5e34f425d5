"""Settings of a local stack, stored as JSON in its data folder."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from leyden.stack.models import DEFAULT_MODEL
from leyden.stack.ports import free_port

SERVICES = ("gateway", "ingest", "reward", "credit", "trainer", "registry", "policy")
"""In the order of their start and of their ops ports."""


class Ports(BaseModel):
    """Ports on 127.0.0.1; 0 means any free port. `ops` has one port per service, in the order of `SERVICES`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gateway: int = 8080
    engine: int = 8100
    kafka: int = 9092
    kafka_controller: int = 9093
    redis: int = 6379
    ops: tuple[int, ...] = tuple(9100 + index for index in range(len(SERVICES)))

    @classmethod
    def auto(cls) -> Self:
        """All ports free ones, chosen at start."""
        return cls(gateway=0, engine=0, kafka=0, kafka_controller=0, redis=0, ops=(0,) * len(SERVICES))

    def resolved(self) -> Self:
        """A copy with every 0 replaced by a free port."""
        singles = {name: port or free_port() for name, port in self.model_dump(exclude={"ops"}).items()}
        return type(self)(ops=tuple(port or free_port() for port in self.ops), **singles)


class StackConfig(BaseModel):
    """One local stack. Two stacks need different data folders and ports."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Path(".leyden")
    """Folder for all that the stack writes: logs, Kafka and Redis data, checkpoints, its state."""
    model: str = DEFAULT_MODEL
    """`smollm2-135m`, `tiny`, a folder, or a hub id."""
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """`auto`: vLLM if it is installed, else the engine on transformers."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    max_model_len: int = 1024
    engine_args: tuple[str, ...] = ()
    """Additional command-line arguments of the engine."""
    engine_timeout_s: float = 600.0
    """Time limit for the engine to load, in seconds."""
    policy: str = "policy"
    """Name of the policy, which agents pass as `model`."""
    run_file: Path | None = None
    """YAML with the sections reward, credit, trainer and policy. The services can import modules beside it."""
    python_path: tuple[Path, ...] = ()
    """Additional folders from which the services import reward functions, first on the path."""
    topic_prefix: str = ""
    services: tuple[str, ...] = SERVICES
    ports: Ports = Ports()
    api_keys: tuple[str, ...] = ()
    """API keys of the gateway. If empty, one is created and kept in the data folder."""
    env: dict[str, str] = Field(default_factory=dict)
    """Additional environment variables of every process."""
    process_env: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Additional environment variables by process name."""
    memory_gib: float | None = None
    """Free memory required at the start; default: depends on the engine."""

    def absolute(self) -> "StackConfig":
        """A copy with absolute paths and resolved ports."""
        run_file = self.run_file.resolve() if self.run_file else None
        changed = {
            "data_dir": self.data_dir.resolve(),
            "run_file": run_file,
            "python_path": tuple(folder.resolve() for folder in self.python_path),
            "ports": self.ports.resolved(),
        }
        return self.model_copy(update=changed)
