"""The views of one batch, each turned into JSON at most once, however many functions see it and however often."""

from collections.abc import Iterable, Sequence

from leyden.reward.core.view import RolloutView
from leyden.reward.sandbox.wire import encode_view


class Views:
    """Some views, and their JSON when somebody asks for it."""

    def __init__(self, items: Sequence[RolloutView], known: dict[int, bytes] | None = None) -> None:
        self.items = items
        self._json = {} if known is None else known
        """By the view's identity: shared with every choice of these views."""

    def __len__(self) -> int:
        return len(self.items)

    def choice(self, indices: Iterable[int]) -> "Views":
        """The views of these indices."""
        return Views([self.items[index] for index in indices], self._json)

    def encoded(self) -> list[bytes]:
        """The JSON of every view."""
        for view in self.items:
            if id(view) not in self._json:
                self._json[id(view)] = encode_view(view)
        return [self._json[id(view)] for view in self.items]
