"""Model calls as the gateway recorded them: `model-calls.v1`."""

from typing import Literal

from pydantic import AwareDatetime, Field

from leyden.events.base import Event, JsonObject, PackedFloats, PackedInts, Record


class Sampling(Record):
    """How the response was sampled; what was sampled is what is trained."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_tokens: int | None = None


class Choice(Record):
    """One sampled response. Token ids are the engine's own; text is never tokenised again."""

    index: int
    token_ids: PackedInts = b""
    logprobs: PackedFloats = b""
    """Behaviour logprobs, one per token, as the engine returned them."""
    finish_reason: str | None = None
    message: JsonObject = Field(default_factory=dict)


class Usage(Record):
    """Token counts as the engine reported them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class ModelCallRecorded(Event):
    """One call of a model through the gateway, whole: request, response, tokens, logprobs, version."""

    type: Literal["model-call-recorded"] = "model-call-recorded"
    call_id: str
    rollout_id: str | None = None
    attempt: int = 0
    trace_id: str | None = None
    parent_span_id: str | None = None
    agent_name: str | None = None
    """Which agent made the call, when the request said so (header or baggage)."""
    agent_role: str | None = None
    route: str
    """The path that was called, such as `/v1/chat/completions`."""
    requested_model: str
    policy: str | None = None
    """The policy that answered; None for a model that is not trained."""
    policy_version: int | None = None
    """The version that the engine says answered."""
    upstream: str | None = None
    """The configured server that answered for a model that is not trained; None for a policy's own engine."""
    response_id: str | None = None
    """The id that the caller sees in the reply: spans name it as `gen_ai.response.id`."""
    project: str | None = None
    """The project of the key that the call was made with."""
    key_id: str | None = None
    """Id of the key that made the call; of a per-rollout key, of the key that claimed it. None for bootstrap keys."""
    request: JsonObject
    sampling: Sampling = Field(default_factory=Sampling)
    prompt_token_ids: PackedInts = b""
    choices: list[Choice] = Field(default_factory=list)
    usage: Usage = Field(default_factory=Usage)
    streamed: bool = False
    started_at: AwareDatetime
    latency_s: float
    time_to_first_token_s: float | None = None
    continues: str | None = None
    """The call whose tokens, prompt and answer, this one's prompt begins with, where the engine was given them."""
    error: str | None = None
