"""`python tools/asyncapi.py` writes docs/asyncapi.yaml from what services register; `--check` fails when it is stale.

Each service is built as its process builds it, with every optional subscription switched on, and registered on a broker
that connects to nothing.
"""

import argparse
import asyncio
import importlib
import logging
import os
import tempfile
from pathlib import Path

from redis.asyncio import Redis

from leyden.kafka.asyncapi import Registered, as_yaml, document, registered
from leyden.kafka.claims import ClaimStore
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.settings import KafkaSettings
from leyden.service import Runtime, Service, register
from leyden.settings import ServiceSettings

FILE = Path(__file__).resolve().parents[1] / "docs" / "asyncapi.yaml"
SERVICES = ("gateway", "ingest", "reward", "credit", "trainer", "registry", "policy")
RUN_FILE = "credit: {agents: [{name: critic, train: false}]}\n"
"""Credit reads spans only where agents are told apart."""
ENVIRONMENT = {"LEYDEN_GATEWAY_SECRET": "only-for-the-document", "LEYDEN_GATEWAY_API_KEYS": "none"}


def build(name: str, folder: Path) -> tuple[Runtime, Service]:
    """The service of that name, with what it was built with; needs a running event loop."""
    run_file = folder / "run.yaml"
    run_file.write_text(RUN_FILE)
    os.environ.update(ENVIRONMENT)
    settings, kafka = ServiceSettings(topic_prefix="", run_file=run_file, data_dir=folder), KafkaSettings()
    publisher = KafkaPublisher(kafka, "", ClaimStore(settings.claims))
    runtime = Runtime(name, settings, kafka, publisher, Redis())
    made: Service = importlib.import_module(f"leyden.{name}.app").build(runtime)
    return runtime, made


def what_is_registered(name: str, folder: Path) -> Registered:
    """What the service of that name registers on its broker, and what it declares that it reads beside."""
    runtime, service = build(name, folder)
    broker, _ = register(service, runtime)
    return registered(broker, service.reads)


async def text() -> str:
    """The document of all services."""
    with tempfile.TemporaryDirectory() as folder:
        services = {name: what_is_registered(name, Path(folder)) for name in SERVICES}
    return as_yaml(document(services))


def main() -> None:
    """Command line: write the document, or check that it is current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the document is stale")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    wanted = asyncio.run(text())
    if args.check:
        if not FILE.is_file() or FILE.read_text() != wanted:
            raise SystemExit(f"{FILE.name} is stale: run make schemas")
        return
    FILE.write_text(wanted)
    logging.getLogger(__name__).info("wrote %s", FILE)


if __name__ == "__main__":
    main()
