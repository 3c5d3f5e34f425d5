"""What goes wrong in a training, in words. Pure."""

from collections import Counter

from leyden.analysis.failures import masked
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
    return _failed_rollouts(state) | _rules(state) | _left_out(state)


def _failed_rollouts(state: TrainState) -> dict[str, str]:
    lots: Counter[tuple[str, str]] = Counter()
    messages: dict[tuple[str, str], str] = {}
    for end in state.final_ends:
        if end.status == "failed":
            kind = end.failure.failure_class.value if end.failure else "agent_exception"
            message = end.failure.message if end.failure else ""
            key = (kind, masked(message))
            lots[key] += 1
            messages.setdefault(key, " ".join(message.split())[:300])
    return {
        f"failed {kind} {shape}": f"{_rollouts(count)} failed, {kind}: {messages[kind, shape] or 'no message'} "
        f"(`{as_typed()} errors` has the tracebacks)"
        for (kind, shape), count in lots.most_common()
    }


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
