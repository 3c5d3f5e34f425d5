import pytest

from leyden.policy.engines.transformers_engine.sequence import Sampling

torch = pytest.importorskip("torch")
draw = pytest.importorskip("leyden.policy.engines.transformers_engine.sampling").draw


def frequencies(sampling: Sampling, logits: list[float], count: int = 20_000) -> list[float]:
    torch.manual_seed(0)
    tokens = draw(torch.tensor([logits] * count), [sampling] * count, [None] * count)
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
    tokens = draw(logits, [Sampling(temperature=0), Sampling(seed=1), Sampling(top_k=1)], generators)
    assert tokens[0] == tokens[2] == 1


def test_a_seeded_row_does_not_depend_on_its_companions() -> None:
    logits = torch.randn(1, 50)
    alone = draw(logits, [Sampling(seed=4)], [torch.Generator().manual_seed(4)])
    among = draw(
        logits.repeat(3, 1), [Sampling(), Sampling(seed=4), Sampling()], [None, torch.Generator().manual_seed(4), None]
    )
    assert among[1] == alone[0]
