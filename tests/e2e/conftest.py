"""One whole stack for the end-to-end tests: real Kafka, Redis, vLLM on a small random model, all services."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from e2e_support import GROUPS_PER_STEP, Loop
from leyden.stack.config import Ports, StackConfig
from leyden.stack.stack import Stack

REWARD_MODULE = '''
"""A reward that varies within a group whatever a random model writes, and depends on its words alone."""


def score(rollout):
    text = "".join(str(call.choices[0].message["content"] or "") for call in rollout.calls if call.choices)
    return len(text) % 7 / 7


def inverted(rollout):
    return 1.0 - score(rollout)
'''


@pytest.fixture(scope="module")
def loop_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    folder: Path = tmp_path_factory.mktemp("e2e")
    (folder / "run").mkdir()
    (folder / "run" / "e2e_reward.py").write_text(REWARD_MODULE)
    run = {
        "reward": {"functions": [{"entry": "e2e_reward:score", "name": "outcome"}]},
        "credit": {"policies": ["policy"]},
        "trainer": {"groups_per_step": GROUPS_PER_STEP, "learning_rate": 0.02, "lora": {"rank": 8, "alpha": 16}},
    }
    (folder / "run" / "run.yaml").write_text(yaml.safe_dump(run))
    (folder / "run" / "inverted.yaml").write_text(
        yaml.safe_dump(run | {"reward": {"functions": [{"entry": "e2e_reward:inverted", "name": "outcome"}]}})
    )
    config = StackConfig(
        data_dir=folder / "stack",
        model="tiny",
        run_file=folder / "run" / "run.yaml",
        topic_prefix=f"e2e-{folder.name}.",
        ports=Ports.auto(),
        max_model_len=512,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEYDEN_TRAINER_THREADS", "1")  # so small a model only waits for a second one; of replays, too
        with Stack(config) as stack:
            loop = Loop(stack)
            loop.start()
            try:
                yield loop
            finally:
                loop.stop()
