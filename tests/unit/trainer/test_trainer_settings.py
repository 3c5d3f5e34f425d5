"""Settings that contradict each other are refused, and the hash tells apart what gives other weights."""

import pytest
from pydantic import ValidationError

from leyden.trainer.core.objectives import OBJECTIVES, objective_of
from leyden.trainer.settings import DEFAULTS, TrainerSettings


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"objective": {"name": "clipped", "clip_low": 0.1}}, "`clip_low` of objective clipped: with one step a batch"),
        ({"objective": {"name": "gspo", "clip_high": 1.0, "clip_low": 0.1}}, "`clip_high` and `clip_low` of objective"),
        (
            {"objective": {"name": "clipped", "clip": 0.1}},
            r"\(parameters: clip_low, clip_high, dual_clip\): clip: Extra",
        ),
        ({"objective": "reinforce", "ratio_base": "trainer"}, "`ratio_base`: objective reinforce has no ratio"),
        ({"objective": "sft", "importance_cap": 3.0}, "`importance_cap`: objective sft is not corrected"),
        ({"ratio_base": "behaviour", "importance": "sequence"}, "`importance`: with `ratio_base: behaviour` the ratio"),
        ({"importance": "band", "importance_cap": None}, "needs an `importance_cap` above"),
        ({"importance": "band", "importance_floor": 3.0}, "needs an `importance_cap` above"),
        ({"importance": "sequence", "importance_cap": None}, "`importance: sequence` needs an `importance_cap`"),
        ({"lora": {"rank": 4}, "mode": "full"}, "`lora` needs `mode: lora`"),
        ({"decay_to": 0.5}, "`decay_to` needs `decay"),
        ({"importance_floor": 0.1}, "`importance_floor` needs `importance: band`"),
        ({"kl_estimate": "k2"}, "`kl_estimate` needs `kl`"),
        ({"aggregation": "constant"}, "need each other"),
        ({"constant_tokens": 9}, "need each other"),
        ({"decay": "linear"}, "need each other"),
        ({"decay_steps": 9}, "need each other"),
        ({"decay": "cosine", "decay_steps": 3, "warmup_steps": 3}, "`decay_steps` must be above `warmup_steps`"),
    ],
)
def test_a_setting_without_effect_is_refused(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        TrainerSettings.model_validate(settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": {"name": "clipped", "clip_low": 0.1}, "epochs": 2},
        {"objective": {"name": "clipped", "clip_low": 0.1}, "ratio_base": "behaviour", "importance_cap": None},
        {"objective": "sft", "importance_cap": None},
        {"importance": "band", "importance_cap": 5.0},
        {"kl": 0.1, "kl_estimate": "k2"},
        {"aggregation": "constant", "constant_tokens": 512},
        {"decay": "cosine", "decay_steps": 30, "warmup_steps": 3},
    ],
)
def test_a_setting_with_an_effect_is_taken(settings: dict[str, object]) -> None:
    said = TrainerSettings.model_validate(settings)
    assert (
        TrainerSettings.model_validate(
            said.model_dump(exclude_defaults=True, exclude={"objective"}) | {"objective": said.objective}
        )
        == said
    )


def test_the_hash_changes_with_the_weights_alone() -> None:
    plain = TrainerSettings()
    same = (
        TrainerSettings(objective="clipped", keep_checkpoints=9),
        TrainerSettings(max_steps=3, gradient_checkpointing=True),
        TrainerSettings(learning_rate=TrainerSettings.model_fields["learning_rate"].default),
    )
    assert {settings.settings_hash for settings in same} == {plain.settings_hash}
    others = [
        *(TrainerSettings(objective=name) for name in OBJECTIVES),
        TrainerSettings(objective={"name": "gspo", "clip_low": 0.1}, epochs=2),
        TrainerSettings(objective={"name": "cispo", "clip_low": 0.1}, epochs=2),
        TrainerSettings(epochs=2),
        TrainerSettings(credit="dense"),
        TrainerSettings(seed=1),
        TrainerSettings(lora={"rank": 4}),
    ]
    assert len({settings.settings_hash for settings in others}) == len(others)


def test_defaults_are_those_that_their_number_stands_for() -> None:
    """The hash leaves defaults out. If this fails, raise `DEFAULTS`, and write the new defaults here."""
    assert DEFAULTS == 1
    weights = TrainerSettings().model_dump(mode="json", exclude={"keep_checkpoints", "max_steps"})
    assert weights == {
        "policy": "policy", "credit": "", "mode": "lora", "lora": {"rank": 16, "alpha": 32.0}, "learning_rate": 5e-4,
        "warmup_steps": 0, "decay": "none", "decay_steps": None, "decay_to": 0.1, "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "groups_per_step": 8, "drop_zero_variance": False, "max_staleness": None, "incomplete_after": 20_000,
        "advantage_scale": 1.0, "whiten_advantages": False,
        "objective": {"name": "clipped", "clip_low": 0.2, "clip_high": 0.28, "dual_clip": 3.0}, "epochs": 1,
        "aggregation": "rollout", "constant_tokens": None, "ratio_base": "trainer", "importance": "token",
        "importance_cap": 2.0, "importance_floor": 0.5, "kl": 0.0, "kl_estimate": "k3", "entropy": 0.0,
        "row_tokens": 2048, "dtype": "float32", "serving_dtype": "bfloat16", "gradient_checkpointing": False, "seed": 0,
    }  # fmt: skip
    objectives = {name: objective_of(name).model_dump(mode="json") for name in OBJECTIVES}
    assert objectives == {
        "clipped": {"name": "clipped", "clip_low": 0.2, "clip_high": 0.28, "dual_clip": 3.0},
        "gspo": {"name": "gspo", "clip_low": 3e-4, "clip_high": 4e-4},
        "cispo": {"name": "cispo", "clip_low": 1.0, "clip_high": 0.28},
        "reinforce": {"name": "reinforce"},
        "sft": {"name": "sft"},
    }
