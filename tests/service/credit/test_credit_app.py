"""Credit as it is put together: the run file decides, and a wrong one is refused before anything is consumed."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from redis.asyncio import Redis

from credit_support import CreditPublisher
from leyden.credit.adapters import redis_stores
from leyden.credit.app import build
from leyden.credit.settings import CreditSettings
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.topics import load_topics
from leyden.service import Runtime
from leyden.settings import RunFileError, ServiceSettings


def runtime(run_file: Path) -> Runtime:
    """One that never connects to anything."""
    settings = ServiceSettings(topic_prefix="exp.", run_file=run_file)
    return Runtime("credit", settings, KafkaSettings(), CreditPublisher(), Redis())  # type: ignore[arg-type]


@pytest.mark.parametrize(("more", "unread"), [("", {"spans.v1"}), (", agents: [{name: critic, train: false}]", set())])
def test_it_consumes_what_the_topic_files_say_and_spans_only_where_they_tell_something(
    tmp_path: Path, more: str, unread: set[str]
) -> None:
    run_file = tmp_path / "run.yaml"
    run_file.write_text(f"credit: {{strategy: identical, advantage: rloo, incomplete: train{more}}}\n")
    [subscription] = build(runtime(run_file)).subscriptions
    assert subscription.group == "credit"
    consumed = {spec.name for spec in load_topics().values() if "credit" in spec.consumers}
    assert set(subscription.topics) == consumed - unread


@pytest.mark.parametrize(
    "section",
    [
        "{advantage: best}",
        "{late_horizon_s: -1}",
        "{group: {by: task, size: 4}}",
        "{group: {size: 4}}",
        "{strategy: 3}",
        "{max_sequence_tokens: 0}",
        "{typo: 1}",
    ],
)
def test_a_wrong_run_file_names_the_section_and_the_field(tmp_path: Path, section: str) -> None:
    run_file = tmp_path / "run.yaml"
    run_file.write_text(f"credit: {section}\n")
    field = section.strip("{").split(":")[0]
    with pytest.raises(RunFileError, match=rf"run\.yaml:1: credit\.[^$]*{field}"):
        build(runtime(run_file))


def test_a_named_service_has_a_consumer_group_and_a_namespace_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that several work side by side, and one can be rebuilt without the others."""
    run_file = tmp_path / "run.yaml"
    run_file.write_text("credit: {}\n")
    monkeypatch.setenv("LEYDEN_CREDIT_NAME", "dense-2")
    [subscription] = build(runtime(run_file)).subscriptions
    assert subscription.group == "credit-dense-2"
    stores = redis_stores(runtime(run_file), CreditSettings())
    namespaces = {vars(stores.attempts)["_namespace"], vars(stores.deadlines)["_key"]}
    assert namespaces == {"exp.credit-dense-2:attempts", "exp.credit-dense-2:deadlines"}


@pytest.mark.parametrize("name", ["Dense", "a b", "-a", "a-", "a.b", "a:b", "x" * 33])
def test_a_name_that_cannot_be_in_topics_keys_and_groups_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYDEN_CREDIT_NAME", name)
    with pytest.raises(ValidationError):
        CreditSettings()
