"""One transition as one row: tokens and credit from `transitions.v1`, text from the recorded call. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from leyden.events import Json, JsonObject, ModelCallRecorded, SequenceCredited, unpack_floats, unpack_ints
from leyden.export.messages import Message, NotTextError, plain_message, plain_messages

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """(state, action, reward, next state) with credit, tokens, version and lineage."""

    rollout_id: str
    attempt: int
    group_id: str
    policy: str
    credit: str
    revision: int
    sequence_id: str
    """Event id of the sequence; its rows are the consecutive actions of one lineage."""
    step: int
    """Position in the lineage."""
    call_id: str
    choice: int
    agent_name: str | None
    policy_version: int
    temperature: float
    state_T: Ints
    action_T: Ints
    logprobs_T: Floats
    """Behaviour logprobs of the action's tokens."""
    next_state_T: Ints | None
    """The state of the lineage's next action; None after the last."""
    reward: float
    return_: float
    advantage: float
    value: float | None
    rollout_reward: float
    origin: str
    time: datetime
    prompt: list[Message] | None
    """The state as recorded messages; None if the call is no longer in the log or is not plain text."""
    response: Message | None
    tools: Json

    @property
    def done(self) -> bool:
        """Whether the lineage ends with this action."""
        return self.next_state_T is None


def rows_of(sequence: SequenceCredited, calls: Mapping[str, ModelCallRecorded]) -> list[Row]:
    """The rows of one sequence, in the order of its actions. `calls`: origin → call."""
    tokens_T, logprobs_T = unpack_ints(sequence.token_ids), unpack_floats(sequence.behaviour_logprobs)
    rows = []
    for step, t in enumerate(sequence.transitions):
        following = sequence.transitions[step + 1] if step + 1 < len(sequence.transitions) else None
        prompt, response, tools = _text(calls.get(t.origin), t.call_id, t.choice)
        rows.append(
            Row(
                rollout_id=sequence.rollout_id,
                attempt=sequence.attempt,
                group_id=sequence.group_id,
                policy=sequence.policy,
                credit=sequence.credit,
                revision=sequence.revision,
                sequence_id=sequence.event_id,
                step=step,
                call_id=t.call_id,
                choice=t.choice,
                agent_name=t.agent_name,
                policy_version=t.policy_version,
                temperature=t.temperature,
                state_T=tokens_T[: t.start],
                action_T=tokens_T[t.start : t.end],
                logprobs_T=logprobs_T[t.start : t.end],
                next_state_T=tokens_T[: following.start] if following else None,
                reward=t.reward,
                return_=t.return_,
                advantage=t.advantage,
                value=t.value,
                rollout_reward=sequence.rollout_reward,
                origin=t.origin,
                time=sequence.event_time,
                prompt=prompt,
                response=response,
                tools=tools,
            )
        )
    return rows


def origins_of(sequences: Iterable[SequenceCredited]) -> set[str]:
    """Origins of the calls of `sequences`."""
    return {transition.origin for sequence in sequences for transition in sequence.transitions}


def _text(
    call: ModelCallRecorded | None, call_id: str, choice: int
) -> tuple[list[Message] | None, Message | None, Json]:
    """Prompt, response and tools of a call; None for each if the record is of another call or not plain text."""
    if call is None or call.call_id != call_id:
        return None, None, None
    message: JsonObject | None = next((c.message for c in call.choices if c.index == choice), None)
    try:
        prompt = plain_messages(call.request.get("messages"))
        return prompt, plain_message(message), call.request.get("tools")
    except NotTextError:
        return None, None, None
