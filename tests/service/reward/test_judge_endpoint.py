"""A judge's endpoint as a real HTTP server: what it may answer, and how often it is asked."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from leyden.clock import ManualClock
from leyden.reward.core.failures import FailureKind, RuleFailed
from leyden.reward.core.judging import ChatRequest, RubricJudge
from leyden.reward.judges.build import key_of
from leyden.reward.judges.endpoint import HttpEndpoint
from leyden.settings import RunFileError
from leyden.stack.ports import free_port
from service.reward.judge_fakes import JudgedWorld
from service.reward.test_judges import ROLLOUTS_G, a_rollout, completed, rewards

KEY = "sk-secret-of-the-judge"
T0 = datetime(2026, 1, 1, tzinfo=UTC)
Reply = Response | Callable[[], Awaitable[Response]]


def chat(content: object, status: int = 200) -> JSONResponse:
    return JSONResponse({"choices": [{"message": {"role": "assistant", "content": content}}]}, status)


class Server:
    """Replies in turn, the last one for ever; keeps what was asked."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.replies: list[Reply] = []
        self.bodies: list[dict[str, object]] = []
        self.keys: list[str | None] = []
        self.now, self.most = 0, 0

    async def complete(self, request: Request) -> Response:
        self.bodies.append(json.loads(await request.body()))
        self.keys.append(request.headers.get("authorization"))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            return reply if isinstance(reply, Response) else await reply()
        finally:
            self.now -= 1


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        scripted = Server(listening.getsockname()[1])
        app = Starlette(routes=[Route("/v1/chat/completions", scripted.complete, methods=["POST"])])
        running = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
        task = asyncio.create_task(running.serve(sockets=[listening]))
        while not running.started:
            await asyncio.sleep(0.01)
        yield scripted
        running.should_exit = True
        await task


class Endpoint(HttpEndpoint):
    """Counts how long it would have waited."""

    def __init__(self, judge: RubricJudge, client: httpx.AsyncClient, key: str | None) -> None:
        self.waited: list[float] = []
        super().__init__(judge, client, key, ManualClock(T0), self._note)

    async def _note(self, seconds: float) -> None:
        self.waited.append(seconds)


@asynccontextmanager
async def endpoint(server: Server, **fields: object) -> AsyncIterator[Endpoint]:
    named = {"kind": "rubric", "name": "q", "base_url": server.url, "model": "m", "retries": 3, "timeout_s": 5.0}
    async with httpx.AsyncClient(trust_env=False) as client:
        yield Endpoint(RubricJudge.model_validate(named | fields), client, KEY)


REQUEST = ChatRequest("m", ({"role": "user", "content": "?"},), {"type": "object"}, {"temperature": 0.0})


async def test_a_request_has_model_messages_schema_parameters_and_key(server: Server) -> None:
    server.replies = [chat("yes")]
    async with endpoint(server) as judge:
        assert await judge.ask(REQUEST) == "yes"
    [body] = server.bodies
    assert (body["model"], body["messages"], body["temperature"]) == ("m", [{"role": "user", "content": "?"}], 0.0)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}  # type: ignore[index]
    assert server.keys == [f"Bearer {KEY}"]


async def test_429_and_errors_of_the_server_are_tried_again_after_what_it_asks_for(server: Server) -> None:
    busy = JSONResponse({}, 429, headers={"retry-after": "7"})
    server.replies = [busy, PlainTextResponse("down", 503), chat("yes")]
    async with endpoint(server) as judge:
        assert await judge.ask(REQUEST) == "yes"
        first, second = judge.waited
    assert first == 7.0
    assert 0.5 <= second <= 1.0


async def test_retry_after_may_be_a_date_and_is_waited_for_up_to_the_longest_delay(server: Server) -> None:
    dates = [format_datetime(T0 + timedelta(seconds=seconds), usegmt=True) for seconds in (7, 3600)]
    busy = [JSONResponse({}, 429, headers={"retry-after": date}) for date in dates]
    server.replies = [*busy, chat("yes")]
    async with endpoint(server) as judge:
        assert await judge.ask(REQUEST) == "yes"
        assert judge.waited == [7.0, 30.0]


async def test_an_endpoint_that_stays_away_is_a_failure_of_that_kind(server: Server) -> None:
    server.replies = [PlainTextResponse("down", 503)]
    async with endpoint(server) as judge:
        with pytest.raises(RuleFailed, match="endpoint: HTTP 503: down"):
            await judge.ask(REQUEST)
        assert len(server.bodies) == 4
        assert len(judge.waited) == 3


async def test_nobody_listening_is_a_failure_of_the_endpoint() -> None:
    async with endpoint(Server(free_port())) as judge:
        with pytest.raises(RuleFailed, match="endpoint: ConnectError"):
            await judge.ask(REQUEST)


async def test_a_slow_answer_is_a_timeout(server: Server) -> None:
    async def slow() -> Response:
        await asyncio.sleep(0.5)
        return chat("late")

    server.replies = [slow]
    async with endpoint(server, timeout_s=0.05, retries=1) as judge:
        with pytest.raises(RuleFailed) as failure:
            await judge.ask(REQUEST)
    assert failure.value.kind is FailureKind.TIMEOUT
    assert len(server.bodies) == 2


async def test_a_request_that_is_refused_is_not_sent_again(server: Server) -> None:
    server.replies = [PlainTextResponse("too long", 413)]
    async with endpoint(server) as judge:
        with pytest.raises(RuleFailed, match="HTTP 413"):
            await judge.ask(REQUEST)
    assert len(server.bodies) == 1


async def test_an_endpoint_that_knows_no_schemas_is_asked_without_from_then_on(server: Server) -> None:
    server.replies = [PlainTextResponse("unknown field response_format", 400), chat("yes"), chat("yes")]
    async with endpoint(server) as judge:
        assert await judge.ask(REQUEST) == "yes"
        assert await judge.ask(REQUEST) == "yes"
        assert judge.waited == []
    assert ["response_format" in body for body in server.bodies] == [True, False, False]


@pytest.mark.parametrize("reply", [JSONResponse({"error": "x"}), PlainTextResponse("<html>"), JSONResponse([1])])
async def test_what_is_no_chat_completion_is_malformed(server: Server, reply: Response) -> None:
    server.replies = [reply]
    async with endpoint(server, retries=0) as judge:
        with pytest.raises(RuleFailed) as failure:
            await judge.ask(REQUEST)
    assert failure.value.kind is FailureKind.MALFORMED


async def test_only_so_many_requests_are_on_their_way(server: Server) -> None:
    async def soon() -> Response:
        await asyncio.sleep(0.02)
        return chat("yes")

    server.replies = [soon]
    async with endpoint(server, concurrency=3) as judge:
        await asyncio.gather(*(judge.ask(REQUEST) for _ in range(12)))
    assert server.most == 3


async def test_the_key_is_in_no_text(server: Server) -> None:
    server.replies = [PlainTextResponse(f"wrong key {KEY}", 401)]
    async with endpoint(server, retries=0) as judge:
        with pytest.raises(RuleFailed) as failure:
            await judge.ask(REQUEST)
    assert str(failure.value) == "endpoint: HTTP 401: wrong key ***"


def test_a_key_that_is_not_there_stops_a_live_service_but_no_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = RubricJudge(kind="rubric", name="q", base_url="http://x/v1", model="m", api_key_env="NO_SUCH_KEY")
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(RunFileError, match="NO_SUCH_KEY"):
        key_of(judge, needed=True)
    assert key_of(judge, needed=False) is None
    monkeypatch.setenv("NO_SUCH_KEY", KEY)
    assert key_of(judge, needed=True) == KEY


async def test_a_rollout_is_judged_through_429_and_malformed_json(server: Server) -> None:
    good = chat('```json\n{"explanation": "right", "score": 0.75}\n```')
    server.replies = [JSONResponse({}, 429), chat('{"score": "very'), good]
    async with endpoint(server) as judge:
        world = JudgedWorld([RubricJudge(kind="rubric", name="q", base_url=server.url, model="m")])
        world.endpoint = judge  # type: ignore[assignment]
        world.restart()
        await world.deliver(*a_rollout(ROLLOUTS_G[0], "4"))
        await world.settle()
    assert rewards(world, ROLLOUTS_G[0]) == [("q", 0.75, None)]
    assert completed(world)[ROLLOUTS_G[0]].failed_rules == []
    assert len(server.bodies) == 3
