"""What a stack needs of the machine: memory, disk, ports, downloads. Changes nothing."""

import os
from pathlib import Path

from leyden.stack.cache import cache_root
from leyden.stack.config import SERVICES, StackConfig
from leyden.stack.kafka import jars_are_cached
from leyden.stack.models import model_is_cached
from leyden.stack.plan import choose_engine
from leyden.stack.preflight import DEMO_DISK_GIB, DEMO_MEMORY_GIB, Needs

_TRANSFORMERS_MEMORY_GIB = 4.0
_LSCPU = "vLLM reads the CPU cores with it: install util-linux, or use --engine transformers."


def own_kafka() -> bool:
    """Whether the stack runs its own broker: `KAFKA_BOOTSTRAP_SERVERS` is not set."""
    return not os.environ.get("KAFKA_BOOTSTRAP_SERVERS")


def own_redis() -> bool:
    """Whether the stack runs its own Redis: `REDIS_URL` is not set."""
    return not os.environ.get("REDIS_URL")


def needs_of(config: StackConfig, data_folder: Path) -> Needs:
    """The needs of `config`, without what is cached or runs elsewhere."""
    jars = own_kafka() and not jars_are_cached()
    missing = {"Kafka's jars": jars, f"the model {config.model}": not model_is_cached(config.model)}
    vllm = choose_engine(config.engine) == "vllm"
    default_memory = DEMO_MEMORY_GIB if vllm else _TRANSFORMERS_MEMORY_GIB
    return Needs(
        memory_gib=default_memory if config.memory_gib is None else config.memory_gib,
        disk_gib=DEMO_DISK_GIB,
        folders=tuple(dict.fromkeys((data_folder, cache_root()))),
        ports=_ports(config),
        fetch=[what for what, absent in missing.items() if absent],
        programs={"lscpu": _LSCPU} if vllm else {},
    )


def _ports(config: StackConfig) -> dict[str, int]:
    ports = config.ports
    wanted = {"the policy server": ports.engine}
    if own_kafka():
        wanted |= {"Kafka": ports.kafka, "Kafka's controller": ports.kafka_controller}
    if own_redis():
        wanted["Redis"] = ports.redis
    if "gateway" in config.services:
        wanted["the gateway"] = ports.gateway
    numbered = zip(SERVICES, ports.ops, strict=True)
    return wanted | {f"the health page of {name}": port for name, port in numbered if name in config.services}
