"""`leyden enqueue`: sends tasks to the gateway in batches. Repeating it changes nothing."""

from dataclasses import dataclass

from leyden.cli.gateway_requests import TaskQueue
from leyden.reading.log import Tell
from leyden.stack.errors import StackError
from leyden.training.tasks import TaskSource, batches, tasks_of


@dataclass
class Enqueued:
    """Counts of one run."""

    tasks: int = 0
    rollouts: int = 0
    known: int = 0
    """Tasks that the gateway had already."""
    otherwise: int = 0
    """Of these, tasks with another number of rollouts than asked for now."""


def enqueue(plan: TaskSource, queue: TaskQueue, tell: Tell) -> Enqueued:
    """Send all tasks; each batch is in Kafka before the next is sent. Raises StackError; sent batches stay enqueued."""
    done = Enqueued()
    for batch in batches(tasks_of(plan)):
        try:
            answers = queue.post("tasks", {"tasks": batch})["tasks"]
        except StackError as error:
            raise StackError(f"{error} {done.tasks} tasks were enqueued before that.") from error
        for task, answer in zip(batch, answers, strict=True):
            done.tasks += 1
            done.rollouts += len(answer["rollout_ids"])
            done.known += not answer["new"]
            done.otherwise += len(answer["rollout_ids"]) != task.get("samples", 1)
        tell(f"{done.tasks} tasks, {done.rollouts} rollouts")
    return done


def told(done: Enqueued) -> str:
    """A one-line summary."""
    line = f"{done.tasks} tasks, {done.rollouts} rollouts; {done.tasks - done.known} tasks are new"
    if done.otherwise:
        line += f"; {done.otherwise} exist with another number of samples; to make new tasks, choose another --name"
    return line
