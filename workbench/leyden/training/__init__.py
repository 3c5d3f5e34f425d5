"""`leyden train`: the whole loop on one machine, for an agent of the user's own."""

from leyden.training.api import train
from leyden.training.results import Best, HeldOut, Training, Update

__all__ = ["Best", "HeldOut", "Training", "Update", "train"]
