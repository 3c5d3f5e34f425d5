"""Draws docs/images/credit-strategies.png from the strategies themselves: python tools/draw_credit.py.

The group is that of the worked example in docs/credit.md: A, two calls and a right answer; B, three and a wrong one.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from leyden.credit.core.advantage import ADVANTAGES
from leyden.credit.core.strategies import STRATEGIES, episode_of

TARGET = Path(__file__).parents[1] / "docs" / "images" / "credit-strategies.png"
ROLLOUTS = {
    "rollout A, outcome 1": episode_of((0.25, 0.0), outcome=1.0, states_T=("s0", "s1")),
    "rollout B, outcome 0": episode_of((0.25, 0.0, 0.5), outcome=0.0, states_T=("s0", "s2", "s1")),
}
COLOURS = ("#2a6f97", "#e07a5f")
PARAMETERS = {
    "discounted": {"gamma": 0.5},
    "gae": {"gamma": 0.5, "lambda": 0.5, "values": "group_state"},
    "step_group": {"gamma": 0.5},
}


def main() -> None:
    """Draw all strategies side by side, on one scale."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, len(STRATEGIES), figsize=(2.2 * len(STRATEGIES), 2.6), sharey=True)
    for axis, (name, kind) in zip(axes, STRATEGIES.items(), strict=True):
        strategy = kind.model_validate(PARAMETERS.get(name, {}))
        worth = strategy.assign_credit(list(ROLLOUTS.values()), ADVANTAGES["dr_grpo"])
        for index, (label, steps) in enumerate(zip(ROLLOUTS, worth, strict=True)):
            places = [number + 0.4 * index for number in range(len(steps))]
            axis.bar(places, [step.advantage for step in steps], width=0.36, color=COLOURS[index], label=label)
        axis.axhline(0, color="#888888", linewidth=0.8)
        axis.set_title(name)
        axis.set_xticks([0.2, 1.2, 2.2], ["call 1", "call 2", "call 3"])
    axes[0].set_ylabel("advantage")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=2, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(TARGET, dpi=150)


if __name__ == "__main__":
    main()
