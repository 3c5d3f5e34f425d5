"""The newest revision of each credited group, from events in any order."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from leyden.events import GroupCredited, SequenceCredited

KeptT = TypeVar("KeptT")
Name = tuple[str, str, str]
"""Credit service, policy, group id."""


@dataclass
class _Revision(Generic[KeptT]):
    kept: dict[str, KeptT] = field(default_factory=dict)
    """By event id."""
    published: bool = False
    """Whether its `GroupCredited` is here, which is published last."""


class NewestRevisions(Generic[KeptT]):
    """Keeps a value per event, and finds the newest published revision of each group.

    Of several records of one event the first counts. Memory: the values of all revisions.
    """

    def __init__(self) -> None:
        self._found: dict[Name, dict[int, _Revision[KeptT]]] = {}

    def add(self, event: SequenceCredited | GroupCredited, value: KeptT) -> None:
        """Keep `value` for `event`."""
        revisions = self._found.setdefault((event.credit, event.policy, event.group_id), {})
        revision = revisions.setdefault(event.revision, _Revision())
        revision.kept.setdefault(event.event_id, value)
        revision.published = revision.published or isinstance(event, GroupCredited)

    def newest(self) -> Iterator[tuple[Name, Mapping[str, KeptT]]]:
        """Each group, sorted by name, with the values of its newest published revision by event id.

        They are those of its sequences and of its one `GroupCredited`.
        """
        for name, revisions in sorted(self._found.items()):
            published = [number for number, revision in revisions.items() if revision.published]
            if published:
                yield name, revisions[max(published)].kept
