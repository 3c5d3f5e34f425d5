"""Recognises numbers by what they can do, not by their class: numpy's, torch's and decimal ones too."""

import operator
from numbers import Complex, Real


def as_number(value: object) -> int | float | None:
    """`value` as a Python number, or None if it is not a single real number.

    Whatever converts itself to an integer or a float counts (`__index__`, `__float__`): `np.float32(0.5)`,
    `torch.tensor(1.0)`, `Decimal("0.5")`, `Fraction(1, 2)`. Texts, bytes, complex numbers and arrays do not.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return float(value) if isinstance(value, float) else int(value)
    is_complex = isinstance(value, Complex) and not isinstance(value, Real)
    if is_complex or isinstance(value, type) or getattr(value, "shape", ()) != ():
        return None
    kind = type(value)
    try:
        if hasattr(kind, "__index__"):
            return operator.index(value)  # type: ignore[arg-type]  # it has the method
    except (TypeError, ValueError):
        pass  # numpy's booleans and floats inside a tensor have the method and refuse
    try:
        return float(value) if hasattr(kind, "__float__") else None  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
