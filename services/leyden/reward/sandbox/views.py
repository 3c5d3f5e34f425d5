"""The views of one batch. Each is encoded to JSON at most once, for any number of functions and retries."""

from collections.abc import Iterable, Sequence

from leyden.reward.core.view import RolloutView
from leyden.reward.sandbox.wire import encode_view


class Views:
    """Views with lazily encoded JSON."""

    def __init__(self, items: Sequence[RolloutView], known: dict[int, bytes] | None = None) -> None:
        self.items = items
        self._json = {} if known is None else known
        """JSON by the view's identity; shared with all selections of these views."""

    def __len__(self) -> int:
        return len(self.items)

    def choice(self, indices: Iterable[int]) -> "Views":
        """The views with these indices."""
        return Views([self.items[index] for index in indices], self._json)

    def encoded(self) -> list[bytes]:
        """The JSON of all views."""
        for view in self.items:
            if id(view) not in self._json:
                self._json[id(view)] = encode_view(view)
        return [self._json[id(view)] for view in self.items]
