"""Base classes of events, and packing of number arrays."""

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from leyden.ids import AttemptRef

PackedInts = Annotated[bytes, Field(description="little-endian int32 array, URL-safe base64 in JSON")]
PackedFloats = Annotated[bytes, Field(description="little-endian float32 array, URL-safe base64 in JSON")]
MAX_REWARD = 1e9
Reward = Annotated[float, Field(ge=-MAX_REWARD, le=MAX_REWARD)]
"""A reward or weight as input. The range is such that sums and squares of rewards fit into a float32.

Events accept any finite number, as before; readers must check the numbers they compute with.
"""
MAX_TIMEOUT_S = 365 * 86_400.0
Timeout = Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S)]
"""A time limit as input: seconds, at most a year."""
Json = JsonValue
JsonObject = dict[str, JsonValue]
ARRAYS = (list, np.ndarray)
"""Types that numpy converts directly; other iterables are made lists first."""


class Record(BaseModel):
    """A value inside an event. Immutable; unknown fields, written by newer versions, are ignored."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", ser_json_bytes="base64", val_json_bytes="base64", allow_inf_nan=False
    )


class Event(Record):
    """Something that happened.

    `event_id` is derived from the event's subject, so the same input always gives the same event. `event_time` of a
    derived event is the time of its subject and never read from the clock, so a replay gives the same bytes.
    """

    type: str
    event_id: str
    event_time: AwareDatetime
    schema_version: int = 1
    producer: str


class OfAttempt(Event):
    """An event of one attempt at a rollout. Its Kafka key is the rollout id."""

    rollout_id: str
    attempt: int = Field(ge=0)

    @property
    def ref(self) -> AttemptRef:
        """The event's attempt."""
        return AttemptRef(self.rollout_id, self.attempt)


def in_reward_range(value: float, weight: float = 1.0) -> bool:
    """Whether a reward and its weighted value are finite and within ±`MAX_REWARD`."""
    return abs(value) <= MAX_REWARD and abs(value * weight) <= MAX_REWARD


def pack_ints(values: Iterable[int] | npt.NDArray[Any]) -> bytes:
    """`values` as little-endian int32. Raises OverflowError if one does not fit."""
    return np.asarray(values if isinstance(values, ARRAYS) else list(values), dtype="<i4").tobytes()


def pack_floats(values: Iterable[float] | npt.NDArray[Any]) -> bytes:
    """`values` as little-endian float32."""
    return np.asarray(values if isinstance(values, ARRAYS) else list(values), dtype="<f4").tobytes()


def unpack_ints(packed: bytes) -> npt.NDArray[np.int32]:
    """The inverse of `pack_ints`: a read-only array, without a copy."""
    return np.frombuffer(packed, dtype="<i4")


def unpack_floats(packed: bytes) -> npt.NDArray[np.float32]:
    """The inverse of `pack_floats`: a read-only array, without a copy."""
    return np.frombuffer(packed, dtype="<f4")
