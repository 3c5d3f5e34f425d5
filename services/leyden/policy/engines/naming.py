"""Names of policy versions: `<policy>@<n>`. A name is never reused; version 0 is the base model."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class VersionName:
    """One version of one policy."""

    policy: str
    number: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `<policy>@<n>`. Raises ValueError for anything else."""
        policy, at, digits = text.rpartition("@")
        if not (policy and at and digits.isascii() and digits.isdigit()):
            raise ValueError(f"{text!r} is not <policy>@<number>")
        return cls(policy, int(digits))

    def __str__(self) -> str:
        return f"{self.policy}@{self.number}"
