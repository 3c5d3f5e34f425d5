"""Events of `model-calls.v1`: model calls recorded by the gateway."""

from typing import Literal

from pydantic import AwareDatetime, Field

from leyden.events.base import Event, JsonObject, PackedFloats, PackedInts, Record


class Sampling(Record):
    """Sampling parameters of a response. The trainer applies the recorded temperature."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_tokens: int | None = None
    shaped_by: list[str] = Field(default_factory=list)
    """Fields of the request that changed the distribution beyond temperature; those of the caller, at most 16."""

    @property
    def shaped(self) -> bool:
        """Whether tokens came from another distribution than the model's own at `temperature`."""
        neutral = (1.0, -1, 0.0, 0.0, 0.0, 1.0)
        penalties = (self.presence_penalty, self.frequency_penalty, self.repetition_penalty)
        return bool(self.shaped_by) or (self.top_p, max(self.top_k or -1, -1), self.min_p, *penalties) != neutral


class Choice(Record):
    """One sampled response. Token ids are the engine's; text is never tokenised again."""

    index: int
    token_ids: PackedInts = b""
    logprobs: PackedFloats = b""
    """Behaviour logprobs, one per token: of the distribution that it was sampled from, after temperature."""
    finish_reason: str | None = None
    message: JsonObject = Field(default_factory=dict)


class Usage(Record):
    """Token counts reported by the engine."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class ModelCallRecorded(Event):
    """One model call through the gateway: request, response, tokens, logprobs, policy version."""

    type: Literal["model-call-recorded"] = "model-call-recorded"
    call_id: str
    rollout_id: str | None = None
    attempt: int = 0
    trace_id: str | None = None
    parent_span_id: str | None = None
    agent_name: str | None = None
    """The agent that made the call, if the request named it (header or baggage)."""
    agent_role: str | None = None
    route: str
    """Path of the request, such as `/v1/chat/completions`."""
    requested_model: str
    policy: str | None = None
    """The policy that answered; None for other models."""
    policy_version: int | None = None
    """Version that answered, as reported by the engine."""
    upstream: str | None = None
    """The configured server that answered for a model other than a policy; None if a policy's engine answered."""
    response_id: str | None = None
    """Response id as the caller sees it. Spans have it as `gen_ai.response.id`."""
    project: str | None = None
    """Project of the API key."""
    key_id: str | None = None
    """Id of the API key; for a per-rollout key, of the key that claimed the rollout. None for bootstrap keys."""
    request: JsonObject
    sampling: Sampling = Field(default_factory=Sampling)
    prompt_token_ids: PackedInts = b""
    unseen: list[str] = Field(default_factory=list)
    """Types of content in the request that token ids do not carry, such as `image_url`: the model saw it alone."""
    choices: list[Choice] = Field(default_factory=list)
    usage: Usage = Field(default_factory=Usage)
    streamed: bool = False
    started_at: AwareDatetime
    latency_s: float
    time_to_first_token_s: float | None = None
    continues: str | None = None
    """Id of the earlier call whose prompt and response tokens begin this prompt, if the engine continued them."""
    error: str | None = None
