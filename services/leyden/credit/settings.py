"""Environment of the credit service. What an RL engineer chooses is in the run file: `core/section.py`."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class CreditSettings(BaseSettings):
    """Environment, prefix `LEYDEN_CREDIT_`."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, env_prefix="LEYDEN_CREDIT_", extra="ignore")

    name: str = Field(default="", pattern=r"^([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?)?$")
    """Name of this credit service, where several run side by side: lower-case letters, digits and dashes, 32 at most.

    It becomes part of the consumer group (`credit-<name>`), the Redis keys and the events' ids, and their `credit`.
    """
    max_records: int = Field(default=500, ge=1)
    """Most records in a batch; bounds the memory of the process."""
    open_ttl_s: int = Field(default=7 * 86_400, ge=60)
    """An attempt or group that stays incomplete is forgotten after this many seconds."""
    closed_ttl_s: int = Field(default=86_400, ge=60)
    """Seconds for which a finished attempt or group is remembered, so that a redelivered record does not reopen it."""
    sweep_interval_s: float = Field(default=1.0, gt=0)
    """Seconds between checks for groups past their deadline and attempts that are too old."""
    sweep_limit: int = Field(default=200, ge=1)
    """Most groups closed, or attempts forgotten, in one check."""
    backlog_s: float = Field(default=30.0, gt=0)
    """No group is closed by its deadline for this many seconds after a start, or after reading the log took longer."""
