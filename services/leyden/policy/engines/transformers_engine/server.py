"""The engine's HTTP server: passes requests to the scheduler and returns their tokens. Loads the model."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import torch
import uvicorn
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp
from transformers import AutoModelForCausalLM, AutoTokenizer

from leyden.policy.engines.continuing import prompt_of
from leyden.policy.engines.gate import GateSettings, VersionGate, error
from leyden.policy.engines.launch import Serving
from leyden.policy.engines.transformers_engine.answers import Answers
from leyden.policy.engines.transformers_engine.chat_answers import ChatAnswers
from leyden.policy.engines.transformers_engine.generation import Generation, StepFailedError
from leyden.policy.engines.transformers_engine.prompts import PromptError, prompts_of, render
from leyden.policy.engines.transformers_engine.protocol import (
    TEXT_TOKENS,
    ChatRequest,
    CompletionRequest,
    Conversation,
    SamplingRequest,
    TokenizeRequest,
    TokenizeText,
)
from leyden.policy.engines.transformers_engine.scheduler import Scheduler
from leyden.policy.engines.transformers_engine.sequence import Delta
from leyden.policy.engines.transformers_engine.swap import TransformersSwapper
from leyden.policy.engines.transformers_engine.text_answers import TextAnswers
from leyden.policy.engines.transformers_engine.tools import ToolCallStream

TOKENIZE: TypeAdapter[Conversation | TokenizeText] = TypeAdapter(TokenizeRequest)


class UnknownModelError(Exception):
    """The requested model is not served here."""


class Server:
    """HTTP handlers of the engine."""

    def __init__(
        self, serving: Serving, scheduler: Scheduler, tokenizer: Any, ends: frozenset[int], vocabulary: int
    ) -> None:
        self._serving = serving
        self._scheduler = scheduler
        self._tokenizer = tokenizer
        self._ends = ends
        self._vocabulary = vocabulary

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`."""
        chat = ChatRequest.model_validate_json(await request.body())
        self._must_serve(chat.model)
        prompt = list(prompt_of(render(self._tokenizer, chat), self._ends))
        max_tokens = self._budget(len(prompt), chat.max_completion_tokens or chat.max_tokens)
        answers = ChatAnswers(chat, prompt, self._tokenizer, self._tools(chat))
        return await self._answer(chat, [prompt], max_tokens, answers, request)

    async def completions(self, request: Request) -> Response:
        """`POST /v1/completions`."""
        asked = CompletionRequest.model_validate_json(await request.body())
        self._must_serve(asked.model)
        prompts = prompts_of(self._tokenizer, asked, self._vocabulary)
        longest = max(map(len, prompts))
        max_tokens = min(self._budget(longest, asked.max_tokens), asked.max_tokens or TEXT_TOKENS)
        answers = TextAnswers(asked, prompts, self._tokenizer)
        return await self._answer(asked, prompts, max_tokens, answers, request)

    async def tokenize(self, request: Request) -> Response:
        """`POST /tokenize`: the tokens of messages or of a text."""
        asked = TOKENIZE.validate_json(await request.body())
        if isinstance(asked, Conversation):
            tokens = render(self._tokenizer, asked)
        else:
            tokens = self._tokenizer.encode(asked.prompt, add_special_tokens=asked.add_special_tokens)
        limit = self._serving.max_model_len
        return JSONResponse({"count": len(tokens), "max_model_len": limit, "tokens": tokens, "token_strs": None})

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
        """`GET /health`: 200 while the scheduler's thread is running, else 503."""
        return Response(status_code=200 if self._scheduler.alive else 503)

    def _must_serve(self, model: str) -> None:
        if model != self._serving.policy:
            raise UnknownModelError(f"The model `{model}` does not exist.")

    def _tools(self, chat: ChatRequest) -> Callable[[], ToolCallStream] | None:
        """Creates a tool call parser; None if the response cannot have tool calls."""
        if not chat.may_call_tools:
            return None
        return partial(ToolCallStream, self._tokenizer, self._serving.tool_parser, chat.tools or ())

    def _budget(self, prompt: int, asked: int | None) -> int:
        room = self._serving.max_model_len - prompt
        if room < 1 or (asked or 0) > room:
            raise PromptError(
                f"This model's maximum context length is {self._serving.max_model_len} tokens: the prompt has {prompt}"
                f" and {asked or 1} more were asked for.",
                code="context_length_exceeded",
            )
        return asked or room

    async def _answer(
        self, asked: SamplingRequest, prompts: list[list[int]], max_tokens: int, answers: Answers, request: Request
    ) -> Response:
        generation = Generation(self._scheduler, asked, prompts, max_tokens)
        if asked.stream:
            return StreamingResponse(event_stream(generation, answers, asked), media_type="text/event-stream")
        return await _whole(generation, answers, request)


async def _whole(generation: Generation, answers: Answers, request: Request) -> Response:
    collecting = asyncio.create_task(_collect(generation))
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait([collecting, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not collecting.done():
            return Response(status_code=499)
        return JSONResponse(answers.whole(collecting.result()))
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


async def event_stream(generation: Generation, answers: Answers, asked: SamplingRequest) -> AsyncIterator[str]:
    """The server-sent events of a streamed answer."""
    for chunk in answers.opening():
        yield _event(chunk)
    count = 0
    try:
        async for delta in generation.deltas():
            count += 1
            yield _event(answers.chunk(delta))
    except StepFailedError as problem:
        yield f"data: {bytes(error(500, 'step_failed', str(problem)).body).decode()}\n\n"
    else:
        if asked.stream_options and asked.stream_options.include_usage:
            yield _event(answers.usage_chunk(count))
    yield "data: [DONE]\n\n"


def _event(payload: dict[str, Any]) -> str:
    return f"data: {json.dumps(payload, separators=(',', ':'))}\n\n"


def _malformed(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, ValidationError)
    first = problem.errors(include_url=False, include_input=False)[0]
    return error(400, "invalid_request", f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}")


def _no_prompt(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, PromptError)
    return error(400, problem.code, str(problem))


def _unknown_model(_: Request, problem: Exception) -> Response:
    return error(404, "model_not_found", str(problem))


REFUSALS: dict[type[Exception], Callable[[Request, Exception], Response]] = {
    ValidationError: _malformed,
    PromptError: _no_prompt,
    UnknownModelError: _unknown_model,
}


def build(serving: Serving) -> ASGIApp:
    """Load the model and return the engine's app, wrapped in the version gate."""
    model, tokenizer = _load(serving)
    ends = _eos_ids(model, tokenizer)
    scheduler = Scheduler(model, tokenizer, ends)
    server = Server(serving, scheduler, tokenizer, ends, model.get_input_embeddings().num_embeddings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        scheduler.start()
        yield
        await asyncio.to_thread(scheduler.close)

    routes = [
        Route("/v1/chat/completions", server.chat, methods=["POST"]),
        Route("/v1/completions", server.completions, methods=["POST"]),
        Route("/tokenize", server.tokenize, methods=["POST"]),
        Route("/v1/models", server.models),
        Route("/health", server.health),
    ]
    swapper = TransformersSwapper(model, scheduler, serving.model)
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=REFUSALS)
    return VersionGate(app, swapper, GateSettings(policy=serving.policy))


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
