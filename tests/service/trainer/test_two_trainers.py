"""Two trainers on the same checkpoints and topics, stopped at any line and continued: they work as one would."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.events import BatchFormed, CheckpointSaved, TrainingStepCompleted
from leyden.events.codec import encode
from leyden.trainer import handlers
from leyden.trainer.claim import FencedError
from stepping import interleave
from trainer_fakes import Disk, Process, group

GROUPS = 6
LOG = [record for index in range(GROUPS) for record in group(f"g{index}", 2 * index)]
TURNS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 80)), max_size=12)


class Life:
    """One process: it starts, reads what its checkpoint has not, and trains."""

    def __init__(self, disk: Disk, recorded: list[BatchFormed]) -> None:
        self.process = Process(disk, recorded)

    def __call__(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        handler = self.process.handler
        self.process.transitions.end = {0: len(LOG)}
        await handler.restore()
        start = handler.positions.get(0, 0)
        for offset in range(start, len(LOG), 3):
            await handler.on_batch(LOG[offset : offset + 3])


@settings(max_examples=60)
@given(TURNS)
def test_stopped_and_continued_trainers_publish_each_step_with_one_content(turns: list[tuple[int, int]]) -> None:
    disk, recorded = Disk(), list[BatchFormed]()
    lives = [Life(disk, recorded) for _ in range(3)]
    errors = interleave(lives, [handlers], turns)
    assert all(error is None or isinstance(error, FencedError) for error in errors), errors
    after = Life(disk, recorded)
    after()
    told = [event for life in [*lives, after] for event in life.process.told]
    for kind in (TrainingStepCompleted, CheckpointSaved):
        contents = {encode(event): event.step for event in told if isinstance(event, kind)}
        assert sorted(contents.values()) == list(range(1, GROUPS // 2 + 1))
    trained = [name for saved in disk for name in saved.progress.manifest.group_ids]
    assert sorted(trained) == [f"g{index}" for index in range(GROUPS)], "each group once"
    assert [saved.progress.step for saved in disk] == list(range(1, GROUPS // 2 + 1))
