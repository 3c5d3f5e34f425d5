"""Composition root: the trainer on Kafka and torch."""

from leyden.clock import SystemClock
from leyden.events.codec import TRANSITIONS
from leyden.service import Runtime, Service
from leyden.settings import load_section
from leyden.trainer.adapters import KafkaOffsets, TorchTraining
from leyden.trainer.handlers import TrainerHandler
from leyden.trainer.settings import TrainerEnvironment, TrainerSettings
from leyden.trainer.topology import PUBLISHES, group_name, subscription


def build(runtime: Runtime) -> Service:
    """The trainer by the run file's `trainer:` section. Raises `RunFileError` when that is wrong."""
    settings = load_section(runtime.settings.run_file, "trainer", TrainerSettings)
    environment = TrainerEnvironment()
    prefix = runtime.settings.topic_prefix
    # A replay or another tenant must never go on from the live run's checkpoints, even under the same folder.
    folder = environment.checkpoint_dir / prefix.rstrip(".")
    handler = TrainerHandler(
        settings,
        TorchTraining(settings, environment, folder),
        KafkaOffsets(runtime.kafka, prefix + TRANSITIONS, prefix + group_name(environment.name)),
        runtime.publisher,
        SystemClock(),
    )
    return Service(
        subscriptions=[subscription(handler, environment.name)], publishes=PUBLISHES, before=[handler.restore]
    )
