"""Retries of reward functions, and what goes over the pipe to their workers. Without a process."""

import pytest

from leyden.reward.core.answer import Answer
from leyden.reward.core.failures import FailureKind
from leyden.reward.core.settle import settle
from leyden.reward.core.view import RolloutView, TaskView, view_of
from leyden.reward.sandbox.runner import FunctionRunner, RetriedFunction, RetrySettings
from leyden.reward.sandbox.views import Views
from leyden.reward.sandbox.wire import decode_views, encode_view, read_answer
from unit.reward.reward_builders import ROLLOUT, a_call, a_span, an_end, asking, evidence_of


def views(count: int) -> Views:
    return Views([RolloutView(ROLLOUT, 0, TaskView(), (), (), str(n), "succeeded", None) for n in range(count)])


class Broken:
    """An executor that loses every view, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.kind: FailureKind | None = FailureKind.TIMEOUT

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def answers(self, views: Views) -> list[Answer | None]:
        self.calls += 1
        first = Answer.failed(self.kind, "again") if self.kind else Answer({"": 1.0})
        return [first, *([None] * (len(views) - 1))]


async def test_a_function_that_breaks_for_every_rollout_is_suspended_for_a_while() -> None:
    now, broken = [0.0], Broken()
    settings = RetrySettings(retries=1, first_delay_s=0.0, suspend_after=3, suspend_s=60.0)
    function = RetriedFunction("f", broken, settings, monotonic=lambda: now[0])
    found = await function.answers(views(8))
    assert broken.calls == 6  # three rollouts, two tries each; the others were spared
    assert [answer.failure for answer in found] == [FailureKind.TIMEOUT] * 3 + [FailureKind.LOST] * 5
    now[0], broken.kind = 61.0, None
    assert await function.answers(views(2)) == [Answer({"": 1.0})] * 2


async def test_exceptions_never_make_a_function_rest() -> None:
    broken = Broken()
    broken.kind = FailureKind.EXCEPTION
    found = await RetriedFunction("f", broken, RetrySettings(retries=0)).answers(views(8))
    assert broken.calls == 8
    assert {answer.failure for answer in found} == {FailureKind.EXCEPTION}


def test_a_view_goes_through_the_pipe_unchanged() -> None:
    calls = [a_call(1, 1.25, asking(("t1", "add", {"x": 0.1 + 0.2}))), a_call(2, 3)]
    events = [*calls, a_span(1, 2)]
    ended = an_end(calls, output={"nested": [1, None, "\u2028"]}, reward=1 / 3)
    evidence = evidence_of([*events, ended])
    settled = settle(ended, evidence)
    assert settled is not None
    view = view_of(ended, settled, evidence)
    assert decode_views(b"[" + encode_view(view) + b"]") == [view]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"index": 0}', b'{"index": "0", "values": {}}', b'{"index": 0, "failure": "bad luck"}', b"\x80"],
)
def test_a_frame_that_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        read_answer(body)


def test_a_forged_answer_is_checked_like_any_other() -> None:
    assert read_answer(b'{"index": 0, "values": {"": "1"}}')[1].failure is FailureKind.MALFORMED


async def test_without_functions_every_attempt_has_no_answers() -> None:
    assert await FunctionRunner([]).answers(views(2).items) == [{}, {}]
