"""Credit as it is put together: the run file decides, and a wrong one is refused before anything is consumed."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from credit_support import FakePublisher
from leyden.credit.app import build
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.topics import load_topics
from leyden.service import Runtime
from leyden.settings import RunFileError, ServiceSettings


def runtime(run_file: Path) -> Runtime:
    """One that never connects to anything."""
    settings = ServiceSettings(topic_prefix="exp.", run_file=run_file)
    return Runtime("credit", settings, KafkaSettings(), FakePublisher(), Redis())  # type: ignore[arg-type]


def test_it_consumes_what_the_topic_files_say(tmp_path: Path) -> None:
    run_file = tmp_path / "run.yaml"
    run_file.write_text("credit: {strategy: identical, advantage: rloo, incomplete: train}\n")
    [subscription] = build(runtime(run_file)).subscriptions
    assert subscription.group == "credit"
    assert set(subscription.topics) == {spec.name for spec in load_topics().values() if "credit" in spec.consumers}


@pytest.mark.parametrize("section", ["{advantage: best}", "{strategy: 3}", "{max_sequence_tokens: 0}", "{typo: 1}"])
def test_a_wrong_run_file_names_the_section_and_the_field(tmp_path: Path, section: str) -> None:
    run_file = tmp_path / "run.yaml"
    run_file.write_text(f"credit: {section}\n")
    field = section.strip("{").split(":")[0]
    with pytest.raises(RunFileError, match=f"section credit[^$]*{field}"):
        build(runtime(run_file))
