"""Token in, token out: a call that extends an earlier one of its attempt is sent with that call's own tokens.

What is kept is a help and no evidence: where it is gone, or Redis is, the call is an ordinary one.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from leyden.engine_face import PROMPT_HEADER, RENDERED_HEADER
from leyden.events import Choice
from leyden.gateway.core.continuation import Conversation, Said
from leyden.gateway.core.request import JsonDict
from leyden.gateway.metrics import PROMPTS, labelled
from leyden.gateway.ports import EarlierCalls
from leyden.ids import AttemptRef
from leyden.kafka import Retry

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Turn:
    """One call as part of its attempt's conversation."""

    ref: AttemptRef
    policy: str
    conversation: Conversation
    earlier: Said | None
    """The call that its messages extend."""
    started: bool
    """Whether the attempt has earlier calls at all, where the call's messages hold an answer."""
    calls: EarlierCalls

    def wish(self) -> JsonDict:
        """As the engine is asked."""
        return self.earlier.wish() if self.earlier else {}

    def became(self, headers: Mapping[str, str]) -> str:
        """What became of it: `first`, `extended`, `forked`, `drifted`, or `unsupported` by the engine."""
        said = headers.get(PROMPT_HEADER)
        if said is None:
            return "unsupported"
        if said == "continued":
            return "extended"
        if self.earlier is not None:
            return "drifted"
        return "forked" if self.started and self.conversation.answered else "first"

    async def keep(
        self, call_id: str, headers: Mapping[str, str], prompt: bytes, choices: Sequence[Choice]
    ) -> str | None:
        """Count what became of it, and keep its answers for the next call. Gives the call that was extended, if any."""
        became = self.became(headers)
        labelled(PROMPTS, self.policy, became).inc()
        if rendered := headers.get(RENDERED_HEADER):
            said = {
                self.conversation.with_answer(one.message): Said(
                    call_id, prompt + one.token_ids, rendered, one.finish_reason == "length"
                ).pack()
                for one in choices
            }
            try:
                await self.calls.keep(self.ref, said)
            except Retry as error:
                log.warning("the next call will be an ordinary one: %s", error)
        return self.earlier.call_id if self.earlier and became == "extended" else None


class Continuations:
    """Offers earlier calls' tokens to the engines of some policies. `policies` are shell patterns; none: to nobody."""

    def __init__(self, calls: EarlierCalls, policies: Sequence[str]) -> None:
        self._calls = calls
        self._policies = policies

    async def turn(self, ref: AttemptRef | None, policy: str, body: JsonDict) -> Turn | None:
        """The call's place in its attempt's conversation; None where that is not asked for, or not known."""
        if ref is None or not any(fnmatchcase(policy, pattern) for pattern in self._policies):
            return None
        conversation = Conversation.of(body.get("messages"))
        if not conversation.answered:
            return Turn(ref, policy, conversation, None, False, self._calls)
        try:
            found, started = await self._calls.find(ref, conversation.answered)
        except Retry as error:
            log.warning("an ordinary call, because earlier ones could not be looked up: %s", error)
            return None
        return Turn(ref, policy, conversation, Said.unpack(found) if found else None, started, self._calls)
