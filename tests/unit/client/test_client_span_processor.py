"""Spans on their way out: counted when acknowledged, bounded, and never in the agent's way."""

import logging
import threading

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from leyden.client.errors import GatewayUnavailableError
from leyden.client.session import SpanStats
from leyden.client.span_processor import RolloutSpanProcessor
from leyden.ids import AttemptRef, new_rollout_id


class Receiver:
    """Takes spans, or fails, or waits until it is let go."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.failing = False
        self.rejected = 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, payload: bytes) -> int:
        self.gate.wait(60)
        if self.failing:
            raise GatewayUnavailableError("away")
        request = ExportTraceServiceRequest.FromString(payload)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.sent += [span.name for span in scope.spans]
        return self.rejected


class Agent:
    """Ends spans in a trace of its own."""

    def __init__(self, processor: RolloutSpanProcessor, trace: str | None = None) -> None:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(processor)
        self.trace = trace or AttemptRef(new_rollout_id(), 0).trace_id
        parent = SpanContext(int(self.trace, 16), 0xFF, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
        self._context = set_span_in_context(NonRecordingSpan(parent))
        self._tracer = provider.get_tracer("test")

    def works(self, *names: str, text: str = "") -> None:
        for name in names:
            self._tracer.start_span(name, context=self._context, attributes={"text": text}).end()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


def test_the_count_is_of_acknowledged_spans(receiver: Receiver) -> None:
    processor = RolloutSpanProcessor(send=receiver, delay_s=60)
    agent = Agent(processor)
    processor.track(agent.trace)
    agent.works("a", "b", "c")
    assert processor.settle(agent.trace, 5) == 3
    assert receiver.sent == ["a", "b", "c"]


def test_half_an_emoji_costs_one_character_of_one_span() -> None:
    requests: list[ExportTraceServiceRequest] = []

    def receive(payload: bytes) -> int:
        requests.append(ExportTraceServiceRequest.FromString(payload))
        return 0

    processor = RolloutSpanProcessor(send=receive, delay_s=60)
    agent = Agent(processor)
    agent.works("first")
    agent.works("name \ud83d", text="text \ud83d")
    agent.works("third 😀")
    assert processor.force_flush()
    spans = [span for request in requests for span in request.resource_spans[0].scope_spans[0].spans]
    assert [(span.name, span.attributes[0].value.string_value) for span in spans] == [
        ("first", ""), ("name �", "text �"), ("third 😀", ""),
    ]  # fmt: skip
    processor.shutdown()


def test_each_rollout_has_its_own_count(receiver: Receiver) -> None:
    processor = RolloutSpanProcessor(send=receiver, delay_s=60)
    one, other = Agent(processor), Agent(processor)
    processor.track(one.trace)
    processor.track(other.trace)
    one.works("a")
    other.works("b", "c")
    assert (processor.settle(one.trace, 5), processor.settle(other.trace, 5)) == (1, 2)


def test_spans_of_other_traces_are_not_sent(receiver: Receiver) -> None:
    processor = RolloutSpanProcessor(send=receiver, delay_s=0)
    Agent(processor, trace="ab" * 16).works("private")
    ours = Agent(processor)
    ours.works("ours")
    assert processor.force_flush(5_000)
    assert receiver.sent == ["ours"]


def test_a_lost_span_makes_the_count_unknown(receiver: Receiver) -> None:
    processor = RolloutSpanProcessor(send=receiver, delay_s=60)
    agent = Agent(processor)
    processor.track(agent.trace)
    receiver.failing = True
    agent.works("a")
    assert processor.settle(agent.trace, 5) is None


def test_a_rejected_span_makes_the_count_unknown(receiver: Receiver) -> None:
    processor = RolloutSpanProcessor(send=receiver, delay_s=60)
    agent = Agent(processor)
    processor.track(agent.trace)
    receiver.rejected = 1
    agent.works("a", "b")
    assert processor.settle(agent.trace, 5) is None


def test_settling_has_a_time_limit(receiver: Receiver) -> None:
    processor = RolloutSpanProcessor(send=receiver, delay_s=60)
    agent = Agent(processor)
    processor.track(agent.trace)
    receiver.gate.clear()
    agent.works("a")
    assert processor.settle(agent.trace, 0.01) is None
    assert receiver.sent == []  # it did not wait for the receiver
    receiver.gate.set()


def test_a_full_queue_drops_without_blocking_and_says_so_once(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    processor = RolloutSpanProcessor(send=receiver, capacity=10, batch=1, delay_s=0)
    agent = Agent(processor)
    processor.track(agent.trace)
    receiver.gate.clear()
    with caplog.at_level(logging.ERROR, "leyden.client"):
        agent.works(*(["x"] * 1000))
    assert receiver.sent == []  # no span waited for the receiver
    receiver.gate.set()
    assert processor.settle(agent.trace, 5) is None
    assert len(receiver.sent) <= 11
    assert len(caplog.records) == 1


def test_it_works_again_when_the_gateway_is_back(receiver: Receiver) -> None:
    processor = RolloutSpanProcessor(send=receiver, delay_s=0)
    agent = Agent(processor)
    receiver.failing = True
    agent.works("lost")
    processor.force_flush(5_000)
    receiver.failing = False
    processor.track(agent.trace)
    agent.works("kept")
    assert processor.settle(agent.trace, 5) == 1


def test_after_shutdown_the_thread_ends_and_spans_are_left() -> None:
    receiver = Receiver()
    before = set(threading.enumerate())
    processor = RolloutSpanProcessor(send=receiver, delay_s=0)
    agent = Agent(processor)
    agent.works("a")
    assert processor.force_flush(5_000)
    [thread] = set(threading.enumerate()) - before
    processor.shutdown()
    agent.works("b")
    thread.join(30)
    assert not thread.is_alive()
    assert receiver.sent == ["a"]


def test_the_queue_is_bounded_in_bytes_too(receiver: Receiver) -> None:
    processor = RolloutSpanProcessor(send=receiver, delay_s=60, capacity_bytes=10_000)
    agent = Agent(processor)
    agent.works(*["x"] * 100, text="y" * 1000)
    assert processor.stats().queued < 10
    assert processor.stats().dropped == 100 - processor.stats().queued
    assert processor.force_flush(5_000)
    agent.works("again", text="y" * 1000)
    assert processor.stats().queued == 1


def test_large_spans_go_in_several_requests() -> None:
    sizes = []

    def send(payload: bytes) -> int:
        sizes.append(len(payload))
        return 0

    processor = RolloutSpanProcessor(send=send, delay_s=60)
    agent = Agent(processor)
    agent.works(*["x"] * 12, text="y" * 2**20)
    assert processor.force_flush(10_000)
    assert len(sizes) == 4
    assert max(sizes) < 5 * 2**20


def test_what_became_of_the_spans_can_be_asked(receiver: Receiver) -> None:
    processor = RolloutSpanProcessor(send=receiver, capacity=2, delay_s=60)
    agent = Agent(processor)
    agent.works("a", "b", "dropped")
    assert processor.force_flush(5_000)
    receiver.failing = True
    agent.works("failed")
    assert processor.force_flush(5_000)
    assert processor.stats() == SpanStats(queued=0, sent=2, dropped=1, failed=1)


def test_a_process_within_a_rollout_sends_spans_of_every_trace_and_counts_them(receiver: Receiver) -> None:
    inherited = AttemptRef(new_rollout_id(), 0).trace_id
    processor = RolloutSpanProcessor(send=receiver, delay_s=60, inherited_trace=inherited)
    processor.track(inherited)
    Agent(processor, trace="ab" * 16).works("framework's own")
    Agent(processor, trace=inherited).works("ours")
    assert processor.count(inherited) is None
    assert processor.force_flush(5_000)
    assert processor.count(inherited) == 2
