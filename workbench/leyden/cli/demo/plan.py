"""Options of `leyden demo`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """One run of the demo."""

    data_dir: Path
    updates: int
    tasks: int
    samples: int
    model: str
    engine: str
    control: bool
    seed: int
    require_learning: bool
    auto_ports: bool
