"""An agent's program at the doors: gateway and ingest as processes, the policy server scripted, and what came out."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from golden import scripted_engine
from leyden.client.claims import Claim
from leyden.client.gateway import GatewayClient
from leyden.events import Event, ModelCallRecorded, PolicyServed, SpanKind, SpanRecorded, model_calls
from leyden.events.codec import MODEL_CALLS, MODELS, OTLP, SPANS, decode
from leyden.events.joins import join, joinable_call, joinable_span
from leyden.events.replies import replies_of_call
from leyden.kafka import Outgoing
from leyden.kafka.admin import ensure_topics
from leyden.kafka.claims import ClaimStore
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.reading import read_topics
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.tail import group_backlog
from leyden.stack.ports import free_port, free_ports
from leyden.stack.probes import HttpProbe
from leyden.stack.processes import ProcessSpec, Supervisor
from roots import ROOT, python_path

KEY = "frameworks-key"
Story = dict[str, Any]
QUESTIONS = {"answered": "How many people live in Leiden?", "recovered": "How many people live in Atlantis?"}
OPENAI_2 = "frameworks-openai-2"
PROGRAMS = {
    ROOT / "tests/frameworks/agents/langchain_tools.py": "frameworks",
    ROOT / "tests/golden/agents/langgraph_react.py": "frameworks",
    ROOT / "tests/golden/agents/openai_agents_handoff.py": "frameworks",
    ROOT / "tests/golden/agents/pydantic_ai_tool.py": "frameworks",
    ROOT / "tests/frameworks/agents/autogen_assistant.py": OPENAI_2,
    ROOT / "tests/frameworks/agents/semantic_kernel_agent.py": OPENAI_2,
    ROOT / "tests/frameworks/agents/crewai_crew.py": OPENAI_2,
}
"""Each program, and the environment in which it runs (`make frameworks`)."""


def python_of(environment: str) -> Path:
    """The interpreter of an environment of `make frameworks`; skips the test where it is not there."""
    python = ROOT / f".venv-{environment}" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python.parent.parent.name} is not there: `make frameworks` makes it")
    return python


def environment(claim: Claim, gateway: str, question: str) -> dict[str, str]:
    """What connects a program that knows nothing of Leyden: an address, a key, and where its spans go."""
    return os.environ | {
        "QUESTION": question,
        "OPENAI_BASE_URL": claim.base_url,
        "OPENAI_API_KEY": claim.api_key,
        "OTEL_EXPORTER_OTLP_ENDPOINT": gateway,
        "OTEL_EXPORTER_OTLP_HEADERS": f"Authorization=Bearer%20{claim.api_key}",
        "TRACEPARENT": claim.traceparent,
    }


@dataclass
class Doors:
    """Gateway and ingest, running."""

    url: str
    kafka: KafkaSettings
    prefix: str
    claims: ClaimStore

    def run(self, command: Sequence[str | Path], name: str, question: str) -> Story:
        """Run a program as one rollout, and tell what was recorded of it."""
        said, calls, spans = self.roll(command, name, question)
        return {"answer": said.splitlines()[-1]} | story(calls, spans)

    def roll(
        self, command: Sequence[str | Path], name: str, question: str
    ) -> tuple[str, list[ModelCallRecorded], list[SpanRecorded]]:
        """Run a program as one rollout: what it printed, and its calls and spans."""
        gateway = GatewayClient(self.url, KEY)
        claim = gateway.start({"task": {"task_id": name, "input": question}})
        env = environment(claim, self.url, question)
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        gateway.end(claim, {"status": "succeeded", "output": done.stdout.strip()})
        gateway.close()
        return done.stdout.strip(), *asyncio.run(self._recorded(claim.rollout_id))

    async def _recorded(self, rollout_id: str) -> tuple[list[ModelCallRecorded], list[SpanRecorded]]:
        async with asyncio.timeout(60):
            while await group_backlog(self.kafka, self.prefix, "ingest", [OTLP]):
                await asyncio.sleep(0.1)
        events = [event for topic in (MODEL_CALLS, SPANS) for event in await self._events(topic)]
        mine = [event for event in events if getattr(event, "rollout_id", None) == rollout_id]
        calls = [event for event in mine if isinstance(event, ModelCallRecorded)]
        return calls, [event for event in mine if isinstance(event, SpanRecorded)]

    async def _events(self, topic: str) -> list[Event]:
        read = read_topics(self.kafka, self.claims, self.prefix + topic)
        return [decode(topic, record.value) async for record in read]


def open_doors(supervisor: Supervisor, kafka: KafkaSettings, redis_url: str, prefix: str, folder: Path) -> Doors:
    """Start gateway and ingest in front of a scripted policy server."""
    engine = f"http://127.0.0.1:{serve_engine()}"
    asyncio.run(announce(kafka, prefix, engine, folder))
    port, *ops = free_ports(3)
    shared = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "REDIS_URL": redis_url,
        "LEYDEN_TOPIC_PREFIX": prefix,
        "LEYDEN_DATA_DIR": str(folder),
        "LEYDEN_GATEWAY_PORT": str(port),
        "LEYDEN_GATEWAY_API_KEYS": KEY,
        "LEYDEN_GATEWAY_SECRET": "a secret for the frameworks' tests",
        "PYTHONPATH": python_path(),
    }
    for name, ops_port in zip(("gateway", "ingest"), ops, strict=True):
        env = shared | {"LEYDEN_OPS_PORT": str(ops_port)}
        ready = HttpProbe(f"http://127.0.0.1:{ops_port}/readyz")
        supervisor.start(ProcessSpec(name, (sys.executable, "-m", f"leyden.{name}"), env=env, ready=ready))
    supervisor.wait_ready()
    return Doors(f"http://127.0.0.1:{port}", kafka, prefix, ClaimStore(f"file://{folder}/claims"))


def serve_engine() -> int:
    """The scripted policy server, in a thread of this process."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(scripted_engine.app, port=port, log_level="warning"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    return port


async def announce(kafka: KafkaSettings, prefix: str, endpoint: str, folder: Path) -> None:
    """Make the topics, and tell the gateway where the policy is served."""
    await ensure_topics(kafka, prefix)
    policy, _, version = scripted_engine.VERSION.partition("@")
    served = PolicyServed(
        event_id="frameworks", event_time=datetime.now(UTC), producer="policy", policy=policy, version=int(version),
        replica="scripted", endpoint=endpoint, model=policy, engine="scripted",
    )  # fmt: skip
    async with KafkaPublisher(kafka, prefix, ClaimStore(f"file://{folder}/claims")) as publisher:
        await publisher.publish_all([Outgoing(MODELS, f"{policy}/scripted", served)])


def story(calls: Iterable[ModelCallRecorded], spans: Iterable[SpanRecorded]) -> Story:
    """What happened, in order, in words that do not change from run to run."""
    by_id = {span.span_id: span for span in spans}
    ordered = sorted(by_id.values(), key=lambda span: (span.start_unix_nano, span.end_unix_nano, span.name))
    in_order = sorted(calls, key=lambda call: call.started_at)
    joinable = [joinable_call(call, replies_of_call(call)) for call in in_order]
    joined = join(joinable, map(joinable_span, ordered)).spans
    known = {call_id: [by_id[id_] for _, id_ in places if id_ in by_id] for call_id, places in joined.items()}
    return {
        "calls": [_call(call, by_id, next(iter(known[call.call_id]), None)) for call in in_order],
        "tools": [_tool(span, by_id) for span in ordered if span.kind is SpanKind.TOOL_CALL],
        "agents": [_agent(span, by_id) for span in ordered if span.kind is SpanKind.AGENT_STEP],
        "model_call_spans": len(model_calls(ordered)),
        "dialects": sorted({span.dialect for span in ordered}),
    }


def _call(call: ModelCallRecorded, spans: Mapping[str, SpanRecorded], span: SpanRecorded | None) -> Story:
    message = call.choices[0].message
    asked = [
        f"{one['function']['name']}({_shown(one['function']['arguments'])})" for one in message.get("tool_calls") or []
    ]
    return {
        "told": _told(call),
        "said": asked or message.get("content"),
        "span": span.name if span else None,
        "agent": call.agent_name or _acting(span, spans),
        "trained": bool(call.prompt_token_ids and call.choices[0].logprobs),
        "error": call.error,
    }


def _told(call: ModelCallRecorded) -> list[str]:
    """What tools had answered since the model last spoke."""
    messages = [message for message in call.request["messages"] if isinstance(message, dict)]  # type: ignore[union-attr]
    after = max((n for n, message in enumerate(messages, 1) if message.get("role") == "assistant"), default=0)
    return [_shown(message.get("content")) for message in messages[after:] if message.get("role") == "tool"]


def _tool(span: SpanRecorded, spans: Mapping[str, SpanRecorded]) -> Story:
    assert span.tool is not None
    return {
        "tool": span.tool.name,
        "arguments": _shown(span.tool.arguments),
        "result": _shown(span.tool.result),
        "status": span.status,
        "error": span.error_type,
        "agent": _acting(span, spans),
    }


def _agent(span: SpanRecorded, spans: Mapping[str, SpanRecorded]) -> Story:
    return {"agent": span.agent_name, "under": _acting(spans.get(span.parent_span_id or ""), spans)}


def _acting(span: SpanRecorded | None, spans: Mapping[str, SpanRecorded]) -> str | None:
    """The nearest agent's name, from `span` upwards."""
    while span is not None and not span.agent_name:
        span = spans.get(span.parent_span_id or "")
    return span.agent_name if span else None


def _shown(value: object) -> str:
    """Arguments and results as frameworks write them, in one spelling."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return value[:120]
    return json.dumps(value, sort_keys=True)[:120]
