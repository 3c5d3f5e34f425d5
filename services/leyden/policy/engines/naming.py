"""A policy version's name, ``<policy>@<n>``: immutable, 0 is the base model."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class VersionName:
    """One version of one policy."""

    policy: str
    number: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``<policy>@<n>``; raises ValueError on anything else."""
        policy, at, digits = text.rpartition("@")
        if not (policy and at and digits.isascii() and digits.isdigit()):
            raise ValueError(f"{text!r} is not <policy>@<number>")
        return cls(policy, int(digits))

    def __str__(self) -> str:
        return f"{self.policy}@{self.number}"
