"""Lineages: every response once, in the sequence whose tokens it continues exactly."""

from hypothesis import given
from hypothesis import strategies as st

from credit_support import call
from leyden.credit.core.actions import Action, Context, actions_of
from leyden.credit.core.assemble import RecordedCall
from leyden.credit.core.merge import Joined, Lineage, merge
from leyden.events import ModelCallRecorded, unpack_ints


def actions(*calls: ModelCallRecorded) -> list[Action]:
    found: list[Action] = []
    for one in calls:
        of_call = actions_of(RecordedCall(one, "model-calls.v1/0/0"), None)
        assert not isinstance(of_call, Context)
        found += of_call
    return found


def tokens(lineage: Lineage) -> list[int]:
    return unpack_ints(lineage.tokens).tolist()


def spans(lineage: Lineage) -> list[tuple[int, int]]:
    return [(placed.start, placed.end) for placed in lineage.placed]


def test_a_prompt_that_holds_the_earlier_turn_extends_its_sequence() -> None:
    [lineage], joined = merge(actions(call("1", [1, 2], [3, 4]), call("2", [1, 2, 3, 4, 9], [5])))
    assert tokens(lineage) == [1, 2, 3, 4, 9, 5]
    assert spans(lineage) == [(2, 4), (5, 6)]
    assert joined == {Joined.STARTED: 1, Joined.EXTENDED: 1}


def test_interleaved_sub_agents_give_two_sequences_and_not_five() -> None:
    a1, a2 = [1, 1, 10], [1, 1, 10, 7, 11]
    b1, b2 = [2, 2, 20], [2, 2, 20, 8, 21]
    lineages, joined = merge(
        actions(
            call("A1", a1[:2], a1[2:]),
            call("B1", b1[:2], b1[2:]),
            call("A2", a2[:4], a2[4:]),
            call("B2", b2[:4], b2[4:]),
            call("A3", [*a2, 6], [12]),
        )
    )
    assert [[p.action.call_id for p in lineage.placed] for lineage in lineages] == [["A1", "A2", "A3"], ["B1", "B2"]]
    assert joined == {Joined.STARTED: 2, Joined.EXTENDED: 3}


def test_four_parallel_calls_of_one_prompt_stay_four() -> None:
    lineages, joined = merge(actions(*(call(str(n), [1, 2], [30 + n]) for n in range(4))))
    assert [tokens(lineage) for lineage in lineages] == [[1, 2, 30 + n] for n in range(4)]
    assert joined == {Joined.STARTED: 1, Joined.PARALLEL: 3}


def test_four_parallel_calls_with_the_same_answer_stay_four() -> None:
    lineages, _ = merge(actions(*(call(str(n), [1, 2], [3]) for n in range(4))))
    assert [tokens(lineage) for lineage in lineages] == [[1, 2, 3]] * 4


def test_four_choices_of_one_call_stay_four() -> None:
    lineages, _ = merge(actions(call("1", [1, 2], [3], [4], [3], [5, 6])))
    assert [tokens(lineage) for lineage in lineages] == [[1, 2, 3], [1, 2, 4], [1, 2, 3], [1, 2, 5, 6]]
    assert [lineage.placed[0].action.choice for lineage in lineages] == [0, 1, 2, 3]


def test_a_prompt_equal_to_the_sequence_adds_its_answer_and_no_prompt_token() -> None:
    [lineage], _ = merge(actions(call("1", [1, 2], [3, 4]), call("2", [1, 2, 3, 4], [5])))
    assert tokens(lineage) == [1, 2, 3, 4, 5]
    assert spans(lineage) == [(2, 4), (4, 5)]


def test_a_sequence_that_was_extended_already_forks_for_the_next_sample_of_the_turn() -> None:
    turn = [1, 2, 3, 9]
    lineages, joined = merge(actions(call("1", [1, 2], [3]), call("2", turn, [4]), call("3", turn, [5])))
    assert [tokens(lineage) for lineage in lineages] == [[1, 2, 3, 9, 4], [1, 2, 3, 9, 5]]
    assert spans(lineages[1]) == [(4, 5)], "the first turn's response is context in the fork: it is trained once"
    assert joined[Joined.PARALLEL] == 1


def test_the_longest_matching_sequence_is_extended() -> None:
    lineages, _ = merge(actions(call("1", [1], [2], [2, 3]), call("2", [1, 2, 3, 4], [5])))
    assert [tokens(lineage) for lineage in lineages] == [[1, 2], [1, 2, 3, 4, 5]]


def test_of_equal_sequences_the_earliest_is_extended_and_then_the_next() -> None:
    samples = [call("1", [1], [2], [2])]
    lineages, _ = merge(actions(*samples, call("2", [1, 2, 7], [8]), call("3", [1, 2, 6], [9])))
    assert [tokens(lineage) for lineage in lineages] == [[1, 2, 7, 8], [1, 2, 6, 9]]


def test_a_template_that_strips_thinking_forks_and_is_counted() -> None:
    thinking, answer = [50, 51, 52], [3, 4]
    lineages, joined = merge(actions(call("1", [1, 2], thinking + answer), call("2", [1, 2, *answer, 9], [5])))
    assert len(lineages) == 2
    assert spans(lineages[1]) == [(5, 6)]
    assert joined == {Joined.STARTED: 1, Joined.FORKED: 1}


def test_an_edited_history_forks() -> None:
    lineages, joined = merge(actions(call("1", [1, 2], [3]), call("2", [1, 2, 99, 4], [5])))
    assert len(lineages) == 2
    assert joined[Joined.FORKED] == 1


def test_policies_never_share_a_sequence() -> None:
    lineages, _ = merge(actions(call("1", [1], [2], policy="a"), call("2", [1, 2, 3], [4], policy="b")))
    assert [(lineage.policy, tokens(lineage)) for lineage in lineages] == [("a", [1, 2]), ("b", [1, 2, 3, 4])]


def test_tokens_that_agree_in_their_first_bytes_only_do_not_match() -> None:
    lineages, _ = merge(actions(call("1", [1], [2]), call("2", [1, 2 + 256, 3], [4])))
    assert len(lineages) == 2


small = st.lists(st.integers(0, 2), min_size=1, max_size=6)


@given(st.lists(st.tuples(small, st.lists(small, min_size=1, max_size=3)), min_size=1, max_size=12))
def test_every_response_is_in_exactly_one_sequence_after_exactly_its_prompt(spec: list[tuple[list[int], list]]) -> None:
    given_actions = actions(*(call(str(n), prompt, *responses) for n, (prompt, responses) in enumerate(spec)))
    lineages, joined = merge(given_actions)
    placed = [(lineage, one) for lineage in lineages for one in lineage.placed]
    assert sorted((p.action.call_id, p.action.choice) for _, p in placed) == sorted(
        (a.call_id, a.choice) for a in given_actions
    )
    assert sum(joined.values()) == len(given_actions)
    for lineage, one in placed:
        assert tokens(lineage)[: one.start] == unpack_ints(one.action.prompt).tolist()
        assert tokens(lineage)[one.start : one.end] == unpack_ints(one.action.response).tolist()
    for lineage in lineages:
        ends = [0, *(end for _, end in spans(lineage))]
        assert all(start >= before for before, (start, _) in zip(ends, spans(lineage), strict=False))
        assert ends[-1] == lineage.length, "nothing follows the last action"
