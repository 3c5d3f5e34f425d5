"""Asks one judge one question: from the cache or its endpoint, and a second time if the response is invalid."""

import time

from leyden.reward import metrics
from leyden.reward.core.failures import FailureKind, RuleFailed
from leyden.reward.core.judging import ChatRequest, MalformedAnswerError, Opinion, Question
from leyden.reward.judges.ports import AnswerCache, ChatEndpoint


class Asker:
    """Asks one judge. Caches each response at once, so that a retry after a crash does not pay again."""

    def __init__(self, rule: str, endpoint: ChatEndpoint, cache: AnswerCache) -> None:
        self._rule = rule
        self._endpoint = endpoint
        self._cache = cache

    async def opinions(self, question: Question) -> list[Opinion]:
        """The judge's opinions. Raises `RuleFailed`, with kind malformed after two invalid responses in a row."""
        text = await self._answer(question.request)
        try:
            return question.read(text)
        except MalformedAnswerError as error:
            self._count("malformed")
            again = question.again(text, error)
        text = await self._answer(again.request)
        try:
            return again.read(text)
        except MalformedAnswerError as error:
            self._count("malformed")
            raise RuleFailed(FailureKind.MALFORMED, str(error)) from error

    async def _answer(self, request: ChatRequest) -> str:
        if (kept := await self._cache.get(request.key)) is not None:
            self._count("cached")
            return kept
        began = time.perf_counter()
        try:
            text = await self._endpoint.ask(request)
        except RuleFailed:
            self._count("failed")
            raise
        await self._cache.put(request.key, text)
        metrics.JUDGE_SECONDS.labels(rule=self._rule).observe(time.perf_counter() - began)
        self._count("answered")
        return text

    def _count(self, outcome: str) -> None:
        metrics.JUDGE_REQUESTS.labels(rule=self._rule, outcome=outcome).inc()
