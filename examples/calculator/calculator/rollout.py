"""The binding of the agent to a runner: unpacks a claimed task, and nothing else.

`leyden run calculator.rollout:run` (or `leyden.Runner(run, …)`) calls it once for each claimed rollout.
"""

import os
from typing import Any, Protocol

from calculator.agent import solve


class Claim(Protocol):
    """What the binding uses of a claimed rollout."""

    @property
    def input(self) -> Any: ...

    @property
    def base_url(self) -> str: ...

    @property
    def api_key(self) -> str: ...


def run(claim: Claim) -> dict[str, str]:
    """Solve the claimed problem; the model's name is `LEYDEN_MODEL` (default `policy`)."""
    model = os.environ.get("LEYDEN_MODEL", "policy")
    return {"answer": solve(claim.input["question"], claim.base_url, claim.api_key, model)}
