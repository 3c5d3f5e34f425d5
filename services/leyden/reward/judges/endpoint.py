"""HTTP client for a judge's endpoint: limited concurrency, retries with jitter, the key removed from all messages.

Uses httpx for its one POST: the `openai` package would add retries of its own, outside our time limit and metrics.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

import httpx

from leyden.backoff import Backoff
from leyden.clock import Clock
from leyden.events import JsonObject
from leyden.retry_after import retry_after_s
from leyden.reward import metrics
from leyden.reward.core.failures import FailureKind, RuleFailed
from leyden.reward.core.judging import ChatRequest, JudgeSettings

BACKOFF = Backoff(first_s=0.5, max_s=30.0, jitter=lambda delay_s: random.uniform(delay_s / 2, delay_s))
_REFUSED = {400, 404, 405, 413, 415, 422}
"""Statuses that a retry of the same request would get again."""


class _TransientError(Exception):
    """A try failed, and another may succeed; `wait_s` is what the server's `Retry-After` asks for."""

    def __init__(self, failure: RuleFailed, wait_s: float = 0.0) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.wait_s = wait_s


class HttpEndpoint:
    """`ChatEndpoint` for one judge. `key` None: no authorization header is sent."""

    def __init__(
        self,
        judge: JudgeSettings,
        client: httpx.AsyncClient,
        key: str | None,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._judge = judge
        self._client = client
        self._key = key
        self._sleep = sleep
        self._clock = clock
        self._slots = asyncio.Semaphore(judge.concurrency)
        self._structured = judge.structured

    async def ask(self, request: ChatRequest) -> str:
        async with self._slots:  # also held during back-off, so that an endpoint that returns 429 gets fewer requests
            for left, delay_s in zip(range(self._judge.retries, -1, -1), BACKOFF.delays(), strict=False):
                try:
                    return await self._try(request)
                except _TransientError as error:
                    if left == 0:
                        raise error.failure from error
                    metrics.JUDGE_RETRIES.labels(rule=self._judge.name).inc()
                    await self._sleep(max(delay_s, min(error.wait_s, BACKOFF.max_s)))
        raise AssertionError("unreachable")

    async def _try(self, request: ChatRequest) -> str:
        try:
            async with asyncio.timeout(self._judge.timeout_s):
                response = await self._post(request)
                if self._structured and response.status_code in (400, 422) and "response_format" in response.text:
                    self._structured = False  # for all later requests, too; the response is still validated
                    response = await self._post(request)
        except TimeoutError as error:
            failure = RuleFailed(FailureKind.TIMEOUT, f"no response within {self._judge.timeout_s:g} s")
            raise _TransientError(failure) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _TransientError(self._failed(f"{type(error).__name__}: {error}")) from error
        if response.status_code != 200:
            failure = self._failed(f"HTTP {response.status_code}: {response.text[:200]}")
            if response.status_code in _REFUSED:
                raise failure
            raise _TransientError(failure, retry_after_s(response.headers.get("retry-after"), self._clock.now()))
        try:
            return _content(response.json())
        except (ValueError, LookupError, TypeError) as error:
            text = f"not a chat completion: {response.text[:200]}"
            raise _TransientError(RuleFailed(FailureKind.MALFORMED, self._without_key(text))) from error

    async def _post(self, request: ChatRequest) -> httpx.Response:
        body: JsonObject = {"model": request.model, "messages": list(request.messages), **request.parameters}
        if self._structured:
            schema: JsonObject = {"name": "answer", "strict": True, "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        url = f"{self._judge.base_url.rstrip('/')}/chat/completions"
        return await self._client.post(url, json=body, headers=headers, timeout=None)

    def _failed(self, message: str) -> RuleFailed:
        return RuleFailed(FailureKind.ENDPOINT, self._without_key(message))

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _content(body: object) -> str:
    """The text of the response; empty if there is none. Raises if the body is not a chat completion."""
    if not isinstance(body, dict):
        raise TypeError("not an object")
    content = body["choices"][0]["message"].get("content")
    return content if isinstance(content, str) else ""
