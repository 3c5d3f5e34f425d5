"""Every action gets the whole return of its rollout, intermediate rewards too (Agent Lightning, arXiv 2508.03680)."""

from leyden.credit.core.strategies.base import Episode


def identical(episode: Episode) -> tuple[float, ...]:
    """The rollout's total for each of the T actions."""
    return (episode.total,) * len(episode.rewards)
