"""Topics, schemas, examples and code say the same; and new code reads every event that was ever released."""

import copy
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leyden.events import RolloutEnded
from leyden.events.codec import EVENT_TYPES, EVENTS_BY_TOPIC, OTLP, decode, encode
from leyden.events.compatibility import breaks
from leyden.events.export import exported, file_name, incompatible, main, schema_of, stale, write
from leyden.kafka.topics import load_topics
from roots import ROOT

SCHEMAS = ROOT / "schemas"
EXAMPLES = sorted((SCHEMAS / "examples").glob("*/*.json"))
SERVICES = {folder.parent.name for folder in (ROOT / "services" / "leyden").glob("*/__init__.py")}


def test_the_exported_schemas_are_those_of_the_code() -> None:
    assert stale(SCHEMAS / "events") == [], "run python -m leyden.events.export"


def test_exporting_twice_gives_the_same_bytes() -> None:
    assert exported() == exported()


def test_every_released_event_is_read_by_this_code() -> None:
    assert incompatible(SCHEMAS / "baseline") == []


def test_every_event_type_has_a_released_schema() -> None:
    released = {file.name for file in (SCHEMAS / "baseline").iterdir()}
    assert released == {file_name(kind) for kind in EVENT_TYPES.values()}


def test_every_event_type_has_an_example_in_the_folder_of_its_topic() -> None:
    wanted = {(topic, f"{kind}.json") for topic, kinds in EVENTS_BY_TOPIC.items() for kind in map(_type_name, kinds)}
    assert {(file.parent.name, file.name) for file in EXAMPLES} == wanted


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_parses_and_comes_back_the_same(file: Path) -> None:
    document = json.loads(file.read_text())
    event = decode(file.parent.name, json.dumps(document).encode())
    assert event.type == file.stem
    assert json.loads(encode(event)) == document
    assert encode(decode(file.parent.name, encode(event))) == encode(event)


def test_every_topic_of_the_code_has_a_file_and_the_reverse() -> None:
    assert set(load_topics()) == {*EVENTS_BY_TOPIC, OTLP}


@pytest.mark.parametrize("topic", EVENTS_BY_TOPIC)
def test_a_topic_file_names_the_events_of_the_code(topic: str) -> None:
    assert load_topics()[topic].events == [_type_name(kind) for kind in EVENTS_BY_TOPIC[topic]]
    assert load_topics()[topic].format == "json"


@pytest.mark.parametrize("topic", load_topics())
def test_a_topic_file_names_services_that_exist(topic: str) -> None:
    spec = load_topics()[topic]
    assert {spec.owner, *spec.producers, *spec.consumers, *spec.readers} <= SERVICES
    assert spec.owner in spec.producers
    assert spec.consumers or spec.readers


def test_co_partitioned_topics_have_the_same_number_of_partitions() -> None:
    counts: dict[str, set[int]] = defaultdict(set)
    for spec in load_topics().values():
        if spec.copartition:
            counts[spec.copartition].add(spec.partitions)
    assert counts
    assert {name: len(found) for name, found in counts.items()} == dict.fromkeys(counts, 1)


def test_topics_that_one_service_joins_by_rollout_are_co_partitioned() -> None:
    joined = {
        "credit": {"rollouts.v1", "model-calls.v1", "rewards.v1", "spans.v1"},
        "reward": {"rollouts.v1", "model-calls.v1", "spans.v1", "verdicts.v1"},
    }
    for service, topics in joined.items():
        consumed = {spec.name for spec in load_topics().values() if service in spec.consumers}
        assert consumed - {"groups.v1"} == topics
        assert {load_topics()[topic].copartition for topic in topics} == {"rollout"}


def test_an_unchanged_schema_breaks_nothing() -> None:
    for kind in EVENT_TYPES.values():
        assert breaks(schema_of(kind), schema_of(kind)) == []


def _remove_enum_value(schema: dict[str, Any]) -> None:
    schema["$defs"]["FailureClass"]["enum"].remove("timeout")


def _new_required(schema: dict[str, Any]) -> None:
    schema["properties"]["cost"] = {"type": "number"}
    schema["required"].append("cost")


def _now_required(schema: dict[str, Any]) -> None:
    schema["required"].append("reward")


def _other_type(schema: dict[str, Any]) -> None:
    schema["properties"]["group_id"] = {"type": "integer"}


def _no_longer_nullable(schema: dict[str, Any]) -> None:
    schema["properties"]["span_count"] = {"type": "integer"}


def _other_item_type(schema: dict[str, Any]) -> None:
    schema["properties"]["call_ids"]["items"] = {"type": "integer"}


def _tighter_bound(schema: dict[str, Any]) -> None:
    schema["properties"]["group_size"]["minimum"] = 2


def _new_bound(schema: dict[str, Any]) -> None:
    schema["properties"]["group_id"]["maxLength"] = 64


def _other_format(schema: dict[str, Any]) -> None:
    schema["properties"]["event_time"]["format"] = "date"


def _anything_to_something(schema: dict[str, Any]) -> None:
    schema["properties"]["output"] = {"type": "string"}


def _required_inside(schema: dict[str, Any]) -> None:
    schema["$defs"]["Task"].setdefault("required", []).append("mode")


def _refuse_unknown(schema: dict[str, Any]) -> None:
    schema["additionalProperties"] = False


BREAKING = [
    _remove_enum_value,
    _new_required,
    _now_required,
    _other_type,
    _no_longer_nullable,
    _other_item_type,
    _tighter_bound,
    _new_bound,
    _other_format,
    _anything_to_something,
    _required_inside,
    _refuse_unknown,
]


@pytest.mark.parametrize("change", BREAKING, ids=lambda change: change.__name__.strip("_"))
def test_a_change_that_refuses_old_events_is_found(change: Callable[[dict[str, Any]], None]) -> None:
    new = copy.deepcopy(schema_of(RolloutEnded))
    change(new)
    assert len(breaks(schema_of(RolloutEnded), new)) == 1


def test_a_change_that_still_reads_old_events_is_let_through() -> None:
    new = copy.deepcopy(schema_of(RolloutEnded))
    new["properties"]["cost"] = {"type": "number", "default": 0.0}
    new["properties"]["schema_version"] = {"type": "number", "default": 1}
    new["properties"]["group_size"]["minimum"] = 0
    new["$defs"]["FailureClass"]["enum"].append("budget")
    new["required"].remove("call_ids")
    new["properties"]["group_id"] = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert breaks(schema_of(RolloutEnded), new) == []


def test_an_event_type_that_nobody_reads_any_more_is_found(tmp_path: Path) -> None:
    (tmp_path / "forgotten.v1.schema.json").write_text("{}")
    assert incompatible(tmp_path) == ["forgotten.v1.schema.json: the event no longer exists"]


def test_the_check_fails_when_a_schema_is_stale_missing_or_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "events")
    monkeypatch.setattr("sys.argv", ["export", "--check", "--schemas", str(tmp_path)])
    main()
    first, second, *_ = sorted((tmp_path / "events").iterdir())
    first.write_text("{}")
    second.unlink()
    (tmp_path / "events" / "zz.v1.schema.json").write_text("{}")
    assert stale(tmp_path / "events") == [first.name, second.name, "zz.v1.schema.json"]
    with pytest.raises(SystemExit, match=f"outdated schemas: {first.name}"):
        main()


def _type_name(kind: type[Any]) -> str:
    return str(kind.model_fields["type"].default)
