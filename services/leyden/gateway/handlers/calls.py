"""The life of a model call, top to bottom: admit, bind, read, route, send, record, answer.

`ModelCalls.serve` is one coroutine; its `with` blocks release what a call holds. A call that reaches an engine is
recorded exactly once, and the last byte of its reply is sent after Kafka has the record. A call that is refused before
an engine is asked is not recorded.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

import orjson

from leyden.clock import Clock
from leyden.engine_face import CONTINUE_FIELD
from leyden.events import ModelCallRecorded
from leyden.events.codec import MODEL_CALLS
from leyden.gateway.core.continuation import Turn
from leyden.gateway.core.faces import Face, StreamFace
from leyden.gateway.core.faces.openai import show, unseen_parts
from leyden.gateway.core.keys import KeyRing
from leyden.gateway.core.refusals import Refusal, unavailable
from leyden.gateway.core.reply import (
    CALLER_LEFT,
    INTERNAL,
    UNUSABLE,
    ReplyParts,
    WrongModelError,
    note_of,
    parsed,
    record_of,
)
from leyden.gateway.core.request import (
    SESSION_HEADER,
    Api,
    JsonDict,
    bind,
    json_object,
    prepare,
    told,
)
from leyden.gateway.core.routing import Endpoint, Incoming, ModelName, RoutedCall, Router
from leyden.gateway.core.sampling import SHAPING, ShapedSampling
from leyden.gateway.core.upstreams import passed_on
from leyden.gateway.handlers.admission import KeyLimiter, Limiter, attempt_over, counted
from leyden.gateway.handlers.continuations import Continuations, StickyVersions
from leyden.gateway.handlers.kept import Kept
from leyden.gateway.handlers.ownership import Ownership
from leyden.gateway.handlers.servers import Answer, CallFailed, Dispatcher, broken_off, call_failed
from leyden.gateway.metrics import (
    CALL_SECONDS,
    CALLS,
    FIRST_TOKEN_SECONDS,
    OVERRIDDEN,
    RECORD_SECONDS,
    TOKENS,
    UNBOUND_CALLS,
    labelled,
)
from leyden.gateway.ports import DONE, CallExchange, EngineBroke, Log, ResponseWriter, RolloutStore
from leyden.ids import AttemptRef
from leyden.kafka import Outgoing, Retry

log = logging.getLogger(__name__)
T = TypeVar("T")
NO_HEADERS: Mapping[str, str] = {}
CUT_OFF = f"{CALLER_LEFT} the caller went away before the answer's end"


class ModelCalls:
    """Serves model calls on the given ports."""

    def __init__(
        self,
        *,
        ring: KeyRing,
        limiter: Limiter,
        keys: KeyLimiter,
        router: Router,
        dispatcher: Dispatcher,
        recorder: "Recorder",
        store: RolloutStore,
        clock: Clock,
        new_id: Callable[[], str],
        kept: Kept,
        shaped: ShapedSampling = ShapedSampling.OVERRIDE,
        continuations: Continuations | None = None,
        sticky: StickyVersions | None = None,
        ownership: Ownership,
    ) -> None:
        self._ring = ring
        self._limiter = limiter
        self._keys = keys
        self._router = router
        self._dispatcher = dispatcher
        self._recorder = recorder
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._shaped = shaped
        self._continuations = continuations
        self._sticky = sticky
        self._ownership = ownership
        self._kept = kept

    async def serve(self, face: Face, exchange: CallExchange) -> None:
        """Serve one call from its head to its last byte; cancelled if the caller disconnects.

        Raises `Refusal`, `EngineError` or `Retry` before the reply begins; later failures become events of the stream.
        """
        caller = self._ring.caller(*exchange.credentials)
        headers = exchange.headers
        binding = bind(exchange.rollout, caller, headers.get("traceparent"), headers.get(SESSION_HEADER))
        with ExitStack() as held:
            self._limiter.must_have_room()
            body = await exchange.body(held)
            held.enter_context(self._limiter.slot())
            await self._keys.enter(caller, held, exchange.extra_headers)
            asked = json_object(body)
            if face.keeps:
                asked = await self._kept.resolved(binding, asked)
            request = face.request(asked)
            caller.must_use(request.get("model"))
            incoming = Incoming(face, asked, request, binding, exchange.agent())
            await exchange.unless_gone(self.answer(incoming, exchange))

    async def answer(self, incoming: Incoming, out: ResponseWriter) -> None:
        """Route, send, record and answer an admitted call. Raises as `serve` does."""
        call, turn = await self._route(incoming)
        endpoint = self._dispatcher.first(call)
        for parameter in call.prepared.overridden:
            OVERRIDDEN.labels(parameter=parameter if parameter in SHAPING else "other").inc()
        if not call.prepared.streamed:
            body, headers = await self._recorded(call, turn, endpoint, partial(_whole, call, self._kept))
            await out.whole(body, headers)
            return
        stream = call.face.stream(call.asked)
        try:
            for event in await self._recorded(call, turn, endpoint, partial(_events, call, stream, self._kept, out)):
                await out.write(event)
        except Exception as error:
            if not out.started:
                raise
            await out.write(stream.error(_told(error, call)))

    async def _route(self, incoming: Incoming) -> tuple[RoutedCall, Turn | None]:
        """Where the call goes and what is sent; and its place in its attempt's conversation, if that is tracked."""
        started_at, started = self._clock.now(), time.perf_counter()
        self._recorder.must_be_up()
        request, ref = incoming.request, incoming.binding.attempt
        upstream = self._router.upstream_of(request.get("model"))
        if ref is not None and incoming.binding.caller.project is not None:
            await self._ownership.must_be_theirs(incoming.binding.caller, ref.rollout_id)
        is_training = await self._is_training(ref)
        if upstream is not None:
            prepared = passed_on(request)
            name, body, turn = ModelName(prepared.model), prepared.body, None
        else:
            prepared = prepare(request, is_training, self._shaped, incoming.face.api)
            name = ModelName.parse(prepared.model)
            body, turn = await self._continued(ref, name, incoming.face, prepared.body)
        call = RoutedCall(
            call_id=self._new_id(),
            face=incoming.face,
            asked=incoming.asked,
            request=request,
            binding=incoming.binding,
            agent=incoming.agent,
            prepared=prepared,
            body=body,
            name=name,
            started_at=started_at,
            started=started,
            upstream=upstream,
            kept=await self._sticky.version_of(ref, name) if self._sticky and upstream is None else None,
            offers_tokens=turn is not None,
            unseen=told(unseen_parts(request)) if upstream is None else (),
        )
        return call, turn

    async def _is_training(self, ref: AttemptRef | None) -> bool:
        """Whether the call's attempt is for training. Raises a 409 if the attempt is not running."""
        if ref is None:
            return False
        status = await self._store.attempt_status(ref)
        if not status.open:
            raise attempt_over(ref)
        return status.mode == "train"

    async def _continued(
        self, ref: AttemptRef | None, name: ModelName, face: Face, body: JsonDict
    ) -> tuple[JsonDict, Turn | None]:
        """The request to the engine, with the tokens of the call that this one extends, if known."""
        if CONTINUE_FIELD in body:  # a caller's field of that name is not for the engine
            body = {field: value for field, value in body.items() if field != CONTINUE_FIELD}
        if self._continuations is None or face.api is not Api.CHAT:
            return body, None
        turn = await self._continuations.turn(ref, name.policy, body)
        return (body, None) if turn is None else (body | {CONTINUE_FIELD: turn.wish()}, turn)

    async def _recorded(
        self,
        call: RoutedCall,
        turn: Turn | None,
        endpoint: Endpoint,
        receive: Callable[[Answer, ReplyParts], Awaitable[T]],
    ) -> T:
        """The result of `receive`. Returns, or raises, only after the call is recorded."""
        legacy = "functions" in call.request
        reply = ReplyParts(call.call_id, call.prepared.choices, legacy=legacy)
        try:
            async with self._dispatcher.ask(call, endpoint) as answer:
                reply.version, reply.answers_as = answer.version, answer.answers_as
                if self._sticky is not None and answer.version is not None:
                    await self._sticky.keep(call, answer.version)
                received = await receive(answer, reply)
        except (EngineBroke, CallFailed) as error:
            failed = broken_off(error) if isinstance(error, EngineBroke) else error
            await self._shielded(self._record(call, reply, failed.error, failed.outcome))
            failed.told.request_id = call.call_id
            raise failed.told from error
        except asyncio.CancelledError:
            self._recorder.beside(self._record(call, reply, CUT_OFF, "cut_off"))
            raise
        except Exception as error:  # ours, or the store of versions: the engine was asked, so record it
            self._recorder.beside(self._record(call, reply, f"{INTERNAL} {error!r}", "internal"))
            raise
        await self._shielded(
            self._record(call, reply, *reply.outcome(call.prepared.traced), turn, answer.reply.headers)
        )
        return received

    async def _shielded(self, recording: Coroutine[Any, Any, None]) -> None:
        """Record the call even if the caller disconnects now."""
        await asyncio.shield(self._recorder.beside(recording))

    async def _record(
        self,
        call: RoutedCall,
        reply: ReplyParts,
        error: str | None,
        outcome: str,
        turn: Turn | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        event = record_of(call, reply, time.perf_counter() - call.started, error)
        if turn is not None and error is None and self._continuations is not None:
            prompt, choices = event.prompt_token_ids, event.choices
            continues = await self._continuations.keep(turn, call.call_id, headers, prompt, choices)
            event = event.model_copy(update={"continues": continues})
        await self._recorder.record(event, call.binding.traceparent)
        labelled(CALLS, call.owner, outcome).inc()
        labelled(TOKENS, call.owner, "prompt").inc(event.usage.prompt_tokens)
        labelled(TOKENS, call.owner, "completion").inc(event.usage.completion_tokens)
        labelled(CALL_SECONDS, call.owner).observe(time.perf_counter() - call.started)
        if reply.first_token_s is not None:
            labelled(FIRST_TOKEN_SECONDS, call.owner).observe(reply.first_token_s)


async def _whole(call: RoutedCall, kept: Kept, answer: Answer, reply: ReplyParts) -> tuple[bytes, dict[str, str]]:
    """The plain reply for the caller, and its headers."""
    raw = await answer.reply.read()
    headers = call.answer_headers(answer.version)
    try:
        body = parsed(raw)
        reply.take(body)
        if call.face.api is not Api.EMBEDDINGS:
            reply.must_have_choices()
        shown = show(body, call.prepared.visible, call.served_model(answer.version), call.chat_id)
        told = call.face.whole(shown or body, call.asked)
        written = orjson.dumps(told)
    except UNUSABLE as error:
        raise _unusable("answer", error) from error
    if call.face.keeps:
        written = orjson.dumps(await kept.keep(call.binding, call.asked, told))
    return written, headers


async def _events(
    call: RoutedCall, stream: StreamFace, kept: Kept, out: ResponseWriter, answer: Answer, reply: ReplyParts
) -> list[bytes]:
    """Send the stream's events as they come. Returns those to send after the record.

    Events from the chunk that finishes the last choice onwards are held back. The reply is complete with that chunk:
    a stream that ends or breaks after it only lacks its usage. What follows `[DONE]` is read and ignored, so that the
    connection can return to the pool.
    """
    await out.start(call.answer_headers(answer.version))
    model = call.served_model(answer.version)
    held, complete = list[bytes](), False
    try:
        async for payload in answer.reply.payloads():
            answer.begin()
            if complete or payload == DONE:
                complete = True
                continue
            events = _chunk(call, stream, reply, payload, model)
            if held or reply.finished:
                held += events
            else:
                for event in events:
                    await out.write(event)
    except EngineBroke:
        if not reply.finished:
            raise
    if reply.error is not None:
        return held
    try:
        if complete:
            reply.must_have_choices()
        if not reply.finished and (call.prepared.traced or not complete):
            raise EngineBroke("the engine's stream ended early", misframed=True)
        held += stream.end()
    except UNUSABLE as error:
        raise _unusable("stream", error) from error
    if stream.kept is not None:
        held += stream.ended(await kept.keep(call.binding, call.asked, stream.kept))
    return held


def _chunk(call: RoutedCall, stream: StreamFace, reply: ReplyParts, payload: bytes, model: str) -> list[bytes]:
    """The events of one chunk, which is also added to the record."""
    try:
        chunk = parsed(payload)
        reply.take(chunk)
        if reply.first_token_s is None and chunk.get("choices"):
            reply.first_token_s = time.perf_counter() - call.started
            stream.prompt_tokens = len(reply.prompt_token_ids)
        if (shown := show(chunk, call.prepared.visible, model, call.chat_id)) is None:
            return []
        return [stream.engine_error(shown)] if "error" in shown else stream.feed(shown)
    except UNUSABLE as error:
        raise _unusable("stream", error) from error


def _unusable(what: str, error: Exception) -> CallFailed:
    """The failure of a reply that cannot be read or translated; the caller and the record are told the same."""
    if isinstance(error, WrongModelError):
        return call_failed(502, "policy_version_mismatch", str(error))
    return call_failed(502, "engine_reply", f"the engine's {what} is not a chat completion: {error!r}")


def _told(error: Exception, call: RoutedCall) -> Refusal:
    """A failure after the first byte, as the caller gets it."""
    if isinstance(error, Refusal):
        refusal = error
    elif isinstance(error, Retry):
        refusal = unavailable()
    else:
        log.error("a stream failed", exc_info=error)
        refusal = Refusal(500, "internal", "the gateway could not bring the stream to its end")
    refusal.request_id = call.call_id
    return counted(refusal)


class Recorder:
    """Publishes calls and lists them. A call that is published but not listed is not evidence of its rollout."""

    def __init__(self, store: RolloutStore, publisher: Log, keys: KeyLimiter) -> None:
        self._store = store
        self._publisher = publisher
        self._keys = keys
        self._under_way: set[asyncio.Task[None]] = set()

    def must_be_up(self) -> None:
        """Raise `Retry` if a record cannot be written now, before an engine is asked."""
        self._publisher.must_be_up()

    async def record(self, call: ModelCallRecorded, traceparent: str | None) -> None:
        """Return when the call is in Kafka and listed. Raises `Retry`, or a 409 if its attempt ended meanwhile."""
        started = time.perf_counter()
        key = call.rollout_id or call.call_id
        await self._publisher.publish_all([Outgoing(MODEL_CALLS, key, call, traceparent)])
        if call.rollout_id is None:
            UNBOUND_CALLS.inc()
        elif not await self._store.add_call(AttemptRef(call.rollout_id, call.attempt), call.call_id, note_of(call)):
            raise attempt_over(AttemptRef(call.rollout_id, call.attempt))
        if self._keys.charges(call):
            self.beside(self._keys.charge(call))
        RECORD_SECONDS.observe(time.perf_counter() - started)

    def beside(self, recording: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a recording independently of its request; `drain` waits for it."""
        task = asyncio.create_task(recording)
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, Refusal | Retry):
            log.error("a call was not recorded", exc_info=error)

    async def drain(self) -> None:
        """Wait for recordings that are not finished."""
        await asyncio.gather(*self._under_way, return_exceptions=True)
