"""The binary search experiment: its game, what credit is told of it, a step of learning, and the published numbers."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from binary_search import report
from binary_search.events import POLICY, recorded
from binary_search.experiment import SECRETS, Arm, Plan, Run, credited, run
from binary_search.game import MAX_GUESSES, POINTLESS, VOCABULARY, Game, Word, halving
from binary_search.player import Action, Played, play
from hypothesis import given
from hypothesis import strategies as st

from credit_support import CreditLoop, CreditPublisher, delivered, memory_stores
from leyden.credit.core.section import CreditSection
from leyden.events import Event, SequenceCredited

DOCS = Path(__file__).parents[3] / "docs" / "experiments"
SMALL = Plan(group_size=4, learning_rate=3e-3, max_steps=2, evaluate_every=1)
STEP = Arm("step", {"strategy": "step"})


def played(secret: int, *tokens: int) -> Played:
    game = Game(secret)
    return Played(secret, tuple(Action(game.prompt, t, -3.0, game.guess(t)) for t in tokens), game.found)


def actions(sequences: list[SequenceCredited | Any]) -> list[tuple[str, float]]:
    return [(t.call_id, t.advantage) for s in sequences if isinstance(s, SequenceCredited) for t in s.transitions]


@pytest.fixture
def untouched_torch() -> Iterator[None]:
    """The trainer makes the whole process deterministic and single-threaded; other tests get back what they had."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    state = torch.random.get_rng_state()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    torch.random.set_rng_state(state)


def test_halving_finds_every_secret_in_time_and_never_guesses_in_vain() -> None:
    for secret in SECRETS:
        game = Game(secret)
        rewards = []
        while not game.over:
            rewards.append(game.guess(halving(game.prompt)))
        assert game.found and set(rewards) == {0.0}


def test_random_tokens_find_a_secret_in_less_than_a_quarter_of_the_games() -> None:
    rng = random.Random(0)
    found = [played_at_random(rng).found for _ in range(4_000)]
    assert sum(found) / len(found) < 0.25


def played_at_random(rng: random.Random) -> Game:
    game = Game(rng.choice(SECRETS))
    while not game.over:
        game.guess(rng.randrange(VOCABULARY))
    return game


@given(secret=st.sampled_from(SECRETS), tokens=st.lists(st.integers(0, VOCABULARY - 1), max_size=MAX_GUESSES))
def test_the_secret_always_lies_in_what_the_prompt_leaves(secret: int, tokens: list[int]) -> None:
    game = Game(secret)
    for token in tokens:
        if game.over:
            break
        before = (game.low, game.high)
        if game.guess(token) == POINTLESS:
            assert (game.low, game.high) == before
        assert game.found or game.low < secret < game.high


def test_those_who_know_the_same_are_in_the_same_state_whatever_they_guessed() -> None:
    one, other = Game(7), Game(7)
    for token in (4, 9):
        one.guess(token)
    for token in (9, 4):
        other.guess(token)
    assert one.prompt == other.prompt == (Word.HIGHER, 4, Word.LOWER, 9, Word.GUESSES, 3)


def test_step_credit_blames_the_pointless_guess_alone_and_identical_credit_all_of_them() -> None:
    group = [played(6, 8, 12, 4, 6), played(6, 8, 4, 6), played(6, 1, 2, 3, 4, 5)]
    by_arm = {}
    for name in ("step", "identical"):
        rules = CreditSection.model_validate({"strategy": name})
        sequences = [s for s in credited(group, "g", 0, rules) if isinstance(s, SequenceCredited)]
        wasteful = {t.call_id for s in sequences for t in s.transitions if t.reward == POINTLESS}
        assert len(wasteful) == 1
        rollout = next(s.rollout_id for s in sequences if s.transitions[0].call_id in wasteful)
        own = [t for s in sequences if s.rollout_id == rollout for t in s.transitions]
        by_arm[name] = (
            {round(t.advantage, 9) for t in own if t.call_id in wasteful},
            {round(t.advantage, 9) for t in own if t.call_id not in wasteful},
        )
    wasted, others = by_arm["step"]
    assert len(others) == 1 and max(wasted) < min(others)
    assert by_arm["identical"][0] == by_arm["identical"][1]


async def test_the_credit_service_in_memory_publishes_the_same_sequences() -> None:
    group = [played(6, 8, 12, 4, 6), played(6, 8, 4, 6), played(6, 1, 2, 3, 4, 5)]
    rules = CreditSection.model_validate({"strategy": "step_group"})
    events: list[Event] = [e for index, one in enumerate(group) for e in recorded(one, "g", len(group), index, 0)]
    publisher = CreditPublisher()
    await CreditLoop(publisher, memory_stores(), rules).on_batch(delivered(events))
    directly = credited(group, "g", 0, rules)
    assert actions(list(publisher.sequences)) == actions(list(directly)) != []
    assert [s.token_ids for s in publisher.sequences] == [
        s.token_ids for s in directly if isinstance(s, SequenceCredited)
    ]
    assert {s.policy for s in publisher.sequences} == {POLICY}


def test_the_trainer_sees_the_logprobs_that_the_games_were_sampled_with(tmp_path: Path, untouched_torch: None) -> None:
    running = Run(STEP, 0, SMALL, tmp_path)
    assert 90_000 < running.parameters < 110_000
    metrics = running.learn(running.play())
    assert metrics["importance/logprob_gap"] < 1e-5
    assert metrics["importance/mean"] == pytest.approx(1.0, abs=1e-5)


def test_a_few_steps_on_the_same_games_make_their_pointless_guesses_rarer(
    tmp_path: Path, untouched_torch: None
) -> None:
    running = Run(STEP, 0, SMALL, tmp_path)
    games = running.play()
    before = _pointless_share(running, games)
    for _ in range(3):
        running.learn(games)
    assert _pointless_share(running, games) < before - 0.02


def _pointless_share(running: Run, games: list[Played]) -> float:
    """Mean probability of the guesses that were pointless in `games`, relative to that of the others."""
    taken = [action for game in games for action in game.actions]
    with torch.no_grad():
        logits_BV = running.model.causal(input_ids=torch.tensor([action.prompt for action in taken])).logits[:, -1]
    chosen_B = logits_BV.softmax(-1).gather(1, torch.tensor([[action.token] for action in taken]))[:, 0]
    wasted_B = torch.tensor([action.reward < 0 for action in taken])
    return float(chosen_B[wasted_B].mean() / (chosen_B[wasted_B].mean() + chosen_B[~wasted_B].mean()))


def test_without_advantages_no_weight_changes(tmp_path: Path, untouched_torch: None) -> None:
    running = Run(Arm("control", {"strategy": "step"}, advantage_scale=0.0), 0, SMALL, tmp_path)
    before = {name: value.clone() for name, value in running.model.causal.state_dict().items()}
    for _ in range(2):
        running.learn(running.play())
    assert all(torch.equal(before[name], value) for name, value in running.model.causal.state_dict().items())


def test_a_seed_gives_the_same_curve_and_another_one_another(untouched_torch: None) -> None:
    first, again, other = run(STEP, 0, SMALL), run(STEP, 0, SMALL), run(STEP, 1, SMALL)
    assert first == again != other
    assert [point.episodes for point in first.points] == [0, 64, 128]


def test_greedy_games_are_the_same_for_everyone(tmp_path: Path, untouched_torch: None) -> None:
    running = Run(STEP, 0, SMALL, tmp_path)
    assert play(running.model.causal, SECRETS, None) == play(running.model.causal, SECRETS, None)


def test_the_tables_of_the_page_are_those_of_the_numbers() -> None:
    results = report.load(DOCS / "binary-search.json")
    page = (DOCS / "binary-search.md").read_text()
    assert f"{report.BEGIN}\n{report.tables(results)}\n{report.END}" in page


def test_by_the_numbers_step_level_credit_needs_fewer_episodes_and_the_control_stays_flat() -> None:
    runs = [one for one in report.load(DOCS / "binary-search.json")["runs"] if one["pointless"] == POINTLESS]
    never = 10**9
    reached = {(one["arm"], one["seed"]): one["episodes_to_goal"] or never for one in runs}
    seeds = {seed for _, seed in reached}
    assert len(seeds) == 3
    assert all(reached["step", seed] < reached["identical", seed] for seed in seeds)
    control = [one for one in runs if one["arm"] == "control"]
    assert all(point["sampled"] < 0.3 for one in control for point in one["points"])
    assert all(len({point["greedy"] for point in one["points"]}) == 1 for one in control)
