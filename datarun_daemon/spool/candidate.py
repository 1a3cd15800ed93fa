"""What the inbox knows of an entry in an incoming folder, and when it will look at it again."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from datarun_daemon.core.model import BundleId, BundleKind
from datarun_daemon.spool.findings import Incomplete

#: a bundle that is not ready is looked at again after an eighth of the time it has not changed, within these
_SOONEST_SECONDS = 0.1
_LATEST_SECONDS = 10.0


@dataclass(slots=True, eq=False)
class Candidate:
    kind: BundleKind
    #: the directory entry, byte for byte
    entry: str
    #: the same as text that is safe anywhere
    name: str
    first_seen: float
    owner_uid: int = -1
    signature: str = ""
    #: when its signature was first seen
    unchanged_since: float = 0.0
    missing: tuple[str, ...] = ()
    #: nothing more can be learned until the signature changes
    judged: bool = False
    #: nothing more can be learned until it has settled
    settling: bool = False
    #: copies that the disk made fail since its signature was first seen, and when to try again
    failures: int = 0
    retry_at: float = float("-inf")
    reported: tuple[str, ...] = ()
    reported_at: float = float("-inf")
    #: taken or refused, and not looked at meanwhile
    handed: BundleId | None = None
    #: was dealt with but could not be removed: not taken again while it has this signature
    done: str = ""
    gone: bool = False

    def see(self, signature: str, owner_uid: int, now: float) -> bool:
        """What it is now; true if that is not what it was. Conclusions about what it was are dropped."""
        self.owner_uid = owner_uid
        if self.signature == signature:
            return False
        self.signature, self.unchanged_since = signature, now
        self.judged = self.settling = False
        self.failures, self.retry_at = 0, float("-inf")
        return True

    def next_due(self, now: float, *, settle_seconds: float, late_after_seconds: float) -> float:
        """When there may be something new to learn: rarely for calm ones, but at each of its deadlines."""
        step_seconds = min(max((now - self.unchanged_since) / 8, _SOONEST_SECONDS), _LATEST_SECONDS)
        for deadline in (self.unchanged_since + settle_seconds, self.first_seen + late_after_seconds):
            if deadline > now:
                step_seconds = min(step_seconds, deadline - now + 0.001)
        return max(now + step_seconds, self.retry_at)

    def lateness(self, now: float, *, late_after_seconds: float) -> Incomplete | None:
        """Told once it has waited for long, and again when what is missing has changed."""
        waited_seconds = now - self.first_seen
        if not self.missing or waited_seconds < late_after_seconds:
            return None
        again = now - self.reported_at >= late_after_seconds
        if self.reported and (self.reported == self.missing or self.settling or not again):
            return None
        self.reported, self.reported_at = self.missing, now
        return Incomplete(self.kind, self.name, self.owner_uid, self.missing, waited_seconds)


class Agenda:
    """Candidates by the time at which they are due; one may be on it more than once."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Candidate]] = []
        self._order = 0

    def add(self, candidate: Candidate, due: float) -> None:
        self._order += 1
        heapq.heappush(self._due, (due, self._order, candidate))

    def pop(self, now: float) -> Candidate | None:
        """The one that is due longest, if any is."""
        return heapq.heappop(self._due)[2] if self.has_due(now) else None

    def has_due(self, now: float) -> bool:
        return bool(self._due) and self._due[0][0] <= now

    def first_due(self, otherwise: float) -> float:
        return self._due[0][0] if self._due else otherwise
