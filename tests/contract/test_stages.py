"""`leyden watch` shows the lag of what the services really consume."""

import importlib
import re

from leyden.events import codec
from leyden.reading.stages import STAGES
from roots import ROOT


def test_the_stages_are_the_consumer_groups_of_the_services_and_their_topics() -> None:
    for service, topics in STAGES.items():
        importlib.import_module(f"leyden.{service}.topology")
        source = (ROOT / f"services/leyden/{service}/topology.py").read_text()
        assert re.search(rf'(GROUP\w* = |group=)"{service}"', source)
        consumed = source.split("from leyden.events.codec import")[1].split("\n\n")[0]
        for topic in topics:
            (name,) = [key for key, value in vars(codec).items() if value == topic]
            assert name in consumed, f"{service} does not consume {topic}"
