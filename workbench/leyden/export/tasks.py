"""Reference answers by rollout, for formats that need them; kept in a temporary file, not in memory."""

import json
import sqlite3
import tempfile
from typing import Self

from leyden.events import RolloutEnded
from leyden.events.codec import ROLLOUTS
from leyden.reading import Log


class GroundTruth:
    """One field of each task's metadata, such as `answer`. Use as a context manager."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._folder = tempfile.TemporaryDirectory(prefix="leyden-export-")
        self._rows = sqlite3.connect(f"{self._folder.name}/truth.db")
        self._rows.execute("CREATE TABLE truth (rollout TEXT PRIMARY KEY, value TEXT)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()
        self._folder.cleanup()

    def add(self, ended: RolloutEnded) -> None:
        """Store the rollout's reference, if its task has one."""
        value = ended.task.metadata.get(self._field) if ended.task else None
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            self._rows.execute("INSERT OR REPLACE INTO truth VALUES (?, ?)", (ended.rollout_id, text))

    def of(self, rollout_id: str) -> str:
        """The rollout's reference as text; empty if its task has none."""
        found = self._rows.execute("SELECT value FROM truth WHERE rollout = ?", (rollout_id,)).fetchone()
        return str(found[0]) if found else ""

    async def read(self, log: Log) -> None:
        """Store the references of all ended rollouts."""
        async for one in log.read(ROLLOUTS, wanted=lambda _, value: b'"rollout-ended"' in value):
            if isinstance(one.event, RolloutEnded):
                self.add(one.event)
