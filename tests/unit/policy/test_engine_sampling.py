import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.policy.engines.transformers_engine.sequence import Sampling

torch = pytest.importorskip("torch")
draw = pytest.importorskip("leyden.policy.engines.transformers_engine.sampling").draw


def frequencies(sampling: Sampling, logits: list[float], count: int = 20_000) -> list[float]:
    torch.manual_seed(0)
    tokens, _ = draw(torch.tensor([logits] * count), [sampling] * count, [None] * count)
    return (tokens.bincount(minlength=len(logits)) / count).tolist()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_the_tempered_softmax_says(temperature: float) -> None:
    logits = [0.0, 1.0, 2.0, -1.0]
    wanted = (torch.tensor(logits) / temperature).softmax(-1).tolist()
    assert frequencies(Sampling(temperature=temperature), logits) == pytest.approx(wanted, abs=0.015)


def test_top_k_and_top_p_renormalise_what_they_leave() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().tolist()
    assert frequencies(Sampling(top_k=2), logits) == pytest.approx([0.625, 0.375, 0, 0], abs=0.015)
    assert frequencies(Sampling(top_p=0.7), logits) == pytest.approx([0.625, 0.375, 0, 0], abs=0.015)
    assert frequencies(Sampling(top_p=0.01), logits)[0] == 1.0


def test_rows_keep_their_own_settings() -> None:
    logits = torch.tensor([[0.0, 5.0], [0.0, 5.0], [0.0, 5.0]])
    generators = [None, torch.Generator().manual_seed(1), None]
    tokens, _ = draw(logits, [Sampling(temperature=0), Sampling(seed=1), Sampling(top_k=1)], generators)
    assert tokens[0] == tokens[2] == 1


def test_a_seeded_row_does_not_depend_on_its_companions() -> None:
    logits = torch.randn(1, 50)
    alone, _ = draw(logits, [Sampling(seed=4)], [torch.Generator().manual_seed(4)])
    among, _ = draw(
        logits.repeat(3, 1), [Sampling(), Sampling(seed=4), Sampling()], [None, torch.Generator().manual_seed(4), None]
    )
    assert among[1] == alone[0]


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.01, 0.3, 0.7, 1.0, 1.5]), st.integers(0, 6), st.sampled_from([0.1, 0.6, 0.95, 1.0])
        ),
        min_size=1,
        max_size=6,
    ),
    seed=st.integers(0, 10_000),
)
def test_logprobs_are_those_of_the_distribution_that_each_row_is_sampled_from(
    rows: list[tuple[float, int, float]], seed: int
) -> None:
    logits = 3 * torch.randn(len(rows), 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    samplings = [Sampling(temperature=heat, top_k=top_k, top_p=top_p) for heat, top_k, top_p in rows]
    tokens, logprobs = draw(logits.clone(), samplings, [None] * len(rows))
    for (heat, top_k, top_p), token, row, found in zip(rows, tokens.tolist(), logits.tolist(), logprobs, strict=True):
        wanted = distribution(row, heat, top_k, top_p) if heat else distribution(row, 1.0, 0, 1.0)
        assert found.exp().tolist() == pytest.approx(wanted, abs=1e-9)
        assert wanted[token] > 0


def distribution(logits: list[float], temperature: float, top_k: int, top_p: float) -> list[float]:
    """Probabilities after temperature, top_k and top_p, by their definitions."""
    weights = [math.exp((logit - max(logits)) / temperature) for logit in logits]
    order = sorted(range(len(logits)), key=lambda token: -logits[token])[: top_k or len(logits)]
    total, kept = sum(weights[token] for token in order), []
    for token in order:
        if sum(weights[one] for one in kept) / total >= top_p:
            break
        kept.append(token)
    mass = sum(weights[token] for token in kept)
    return [weights[token] / mass if token in kept else 0.0 for token in range(len(logits))]
