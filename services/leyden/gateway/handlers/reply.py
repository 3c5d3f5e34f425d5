"""One call from the engine's head to the caller's last byte: shown as it comes, recorded before it ends."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

import orjson

from leyden.events import ModelCallRecorded, Usage, pack_ints
from leyden.gateway.core.agent import Agent
from leyden.gateway.core.binding import Binding
from leyden.gateway.core.prepare import JsonDict, Prepared
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.reply import ReplyParts, SseSplitter, message_of, show
from leyden.gateway.core.routing import ENGINE_AWAY_S, ModelName
from leyden.gateway.handlers.recorder import Recorder
from leyden.gateway.metrics import CALL_SECONDS, CALLS, TOKENS
from leyden.gateway.ports import EngineBroke, EngineReply
from leyden.ids import derive

DONE = b"[DONE]"
MALFORMED = (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError)
"""What reading an answer raises that is not in the form of a chat completion."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A call that was checked and is on its way."""

    call_id: str
    route: str
    request: JsonDict
    binding: Binding
    agent: Agent
    prepared: Prepared
    name: ModelName
    started_at: datetime
    started: float
    """`time.perf_counter()` at the arrival."""


class Failed(Exception):  # noqa: N818
    """The engine answered with an error, which is passed on as it is; the call is recorded by then."""

    def __init__(self, status: int, body: bytes, content_type: str, retry_after: str | None) -> None:
        super().__init__(f"engine answered {status}")
        self.status = status
        self.body = body
        self.content_type = content_type
        self.retry_after = retry_after


class OpenCall:
    """A call under way. Exactly one record is made of it, by whichever way it ends."""

    def __init__(
        self, sent: Sent, reply: EngineReply | None, recorder: Recorder, done: Callable[[], None] = lambda: None
    ) -> None:
        self.sent = sent
        self.reply = reply
        self.version: int | None = None
        self._recorder = recorder
        self._release = done
        self._closed = False
        self._recorded = False
        self._parts = ReplyParts(sent.prepared.choices)
        self._first_token_s: float | None = None

    @property
    def served_model(self) -> str:
        """`<policy>@<version>` of what answers."""
        return str(ModelName(self.sent.name.policy, self.version))

    async def whole(self) -> bytes:
        """The plain reply as the caller sees it, recorded. Raises `Refusal`, `Retry`."""
        try:
            assert self.reply is not None
            body = orjson.loads(await self.reply.read())
            self._parts.take(body)
            shown = show(body, self.sent.prepared.visible, self.served_model)
            await self._record_once(self._parts.error or self._parts.torn, _outcome(self._parts))
            return orjson.dumps(shown)
        except EngineBroke as error:
            raise await self.breakage(error) from error
        except MALFORMED as error:
            text = f"the engine's answer is no chat completion: {error!r}"
            raise await self.failure(502, "engine_reply", text) from error
        except asyncio.CancelledError:
            self.cut_off()
            raise
        finally:
            self.close()

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The stream's events as they come; from the chunk that finishes the last choice on, held until it is recorded.

        Whatever goes wrong after the first byte is told as an error event, and no `[DONE]` follows.
        """
        held: list[bytes] = []
        try:
            async with aclosing(self._chunks()) as chunks:
                async for chunk in chunks:
                    if self._parts.finished or held:
                        held.append(chunk)
                    else:
                        yield chunk
            await self._record_once(self._parts.error or self._parts.torn, _outcome(self._parts))
            for chunk in held:
                yield chunk
            if self._parts.error is None:
                yield _event(DONE)
        except (asyncio.CancelledError, GeneratorExit):
            self.cut_off()
            raise
        finally:
            self.close()

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        """Shown chunks until `[DONE]`; the parts are fed on the way.

        What follows `[DONE]` is read too, and is nothing: an answer at its end gives its connection back to the pool.
        """
        complete = False
        try:
            async with aclosing(self._payloads()) as payloads:
                async for payload in payloads:
                    if complete or payload == DONE:
                        complete = True
                        continue
                    chunk = orjson.loads(payload)
                    self._parts.take(chunk)
                    if self._first_token_s is None and chunk.get("choices"):
                        self._first_token_s = time.perf_counter() - self.sent.started
                    if (shown := show(chunk, self.sent.prepared.visible, self.served_model)) is not None:
                        yield _event(orjson.dumps(shown))
            if not complete:
                raise EngineBroke("the engine's stream ended early")
        except EngineBroke as error:
            raise await self.breakage(error) from error
        except MALFORMED as error:
            text = f"the engine's stream is no chat completion: {error!r}"
            raise await self.failure(502, "engine_reply", text) from error

    async def _payloads(self) -> AsyncGenerator[bytes, None]:
        assert self.reply is not None
        splitter = SseSplitter()
        async for piece in self.reply.pieces():
            for payload in splitter.feed(piece):
                yield payload

    async def engine_error(self) -> Failed | Refusal:
        """The engine's own error, recorded, to be raised and passed on as it is."""
        assert self.reply is not None
        try:
            body = await self.reply.read()
        except EngineBroke as error:
            return await self.breakage(error)
        status, headers = self.reply.status, self.reply.headers
        try:
            text = message_of(orjson.loads(body))
        except orjson.JSONDecodeError:
            text = body[:500].decode("utf-8", "replace")
        self.close()
        await self._record_once(f"engine {status}: {text}", "engine_error")
        return Failed(status, body, headers.get("content-type", "application/json"), headers.get("retry-after"))

    async def breakage(self, error: EngineBroke) -> Refusal:
        """The engine did not answer to the end: recorded, a 502 or 504 to be raised."""
        status, code = (504, "engine_timeout") if error.timed_out else (502, "engine_broke")
        return await self.failure(status, code, str(error))

    async def failure(self, status: int, code: str, message: str) -> Refusal:
        """Record the call with an error, which is given back to be raised."""
        self.close()
        await self._record_once(f"{code}: {message}", "version_mismatch" if "mismatch" in code else "engine_error")
        return Refusal(status, code, message, retry_after_s=ENGINE_AWAY_S if status == 503 else None)

    def cut_off(self) -> None:
        """The caller has gone: what came so far is recorded, with an error."""
        if not self._recorded:
            self._recorded = True
            self._recorder.beside(self._record("cut_off: the caller went away before the answer's end", "cut_off"))

    def give_up(self, error: BaseException) -> None:
        """Let go because of `error`, which is on its way to the caller, or is the caller's leaving."""
        if isinstance(error, asyncio.CancelledError):
            self.cut_off()
        self.close()

    def abandon(self) -> None:
        """Nobody reads on: recorded as cut off unless it is recorded already, and let go. Harmless after an end."""
        self.cut_off()
        self.close()

    def close(self) -> None:
        """Let the engine's answer go, cancelled where it is not at its end. Twice does no harm."""
        if not self._closed:
            self._closed = True
            self._release()
            if self.reply is not None:
                self.reply.close()

    async def _record_once(self, error: str | None, outcome: str) -> None:
        if not self._recorded:
            self._recorded = True
            # A caller who leaves now must not undo a record that is on its way.
            await asyncio.shield(self._recorder.beside(self._record(error, outcome)))

    async def _record(self, error: str | None, outcome: str) -> None:
        call = self._event(error)
        await self._recorder.record(call, self.sent.binding.traceparent)
        policy = self.sent.name.policy
        CALLS.labels(policy=policy, outcome=outcome).inc()
        TOKENS.labels(policy=policy, kind="prompt").inc(call.usage.prompt_tokens)
        TOKENS.labels(policy=policy, kind="completion").inc(call.usage.completion_tokens)
        CALL_SECONDS.labels(policy=policy).observe(time.perf_counter() - self.sent.started)

    def _event(self, error: str | None) -> ModelCallRecorded:
        sent, parts = self.sent, self._parts
        ref = sent.binding.attempt
        return ModelCallRecorded(
            event_id=derive("model-call", sent.call_id),
            event_time=sent.started_at,
            producer="gateway",
            call_id=sent.call_id,
            rollout_id=ref.rollout_id if ref else None,
            attempt=ref.attempt if ref else 0,
            trace_id=sent.binding.trace_id,
            parent_span_id=sent.binding.parent_span_id,
            agent_name=sent.agent.name,
            agent_role=sent.agent.role,
            route=sent.route,
            requested_model=sent.prepared.model,
            policy=sent.name.policy,
            policy_version=self.version,
            request=sent.request,
            sampling=sent.prepared.sampling,
            prompt_token_ids=pack_ints(parts.prompt_token_ids),
            choices=parts.choices(),
            usage=parts.usage if parts.usage != Usage() else parts.counted(),
            streamed=sent.prepared.streamed,
            started_at=sent.started_at,
            latency_s=round(time.perf_counter() - sent.started, 6),
            time_to_first_token_s=self._first_token_s,
            error=error,
        )


def _outcome(parts: ReplyParts) -> str:
    return "engine_error" if parts.error else "torn" if parts.torn else "ok"


def _event(payload: bytes) -> bytes:
    return b"data: " + payload + b"\n\n"
