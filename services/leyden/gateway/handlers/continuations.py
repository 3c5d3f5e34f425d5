"""What links a call to earlier ones of its attempt: their tokens, and the version that answered them.

Token in, token out: a call that extends an earlier one is sent with that call's tokens. It is an optimisation: if the
earlier call or Redis is not available, the call is a normal one.
"""

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from leyden.engine_face import PROMPT_HEADER, RENDERED_HEADER
from leyden.events import Choice
from leyden.gateway.core.continuation import Conversation, EarlierCall, Turn
from leyden.gateway.core.request import JsonDict
from leyden.gateway.core.routing import ModelName, RoutedCall
from leyden.gateway.metrics import PROMPTS, VERSION_MOVES, labelled
from leyden.gateway.ports import EarlierCalls, RolloutStore
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


class StickyVersions:
    """Calls of an attempt that name no version keep to the version of its first call while it is live."""

    def __init__(self, store: RolloutStore) -> None:
        self._store = store

    async def version_of(self, ref: AttemptRef | None, name: ModelName) -> int | None:
        """The version that the attempt keeps to, if the call names none."""
        if ref is None or name.version is not None:
            return None
        return await self._store.kept_version(ref, name.policy)

    async def keep(self, call: RoutedCall, version: int) -> None:
        """Let the attempt keep to the version that answered, in place of one that is no longer live."""
        ref = call.binding.attempt
        if ref is None or call.name.version is not None or version == call.kept:
            return
        await self._store.keep_version(ref, call.name.policy, version, call.kept)
        if call.kept is not None:
            VERSION_MOVES.inc()
