"""Token in, token out: a call that extends an earlier one of its attempt is sent with that call's tokens.

It is an optimisation: if the earlier call or Redis is not available, the call is a normal one.
"""

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from leyden.engine_face import PROMPT_HEADER, RENDERED_HEADER
from leyden.events import Choice
from leyden.gateway.core.continuation import Conversation, EarlierCall, Turn
from leyden.gateway.core.request import JsonDict
from leyden.gateway.metrics import PROMPTS, labelled
from leyden.gateway.ports import EarlierCalls
from leyden.ids import AttemptRef
from leyden.kafka import Retry

log = logging.getLogger(__name__)


class Continuations:
    """Offers earlier calls' tokens to the engines of some policies. `policies` are shell patterns."""

    def __init__(self, calls: EarlierCalls, policies: Sequence[str]) -> None:
        self._calls = calls
        self._policies = policies

    async def turn(self, ref: AttemptRef | None, policy: str, body: JsonDict) -> Turn | None:
        """The call's place in its attempt's conversation; None if it is not tracked or not known."""
        if ref is None or not any(fnmatchcase(policy, pattern) for pattern in self._policies):
            return None
        conversation = Conversation.of(body.get("messages"))
        if not conversation.answered:
            return Turn(ref, policy, conversation)
        try:
            found, started = await self._calls.find(ref, conversation.answered)
        except Retry as error:
            log.warning("token in, token out is off for this call: earlier calls could not be looked up: %s", error)
            return None
        return Turn(ref, policy, conversation, EarlierCall.unpack(found) if found else None, started)

    async def keep(
        self, turn: Turn, call_id: str, headers: Mapping[str, str], prompt: bytes, choices: Sequence[Choice]
    ) -> str | None:
        """Count the result of a turn and store its answers for the next call. Returns the call that it extended.

        `prompt` is the prompt's token ids, packed as in the events.
        """
        outcome = turn.outcome(headers.get(PROMPT_HEADER))
        labelled(PROMPTS, turn.policy, outcome).inc()
        if rendered := headers.get(RENDERED_HEADER):
            answers = {
                turn.conversation.with_answer(one.message): EarlierCall(
                    call_id, prompt + one.token_ids, rendered, one.finish_reason == "length"
                ).pack()
                for one in choices
            }
            try:
                await self._calls.keep(turn.ref, answers)
            except Retry as error:
                log.warning("the answer could not be kept for the next call to extend: %s", error)
        return turn.earlier.call_id if turn.earlier and outcome == "extended" else None
