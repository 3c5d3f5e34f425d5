"""Topic files, what services register on their brokers, and docs/asyncapi.yaml say the same."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from leyden.credit.core.section import CreditSection
from leyden.credit.topology import readers
from leyden.events.codec import REWARDS, SPANS
from leyden.kafka.asyncapi import Registered
from leyden.kafka.publisher import UndeclaredTopicError
from leyden.kafka.topics import DEAD_LETTER_SUFFIX, TopicSpec, load_topics
from leyden.reward.topology import READERS
from leyden.service import register
from roots import ROOT

SERVICES = sorted(folder.parent.name for folder in (ROOT / "services" / "leyden").glob("*/topology.py"))


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("asyncapi_tool", ROOT / "tools" / "asyncapi.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _tool()


@pytest.fixture
async def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Registered]:
    """What each service really registers, by its name."""
    for name, value in TOOL.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return {name: TOOL.what_is_registered(name, tmp_path) for name in SERVICES}


def roles(services: dict[str, Registered]) -> dict[str, dict[str, set[str]]]:
    """Topic → who sends, receives and reads it, by what is registered."""
    found: dict[str, dict[str, set[str]]] = {}
    for name, does in services.items():
        for role, topics in (("producers", does.sends), ("consumers", set(does.receives)), ("readers", does.reads)):
            for topic in topics:
                found.setdefault(topic, {}).setdefault(role, set()).add(name)
    return found


def said(spec: TopicSpec) -> dict[str, dict[str, set[str]]]:
    """The same by a topic's file: who may dead-letter follows from who consumes."""
    whole = {"producers": set(spec.producers), "consumers": set(spec.consumers), "readers": set(spec.readers)}
    told = {spec.name: {role: names for role, names in whole.items() if names}}
    if spec.consumers:
        told[spec.name + DEAD_LETTER_SUFFIX] = {"producers": set(spec.consumers)}
    return told


def test_the_tool_builds_every_service_that_has_a_topology() -> None:
    assert sorted(TOOL.SERVICES) == SERVICES


async def test_topic_files_name_who_really_registers_dead_letters_included(services: dict[str, Registered]) -> None:
    wanted = {topic: names for spec in load_topics().values() for topic, names in said(spec).items()}
    assert roles(services) == wanted


async def test_the_asyncapi_document_is_what_services_register_now(services: dict[str, Registered]) -> None:
    assert (ROOT / "docs" / "asyncapi.yaml").read_text() == await TOOL.text(), "run make schemas"


async def test_the_groups_whose_progress_is_followed_are_those_that_read_these_topics(
    services: dict[str, Registered],
) -> None:
    followed = {topic: stage.group for stage in READERS for topic in stage.topics}
    assert followed == {**services["ingest"].receives, **services["reward"].receives}
    *before, own = readers(CreditSection())
    assert tuple(before) == READERS
    assert dict.fromkeys((*own.topics, SPANS), own.group) == services["credit"].receives  # spans: by the run file


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text())
    return loaded


def test_the_asyncapi_document_has_each_topics_key_partitions_and_events() -> None:
    whole, specs = document(), load_topics()
    channels = whole["channels"]
    assert set(channels) == {*specs, *(name + DEAD_LETTER_SUFFIX for name in specs)}
    for name, spec in specs.items():
        kafka, messages = channels[name]["bindings"]["kafka"], channels[name]["messages"]
        assert kafka["partitions"] == spec.partitions
        assert kafka["topicConfiguration"]["cleanup.policy"] == [spec.cleanup_policy]
        assert [*messages] == (spec.events or ["bytes"])
        described = [whole["components"]["messages"][event] for event in spec.events] or [messages["bytes"]]
        assert {message["bindings"]["kafka"]["key"]["description"] for message in described} == {spec.key}


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    whole = document()

    def follow(node: Any) -> int:
        if isinstance(node, list):
            return sum(map(follow, node))
        if not isinstance(node, dict):
            return 0
        if "$ref" not in node:
            return sum(map(follow, node.values()))
        file, _, inside = node["$ref"].partition("#/")
        if file:
            assert (ROOT / "docs" / file).is_file()
            return 1
        target = whole
        for part in inside.split("/"):
            target = target[part]
        return 1

    assert follow(whole) > 90


@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_cannot_publish_to_a_topic_that_it_does_not_declare(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in TOOL.ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    runtime, service = TOOL.build(name, tmp_path)
    register(service, runtime)
    foreign = REWARDS if name != "reward" else SPANS
    with pytest.raises(UndeclaredTopicError, match=foreign):
        await runtime.publisher.publish_raw(foreign, "key", b"{}")
