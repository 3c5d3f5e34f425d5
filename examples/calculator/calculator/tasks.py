"""Word problems of one operation, from a seed: the same seed gives the same problems. No IO."""

import random
from collections.abc import Callable
from typing import TypedDict

NAMES = ("Tom", "Mia", "Sam", "Zoe", "Ben", "Eva", "Max", "Amy")
THINGS = ("apples", "books", "coins", "cards", "eggs", "shells", "stamps", "balls")


class Input(TypedDict):
    """What the agent sees."""

    question: str


class Metadata(TypedDict):
    """What only the reward function sees."""

    expression: str
    answer: int


class Problem(TypedDict):
    """One task, as the gateway takes it."""

    input: Input
    metadata: Metadata


def _adding(rng: random.Random, name: str, thing: str) -> Problem:
    a, b = rng.randint(10, 99), rng.randint(10, 99)
    question = f"{name} has {a} {thing} and buys {b} more. How many {thing} does {name} have?"
    return _problem(question, f"{a}+{b}", a + b)


def _taking_away(rng: random.Random, name: str, thing: str) -> Problem:
    a = rng.randint(30, 99)
    b = rng.randint(10, a - 10)
    question = f"{name} has {a} {thing} and gives away {b}. How many {thing} are left?"
    return _problem(question, f"{a}-{b}", a - b)


def _boxes(rng: random.Random, name: str, thing: str) -> Problem:
    a, b = rng.randint(2, 9), rng.randint(3, 30)
    question = f"{name} has {a} boxes of {b} {thing} each. How many {thing} does {name} have?"
    return _problem(question, f"{a}*{b}", a * b)


def _problem(question: str, expression: str, answer: int) -> Problem:
    return {"input": {"question": question}, "metadata": {"expression": expression, "answer": answer}}


_KINDS: tuple[Callable[[random.Random, str, str], Problem], ...] = (_adding, _taking_away, _boxes)


def generate(count: int, seed: int = 0) -> list[Problem]:
    """`count` problems; a longer list begins with the shorter one of the same seed."""
    rng = random.Random(seed)
    return [rng.choice(_KINDS)(rng, rng.choice(NAMES), rng.choice(THINGS)) for _ in range(count)]
