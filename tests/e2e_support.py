"""A running stack with an agent at work, for the end-to-end tests."""

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
from redis.asyncio import Redis

from leyden.client import Claim, Runner
from leyden.events import Event
from leyden.events.codec import (
    CHECKPOINTS,
    MODEL_CALLS,
    MODELS,
    REWARDS,
    ROLLOUTS,
    SPANS,
    TRAINING_METRICS,
    TRANSITIONS,
)
from leyden.kafka.claims import ClaimStore
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.tail import TopicTail
from leyden.reading.location import claims_url_of
from leyden.stack.stack import Stack

GROUPS_PER_STEP = 2
SAMPLES = 3
POLICY = "policy"
ALL_TOPICS = (ROLLOUTS, MODEL_CALLS, SPANS, REWARDS, TRANSITIONS, CHECKPOINTS, TRAINING_METRICS, MODELS)


@dataclass
class Heard:
    """What the agent itself got from the model, call by call: the truth that the log is compared with."""

    answers: list[dict[str, Any]] = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)


class Loop:
    """A running stack, with an agent at work on whatever is enqueued."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.heard = Heard()
        self.prefix = stack.config.topic_prefix
        self.kafka = KafkaSettings(bootstrap_servers=stack.kafka_servers)
        self.http = httpx.Client(
            base_url=stack.gateway_url, headers={"authorization": f"Bearer {stack.api_key}"}, timeout=60
        )
        self.runner = Runner(self._agent, stack.gateway_url, stack.api_key, concurrency=6, name="e2e")
        self._thread = threading.Thread(target=lambda: asyncio.run(self.runner.serve()), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.runner.stop()
        self._thread.join(30)
        self.http.close()

    async def forget_state(self, *services: str) -> None:
        """Delete what `services` keep in Redis."""
        redis = Redis.from_url(self.stack.redis_url)
        for service in services:
            keys = [key async for key in redis.scan_iter(f"{self.prefix}{service}:*")]
            assert keys, service
            await redis.delete(*keys)
        await redis.aclose()

    def _agent(self, claim: Claim) -> str:
        """Two turns with the plain OpenAI client; the second one streamed."""
        client = openai.OpenAI(base_url=claim.base_url, api_key=claim.api_key, max_retries=20)
        messages: list[Any] = [{"role": "user", "content": claim.input["question"]}]
        first = client.chat.completions.create(
            model=POLICY, messages=messages, max_tokens=8, logprobs=True, extra_body={"return_token_ids": True}
        )
        self._keep(claim, first.model_dump())
        reply = first.choices[0].message.content or ""
        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": "go on"}]
        words = []
        for chunk in client.chat.completions.create(model=POLICY, messages=messages, max_tokens=8, stream=True):
            words += [choice.delta.content or "" for choice in chunk.choices]
        return "".join(words)

    def _keep(self, claim: Claim, answer: dict[str, Any]) -> None:
        with self.heard.guard:
            self.heard.answers.append(answer | {"rollout_id": claim.rollout_id, "attempt": claim.attempt})

    def enqueue(self, name: str, groups: int = GROUPS_PER_STEP) -> list[str]:
        """Enqueue `groups` tasks; returns the ids of their rollouts."""
        tasks = [
            {"task_id": f"{name}-{index}", "samples": SAMPLES, "input": {"question": f"{name} {index}"}}
            for index in range(groups)
        ]
        for _ in range(100):
            try:
                answer = self.http.post("/leyden/v1/tasks", json={"tasks": tasks})
            except httpx.TransportError:
                answer = None  # a gateway that was killed; the same task again changes nothing
            if answer is not None and answer.status_code == 201:
                return [rollout for task in answer.json()["tasks"] for rollout in task["rollout_ids"]]
            threading.Event().wait(0.3)
        raise AssertionError("the gateway did not take the tasks")

    def live_version(self) -> int | None:
        try:
            policies = self.http.get("/leyden/v1/policies").json()["policies"]
        except httpx.TransportError:
            return None
        return policies[0]["live_version"] if policies else None

    async def wait_live(self, version: int, timeout: float = 180) -> None:
        async with asyncio.timeout(timeout):
            while self.live_version() != version:
                self.stack.check()
                await asyncio.sleep(0.2)

    async def events(self) -> list[Event]:
        """Everything in the log now."""
        found: list[Event] = []
        async with TopicTail(self.kafka, ClaimStore(claims_url_of(self.stack.config)), self.prefix, ALL_TOPICS) as tail:
            quiet = 0
            while quiet < 3:
                new = await tail.poll(0.4)
                quiet = 0 if new else quiet + 1
                found += new
        return found
