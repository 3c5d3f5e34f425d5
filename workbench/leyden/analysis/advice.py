"""Why the training loop does not go on, and what to do: one sentence each, the most urgent first. Pure."""

from collections.abc import Iterator
from statistics import median

from leyden.analysis.loop_report import LoopReport, Problem

CLAIMS_STOP_S = 20.0
"""A runner with a free slot claims within seconds; after this long none is there."""
LONG_RUN_S = 60.0
LONG_RUN_FACTOR = 5.0
"""A rollout hangs if it runs longer than `LONG_RUN_S` and than this many times the median of ended ones."""
FEW = 4
"""From this many groups or attempts on, a share of them says something."""
MOST = 0.8
SLOW_MODEL = (
    "Wait, or give it less to do at a time (`--concurrency`, `max_tokens` of the calls), or use a smaller model; a "
    "longer `--timeout` keeps attempts from ending before the answer comes"
)
STALE = 2.0
"""Versions; older samples are a sign of a queue filled far ahead of the trainer."""


def problems(report: LoopReport, seconds: list[float], program: str = "leyden") -> list[Problem]:
    """What is wrong or missing. `seconds`: how long ended attempts ran. `program`: how the user types the command."""
    found = [*_rules(report), *_queue(report, seconds), *_attempts(report), *_groups(report), *_serving(report)]
    return [Problem(what=what, do=do.replace("leyden ", f"{program} ")) for what, do in found]


def _rules(report: LoopReport) -> Iterator[tuple[str, str]]:
    for one in report.rule_failures:
        yield (
            f"A reward rule failed for {one.count} rollouts, which are not trained: {one.message} (in {one.example})",
            "Correct the rule and restart the stack, then judge the recorded rollouts again: "
            "`leyden replay --name fixed --settings run.yaml`",
        )


def _queue(report: LoopReport, seconds: list[float]) -> Iterator[tuple[str, str]]:
    queue = report.queue
    ended = queue.succeeded + queue.failed
    if not (queue.queued + queue.running + queue.retrying + ended):
        yield "There are no tasks.", "`leyden enqueue tasks.jsonl --samples 8`, then `leyden runner my_agent:agent`"
        return
    if queue.paused:
        whose = "the whole queue" if "*" in queue.paused else f"the queue of {', '.join(queue.paused)}"
        yield f"{whose[0].upper()}{whose[1:]} is paused; no runner gets a rollout.", "`leyden resume`"
    elif queue.queued and not queue.running and (queue.claimed_s_ago is None or queue.claimed_s_ago > CLAIMS_STOP_S):
        yield f"{queue.queued} rollouts wait and no runner claims them.", "`leyden runner my_agent:agent`"
    limit = max(LONG_RUN_S, LONG_RUN_FACTOR * median(seconds)) if seconds else LONG_RUN_S
    model = report.model if report.model is not None and report.model.is_long else None
    waits = model is not None and model.explains(queue.longest_running)
    if model is not None:
        yield f"The model is slow{', not the agent' if waits else ''}: {model.text}.", SLOW_MODEL
    if not waits and queue.longest_running_s is not None and queue.longest_running_s > limit:
        yield (
            f"A rollout has run for {queue.longest_running_s:.0f} s without an end: {queue.longest_running}",
            f"`leyden inspect {queue.longest_running}`; if its agent hangs, lower `--timeout` of its task or cancel it",
        )
    if not queue.validation and ended:
        yield (
            "No validation rollouts: nothing held out measures the policy.",
            "`leyden enqueue held_out.jsonl --mode validation`",
        )


def _attempts(report: LoopReport) -> Iterator[tuple[str, str]]:
    queue = report.queue
    ended = queue.succeeded + queue.failed
    if ended >= FEW and queue.failed >= MOST * ended:
        worst = report.failures[0]
        waited = worst.unanswered >= MOST * worst.count
        yield (
            f"{queue.failed} of {ended} rollouts failed; {worst.count} times {worst.failure_class}: "
            f"{worst.message or 'no message'}",
            f"The model was slow, not the agent. {SLOW_MODEL}" if waited else _look(worst.example),
        )
    unanswered = sum(point.rollouts for point in report.curve if point.version == "-" and point.mode == "train")
    if ended >= FEW and unanswered >= MOST * ended and queue.succeeded:
        yield (
            f"{unanswered} of {ended} rollouts made no call that a policy answered, so nothing of them can be trained.",
            "Let the agent use its base URL and key, and the policy's name as `model` (default: policy)",
        )
    unjudged = not report.rule_failures and not any(point.rewarded for point in report.curve)
    if ended >= FEW and queue.succeeded and unjudged and not report.lag.get("reward"):
        yield (
            "No rollout has a reward.",
            "Name a reward function in the run file (reward.functions), or call `leyden.emit_reward` in the agent",
        )


def _look(example: str) -> str:
    return f"`leyden errors`, `leyden inspect {example}`"


def _groups(report: LoopReport) -> Iterator[tuple[str, str]]:
    groups, queue = report.groups, report.queue
    if groups.credited >= FEW and groups.empty >= MOST * groups.credited:
        why = max(groups.left_out, key=lambda reason: groups.left_out[reason], default="no rollout has a policy call")
        yield (
            f"{groups.empty} of {groups.credited} groups have nothing to train: {why}",
            "Look at one of their rollouts: `leyden inspect`",
        )
    if groups.credited >= FEW and groups.single >= MOST * groups.credited:
        yield (
            f"{groups.single} of {groups.credited} groups have one rollout, so every advantage is 0.",
            "`leyden enqueue … --samples 8`",
        )
    elif groups.credited >= FEW and groups.flat >= MOST * groups.credited:
        yield (
            f"In {groups.flat} of {groups.credited} groups all rollouts have the same reward, so every advantage is 0.",
            "Use tasks that the agent sometimes solves, a reward with finer steps, or more samples; `leyden rewards`",
        )
    idle = not (queue.queued or queue.running or queue.retrying or groups.waiting)
    if idle and groups.ready and groups.per_step and groups.ready < groups.per_step:
        missing = groups.per_step - groups.ready
        yield (
            f"The trainer has {groups.ready} of the {groups.per_step} groups of a step, and no rollout is on its way.",
            f"Enqueue at least {missing} more tasks, or set trainer.groups_per_step",
        )
    if report.steps and report.steps[-1].staleness_max >= STALE:
        newest = report.steps[-1]
        yield (
            f"Step {newest.step} trained on rollouts that were up to {newest.staleness_max:.0f} versions old "
            f"(mean {newest.staleness_mean:.1f}).",
            "Enqueue the tasks of one step when the version before is live, or set trainer.max_staleness",
        )


def _serving(report: LoopReport) -> Iterator[tuple[str, str]]:
    for policy in report.policies:
        if policy.live is not None and policy.live < policy.promoted:
            yield (
                f"Version {policy.promoted} of {policy.policy} is promoted, but {policy.live} still serves.",
                "It is being loaded; if this stays, look at `leyden status` and the log of `policy`",
            )
