"""A judge's endpoint over HTTP: bounded concurrency, retries with jitter, no key in any text.

httpx, which the package depends on anyway: one POST is all there is, and `openai` would bring retries of its own that
know neither our time limit nor our metrics.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

import httpx

from leyden.events import JsonObject
from leyden.reward import metrics
from leyden.reward.core.failures import FailureKind, RuleFailed
from leyden.reward.core.judging import ChatRequest, JudgeSettings

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
_REFUSED = {400, 404, 405, 413, 415, 422}
"""Statuses that the same request gets again and again."""


class _PassingError(Exception):
    """Worth another try; `wait_s` as the server asked for."""

    def __init__(self, failure: RuleFailed, wait_s: float = 0.0) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.wait_s = wait_s


class HttpEndpoint:
    """`ChatEndpoint` for one judge. `key` None: without authorization."""

    def __init__(
        self,
        judge: JudgeSettings,
        client: httpx.AsyncClient,
        key: str | None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._judge = judge
        self._client = client
        self._key = key
        self._sleep = sleep
        self._slots = asyncio.Semaphore(judge.concurrency)
        self._structured = judge.structured

    async def ask(self, request: ChatRequest) -> str:
        delay = FIRST_DELAY_S
        async with self._slots:  # held while waiting too: an endpoint that says 429 gets fewer requests
            for left in range(self._judge.retries, -1, -1):
                try:
                    return await self._try(request)
                except _PassingError as error:
                    if left == 0:
                        raise error.failure from error
                    metrics.JUDGE_RETRIES.labels(rule=self._judge.name).inc()
                    await self._sleep(max(min(error.wait_s, MAX_DELAY_S), random.uniform(delay / 2, delay)))
                    delay = min(2 * delay, MAX_DELAY_S)
        raise AssertionError("unreachable")

    async def _try(self, request: ChatRequest) -> str:
        try:
            async with asyncio.timeout(self._judge.timeout_s):
                response = await self._post(request)
                if self._structured and response.status_code in (400, 422) and "response_format" in response.text:
                    self._structured = False  # from now on; the answer is read as strictly as before
                    response = await self._post(request)
        except TimeoutError as error:
            failure = RuleFailed(FailureKind.TIMEOUT, f"no answer in {self._judge.timeout_s:g} s")
            raise _PassingError(failure) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _PassingError(self._failed(f"{type(error).__name__}: {error}")) from error
        if response.status_code != 200:
            failure = self._failed(f"HTTP {response.status_code}: {response.text[:200]}")
            if response.status_code in _REFUSED:
                raise failure
            raise _PassingError(failure, _seconds(response.headers.get("retry-after")))
        try:
            return _content(response.json())
        except (ValueError, LookupError, TypeError) as error:
            text = f"not a chat completion: {response.text[:200]}"
            raise _PassingError(RuleFailed(FailureKind.MALFORMED, self._without_key(text))) from error

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
    """The answer's text; empty when the model gave none. Raises for a body that is no chat completion."""
    if not isinstance(body, dict):
        raise TypeError("not an object")
    content = body["choices"][0]["message"].get("content")
    return content if isinstance(content, str) else ""


def _seconds(header: str | None) -> float:
    """`Retry-After` in its form with seconds; the form with a date is left to the back-off."""
    try:
        return max(0.0, float(header)) if header is not None else 0.0
    except ValueError:
        return 0.0
