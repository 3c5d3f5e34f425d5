"""The engine's HTTP side: requests in, sequences to the scheduler, tokens out. Loads the model and runs uvicorn."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import torch
import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp
from transformers import AutoModelForCausalLM, AutoTokenizer

from leyden.policy.engines.continuing import prompt_of
from leyden.policy.engines.gate import GateSettings, VersionGate, error
from leyden.policy.engines.launch import Serving
from leyden.policy.engines.transformers_engine.completions import Answer
from leyden.policy.engines.transformers_engine.prompts import PromptError, render
from leyden.policy.engines.transformers_engine.protocol import ChatRequest
from leyden.policy.engines.transformers_engine.scheduler import Scheduler
from leyden.policy.engines.transformers_engine.sequence import Delta, Sequence
from leyden.policy.engines.transformers_engine.swap import TransformersSwapper


class StepFailedError(Exception):
    """The model's step that a request took part in failed."""


class Generation:
    """One request's sequences in the scheduler, and the queue of what comes out."""

    def __init__(self, scheduler: Scheduler, request: ChatRequest, prompt: list[int], max_tokens: int) -> None:
        loop, self._queue = asyncio.get_running_loop(), asyncio.Queue[Delta]()

        def deliver(delta: Delta) -> None:
            loop.call_soon_threadsafe(self._queue.put_nowait, delta)

        self._sequences = [
            Sequence(index, prompt, request.sampling(index, max_tokens), deliver) for index in range(request.n)
        ]
        scheduler.submit(self._sequences)

    async def deltas(self) -> AsyncIterator[Delta]:
        """Tokens of all choices as they come; whoever leaves early gives the sequences up."""
        left = len(self._sequences)
        try:
            while left:
                delta = await self._queue.get()
                if delta.error:
                    raise StepFailedError(delta.error)
                left -= delta.finish is not None
                yield delta
        finally:
            for sequence in self._sequences:
                sequence.cancelled = True


class ChatServer:
    """Handlers of the engine's routes."""

    def __init__(self, serving: Serving, scheduler: Scheduler, tokenizer: Any, ends: frozenset[int]) -> None:
        self._serving = serving
        self._scheduler = scheduler
        self._tokenizer = tokenizer
        self._ends = ends

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`."""
        try:
            chat = ChatRequest.model_validate_json(await request.body())
        except ValidationError as problem:
            return error(400, "invalid_request", _first_problem(problem))
        if chat.model != self._serving.policy:
            return error(404, "model_not_found", f"The model `{chat.model}` does not exist.")
        try:
            prompt = list(prompt_of(render(self._tokenizer, chat), self._ends))
            max_tokens = self._budget(len(prompt), chat.max_completion_tokens or chat.max_tokens)
        except PromptError as problem:
            return error(400, problem.code, str(problem))
        generation = Generation(self._scheduler, chat, prompt, max_tokens)
        answer = Answer(chat, prompt, self._tokenizer)
        if chat.stream:
            return StreamingResponse(_events(generation, answer, chat), media_type="text/event-stream")
        return await _whole(generation, answer, request)

    async def models(self, _: Request) -> Response:
        """`GET /v1/models`."""
        card = {
            "id": self._serving.policy,
            "object": "model",
            "created": 0,
            "owned_by": "leyden",
            "root": self._serving.model,
            "max_model_len": self._serving.max_model_len,
        }
        return JSONResponse({"object": "list", "data": [card]})

    async def health(self, _: Request) -> Response:
        """`GET /health`: 200 while the engine's thread lives."""
        return Response(status_code=200 if self._scheduler.alive else 503)

    def _budget(self, prompt: int, asked: int | None) -> int:
        room = self._serving.max_model_len - prompt
        if room < 1 or (asked or 0) > room:
            raise PromptError(
                f"This model's maximum context length is {self._serving.max_model_len} tokens: the prompt has {prompt}"
                f" and {asked or 1} more were asked for.",
                code="context_length_exceeded",
            )
        return asked or room


async def _whole(generation: Generation, answer: Answer, request: Request) -> Response:
    collecting = asyncio.create_task(_collect(generation))
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait([collecting, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not collecting.done():
            return Response(status_code=499)
        return JSONResponse(answer.whole(collecting.result()))
    except StepFailedError as problem:
        return error(500, "step_failed", str(problem))
    finally:
        collecting.cancel()
        leaving.cancel()


async def _collect(generation: Generation) -> list[Delta]:
    return [delta async for delta in generation.deltas()]


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _events(generation: Generation, answer: Answer, chat: ChatRequest) -> AsyncIterator[str]:
    yield _event(answer.opening())
    count = 0
    try:
        async for delta in generation.deltas():
            count += 1
            yield _event(answer.chunk(delta))
    except StepFailedError as problem:
        yield f"data: {bytes(error(500, 'step_failed', str(problem)).body).decode()}\n\n"
    else:
        if chat.stream_options and chat.stream_options.include_usage:
            yield _event(answer.usage_chunk(count))
    yield "data: [DONE]\n\n"


def _event(payload: dict[str, Any]) -> str:
    return f"data: {json.dumps(payload, separators=(',', ':'))}\n\n"


def _first_problem(problem: ValidationError) -> str:
    first = problem.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"


def build(serving: Serving) -> ASGIApp:
    """Load the model and put the engine's app behind the version gate."""
    model, tokenizer = _load(serving)
    ends = _eos_ids(model, tokenizer)
    scheduler = Scheduler(model, tokenizer, ends)
    server = ChatServer(serving, scheduler, tokenizer, ends)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        scheduler.start()
        yield
        await asyncio.to_thread(scheduler.close)

    routes = [
        Route("/v1/chat/completions", server.chat, methods=["POST"]),
        Route("/v1/models", server.models),
        Route("/health", server.health),
    ]
    swapper = TransformersSwapper(model, scheduler, serving.model)
    return VersionGate(Starlette(routes=routes, lifespan=lifespan), swapper, GateSettings(policy=serving.policy))


def serve(serving: Serving) -> None:
    """Serve until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    uvicorn.run(build(serving), host=serving.host, port=serving.port, log_level="warning", timeout_graceful_shutdown=5)


def _load(serving: Serving) -> tuple[Any, Any]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, serving.dtype.value)
    model: Any = AutoModelForCausalLM.from_pretrained(serving.model, dtype=dtype)
    return model.to(device).eval().requires_grad_(False), AutoTokenizer.from_pretrained(serving.model)


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    listed = model.generation_config.eos_token_id
    ids = set(listed if isinstance(listed, list) else [listed]) | {tokenizer.eos_token_id}
    return frozenset(token for token in ids if token is not None)
