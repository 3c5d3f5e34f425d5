"""The processes of a stack, with command lines and environments. Starts nothing, reads no file."""

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import leyden
from leyden.stack.child import DEATH_WINDOW_S
from leyden.stack.config import SERVICES, StackConfig
from leyden.stack.probes import HttpProbe
from leyden.stack.processes import ProcessSpec

SERVERS_STAGE = 0
SERVICES_STAGE = 1
"""Stopped first: a service writes its last results to Kafka and Redis."""
LOADING_DEATH_WINDOW_S = 600.0
"""For processes that load a model: one that always fails while loading may take a minute for each try."""


@dataclass(frozen=True)
class StartInputs:
    """What is known only at start: addresses of Kafka and Redis, the model's folder, the gateway's secrets."""

    kafka_servers: str
    redis_url: str
    model: Path
    api_keys: tuple[str, ...]
    gateway_secret: str


def choose_engine(asked: str) -> str:
    """`vllm` or `transformers`; for `auto`, vLLM if it is installed."""
    if asked != "auto":
        return asked
    return "vllm" if importlib.util.find_spec("vllm") else "transformers"


def engine_url(config: StackConfig) -> str:
    return f"http://127.0.0.1:{config.ports.engine}"


def gateway_url(config: StackConfig) -> str:
    return f"http://127.0.0.1:{config.ports.gateway}"


def engine_spec(config: StackConfig, model: Path) -> ProcessSpec:
    """The policy server: serves `model` over the OpenAI API, and can swap its weights."""
    options = {
        "--engine": choose_engine(config.engine),
        "--model": str(model),
        "--port": str(config.ports.engine),
        "--policy": config.policy,
        "--dtype": config.dtype,
        "--max-model-len": str(config.max_model_len),
    }
    arguments = [part for option in options.items() for part in option]
    return ProcessSpec(
        name="engine",
        argv=(sys.executable, "-m", "leyden.policy.engines", *arguments, *config.engine_args),
        env=python_env(config) | config.env | config.process_env.get("engine", {}),
        ready=HttpProbe(f"{engine_url(config)}/health"),
        ready_timeout_s=config.engine_timeout_s,
        stop_timeout_s=15.0,
        death_window_s=LOADING_DEATH_WINDOW_S,
        stage=SERVERS_STAGE,
    )


def service_specs(config: StackConfig, inputs: StartInputs) -> list[ProcessSpec]:
    """The services of `config`, in the order of their start."""
    return [_service_spec(name, config, inputs) for name in SERVICES if name in config.services]


def topics_command(config: StackConfig, inputs: StartInputs) -> tuple[tuple[str, ...], dict[str, str]]:
    """Command line and environment of the program that creates the topics."""
    return (sys.executable, "-m", "leyden.kafka.admin"), shared_env(config, inputs)


def shared_env(config: StackConfig, inputs: StartInputs) -> dict[str, str]:
    """The environment of every service, and of other programs that use the stack."""
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": inputs.kafka_servers,
        "REDIS_URL": inputs.redis_url,
        "LEYDEN_TOPIC_PREFIX": config.topic_prefix,
        "LEYDEN_DATA_DIR": str(config.data_dir / "services"),
    }
    if config.run_file is not None:
        env["LEYDEN_RUN_FILE"] = str(config.run_file)
    return python_env(config) | env | config.env


def _service_spec(name: str, config: StackConfig, inputs: StartInputs) -> ProcessSpec:
    ops_port = config.ports.ops[SERVICES.index(name)]
    env = {"LEYDEN_OPS_PORT": str(ops_port)} | _own_env(name, config, inputs)
    if name != "trainer":  # a stale static member would keep the trainer from resetting its group's offsets
        env["KAFKA_GROUP_INSTANCE_ID"] = name
    return ProcessSpec(
        name=name,
        argv=(sys.executable, "-m", f"leyden.{name}"),
        env=shared_env(config, inputs) | env | config.process_env.get(name, {}),
        ready=HttpProbe(f"http://127.0.0.1:{ops_port}/readyz"),
        ready_timeout_s=300.0,
        death_window_s=LOADING_DEATH_WINDOW_S if name == "trainer" else DEATH_WINDOW_S,
        stage=SERVICES_STAGE,
    )


def _own_env(name: str, config: StackConfig, inputs: StartInputs) -> dict[str, str]:
    if name == "gateway":
        return {
            "LEYDEN_GATEWAY_PORT": str(config.ports.gateway),
            "LEYDEN_GATEWAY_API_KEYS": ",".join(inputs.api_keys),
            "LEYDEN_GATEWAY_SECRET": inputs.gateway_secret,
        }
    if name == "policy":
        return {"LEYDEN_POLICY_ENGINE_URL": engine_url(config), "LEYDEN_POLICY_NAME": config.policy}
    if name == "trainer":
        checkpoints = config.data_dir / "checkpoints"
        return {"LEYDEN_TRAINER_MODEL": str(inputs.model), "LEYDEN_TRAINER_CHECKPOINT_DIR": str(checkpoints)}
    return {}


def python_env(config: StackConfig) -> dict[str, str]:
    """Lets children import the same `leyden` as this process, and reward functions beside the run file."""
    roots = [str(Path(entry).parent) for entry in leyden.__path__]
    sources = [root for root in roots if Path(root).name not in ("site-packages", "dist-packages")]
    beside = [*map(str, config.python_path), *([str(config.run_file.parent)] if config.run_file else [])]
    inherited = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(beside + sources + inherited)),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
