"""The same programs, unchanged, before the real small model in real vLLM: what came out of ingest is what it sampled.

What a model says is not known in advance. So the sampled token ids are the truth: they are decoded here, without the
engine's parsers, and the story that the scripted engine's answers made of this program is told again in their words.
"""

import importlib.util
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from framework_support import KEY, PROGRAMS, QUESTIONS, Doors, Story, python_of, story
from leyden.events import ModelCallRecorded, SpanRecorded, model_calls
from leyden.events.base import unpack_floats, unpack_ints
from leyden.kafka.claims import ClaimStore
from leyden.kafka.settings import KafkaSettings
from leyden.reading.location import claims_url_of
from leyden.stack.config import Ports, StackConfig
from leyden.stack.stack import Stack
from roots import ROOT, python_path

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]
EXPECTED = Path(__file__).parent / "expected"
PEOPLE = {"Leiden": "127000", "Delft": "106000"}
END_OF_TURN = "<|im_end|>"
ENGINE = (
    *("--middleware", "tool_first.ToolFirst"),
    *("--structured-outputs-config", json.dumps({"backend": "xgrammar", "disable_any_whitespace": True})),
    *("--override-generation-config", json.dumps({"max_new_tokens": 64})),
)
ENGINE_ENV = {
    "PYTHONPATH": python_path(ROOT / "tests"),
    "VLLM_ENFORCE_STRICT_TOOL_CALLING": "0",
}
"""What the operator of so small a model sets: a required tool's call is JSON by its schema, and answers end."""
SPANS_TELL = {
    "langchain_tools": {"response_id", "tokens", "said"},
    "langgraph_react": {"response_id", "tokens", "said"},
    "openai_agents_handoff": {"tokens", "said"},
    "pydantic_ai_tool": {"response_id", "tokens", "said"},
    "semantic_kernel_agent": {"response_id", "tokens"},
    "autogen_assistant": set(),
    "crewai_crew": set(),
}
"""What the spans of a model call say of it, by program; a framework with none of such spans tells nothing."""


@dataclass(frozen=True)
class Served:
    """The doors in front of the real model, and the model's own way to read tokens."""

    doors: Doors
    tokenizer: Tokenizer

    def words(self, call: ModelCallRecorded) -> str:
        """The text of the tokens that were sampled, as the record has them."""
        tokens = unpack_ints(call.choices[0].token_ids).tolist()
        return self.tokenizer.decode(tokens, skip_special_tokens=False).removesuffix(END_OF_TURN)


@pytest.fixture(scope="module")
def served(kafka_servers: str, redis_server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Gateway, ingest and policy with the engine that `leyden up` starts, on its default model."""
    config = StackConfig(
        data_dir=tmp_path_factory.mktemp("real-model"),
        engine="vllm",
        engine_args=ENGINE,
        max_model_len=2048,
        services=("gateway", "ingest", "policy"),
        topic_prefix=f"t{secrets.token_hex(4)}.",
        ports=Ports.auto(),
        api_keys=(KEY,),
        process_env={"engine": ENGINE_ENV},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_servers)
        patch.setenv("REDIS_URL", redis_server_url)
        with Stack(config) as stack:
            assert stack.inputs is not None
            wait_live(stack)
            kafka = KafkaSettings(bootstrap_servers=kafka_servers)
            tokenizer = Tokenizer.from_file(str(stack.inputs.model / "tokenizer.json"))
            claims = ClaimStore(claims_url_of(config))
            yield Served(Doors(stack.gateway_url, kafka, config.topic_prefix, claims), tokenizer)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_what_a_real_model_said_is_what_the_framework_did_and_what_was_recorded(
    served: Served, program: Path, question: str
) -> None:
    printed, calls, spans = served.doors.roll(
        [python_of(PROGRAMS[program]), program], program.stem, QUESTIONS[question]
    )
    calls = sorted(calls, key=lambda call: call.started_at)
    words = [served.words(call) for call in calls]
    for call in calls:
        assert_sampled(call)
    assert words[-1].strip()
    assert printed.endswith(words[-1].strip())
    assert story(calls, spans) == retold(program.stem, words)
    assert_told_by_spans(SPANS_TELL[program.stem], calls, spans)


def assert_sampled(call: ModelCallRecorded) -> None:
    """The record can be trained on, and names who sampled it."""
    assert (call.policy, call.policy_version, call.error, len(call.choices)) == ("policy", 0, None, 1)
    tokens, logprobs = unpack_ints(call.choices[0].token_ids), unpack_floats(call.choices[0].logprobs)
    assert len(tokens) == len(logprobs) == call.usage.completion_tokens > 0
    assert len(unpack_ints(call.prompt_token_ids)) == call.usage.prompt_tokens > 0
    assert all(logprobs <= 0)


def retold(program: str, words: Sequence[str]) -> Story:
    """The story of the scripted answers, in which the model asks for the city and then answers, in these words."""
    asked = [tool_call(text) for text in words[:-1]]
    assert [set(arguments) for _, arguments in asked] == [set()] * (len(asked) - 1) + [{"city"}]
    city = asked[-1][1]["city"]
    scripted = kept(program, "answered")
    if city == "Atlantis":  # the tool fails, and unlike the script the model does not ask again
        failed, answering = kept(program, "recovered"), len(words) - 1
        scripted["tools"] = failed["tools"][:1]
        scripted["calls"][answering]["told"] = failed["calls"][answering]["told"]
    said = [[f"{name}({json.dumps(arguments)})"] for name, arguments in asked]
    for call, own in zip(scripted["calls"], [*said, words[-1]], strict=True):
        call["said"] = own
    of_tool = {"Leiden": city, json.dumps({"city": "Leiden"}): json.dumps({"city": city})}
    return said_instead(scripted, of_tool | {PEOPLE["Leiden"]: PEOPLE.get(city, "unknown")})


def kept(program: str, question: str) -> Story:
    """The scripted story, without the answer."""
    found: Story = json.loads((EXPECTED / f"{program}.{question}.json").read_text())
    return {part: told for part, told in found.items() if part != "answer"}


def said_instead(told: Any, words: Mapping[str, str]) -> Any:
    """`told` with other words in the places of those of the script."""
    if isinstance(told, dict):
        return {name: said_instead(value, words) for name, value in told.items()}
    if isinstance(told, list):
        return [said_instead(value, words) for value in told]
    return words.get(told, told) if isinstance(told, str) else told


def tool_call(text: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the one tool call that `text` is, in the form in which vLLM has required calls written."""
    asked: list[dict[str, Any]] = json.loads(text)
    assert len(asked) == 1
    return asked[0]["name"], asked[0]["parameters"]


def assert_told_by_spans(fields: set[str], calls: Sequence[ModelCallRecorded], spans: Sequence[SpanRecorded]) -> None:
    """The spans of model calls are the recorded calls, in their order, as far as this instrumentation tells of them."""
    ordered = model_calls(sorted(spans, key=lambda span: span.start_unix_nano))
    if not fields:
        assert ordered == []
        return
    recorded = [about_call(call) for call in calls]
    assert [told_of(span) for span in ordered] == [{name: one[name] for name in fields} for one in recorded]


def about_call(call: ModelCallRecorded) -> Story:
    tokens = (call.usage.prompt_tokens, call.usage.completion_tokens)
    return {"response_id": call.response_id, "tokens": tokens, "said": spelled(call.choices[0].message)}


def told_of(span: SpanRecorded) -> Story:
    """What a span tells, without what it leaves out."""
    assert span.llm is not None
    llm = span.llm
    told = {
        "response_id": llm.response_id,
        "tokens": (llm.input_tokens, llm.output_tokens) if llm.output_tokens else None,
        "said": spelled(llm.output_messages[0]) if llm.output_messages else None,
    }
    return {name: value for name, value in told.items() if value is not None}


def spelled(message: Mapping[str, Any]) -> tuple[str, list[tuple[str, Any]]]:
    """Text and tool calls in one spelling; some instrumentations leave out that a call has no arguments."""
    asked = [call["function"] for call in message.get("tool_calls") or []]
    return message.get("content") or "", [(one["name"], arguments_of(one["arguments"])) for one in asked]


def arguments_of(written: Any) -> Any:
    return json.loads(written) if isinstance(written, str) else written or {}


def wait_live(stack: Stack) -> None:
    """Until the gateway has heard of the policy server."""
    with httpx.Client(base_url=stack.gateway_url, headers={"authorization": f"Bearer {KEY}"}) as http:
        for _ in range(300):
            policies = http.get("/leyden/v1/policies").json()["policies"]
            if policies and policies[0]["live_version"] == 0:
                return
            time.sleep(0.2)
    raise AssertionError("the gateway has not heard of the policy server")
