"""The transformers engine's batch against direct forward passes, as sequences join and leave."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.responses import StreamingResponse

from engine_support import Direct, save_tiny_model
from leyden.policy.engines.transformers_engine.protocol import ChatRequest
from leyden.policy.engines.transformers_engine.sequence import Delta, Sampling, Sequence

pytestmark = pytest.mark.filterwarnings("default")
Batch: Any = pytest.importorskip("leyden.policy.engines.transformers_engine.batch").Batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), seed=7)


def ignore(delta: Delta) -> None:
    """Nobody listens."""


def test_rows_that_join_and_leave_do_not_disturb_the_others(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    direct = Direct(folder)
    batch = Batch(AutoModelForCausalLM.from_pretrained(folder).eval())
    prompts = [[5, 6, 7], [9] * 11, [5, 6, 7], [40, 41], [60] * 20]
    rows = [Sequence(index, prompt, Sampling(), ignore) for index, prompt in enumerate(prompts)]
    seen: dict[int, list[float]] = {row.index: [] for row in rows}
    arrivals = {0: rows[:3], 2: rows[3:4], 5: rows[4:]}
    leavers = {4: {1, 0}, 6: {3}}
    with torch.inference_mode():
        for step in range(9):
            if step in arrivals:
                batch.join(arrivals[step])
            tokens = [(17 * step + 31 * row.index) % 256 for row in batch.rows]
            for row, token, logprobs in zip(batch.rows, tokens, batch.logits_BV.log_softmax(-1), strict=True):
                row.tokens.append(token)
                seen[row.index].append(float(logprobs[token]))
            staying = [at for at, row in enumerate(batch.rows) if row.index not in leavers.get(step, set())]
            batch.keep(staying)
            batch.step([tokens[at] for at in staying])
    assert {row.index: len(row.tokens) for row in rows} == {0: 5, 1: 5, 2: 9, 3: 5, 4: 4}
    for row in rows:
        assert seen[row.index] == pytest.approx(direct.logprobs(row.prompt, row.tokens), abs=1e-4)


async def test_a_stream_whose_client_left_before_it_began_occupies_no_row() -> None:
    from leyden.policy.engines.transformers_engine import server
    from leyden.policy.engines.transformers_engine.generation import Generation

    queued: list[Sequence] = []

    class Queue:
        submit = staticmethod(queued.extend)

    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        await asyncio.sleep(0)

    chat = ChatRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True})
    scheduler: Any = Queue()
    generation = Generation(scheduler, chat, [[1, 2]], 1000)
    answers: Any = SimpleNamespace(opening=lambda: [{}], chunk=lambda delta: {})
    response = StreamingResponse(server.event_stream(generation, answers, chat))
    await response({"type": "http", "asgi": {"spec_version": "2.3"}}, gone, send)
    del response
    await asyncio.sleep(0)
    assert [row for row in queued if not row.cancelled] == []


def test_a_batch_that_emptied_starts_anew(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    batch = Batch(AutoModelForCausalLM.from_pretrained(folder).eval())
    with torch.inference_mode():
        batch.join([Sequence(0, [1, 2, 3], Sampling(), ignore)])
        first = batch.logits_BV.clone()
        batch.keep([])
        assert batch.rows == []
        batch.join([Sequence(1, [1, 2, 3], Sampling(), ignore)])
    assert torch.allclose(batch.logits_BV, first, atol=1e-5)
