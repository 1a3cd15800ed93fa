"""What the inbox has to tell an administrator; kept until the loop logs it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notice:
    """Something an administrator should see; the caller logs it as a warning."""

    event: str
    values: dict[str, str | int]


class Notices:
    """Those that nobody took yet."""

    def __init__(self) -> None:
        self._untaken: list[Notice] = []
        self._told: set[tuple[str, str]] = set()

    def tell(self, event: str, **values: str | int) -> None:
        self._untaken.append(Notice(event, values))

    def tell_once(self, event: str, **values: str | int) -> None:
        """As long as nothing in it changes, it is told once."""
        key = (event, str(values))
        if key not in self._told:
            self._told.add(key)
            self.tell(event, **values)

    def take(self) -> list[Notice]:
        notices, self._untaken = self._untaken, []
        return notices
