"""Says what is wrong in a YAML file: line, field, the wrong value, and the nearest right name. No IO."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Path_ = tuple[str | int, ...]
Lines = Mapping[Path_, int]
"""Path of a key or item → its line, from 1."""
MAX_VALUE = 80
"""Characters of a wrong value that are shown."""
_WORDS = re.compile(r"[A-Za-z_][\w.-]*")


def lines_of(text: str) -> dict[Path_, int]:
    """Path of each key and item of a YAML document that `yaml.safe_load` reads → its line, from 1."""
    found: dict[Path_, int] = {}
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    pending: list[tuple[Path_, yaml.Node]] = [((), root)] if root is not None else []
    visited: set[int] = set()
    while pending:
        path, node = pending.pop()
        found.setdefault(path, node.start_mark.line + 1)
        if id(node) in visited:  # an alias, perhaps of a node that holds it
            continue
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                found[(*path, key.value)] = key.start_mark.line + 1
                pending.append(((*path, key.value), value))
        elif isinstance(node, yaml.SequenceNode):
            pending += [((*path, index), item) for index, item in enumerate(node.value)]
    return found


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar of `names`, if one is similar."""
    return next(iter(get_close_matches(name, [one for one in names if one != name], 1, 0.6)), None)


def explained(error: ValidationError, model: type[BaseModel], section: str, lines: Lines) -> list[str]:
    """One sentence for each error of a section, by line: `7: trainer.mode: 'lorra' …; did you mean lora?`."""
    found = [one for details in error.errors() for one in _explained(details, model, section, lines)]
    return sorted(found, key=lambda one: int(one.partition(":")[0]))


def placed(lines: Lines, loc: Sequence[str | int]) -> tuple[int, str]:
    """The line and the name of the deepest part of `loc` that the document has; other parts are pydantic's own."""
    path: Path_ = ()
    for part in loc:
        path = (*path, part) if (*path, part) in lines else path
    return lines.get(path, 1), field_name(path)


def field_name(path: Sequence[str | int]) -> str:
    """`reward.functions[0].entry`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _explained(details: ErrorDetails, model: type[BaseModel], section: str, lines: Lines) -> Iterator[str]:
    loc = tuple(details["loc"])
    line, field = placed(lines, (section, *loc))
    value, kind = details["input"], details["type"]
    message = details["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        names = set(_fields_at(model, loc[:-1]))
        near = nearest(str(loc[-1]), names)
        hint = f"did you mean {near}?" if near else f"the fields are {', '.join(sorted(names))}"
        yield f"{line}: {field}: there is no such field; {hint}"
    elif kind == "missing":
        name = loc[-1] if loc else ""
        yield f"{line}: {field}: the field {name} is missing"
    else:
        shown = f"{value!r:.{MAX_VALUE}}: " if isinstance(value, str | int | float | bool | None) else ""
        listed = kind == "literal_error" or "not one of" in message
        wrong = _wrong_name(value, message) if listed else None
        near = nearest(wrong, set(_WORDS.findall(message))) if wrong else None
        yield f"{line}: {field}: {shown}{_sentence(message)}{f'; did you mean {near}?' if near else ''}"


def _wrong_name(value: object, message: str) -> str | None:
    """The name that the message is about: the value, or what it quotes first."""
    if isinstance(value, str):
        return value
    quoted = re.search(r"'([^']+)'", message)
    return quoted[1] if quoted else None


def _sentence(message: str) -> str:
    return message[:1].lower() + message[1:] if message[:2].istitle() else message


def _fields_at(model: type[BaseModel], loc: Path_) -> Iterator[str]:
    """Names of the fields of the models at `loc`; all that a union has."""
    models: set[type[BaseModel]] = {model}
    for part in loc:
        stepped = {
            inner
            for one in models
            if isinstance(part, str) and part in one.model_fields
            for inner in _models_in(one.model_fields[part].annotation)
        }
        models = stepped or models
    for one in models:
        yield from one.model_fields


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
