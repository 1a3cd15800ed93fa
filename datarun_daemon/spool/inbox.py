"""The incoming folders as a stream of findings: what is ready is copied, hashed, durable, and handed out once.

Owned by one thread. The scan is the truth: whatever wakes the daemon, :meth:`Inbox.look` lists the
folders itself. A bundle that is not ready is looked at again when it is due, ever more rarely, so that
thousands of them cost little; what was concluded about it holds until a name, size or time changes.
"""

from __future__ import annotations

import errno
import heapq
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from datarun_daemon import disk
from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.core.model import BundleId, BundleKind
from datarun_daemon.spool import clearing
from datarun_daemon.spool.bundle import Bounds, NotReady, Source, signature_of
from datarun_daemon.spool.candidate import Agenda, Candidate
from datarun_daemon.spool.claim import (
    PACKED_INDICES,
    Whole,
    copy_into,
    inspect,
    is_being_written,
    open_bundle,
    request_digest,
    signature_now,
)
from datarun_daemon.spool.findings import (
    Claimed,
    Cleared,
    Finding,
    Refused,
    Unfinished,
    Waiting,
    Withdrawn,
)
from datarun_daemon.spool.layout import ARCHIVE_SUFFIXES, Spool, display_name
from datarun_daemon.spool.listing import IncomingFolder, opened
from datarun_daemon.spool.manifest import MANIFEST_NAME
from datarun_daemon.spool.notices import Notice, Notices

#: of one look: so that what is ready flows on while more is being copied
_LOOK_BUNDLES = 64
_LOOK_BYTES = 64 << 20
_LOOK_SECONDS = 0.25
#: after our disk was full nothing is copied for so long
_FULL_SECONDS = 5.0
#: a bundle that could not be copied is tried again after twice as long each time, up to this
_RETRY_SECONDS = 300.0
#: what could not be cleared away is looked at again so often
_LEFT_SECONDS = 10.0
#: while bundles wait to be copied, new ones are listed only so often
_BUSY_LISTING_SECONDS = 0.5
_WAITING_SHOWN = 200

Handed = TypeVar("Handed", Claimed, Refused)


class Inbox:
    """See the module; ``now`` is a monotonic clock in seconds."""

    def __init__(
        self,
        spool: Spool,
        *,
        next_ticket: int,
        settle_seconds: float,
        incomplete_after_seconds: float,
        rescan_seconds: float,
        bounds: Bounds,
        unfinished: Iterable[Unfinished] = (),
    ) -> None:
        self._spool = spool
        self._next_ticket = next_ticket
        self._settle_seconds = settle_seconds
        self._incomplete_after_seconds = incomplete_after_seconds
        self._rescan_seconds = rescan_seconds
        self._bounds = bounds
        self._unfinished = {(each.bundle.kind, each.bundle.name): each for each in unfinished}
        self._folders = {kind: IncomingFolder(spool.incoming_of(kind)) for kind in BundleKind}
        self._candidates: dict[tuple[BundleKind, str], Candidate] = {}
        self._handed: dict[int, tuple[Candidate, str | None]] = {}
        self._agenda = Agenda()
        self._shards: set[Path] = set()
        #: bundles that are out of their names, and still to be removed
        self._hidden: deque[Path] = deque()
        self._paused_until = float("-inf")
        #: of the last look, by the clock that it was given
        self._looked_at = float("-inf")
        self._notices = Notices()

    def configure(
        self, *, settle_seconds: float, incomplete_after_seconds: float, rescan_seconds: float, bounds: Bounds
    ) -> None:
        """From the next look on."""
        self._settle_seconds = settle_seconds
        self._incomplete_after_seconds = incomplete_after_seconds
        self._rescan_seconds = rescan_seconds
        self._bounds = bounds

    def clean(self) -> None:
        """Nothing is left of what an earlier daemon began and no catalog line names. Call it before look()."""
        clearing.clean(self._spool, self._next_ticket, self._notices)

    def look(self, now: float) -> list[Finding]:
        """What became ready, wrong or late since the last look; a bounded piece of work.

        Everything in the store that a finding names is durable.

        Raises:
            DiskFailed: it could not be made durable.
        """
        self._looked_at = now
        findings: list[Finding] = []
        written: list[Path] = []
        busy = self._agenda.has_due(now)
        for kind in BundleKind:
            self._list(kind, now, findings, seldom=busy)
        with opened(self._folders) as descriptors:
            self._work(now, descriptors, findings, written)
        if written:
            disk.make_durable(written, below=self._spool.store)
        if not self._agenda.has_due(now):
            clearing.remove_hidden(self._spool, self._hidden, self._notices)
        return findings

    def seconds_to_next(self, now: float) -> float:
        """How long nothing is due if nothing new arrives."""
        listing = min(folder.listed_at for folder in self._folders.values()) + self._rescan_seconds
        due = max(self._agenda.first_due(listing), self._paused_until) if not self._hidden else now
        return max(0.0, min(due, listing) - now)

    def finish(self, bundle: BundleId) -> bool:
        """Removes what was claimed. False if it could not be taken from its name, and so stays there.

        What changed after it was claimed is not removed: it is a bundle of its own.
        """
        candidate, _ = self._handed.pop(bundle.ticket)
        return self._finish(candidate, bundle)

    def refuse(self, bundle: BundleId, problems: Sequence[Problem]) -> str | None:
        """Moves what was refused, or claimed and then refused, into rejected/.

        Returns:
            where it lies now, relative to the spool; None if it had changed (it is then a bundle of its
            own), had gone, or could not be moved.
        """
        candidate, folder = self._handed.pop(bundle.ticket)
        if folder is not None:
            disk.remove_tree(self._spool.root / folder)
        return self._refuse(candidate, bundle, problems)

    def waiting(self) -> list[Waiting]:
        """What lies in the incoming folders and was not handed out; oldest first, a bounded number."""
        idle = [each for each in self._candidates.values() if each.handed is None and not each.done]
        oldest = heapq.nsmallest(_WAITING_SHOWN, idle, key=lambda each: each.first_seen)
        return [
            Waiting(each.kind, each.name, each.first_seen, "; ".join(each.missing) or "its turn") for each in oldest
        ]

    def notices(self) -> list[Notice]:
        """Those since the last call."""
        return self._notices.take()

    def _list(self, kind: BundleKind, now: float, findings: list[Finding], *, seldom: bool) -> None:
        folder = self._folders[kind]
        interval = min(_BUSY_LISTING_SECONDS, self._rescan_seconds) if seldom else self._rescan_seconds
        try:
            if not folder.wants_listing(now, interval, seldom=seldom):
                return
            fresh, names = folder.list(now)
        except OSError as error:
            self._notices.tell_once("incoming_unreadable", folder=f"incoming/{kind.value}", reason=str(error))
            return
        for entry in fresh:
            if (kind, entry) in self._candidates:
                continue  # handed out, then gone, and dropped anew: finish() and refuse() see that it changed
            candidate = Candidate(kind, entry, display_name(entry), first_seen=now, unchanged_since=now)
            self._candidates[kind, entry] = candidate
            self._agenda.add(candidate, now)
        for entry in folder.gone(names):
            self._forget(self._candidates[kind, entry], findings)
        if not folder.was_listed:
            folder.was_listed = True
            findings += self._already_cleared(kind)

    def _already_cleared(self, kind: BundleKind) -> Iterator[Cleared]:
        """Unfinished ones of which nothing is in the folder any more, at the first listing."""
        here = {candidate.name for (of, _), candidate in self._candidates.items() if of is kind}
        for key in [key for key in self._unfinished if key[0] is kind and key[1] not in here]:
            unfinished = self._unfinished.pop(key)
            if unfinished.problems is not None and (folder := clearing.unexplained(self._spool, unfinished.bundle)):
                clearing.write_reason(self._spool, folder, unfinished.bundle, unfinished.problems)
            yield Cleared(unfinished.bundle)

    def _work(
        self, now: float, descriptors: dict[BundleKind, int], findings: list[Finding], written: list[Path]
    ) -> None:
        if now < self._paused_until:
            return
        bundles, copied_bytes = 0, 0
        end = time.monotonic() + _LOOK_SECONDS
        while bundles < _LOOK_BUNDLES and copied_bytes < _LOOK_BYTES and (candidate := self._agenda.pop(now)):
            if candidate.gone or candidate.handed is not None or candidate.kind not in descriptors:
                continue
            found = self._examine(candidate, now, descriptors[candidate.kind], written)
            if candidate.handed is None and not candidate.gone:
                self._agenda.add(candidate, self._next_due(candidate, now))
            if found is not None:
                findings.append(found)
                bundles += 1
                if isinstance(found, Claimed):
                    copied_bytes += sum(file.bytes for file in found.files.values())
            if time.monotonic() > end or now < self._paused_until:
                return

    def _examine(self, candidate: Candidate, now: float, folder_fd: int, written: list[Path]) -> Finding | None:
        try:
            return self._take(candidate, now, folder_fd, written)
        except FileNotFoundError:
            return None  # the next listing tells that it has gone
        except Rejection as rejection:
            return self._refusal(candidate, rejection.problems)
        except NotReady as reason:
            candidate.missing = reason.missing
            candidate.judged = reason.until_it_changes
        except OSError as error:
            self._not_copied(candidate, error, now)
        return candidate.lateness(now, late_after_seconds=self._incomplete_after_seconds)

    def _not_copied(self, candidate: Candidate, error: OSError, now: float) -> None:
        """Our disk may be full, or theirs may fail: neither is a reason to reject what was sent."""
        candidate.missing = (f"the daemon could not copy it ({error.strerror}); it is tried again",)
        candidate.failures += 1
        candidate.retry_at = now + min(2.0**candidate.failures, _RETRY_SECONDS)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self._paused_until = now + _FULL_SECONDS
        bundle = f"{candidate.kind.value}/{candidate.name}"
        self._notices.tell("bundle_not_copied", bundle=bundle, reason=str(error), failures=candidate.failures)

    def _take(self, candidate: Candidate, now: float, folder_fd: int, written: list[Path]) -> Finding | None:
        """A finding, or None: nothing new. Raises what _examine() catches."""
        try:
            source = open_bundle(folder_fd, candidate.entry, kind=candidate.kind, bounds=self._bounds)
        except (Rejection, NotReady):
            status = os.stat(candidate.entry, dir_fd=folder_fd, follow_symlinks=False)
            candidate.see(signature_of([(candidate.entry, status)]), status.st_uid, now)
            if cleared := self._clear_unfinished(candidate):
                return cleared
            if candidate.done == candidate.signature:
                return None
            if not self._has_settled(candidate, now):
                raise NotReady(["to be settled"], until_it_changes=False) from None
            raise
        with closing(source):
            is_new = candidate.signature == ""
            changed = candidate.see(source.signature, source.owner_uid, now)
            if cleared := self._clear_unfinished(candidate):
                return cleared
            if candidate.done == source.signature:
                return None
            candidate.done = ""
            if candidate.judged or (candidate.settling and not self._has_settled(candidate, now)):
                return candidate.lateness(now, late_after_seconds=self._incomplete_after_seconds)
            if changed and not is_new and candidate.entry.endswith(ARCHIVE_SUFFIXES):
                # each look would read through all of what has arrived so far
                raise NotReady(["to be settled: it is changing"], until_it_changes=False)
            return self._claim(candidate, source, self._inspect(candidate, source, now), written)

    def _has_settled(self, candidate: Candidate, now: float) -> bool:
        return now - candidate.unchanged_since >= self._settle_seconds

    def _inspect(self, candidate: Candidate, source: Source, now: float) -> Whole:
        """What the bundle is, if it may be taken now. Raises NotReady, or Rejection if that is final."""
        settled = self._has_settled(candidate, now)
        names: tuple[str, ...] = ()
        try:
            whole = inspect(source, candidate.kind)
            if not whole.certain and not settled:
                candidate.settling = True
                raise NotReady([f"{self._settle_seconds:g} s without a change"], until_it_changes=False)
            if not whole.certain:
                names = whole.needed
        except Rejection as rejection:
            if not settled:
                candidate.settling = True
                words = [str(problem) for problem in rejection.problems]
                raise NotReady(words, until_it_changes=False) from rejection
            if is_being_written(source):
                raise NotReady(["its writer to close it"], until_it_changes=False) from rejection
            raise
        if source.is_being_written(names):
            raise NotReady(["its writer to close it"], until_it_changes=False)
        return whole

    def _claim(self, candidate: Candidate, source: Source, whole: Whole, written: list[Path]) -> Claimed:
        ticket = self._next_ticket
        bundle = BundleId(candidate.kind, candidate.name, ticket, source.signature)
        ignored = tuple(
            display_name(name) for name in source.names() if name != MANIFEST_NAME and name not in whole.needed
        )
        if candidate.kind is BundleKind.REQUESTS:
            found = Claimed(bundle, source.owner_uid, whole.manifest, None, request_digest(whole), {}, ignored, (), "")
            return self._hand_out(candidate, found)
        folder = self._spool.stored_bundle(candidate.kind, ticket, candidate.name)
        self._make_shard(folder.parent, written)
        copied = copy_into(folder, source, whole, self._bounds)
        if not whole.certain and self._signature_now(candidate) != source.signature:
            disk.remove_tree(folder)
            raise NotReady(["to be settled: it changed while it was copied"], until_it_changes=False)
        written += (*copied.written, folder.parent)
        path = self._spool.relative(folder)
        indices = f"{path}/{PACKED_INDICES}" if copied.fold_indices else ""
        found = Claimed(
            bundle, source.owner_uid, whole.manifest, path, copied.digest, copied.files, ignored,
            copied.fold_indices, indices,
        )  # fmt: skip
        return self._hand_out(candidate, found)

    def _make_shard(self, shard: Path, written: list[Path]) -> None:
        if shard not in self._shards:
            shard.mkdir(mode=0o755, exist_ok=True)
            written += (shard, shard.parent)
            self._shards = {shard}

    def _refusal(self, candidate: Candidate, problems: Sequence[Problem]) -> Refused:
        bundle = BundleId(candidate.kind, candidate.name, self._next_ticket, candidate.signature)
        return self._hand_out(candidate, Refused(bundle, candidate.owner_uid, tuple(problems)))

    def _hand_out(self, candidate: Candidate, found: Handed) -> Handed:
        """It is the caller's now, until finish() or refuse()."""
        self._next_ticket += 1
        candidate.handed = found.bundle
        candidate.missing = ()
        folder = found.folder if isinstance(found, Claimed) else None
        self._handed[found.bundle.ticket] = (candidate, folder)
        return found

    def _clear_unfinished(self, candidate: Candidate) -> Cleared | None:
        """Finishes what the catalog says was taken or refused before a crash, and was not cleared away."""
        unfinished = self._unfinished.get((candidate.kind, candidate.name))
        if unfinished is None:
            return None
        del self._unfinished[candidate.kind, candidate.name]
        if unfinished.bundle.signature != candidate.signature:
            return None  # another bundle of the same name: the old one had gone
        if unfinished.problems is None:
            self._finish(candidate, unfinished.bundle)
        else:
            self._refuse(candidate, unfinished.bundle, unfinished.problems)
        return None if candidate.done else Cleared(unfinished.bundle)

    def _finish(self, candidate: Candidate, bundle: BundleId) -> bool:
        if not self._is_as_handed_out(candidate, bundle):
            return True
        try:
            hidden = clearing.take_away(self._folders[candidate.kind].path, candidate.entry, bundle.ticket)
        except FileNotFoundError:
            self._drop(candidate)
            return True
        except OSError as error:
            self._leave(candidate, bundle, error)
            return False
        self._drop(candidate)
        self._hidden.append(hidden)
        if not self._agenda.has_due(self._looked_at):  # in a burst, taking bundles in goes first
            clearing.remove_hidden(self._spool, self._hidden, self._notices)
        return True

    def _refuse(self, candidate: Candidate, bundle: BundleId, problems: Sequence[Problem]) -> str | None:
        if not self._is_as_handed_out(candidate, bundle):
            return None
        try:
            target, gone = clearing.move_to_rejected(
                self._spool,
                candidate.entry,
                bundle,
                owner_uid=candidate.owner_uid,
                bounds=self._bounds,
            )
        except FileNotFoundError:
            self._drop(candidate)
            return None
        except (OSError, NotReady, Rejection) as error:
            self._leave(candidate, bundle, error)
            return None
        try:
            clearing.write_reason(self._spool, target, bundle, problems)
        except OSError as error:  # the receipt says it too
            self._notices.tell("reason_not_written", folder=self._spool.relative(target), reason=str(error))
        if gone:
            self._drop(candidate)
        else:
            self._leave(candidate, bundle, PermissionError("its folder does not let us remove it"))
        return self._spool.relative(target)

    def _is_as_handed_out(self, candidate: Candidate, bundle: BundleId) -> bool:
        """False if something else lies there now: that is a bundle of its own, looked at anew."""
        candidate.handed = None
        try:
            unchanged = self._signature_now(candidate) == bundle.signature
        except FileNotFoundError:
            self._drop(candidate)
            return False
        except (Rejection, NotReady):
            unchanged = True  # it never could be opened as a bundle: that is why it is refused
        except OSError:
            unchanged = True  # taking it away will tell
        if not unchanged:
            self._agenda.add(candidate, 0.0)
        return unchanged

    def _signature_now(self, candidate: Candidate) -> str:
        incoming = self._folders[candidate.kind].path
        return signature_now(incoming, candidate.entry, kind=candidate.kind, bounds=self._bounds)

    def _leave(self, candidate: Candidate, bundle: BundleId, error: Exception) -> None:
        """It stays under its name, and is not taken again as long as it does not change."""
        candidate.done = bundle.signature
        self._agenda.add(candidate, self._looked_at + _LEFT_SECONDS)
        bundle_name = f"{candidate.kind.value}/{candidate.name}"
        self._notices.tell_once("bundle_not_cleared", bundle=bundle_name, reason=str(error))

    def _drop(self, candidate: Candidate) -> None:
        candidate.gone = True
        self._candidates.pop((candidate.kind, candidate.entry), None)
        self._folders[candidate.kind].known.discard(candidate.entry)

    def _forget(self, candidate: Candidate, findings: list[Finding]) -> None:
        """It is not listed any more; one that was handed out may be on its way through our hands."""
        if candidate.handed is not None:
            return
        self._drop(candidate)
        if candidate.reported:
            findings.append(Withdrawn(candidate.kind, candidate.name))

    def _next_due(self, candidate: Candidate, now: float) -> float:
        return candidate.next_due(
            now, settle_seconds=self._settle_seconds, late_after_seconds=self._incomplete_after_seconds
        )
