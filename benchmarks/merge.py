"""What a trainer is spared when a conversation's calls are merged into one sequence: tokens that it must compute."""

import argparse

from benchmarks.workload import Shape, rollout_events
from leyden.credit.core.actions import Context, actions_of
from leyden.credit.core.assemble import RecordedCall
from leyden.credit.core.merge import merge
from leyden.events import ModelCallRecorded


def tokens(shape: Shape) -> tuple[int, int]:
    """Tokens of a rollout's sequences without and with merging."""
    calls = [outgoing.event for outgoing in rollout_events(0, shape) if isinstance(outgoing.event, ModelCallRecorded)]
    actions = []
    for call in calls:
        found = actions_of(RecordedCall(call, "model-calls.v1/0/0"), None)
        assert not isinstance(found, Context)
        actions += found
    lineages, _ = merge(actions)
    apart = sum((len(action.prompt) + len(action.response)) // 4 for action in actions)
    return apart, sum(lineage.length for lineage in lineages)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merge", description=__doc__)
    parser.add_argument("--turns", type=int, nargs="+", default=[2, 5, 10])
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--response-tokens", type=int, default=128)
    chosen = parser.parse_args()
    print("| turns | tokens apart | merged | times fewer |\n|---|---|---|---|")
    for turns in chosen.turns:
        apart, merged = tokens(Shape(turns, chosen.prompt_tokens, chosen.response_tokens))
        print(f"| {turns} | {apart} | {merged} | {apart / merged:.2f} |")


if __name__ == "__main__":
    main()
