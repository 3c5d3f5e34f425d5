"""The agent's calculator: integers and + - *, nothing else. No IO."""

import ast
import operator
import re
from collections.abc import Callable

_CALL = re.compile(r"CALC\(([^()]*)\)")
_ANSWER = re.compile(r"ANSWER:\s*(-?\d{1,12})\b")
_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
MAX_EXPRESSION = 32
"""Characters; longer ones are not calculated."""


def tool_call(text: str) -> str | None:
    """The expression inside the first `CALC(…)` of `text`, or None."""
    match = _CALL.search(text)
    return match[1].strip() if match else None


def final_answer(text: str) -> int | None:
    """The number after the first `ANSWER:` of `text`, or None."""
    match = _ANSWER.search(text)
    return int(match[1]) if match else None


def calculate(expression: str) -> int:
    """The value of `expression`. Raises ValueError for anything but integers joined by + - *."""
    if len(expression) > MAX_EXPRESSION:
        raise ValueError(f"longer than {MAX_EXPRESSION} characters")
    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError as error:
        raise ValueError(f"not an expression: {expression!r}") from error
    if not isinstance(tree.body, ast.BinOp):
        raise ValueError(f"not an operation: {expression!r}")
    return _value(tree.body)


def _value(node: ast.expr) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.BinOp) and (apply := _OPERATORS.get(type(node.op))):
        return apply(_value(node.left), _value(node.right))
    raise ValueError(f"not an integer or one of + - *: {ast.dump(node)}")
