"""One call from the engine's head to the caller's last byte: shown as it comes, recorded before it ends."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import orjson

from leyden.events import ModelCallRecorded, pack_ints
from leyden.gateway.core.faces import StreamFace
from leyden.gateway.core.faces.openai import message_of
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.reply import ReplyParts, SseSplitter, show
from leyden.gateway.core.request import JsonDict
from leyden.gateway.core.routing import ENGINE_AWAY_S, ModelName
from leyden.gateway.handlers.recorder import Recorder
from leyden.gateway.handlers.sent import Failed, Sent
from leyden.gateway.metrics import CALL_SECONDS, CALLS, FIRST_TOKEN_SECONDS, TOKENS, labelled
from leyden.gateway.ports import EngineBroke, EngineReply
from leyden.ids import derive

DONE = b"[DONE]"
MALFORMED = (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError)
"""What reading an answer raises that is not in the form of a chat completion."""


class OpenCall:
    """A call under way. Exactly one record is made of it, by whichever way it ends."""

    def __init__(
        self,
        sent: Sent,
        reply: EngineReply | None,
        recorder: Recorder,
        done: Callable[[bool | None], None] = lambda _: None,
    ) -> None:
        self.sent = sent
        self.reply = reply
        self.version: int | None = None
        self.answers_as: str | None = None
        """The `model` that the answer must name: an adapter's, which is a version's own."""
        self._recorder = recorder
        self._release = done
        self._whole: bool | None = None
        """Whether the server gave its answer to the end; None where it is not to blame, or not seen."""
        self._closed = False
        self._recorded = False
        self._parts = ReplyParts(sent.prepared.choices)
        self._stream = sent.face.stream(sent.asked) if sent.prepared.streamed else None
        self._first_token_s: float | None = None

    @property
    def served_model(self) -> str:
        """`<policy>@<version>` of what answers; of an upstream, the model that was asked for."""
        return str(ModelName(self.sent.name.policy, self.version))

    async def whole(self) -> bytes:
        """The plain reply as the caller sees it, recorded. Raises `Refusal`, `Retry`."""
        try:
            assert self.reply is not None
            raw = await self.reply.read()
            self._whole = True
            body = orjson.loads(raw)
            await self._take(body)
            shown = show(body, self.sent.prepared.visible, self.served_model)
            await self._record_once(*self._outcome())
            return orjson.dumps(self.sent.face.whole(shown or body, self.sent.asked))
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
        assert self._stream is not None
        held: list[bytes] = []
        try:
            async with aclosing(self._chunks(self._stream)) as chunks:
                async for events in chunks:
                    if self._parts.finished or held:
                        held += events
                    else:
                        for event in events:
                            yield event
            await self._record_once(*self._outcome())
            for event in held:
                yield event
            if self._parts.error is None:
                for event in self._stream.end():
                    yield event
        except (asyncio.CancelledError, GeneratorExit):
            self.cut_off()
            raise
        finally:
            self.close()

    def told(self, refusal: Refusal) -> bytes:
        """A failure after the first byte, as this stream's error event."""
        assert self._stream is not None
        refusal.request_id = self.sent.call_id
        return self._stream.error(refusal)

    async def _chunks(self, stream: StreamFace) -> AsyncGenerator[list[bytes], None]:
        """The events of each chunk until `[DONE]`; the parts are fed on the way.

        What follows `[DONE]` is read too, and is nothing: an answer at its end gives its connection back to the pool.
        """
        complete, visible, model = False, self.sent.prepared.visible, self.served_model
        try:
            async with aclosing(self._payloads()) as payloads:
                async for payload in payloads:
                    if complete or payload == DONE:
                        complete = True
                        continue
                    chunk = orjson.loads(payload)
                    await self._take(chunk)
                    if self._first_token_s is None and chunk.get("choices"):
                        self._first_token_s = time.perf_counter() - self.sent.started
                        stream.prompt_tokens = len(self._parts.prompt_token_ids)
                    if (shown := show(chunk, visible, model)) is not None:
                        yield [stream.engine_error(shown)] if "error" in shown else stream.feed(shown)
            if not complete:
                raise EngineBroke("the engine's stream ended early")
            self._whole = True
        except EngineBroke as error:
            raise await self.breakage(error) from error
        except MALFORMED as error:
            text = f"the engine's stream is no chat completion: {error!r}"
            raise await self.failure(502, "engine_reply", text) from error

    async def _take(self, piece: JsonDict) -> None:
        """Note a plain reply or a chunk. Raises a 502 `Refusal` when it comes from another model than was asked."""
        self._parts.take(piece)
        if self.answers_as is not None and piece.get("model") not in (None, self.answers_as):
            self.version = None
            text = f"`{self.answers_as}` was asked for and the engine answers as {piece['model']!r}"
            raise await self.failure(502, "policy_version_mismatch", text)

    def _outcome(self) -> tuple[str | None, str]:
        """(error, outcome) of a reply that came to its end."""
        if self._parts.error:
            return self._parts.error, "engine_error"
        torn = self._parts.torn if self.sent.prepared.traced else None
        return torn, "torn" if torn else "ok"

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
        return Failed(status, body, self.sent.call_id, headers.get("retry-after"))

    async def breakage(self, error: EngineBroke) -> Refusal:
        """The engine did not answer to the end: recorded, a 502 or 504 to be raised."""
        self._whole = False if error.servers_fault else None
        status, code = (504, "engine_timeout") if error.timed_out else (502, "engine_broke")
        return await self.failure(status, code, str(error))

    async def failure(self, status: int, code: str, message: str) -> Refusal:
        """Record the call with an error, which is given back to be raised."""
        self.close()
        await self._record_once(f"{code}: {message}", "version_mismatch" if "mismatch" in code else "engine_error")
        refusal = Refusal(status, code, message, retry_after_s=ENGINE_AWAY_S if status == 503 else None)
        refusal.request_id = self.sent.call_id
        return refusal

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
            self._release(self._whole)
            if self.reply is not None:
                self.reply.close()

    async def _record_once(self, error: str | None, outcome: str) -> None:
        if not self._recorded:
            self._recorded = True
            # A caller who leaves now must not undo a record that is on its way.
            await asyncio.shield(self._recorder.beside(self._record(error, outcome)))

    async def _record(self, error: str | None, outcome: str) -> None:
        call = self._event(error)
        if self.sent.turn and self.reply and error is None:
            headers, prompt = self.reply.headers, call.prompt_token_ids
            continues = await self.sent.turn.keep(call.call_id, headers, prompt, call.choices)
            call.__dict__["continues"] = continues
        await self._recorder.record(call, self.sent.binding.traceparent)
        policy = self.sent.owner
        labelled(CALLS, policy, outcome).inc()
        labelled(TOKENS, policy, "prompt").inc(call.usage.prompt_tokens)
        labelled(TOKENS, policy, "completion").inc(call.usage.completion_tokens)
        labelled(CALL_SECONDS, policy).observe(time.perf_counter() - self.sent.started)
        if self._first_token_s is not None:
            labelled(FIRST_TOKEN_SECONDS, policy).observe(self._first_token_s)

    def _event(self, error: str | None) -> ModelCallRecorded:
        sent, parts = self.sent, self._parts
        ref = sent.binding.attempt
        event = ModelCallRecorded(
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
            policy=None if sent.upstream else sent.name.policy,
            policy_version=self.version,
            upstream=sent.upstream,
            response_id=sent.face.response_id(parts.engine_id) if parts.engine_id else None,
            project=sent.binding.caller.project,
            key_id=sent.binding.caller.key_id,
            request={},
            sampling=sent.prepared.sampling,
            prompt_token_ids=pack_ints(parts.prompt_token_ids),
            choices=parts.choices(),
            usage=parts.usage or parts.counted(),
            streamed=sent.prepared.streamed,
            started_at=sent.started_at,
            latency_s=round(time.perf_counter() - sent.started, 6),
            time_to_first_token_s=self._first_token_s,
            error=error,
        )
        # It was JSON when it came: validating every value of a long conversation again costs half a millisecond.
        event.__dict__["request"] = sent.request
        return event
