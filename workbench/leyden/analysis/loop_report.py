"""The report of `leyden watch` and `leyden status`, as data that prints as JSON; layout is the command's."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from leyden.reading.model_wait import ModelWait


class Part(BaseModel):
    """A part of the report."""

    model_config = ConfigDict(frozen=True)


class CurvePoint(Part):
    """Rollouts of one mode that one policy version answered."""

    version: str
    """`policy@version`; `-` if no policy answered."""
    mode: str
    """`validation` (held out, never trained) or `train`."""
    rollouts: int
    """Ended ones."""
    rewarded: int
    failed: int
    mean_reward: float | None
    """Over the rewarded ones; None if there are none."""


class StepLine(Part):
    """One step of the trainer."""

    policy: str
    step: int
    version: int
    """After the step."""
    at: datetime
    reward: float
    groups: int
    rollouts: int
    sequences: int
    trained_tokens: int
    staleness_mean: float
    staleness_max: float
    seconds: float
    changed: bool
    """Whether it changed the weights, and so made a version."""
    dropped: dict[str, int]
    """Groups dropped since the step before, by reason."""
    unusable: dict[str, str]


class PolicyLine(Part):
    """The versions of one policy."""

    policy: str
    newest: int
    """The newest registered version; 0 is the base model."""
    promoted: int
    live: int | None
    """The oldest version that a replica serves; None if none serves."""
    replicas: int


class ModelLine(Part):
    """One version of a policy."""

    version: str
    """`policy@version`."""
    state: str
    """`live`, `promoted`, `registered`, or `base model`."""
    at: datetime | None
    """When it was registered; None for the base model."""
    step: int | None
    """The step that made it."""
    step_reward: float | None
    """Mean reward of that step's rollouts."""
    held_out: float | None
    """Mean reward of the validation rollouts that it answered."""
    reward: float | None
    """Mean reward of the training rollouts that it answered."""
    weights: str | None
    """Folder of its merged weights, or of its adapter."""


class QueueLine(Part):
    """Rollouts by status, and how long the oldest running one has run."""

    queued: int
    running: int
    retrying: int
    succeeded: int
    failed: int
    validation: int
    """Rollouts of validation tasks among all of these."""
    paused: list[str]
    """Projects whose queue is paused; `*` for all."""
    longest_running_s: float | None
    longest_running: str | None
    """Trace id of that attempt."""
    claimed_s_ago: float | None
    """Seconds since a runner claimed a rollout; None if none ever did."""


class WaitingGroup(Part):
    """A group that is not credited, and what it waits for."""

    group_id: str
    size: int
    finished: int
    waits_for: dict[str, int]
    """What members wait for → how many."""


class GroupsLine(Part):
    """Training groups by stage."""

    waiting: int
    """Not credited yet."""
    waits_for: dict[str, int]
    """What members of waiting groups wait for → how many."""
    examples: list[WaitingGroup]
    credited: int
    single: int
    """Groups of one rollout, whose advantage is always 0."""
    flat: int
    """Credited groups whose members all have the same reward."""
    empty: int
    """Credited groups of which no rollout can be trained."""
    left_out: dict[str, int]
    """Why rollouts of credited groups are not trained → how many."""
    ready: int
    """Credited groups that wait for the trainer's next step."""
    per_step: int | None
    """Groups of one step; None if it is not known."""


class FailureLine(Part):
    """Failed attempts with one class and message."""

    failure_class: str
    count: int
    unanswered: int = 0
    """Those of them that still waited for the model when they ended."""
    message: str
    example: str
    """Trace id of the newest."""


class RuleFailureLine(Part):
    """Attempts whose reward rule failed, so that they have no reward."""

    message: str
    """Rule and error."""
    count: int
    example: str
    """Trace id of the newest."""


class Throughput(Part):
    """Over the last `window_s` seconds."""

    window_s: float
    rollouts_per_minute: float
    calls_per_minute: float
    tokens_per_second: float
    """Sampled tokens."""


class Problem(Part):
    """Why something does not go on, and what to do."""

    what: str
    do: str


class LoopReport(Part):
    """What happens in the loop at one moment."""

    at: datetime
    curve: list[CurvePoint]
    """Validation first; by version."""
    steps: list[StepLine]
    policies: list[PolicyLine]
    queue: QueueLine
    groups: GroupsLine
    failures: list[FailureLine]
    rule_failures: list[RuleFailureLine]
    throughput: Throughput
    model: ModelWait | None = None
    """Model calls that wait for an answer; None if the gateway was not asked or does not answer."""
    lag: dict[str, int]
    """Stage → records that it has not handled; stages whose lag is unknown are left out."""
    problems: list[Problem] = []
