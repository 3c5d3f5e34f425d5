"""What all events share: identity, time, and how numbers are packed. No event of its own."""

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from leyden.ids import AttemptRef

PackedInts = Annotated[bytes, Field(description="little-endian int32 array, URL-safe base64 in JSON")]
PackedFloats = Annotated[bytes, Field(description="little-endian float32 array, URL-safe base64 in JSON")]
Json = JsonValue
JsonObject = dict[str, JsonValue]
ARRAYS = (list, np.ndarray)
"""What numpy reads as it is."""


class Record(BaseModel):
    """A value inside an event: immutable; unknown fields of newer writers are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_bytes="base64", val_json_bytes="base64")


class Event(Record):
    """One thing that happened.

    `event_id` is derived from what the event is about, so that the same input always gives the same event.
    `event_time` of a derived event is that of its subject, never the clock: replay must give the same bytes.
    """

    type: str
    event_id: str
    event_time: AwareDatetime
    schema_version: int = 1
    producer: str


class OfAttempt(Event):
    """An event of one attempt at a rollout; its Kafka key is the rollout's id."""

    rollout_id: str
    attempt: int = Field(ge=0)

    @property
    def ref(self) -> AttemptRef:
        """The attempt that the event is about."""
        return AttemptRef(self.rollout_id, self.attempt)


def pack_ints(values: Iterable[int] | npt.NDArray[Any]) -> bytes:
    """`values` as little-endian int32; raises OverflowError when one does not fit."""
    return np.asarray(values if isinstance(values, ARRAYS) else list(values), dtype="<i4").tobytes()


def pack_floats(values: Iterable[float] | npt.NDArray[Any]) -> bytes:
    """`values` as little-endian float32."""
    return np.asarray(values if isinstance(values, ARRAYS) else list(values), dtype="<f4").tobytes()


def unpack_ints(packed: bytes) -> npt.NDArray[np.int32]:
    """The read-only array that `pack_ints` packed, without a copy."""
    return np.frombuffer(packed, dtype="<i4")


def unpack_floats(packed: bytes) -> npt.NDArray[np.float32]:
    """The read-only array that `pack_floats` packed, without a copy."""
    return np.frombuffer(packed, dtype="<f4")
