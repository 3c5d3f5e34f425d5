"""Who owns a rollout. Every door asks here before it lets a key of a project near one."""

from leyden.gateway.core.keys import Caller
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.ports import RolloutStore

MAX_KNOWN = 16_384
"""Number of rollouts whose owner is in the cache; it never changes."""


class Ownership:
    """The owners of rollouts. A key without a project may use all; an unknown rollout has no owner yet."""

    def __init__(self, store: RolloutStore) -> None:
        self._store = store
        self._known: dict[str, str | None] = {}

    async def must_be_theirs(self, caller: Caller, rollout_id: str) -> None:
        """Raise a 403 if the caller's key is of a project and the rollout is not that project's."""
        if caller.project is None or caller.attempt is not None:  # a rollout's own key opens nothing else
            return
        if rollout_id not in self._known:
            view = await self._store.find(rollout_id)
            if view is None:
                return
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[rollout_id] = view.spec.project
        if self._known[rollout_id] != caller.project:
            message = f"rollout {rollout_id[:64]} is not of this key's project {caller.project!r}"
            raise Refusal(403, "wrong_project", message)
