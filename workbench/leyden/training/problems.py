"""What goes wrong in a training, in words. Pure."""

from collections import Counter
from collections.abc import Callable

from leyden.analysis.failures import masked
from leyden.events import FailureClass, RolloutEnded
from leyden.stack.program import as_typed
from leyden.training.state import TrainState

EXPECTED = ("failed: ", "rule failed: ", "validation", "no outcome")
"""Reasons for leaving rollouts out that are told as failed rollouts and failed rules."""
MEANINGS = {
    "no policy call": "they made no model call that was recorded for them: let the agent use the base_url and api_key "
    "of its claim, and the model name `policy`",
    "no reward": "no rule gave them a reward: pass --reward, or let the agent return a number",
}


def problems(state: TrainState) -> dict[str, str]:
    """What went wrong so far: a key that stays the same → the text, with numbers up to now."""
    return _slow_model(state) | _failed(state, _is_told) | _rules(state) | _left_out(state)


def causes(state: TrainState) -> list[str]:
    """Why training rollouts gave nothing to train: what ended or left them out for good."""

    def is_lost(end: RolloutEnded) -> bool:
        return end.final and not state.is_held_out(end.rollout_id)

    return list((_failed(state, is_lost) | _rules(state) | _left_out(state)).values())


def _is_told(end: RolloutEnded) -> bool:
    """All but attempts that were interrupted and are made again: the user stopped them."""
    return end.final or end.failure is None or end.failure.failure_class is not FailureClass.INTERRUPTED


def _slow_model(state: TrainState) -> dict[str, str]:
    if not state.model.is_long:
        return {}
    return {"slow model": f"the model is slow: {state.model.text}"}


def _failed(state: TrainState, counts: Callable[[RolloutEnded], bool]) -> dict[str, str]:
    """Failed attempts that count, those that are made again too: nobody waits for the last one to hear of them."""
    lots: Counter[tuple[bool, bool, str, str]] = Counter()
    messages: dict[tuple[str, str], str] = {}
    for end in state.ended.values():
        if end.status == "failed" and counts(end):
            kind = end.failure.failure_class.value if end.failure else "agent_exception"
            message = end.failure.message if end.failure else ""
            lots[state.is_held_out(end.rollout_id), end.final, kind, masked(message)] += 1
            messages.setdefault((kind, masked(message)), " ".join(message.split())[:300])
    return {
        f"failed {held_out} {final} {kind} {shape}": f"{_failures(held_out, final, count)}, {kind}: "
        f"{messages[kind, shape] or 'no message'} (`{as_typed()} errors` has the tracebacks)"
        for (held_out, final, kind, shape), count in lots.most_common()
    }


def _failures(held_out: bool, final: bool, count: int) -> str:
    which = "held-out " if held_out else ""
    if final:
        return f"{count} {which}rollout{'s' if count > 1 else ''} failed"
    attempts = f"{count} attempt{'s' if count > 1 else ''} of {which}rollouts"
    return f"{attempts} failed and {'are' if count > 1 else 'is'} made again"


def _rules(state: TrainState) -> dict[str, str]:
    rules = state.rules
    found = {f"rule {one.rule} {one.kind} {masked(one.message)}": one.line() for one in rules.failed}
    return found | {f"rule {text.partition('have')[2]}": text for text in rules.lines()[len(rules.failed) :]}


def _left_out(state: TrainState) -> dict[str, str]:
    return {
        f"left out {reason}": f"{_rollouts(count)} left out of training: {reason}{_meaning(reason)}"
        for reason, count in state.left_out.most_common()
        if not reason.startswith(EXPECTED)
    }


def _meaning(reason: str) -> str:
    return f" ({MEANINGS[reason]})" if reason in MEANINGS else ""


def _rollouts(count: int) -> str:
    return f"{count} rollout{'s' if count > 1 else ''}"
