from pathlib import Path

import pytest

from leyden.policy.engines.launch import (
    Dtype,
    Engine,
    Machine,
    Serving,
    choose_dtype,
    choose_engine,
    core_list,
    tool_parser_of,
    vllm_command,
    vllm_environment,
)

LAPTOP = Machine(gpu=False, cpu_flags=frozenset({"avx2"}), cores=(0, 1), vllm=True)
SERVER = Machine(gpu=False, cpu_flags=frozenset({"avx2", "avx512_bf16"}), cores=(0, 1), vllm=True)
GPU = Machine(gpu=True, cpu_flags=frozenset(), cores=(0, 1), vllm=True)
BARE = Machine(gpu=False, cpu_flags=frozenset(), cores=(0,), vllm=False)


def serving(lora_rank: int = 0, extra: tuple[str, ...] = ()) -> Serving:
    return Serving(
        engine=Engine.VLLM,
        model="/models/m",
        policy="p",
        host="127.0.0.1",
        port=8100,
        dtype=Dtype.AUTO,
        max_model_len=1024,
        lora_rank=lora_rank,
        extra=extra,
    )


def test_vllm_is_taken_where_it_is_installed() -> None:
    assert choose_engine(Engine.AUTO, LAPTOP) is Engine.VLLM
    assert choose_engine(Engine.AUTO, BARE) is Engine.TRANSFORMERS
    assert choose_engine(Engine.TRANSFORMERS, LAPTOP) is Engine.TRANSFORMERS


@pytest.mark.parametrize(
    ("machine", "dtype"), [(LAPTOP, Dtype.FLOAT32), (SERVER, Dtype.BFLOAT16), (GPU, Dtype.BFLOAT16)]
)
def test_bfloat16_only_where_the_hardware_has_it(machine: Machine, dtype: Dtype) -> None:
    assert choose_dtype(Dtype.AUTO, machine) is dtype
    assert choose_dtype(Dtype.FLOAT32, machine) is Dtype.FLOAT32


def test_cores_are_listed_as_ranges() -> None:
    assert core_list((0, 1)) == "0-1"
    assert core_list((0, 2, 3, 4, 9)) == "0,2-4,9"


def test_vllm_listens_where_it_is_told_behind_our_gate_with_neutral_sampling() -> None:
    command = vllm_command(serving(extra=("--seed", "1")), LAPTOP)
    text = " ".join(command)
    assert "--host 127.0.0.1 --port 8100" in text
    assert "--middleware leyden.policy.engines.gate.VersionGate" in text
    assert "--generation-config vllm" in text
    assert "--logprobs-mode processed_logprobs" in text
    assert "--enable-auto-tool-choice --tool-call-parser hermes" in text
    assert "--enforce-eager" in command
    assert "--enable-lora" not in command
    assert command[-2:] == ["--seed", "1"]


def test_adapters_are_switched_on_by_their_rank() -> None:
    text = " ".join(vllm_command(serving(lora_rank=12), GPU))
    assert "--enable-lora --max-lora-rank 16" in text
    assert "--enforce-eager" not in text


def test_the_environment_opens_no_development_endpoint_and_keeps_what_the_user_set() -> None:
    environment = vllm_environment(serving(), LAPTOP, {"VLLM_CPU_KVCACHE_SPACE": "4", "PATH": "/bin"})
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "0-1"
    assert environment["LEYDEN_ENGINE_POLICY"] == "p"
    assert environment["PATH"] == "/bin"
    assert "VLLM_SERVER_DEV_MODE" not in environment


def test_tools_that_are_strict_do_not_change_what_vllm_samples_unless_the_user_says_so() -> None:
    name = "VLLM_ENFORCE_STRICT_TOOL_CALLING"
    assert vllm_environment(serving(), LAPTOP, {})[name] == "0"
    assert vllm_environment(serving(), LAPTOP, {name: "1"})[name] == "1"


def test_on_a_cpu_vllm_compiles_nothing_since_a_machine_need_not_have_a_compiler() -> None:
    name = "TORCH_COMPILE_DISABLE"
    assert vllm_environment(serving(), LAPTOP, {})[name] == "1"
    assert vllm_environment(serving(), LAPTOP, {name: "0"})[name] == "0"
    assert name not in vllm_environment(serving(), GPU, {})


def test_this_machine_can_be_looked_at() -> None:
    machine = Machine.here()
    assert machine.cores
    assert not Path("/proc/cpuinfo").exists() or machine.cpu_flags


@pytest.mark.parametrize(
    ("file", "text", "parser"),
    [
        ("chat_template.jinja", "{{ '<tool_call>' }}", "hermes"),
        ("chat_template.jinja", "<tool_call>\n<function=x>", "qwen3_coder"),
        ("tokenizer_config.json", '{"chat_template": "<|python_tag|>"}', "llama3_json"),
        ("tokenizer_config.json", '{"chat_template": "[TOOL_CALLS]"}', "mistral"),
        ("tokenizer_config.json", "{}", "hermes"),
    ],
)
def test_tool_calls_are_parsed_as_the_chat_template_writes_them(
    tmp_path: Path, file: str, text: str, parser: str
) -> None:
    (tmp_path / file).write_text(text)
    assert tool_parser_of(tmp_path) == parser


def test_a_model_that_is_not_here_is_taken_to_write_tool_calls_in_the_commonest_form() -> None:
    assert tool_parser_of(Path("somebody/some-model")) == "hermes"
