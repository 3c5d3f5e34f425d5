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
    return [(placed.start, placed.end) for placed in lineage.actions]


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
    assert [[p.action.call_id for p in lineage.actions] for lineage in lineages] == [["A1", "A2", "A3"], ["B1", "B2"]]
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
    assert [lineage.actions[0].action.choice for lineage in lineages] == [0, 1, 2, 3]


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
    placed = [(lineage, one) for lineage in lineages for one in lineage.actions]
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


def test_a_summary_of_the_history_starts_a_lineage_that_later_turns_extend() -> None:
    """The agent replaces its first two turns by a summary and goes on: two sequences, every answer trained once."""
    lineages, joined = merge(
        actions(
            call("1", [1, 2], [10]),
            call("2", [1, 2, 10, 3], [11]),
            call("3", [1, 2, 90, 91, 4], [12]),
            call("4", [1, 2, 90, 91, 4, 12, 5], [13]),
        )
    )
    assert [[p.action.call_id for p in lineage.actions] for lineage in lineages] == [["1", "2"], ["3", "4"]]
    assert joined == {Joined.STARTED: 1, Joined.EXTENDED: 2, Joined.FORKED: 1}


def test_dropped_turns_start_a_lineage_and_what_they_dropped_is_not_trained_again() -> None:
    """The oldest turn leaves the window; the second turn's response is context in the new lineage."""
    lineages, joined = merge(
        actions(call("1", [1, 5], [10]), call("2", [1, 5, 10, 6], [11]), call("3", [1, 6, 11, 7], [12]))
    )
    assert [[p.action.call_id for p in lineage.actions] for lineage in lineages] == [["1", "2"], ["3"]]
    assert spans(lineages[1]) == [(4, 5)]
    assert joined[Joined.STARTED] == 2, "its beginning was never seen"


def test_parallel_samples_of_a_later_turn_stay_apart_and_go_on_apart() -> None:
    turn = [1, 2, 3, 9]
    lineages, joined = merge(
        actions(
            call("1", [1, 2], [3]),
            *(call(f"s{n}", turn, [20 + n]) for n in range(3)),
            *(call(f"t{n}", [*turn, 20 + n, 8], [30]) for n in range(3)),
        )
    )
    names = [[placed.action.call_id for placed in lineage.actions] for lineage in lineages]
    assert names == [["1", "s0", "t0"], ["s1", "t1"], ["s2", "t2"]]
    assert joined == {Joined.STARTED: 1, Joined.EXTENDED: 4, Joined.PARALLEL: 2}


def by_looking_at_every_lineage(given_actions: list[Action]) -> tuple[list[list[int]], dict[str, int]]:
    """The same by comparing each action with everything: which lineage each action is in, and how it came there."""
    lineages: list[list[Action]] = []
    joined: dict[str, int] = {}
    for action in given_actions:
        mine = [one for one in lineages if one[0].policy == action.policy]
        fitting = [one for one in mine if action.prompt.startswith(one[-1].prompt + one[-1].response)]
        if fitting:
            how = "extended"
            max(fitting, key=lambda one: len(one[-1].prompt + one[-1].response)).append(action)
        else:
            sampled = any(action.prompt == before.prompt for one in mine for before in one)
            how = "parallel" if sampled else "started"
            if not sampled and any(action.prompt.startswith(one[0].prompt) for one in mine):
                how = "forked"
            lineages.append([action])
        joined[how] = joined.get(how, 0) + 1
    return [[given_actions.index(action) for action in one] for one in lineages], joined


few = st.lists(st.integers(0, 1), min_size=1, max_size=4)
sampled = st.tuples(few, st.lists(few, min_size=1, max_size=2), st.sampled_from(["p", "q"]), st.integers(0, 3))


@given(st.lists(sampled, min_size=1, max_size=14), st.sampled_from([1, 24]))
def test_the_index_finds_what_looking_at_every_lineage_finds(spec: list[tuple], repeat: int) -> None:
    """`repeat` makes tokens' strings longer than what the index looks at."""
    calls: list[ModelCallRecorded] = []
    for number, (prompt, responses, policy, after) in enumerate(spec):
        before = calls[-after] if 0 < after <= len(calls) else None
        start = [*unpack_ints(before.prompt_token_ids + before.choices[0].token_ids)] if before else []
        long = [[token for token in one for _ in range(repeat)] for one in (prompt, *responses)]
        calls.append(call(str(number), [*start, *long[0]], *long[1:], policy=policy))
    given_actions = actions(*calls)
    lineages, joined = merge(given_actions)
    found = [[given_actions.index(placed.action) for placed in lineage.actions] for lineage in lineages]
    assert (found, {how.value: count for how, count in joined.items()}) == by_looking_at_every_lineage(given_actions)
