"""Bars of text characters."""

BAR = 20
"""Width of a bar, in characters."""
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def bar(reward: float, scale: tuple[float, float] = (0.0, 1.0)) -> str:
    """A bar of `BAR` characters, empty at the low end of the scale and full at its high end."""
    low, high = scale
    eighths = round((min(high, max(low, reward)) - low) / (high - low) * BAR * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(BAR)
