"""The limit on a sequence: every action is trained whole, once, or dropped; nothing that the policy did not write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit_support import call, delivered, finished, reward
from leyden.credit.core.actions import Action, actions_of
from leyden.credit.core.assemble import RecordedCall, assemble
from leyden.credit.core.evidence import Evidence
from leyden.credit.core.membership import member_of
from leyden.credit.core.merge import Lineage, merge
from leyden.credit.core.overlong import Fitted, Overlong, fit
from leyden.credit.core.section import CreditSection
from leyden.events import unpack_floats, unpack_ints

TRAINING: tuple[Overlong, ...] = ("truncate", "split")


def conversation(*turns: tuple[int, int]) -> Lineage:
    """One lineage of turns of (new prompt tokens, response tokens); every token is another number."""
    tokens: list[int] = []
    actions: list[Action] = []
    for number, (prompt, response) in enumerate(turns):
        asked = [*tokens, *range(len(tokens), len(tokens) + prompt)]
        tokens = [*asked, *range(len(asked), len(asked) + response)]
        found = actions_of(RecordedCall(call(str(number), asked, tokens[len(asked) :]), "o"), None)
        assert isinstance(found, list)
        actions += found
    [lineage], _ = merge(actions)
    return lineage


def seen(pieces: list[Lineage]) -> list[tuple[list[int], list[tuple[str, int, int]]]]:
    return [
        (unpack_ints(p.tokens).tolist(), [(one.action.call_id, one.start, one.end) for one in p.actions])
        for p in pieces
    ]


@pytest.mark.parametrize("overlong", ["drop", *TRAINING])
def test_what_fits_is_left_as_it_is(overlong: Overlong) -> None:
    lineage = conversation((3, 2), (1, 2))
    assert fit([lineage], 8, overlong) == ([lineage], {})


def test_drop_trains_nothing_of_it_and_counts_every_action() -> None:
    assert fit([conversation((3, 2), (1, 2))], 7, "drop") == ([], {Fitted.TOO_LONG: 2})


def test_truncate_takes_the_oldest_tokens_of_the_first_prompt() -> None:
    pieces, fitted = fit([conversation((5, 2), (1, 2))], 7, "truncate")
    assert seen(pieces) == [([3, 4, 5, 6, 7, 8, 9], [("0", 2, 4), ("1", 5, 7)])]
    assert fitted == {Fitted.TRUNCATED: 2}


def test_truncate_leaves_the_first_action_a_token_of_state() -> None:
    pieces, _ = fit([conversation((3, 2), (1, 2))], 6, "truncate")
    assert seen(pieces) == [([2, 3, 4, 5, 6, 7], [("0", 1, 3), ("1", 4, 6)])]


def test_truncate_gives_an_action_that_it_would_cut_a_sequence_of_its_own() -> None:
    pieces, fitted = fit([conversation((3, 2), (1, 2))], 5, "truncate")
    assert seen(pieces) == [([0, 1, 2, 3, 4], [("0", 3, 5)]), ([3, 4, 5, 6, 7], [("1", 3, 5)])]
    assert fitted == {Fitted.TRUNCATED: 1}, "the first keeps its whole state"


def test_split_keeps_the_first_part_whole_and_gives_the_rest_what_context_fits() -> None:
    pieces, fitted = fit([conversation((4, 2), (1, 1), (1, 1))], 8, "split")
    assert seen(pieces) == [
        ([0, 1, 2, 3, 4, 5, 6, 7], [("0", 4, 6), ("1", 7, 8)]),
        ([2, 3, 4, 5, 6, 7, 8, 9], [("2", 7, 8)]),
    ]
    assert fitted == {Fitted.TRUNCATED: 1}


def test_split_leaves_later_parts_half_of_the_limit_as_context() -> None:
    pieces, _ = fit([conversation((2, 1), *[(1, 1)] * 9)], 8, "split")
    first_starts = [piece.actions[0].start for piece in pieces]
    assert first_starts[0] == 2
    assert all(start >= 4 for start in first_starts[1:])


@pytest.mark.parametrize("overlong", TRAINING)
def test_an_action_that_is_too_long_by_itself_is_dropped_and_the_others_are_trained(overlong: Overlong) -> None:
    pieces, fitted = fit([conversation((2, 2), (1, 6), (1, 2))], 6, overlong)
    assert [[one.action.call_id for one in piece.actions] for piece in pieces] == [["0"], ["2"]]
    assert fitted[Fitted.TOO_LONG] == 1


@pytest.mark.parametrize("overlong", TRAINING)
def test_an_overlong_later_turn_never_trains_a_prompt_token(overlong: Overlong) -> None:
    """Agent Lightning 0.3 gave such a turn a mask longer than its ids, and trained its prompt."""
    lineage = conversation((3, 2), (100, 2))
    pieces, _ = fit([lineage], 20, overlong)
    assert [trained(piece) for piece in pieces] == [[3, 4], [105, 106]]


@pytest.mark.parametrize("overlong", TRAINING)
def test_a_turn_without_new_prompt_tokens_never_repeats_its_prompt(overlong: Overlong) -> None:
    """A slice `[-0:]` is the whole list."""
    pieces, _ = fit([conversation((5, 2), (0, 2), (0, 2))], 7, overlong)
    assert sorted(token for piece in pieces for token in trained(piece)) == [5, 6, 7, 8, 9, 10]
    for piece in pieces:
        tokens = unpack_ints(piece.tokens).tolist()
        assert tokens == list(range(tokens[0], tokens[0] + len(tokens)))


def trained(piece: Lineage) -> list[int]:
    return [token for one in piece.actions for token in unpack_ints(piece.tokens)[one.start : one.end].tolist()]


turns = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), min_size=1, max_size=10)


@given(st.integers(1, 6), turns, st.integers(2, 30), st.sampled_from(["drop", *TRAINING]))
def test_every_action_is_trained_at_most_once_and_nothing_else_ever(
    first: int, rest: list[tuple[int, int]], limit: int, overlong: Overlong
) -> None:
    lineage = conversation((first, 2), *rest)
    pieces, fitted = fit([lineage], limit, overlong)
    placed = [one for piece in pieces for one in piece.actions]
    names = [one.action.call_id for one in placed]
    assert names == sorted(set(names), key=int), "once, and in their order"
    assert fitted[Fitted.TOO_LONG] == len(lineage.actions) - len(names)
    if overlong != "drop":
        too_long = {one.action.call_id for one in lineage.actions if one.end - one.start >= limit}
        fits = lineage.length <= limit
        assert set(names) == {one.action.call_id for one in lineage.actions} - (set() if fits else too_long)
    whole = {one.action.call_id: one for one in lineage.actions}
    for piece in pieces:
        assert piece.length <= limit
        assert piece.actions[-1].end == piece.length, "nothing follows the last action"
        for one in piece.actions:
            assert piece.tokens[one.start * 4 : one.end * 4] == one.action.response
            assert len(one.action.logprobs) == 4 * (one.end - one.start)
            assert one.start >= 1, "an action has a state"
            state = piece.tokens[: one.start * 4]
            assert lineage.tokens[: whole[one.action.call_id].start * 4].endswith(state), "the newest part of its state"
        assert trained(piece) == [t for one in piece.actions for t in unpack_ints(one.action.response).tolist()]


@pytest.mark.parametrize("overlong", TRAINING)
@given(spec=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=7), limit=st.integers(2, 20))
def test_what_is_published_has_the_engines_logprobs_at_the_actions_and_nothing_elsewhere(
    overlong: Overlong, spec: list[tuple[int, int]], limit: int
) -> None:
    """Through credit as a whole: ids, logprobs and loss mask of every sequence are aligned, token by token."""
    calls, tokens = [], [1, 2]
    for number, (prompt, response) in enumerate(spec):
        tokens = [*tokens, *[90 + number] * prompt]
        answer = [10 * number + n for n in range(response)]
        calls.append(call(f"c{number}", tokens, answer, at=number))
        tokens = tokens + answer
    events = finished(calls, [reward(1.0)])
    attempt = assemble(Evidence(one.event, one.origin) for one in delivered(events))  # type: ignore[arg-type]
    [trajectory] = member_of(attempt, CreditSection(max_sequence_tokens=limit, overlong=overlong)).trajectories
    by_id = {one.call_id: one for one in calls}
    for sequence in trajectory.sequences:
        ids, logprobs = unpack_ints(sequence.token_ids), unpack_floats(sequence.behaviour_logprobs)
        assert len(ids) == len(logprobs) <= limit
        outside = set(range(len(ids)))
        for span in sequence.transitions:
            [choice] = by_id[span.call_id].choices
            assert ids[span.start : span.end].tobytes() == choice.token_ids
            assert logprobs[span.start : span.end].tobytes() == choice.logprobs
            outside -= set(range(span.start, span.end))
        assert not logprobs[sorted(outside)].any()
    trained_calls = [span.call_id for sequence in trajectory.sequences for span in sequence.transitions]
    assert len(trained_calls) == len(set(trained_calls))
