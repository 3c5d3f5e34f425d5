"""Composition root of the trainer."""

from leyden.clock import SystemClock
from leyden.events.codec import TRAINING_BATCHES, TRANSITIONS
from leyden.kafka.claims import ClaimStore
from leyden.kafka.liveness import Heartbeat
from leyden.service import Runtime, Service
from leyden.settings import load_section
from leyden.trainer.adapters import KafkaBatchLog, KafkaTransitions, TorchTraining
from leyden.trainer.handlers import TrainerHandler
from leyden.trainer.settings import TrainerEnvironment, TrainerSettings
from leyden.trainer.topology import PUBLISHES, READS, subscription


def build(runtime: Runtime) -> Service:
    """Build the trainer from the run file's `trainer:` section. Raises `RunFileError` if it is invalid."""
    settings = load_section(runtime.settings.run_file, "trainer", TrainerSettings)
    environment = TrainerEnvironment()
    prefix = runtime.settings.topic_prefix
    # A replay or another tenant must never resume from the live run's checkpoints, even in the same folder.
    folder = environment.checkpoint_dir / prefix.rstrip(".")
    heartbeat = Heartbeat()
    claims = ClaimStore(runtime.settings.claims)
    batches = KafkaBatchLog(runtime.kafka, claims, prefix + TRAINING_BATCHES)
    handler = TrainerHandler(
        settings=settings,
        training=TorchTraining(settings, environment, folder, heartbeat.beat),
        transitions=KafkaTransitions(runtime.kafka, claims, prefix + TRANSITIONS),
        batches=batches,
        publisher=runtime.publisher,
        clock=SystemClock(),
    )
    return Service(
        subscriptions=[subscription(handler, heartbeat, environment.name)],
        publishes=PUBLISHES,
        reads=READS,
        before=[handler.restore],
        after=[batches.close],
    )
