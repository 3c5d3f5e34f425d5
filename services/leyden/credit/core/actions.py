"""Decides which model calls are actions of a policy. All other calls are context."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from leyden.credit.core.agents import AgentRule, rule_for
from leyden.credit.core.assemble import RecordedCall
from leyden.credit.core.strategies import Strategy
from leyden.events import Choice, ModelCallRecorded, unpack_floats

TOKEN_BYTES = 4
"""Token ids and logprobs are packed in four bytes each, so lengths and prefixes can be taken on the bytes."""


class Context(StrEnum):
    """Why a call is context and not an action."""

    ERROR = "error"
    """The engine answered with an error."""
    NO_POLICY = "no_policy"
    """Its model is not trained."""
    OTHER_POLICY = "other_policy"
    """Its policy is not among the configured ones."""
    NO_TRAINED_AGENT = "no_trained_agent"
    """A rule of `agents` says that its agent is not trained."""
    NO_VERSION = "no_version"
    """The engine did not say which version answered, so its staleness is unknown."""
    GREEDY = "greedy"
    """Temperature 0: the action has no probability, so no importance ratio."""
    SHAPED = "shaped"
    """More than temperature shaped the distribution: truncation, penalties, a forced format, an unknown field."""
    UNSEEN_INPUT = "unseen_input"
    """The model saw content that token ids do not carry, such as an image."""
    NO_TOKENS = "no_tokens"
    """Token ids of prompt or response are missing."""
    NO_LOGPROBS = "no_logprobs"
    """There is not one finite behaviour logprob per response token."""
    LOST_TOKENS = "lost_tokens"
    """The engine counted other numbers of tokens than are recorded."""


@dataclass(frozen=True, slots=True)
class Action:
    """One sampled response of a policy: state `prompt`, action `response`, both packed token ids."""

    call_id: str
    choice: int
    policy: str
    policy_version: int
    temperature: float
    prompt: bytes
    response: bytes
    logprobs: bytes
    origin: str
    agent_name: str | None = None
    strategy: Strategy | None = None
    """How it is credited; None: by the section's `strategy`."""


def actions_of(
    call: RecordedCall, policies: Collection[str] | None, agents: Sequence[AgentRule] = ()
) -> list[Action] | Context:
    """The actions of a call, one per sampled choice in order of index; or why it is context."""
    event, rule = call.event, rule_for(call.agent, agents)
    version = event.policy_version
    if event.error is not None:
        return Context.ERROR
    if event.policy is None:
        return Context.NO_POLICY
    if not rule.train:
        return Context.NO_TRAINED_AGENT
    policy = rule.policy or event.policy
    if policies is not None and policy not in policies:
        return Context.OTHER_POLICY
    if version is None:
        return Context.NO_VERSION
    if event.sampling.temperature <= 0:
        return Context.GREEDY
    if event.sampling.shaped:
        return Context.SHAPED
    if event.unseen:
        return Context.UNSEEN_INPUT
    found = _trainable(event)
    if isinstance(found, Context):
        return found
    return [
        Action(
            call_id=event.call_id,
            choice=choice.index,
            policy=policy,
            policy_version=version,
            temperature=event.sampling.temperature,
            prompt=event.prompt_token_ids,
            response=choice.token_ids,
            logprobs=choice.logprobs,
            origin=call.origin,
            agent_name=call.agent.name,
            strategy=rule.strategy,
        )
        for choice in found
    ]


def _trainable(event: ModelCallRecorded) -> list[Choice] | Context:
    with_tokens = [choice for choice in event.choices if _whole(choice.token_ids)]
    if not _whole(event.prompt_token_ids) or not with_tokens:
        return Context.NO_TOKENS
    with_logprobs = [choice for choice in with_tokens if _told(choice)]
    if not with_logprobs:
        return Context.NO_LOGPROBS
    recorded = (len(event.prompt_token_ids), sum(len(choice.token_ids) for choice in event.choices))
    counted = (event.usage.prompt_tokens * TOKEN_BYTES, event.usage.completion_tokens * TOKEN_BYTES)
    if any(counted) and counted != recorded:
        return Context.LOST_TOKENS
    return sorted(with_logprobs, key=lambda choice: choice.index)


def _told(choice: Choice) -> bool:
    """Whether every token has a logprob that is a number."""
    whole = len(choice.logprobs) == len(choice.token_ids)
    return whole and bool(np.isfinite(unpack_floats(choice.logprobs)).all())


def _whole(packed: bytes) -> bool:
    """Whether `packed` is at least one token, and only whole tokens."""
    return len(packed) > 0 and len(packed) % TOKEN_BYTES == 0
