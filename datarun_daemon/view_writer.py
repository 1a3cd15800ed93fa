"""The thread that writes ``status/datasets.json``, ``folds.jsonl`` and ``folds/ID.json`` from copies it is handed.

What could not be written is kept and tried again. The stamp, written last, says up to which line of the catalog
the files are current: the next daemon goes on from there, unless the machine was restarted in between, since nothing
here is fsynced.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from datarun_daemon import disk
from datarun_daemon.core.model import FoldState, json_id
from datarun_daemon.core.records import Fold
from datarun_daemon.spool.fold_list import FoldList, Identity, ListLost, key_of
from datarun_daemon.spool.fold_views import FoldFiles, FoldView, encode_list, line_stem
from datarun_daemon.spool.layout import Spool
from datarun_daemon.worker import Worker

#: an OSError is most often a full disk; writing is tried again after this time
RETRY_SECONDS = 5.0
#: while nothing happens, it is looked this often whether the files are still there
_CHECK_SECONDS = 2.0
#: folds.jsonl rests for so many times as long as it took to write, and is written at no higher rate than this
_RESTS = 30
_BYTES_A_SECOND = 5_000_000
_STAMP_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Anew:
    """All files are written from here on, whatever is there; files of folds that do not come again are removed."""


@dataclass(frozen=True, slots=True)
class Show:
    """These folds changed."""

    folds: tuple[FoldView, ...]


@dataclass(frozen=True, slots=True)
class Complete:
    """All that changed up to a line of the catalog has been handed over."""

    sequence: int
    #: page (negative: none yet) and id of the folds that start next, in order
    order: tuple[tuple[int, str], ...]
    #: what changed in datasets.json, by name
    datasets: Mapping[str, dict[str, object]]
    counts: Mapping[str, Mapping[FoldState, int]]
    new: tuple[Fold, ...]


Task = Anew | Show | Complete


@dataclass(frozen=True, slots=True)
class Shown:
    """The writer is ready for the next task."""


@dataclass(frozen=True, slots=True)
class Written:
    """All files are at least as new as this line of the catalog."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Files are missing, or are not ours; all have to be written anew."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotWritten:
    """The disk refused; it is tried again."""

    reason: str


Report = Shown | Written | Lost | NotWritten


@dataclass(frozen=True, slots=True)
class Recalled:
    """What an earlier daemon wrote: 0 and 0 if it is of no use."""

    #: line of the catalog
    sequence: int
    #: in folds.jsonl
    folds: int


class _Stamp(msgspec.Struct, frozen=True):
    format: int
    boot_id: str
    sequence: int
    folds: Identity | None


class ViewWriter(Worker[Task]):
    """Owns the files of ``status/`` but for overview.json, which is the loop's."""

    def __init__(self, spool: Spool, post: Callable[[object], None]) -> None:
        super().__init__("views", post)
        self._spool = spool
        self._files = FoldFiles(spool)
        self._list = FoldList(spool.folds_file)
        self._rows: deque[FoldView] = deque()
        self._complete: Complete | None = None
        self._datasets: dict[str, dict[str, object]] = {}
        self._datasets_written = b""
        #: ids shown since all is written anew
        self._fresh: set[str] | None = None
        #: nothing is written before all is written anew
        self._lost = True
        self._owes_answer = False
        self._list_due = self._retry_at = 0.0
        self._boot_id = _boot_id()

    def recall(self) -> Recalled:
        """Up to where the files of an earlier daemon are current; nothing of this before :meth:`start`."""
        for left in self._spool.status.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        try:
            stamp = msgspec.json.decode(self._spool.views_stamp.read_bytes(), type=_Stamp)
            if (stamp.format, stamp.boot_id) != (_STAMP_FORMAT, self._boot_id) or not self._spool.fold_files.is_dir():
                return Recalled(0, 0)
            if stamp.folds is not None:
                self._list.recall(stamp.folds)
        except (OSError, msgspec.MsgspecError, ListLost):
            self._list = FoldList(self._spool.folds_file)
            return Recalled(0, 0)
        self._lost = False
        return Recalled(stamp.sequence, self._list.length)

    def wait_seconds(self) -> float:
        now = time.monotonic()
        if self._rows:
            return max(0.0, self._retry_at - now)
        if self._complete:
            return max(0.0, self._retry_at - now, self._list_due - now)
        return _CHECK_SECONDS

    def work(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self._take(task)
        now = time.monotonic()
        if now >= self._retry_at or self._stopping:
            self._write(now)
        if self._owes_answer and not self._rows:
            self._owes_answer = False
            self.post(Shown())

    def _take(self, task: Task) -> None:
        self._owes_answer |= not isinstance(task, Anew)
        match task:
            case Anew():
                self._forget()
                self._lost, self._fresh = False, set()
            case _ if self._lost:
                pass  # it comes again after Anew
            case Show(folds):
                self._rows.extend(folds)
            case Complete(datasets=datasets):
                self._datasets.update(datasets)
                self._complete = task

    def _write(self, now: float) -> None:
        if self._lost:
            return
        try:
            self._see_to_folders()
            self._write_folds()
            if self._complete and (now >= self._list_due or self._stopping):
                self._write_lists(self._complete)
        except ListLost as error:
            self._forget()
            self._lost = True
            self.post(Lost(str(error)))
        except OSError as error:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self.post(NotWritten(str(error)))

    def _forget(self) -> None:
        """Nothing that was handed over or written so far counts."""
        self._list = FoldList(self._spool.folds_file)
        self._rows.clear()
        self._complete, self._fresh, self._datasets_written = None, None, b""

    def _see_to_folders(self) -> None:
        """The folders are there; ListLost if somebody removed them, or a file of ours."""
        if self._fresh is not None:
            for folder in (self._spool.status, self._spool.fold_files):
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(0o755)
            return
        for path in (self._spool.fold_files, self._spool.datasets_file):
            if not path.exists():
                raise ListLost(f"{path} is gone")
        self._list.check()

    def _write_folds(self) -> None:
        while self._rows:
            view = self._rows[0]
            disk.write_atomically(self._spool.fold_file(view.id), self._files.content(view), durable=False)
            self._list.put(view.page, line_stem(view))
            if self._fresh is not None:
                self._fresh.add(view.id)
            self._rows.popleft()

    def _write_lists(self, complete: Complete) -> None:
        started, before = time.monotonic(), self._list.identity
        positions: dict[int, list[tuple[bytes, int]]] = {}
        for position, (page, fold) in enumerate(complete.order, 1):
            if page < 0:
                continue
            key = key_of(msgspec.json.encode(json_id(fold)))
            positions.setdefault(page, []).append((key, position))
        self._list.write(positions)
        if self._fresh is not None:
            self._sweep(self._fresh)
        self._write_datasets(complete)
        stamp = _Stamp(_STAMP_FORMAT, self._boot_id, complete.sequence, self._list.identity)
        disk.write_atomically(self._spool.views_stamp, msgspec.json.encode(stamp) + b"\n", durable=False)
        self._complete = self._fresh = None
        ended = time.monotonic()
        size_bytes = self._list.size_bytes if self._list.identity != before else 0
        self._list_due = ended + max(_RESTS * (ended - started), size_bytes / _BYTES_A_SECOND)
        self.post(Written(complete.sequence))

    def _sweep(self, fresh: set[str]) -> None:
        """No file but of these folds is left; ListLost if one of theirs is missing."""
        names = {f"{fold}.json" for fold in fresh}
        with os.scandir(self._spool.fold_files) as entries:
            for entry in entries:
                if entry.name in names:
                    names.remove(entry.name)
                else:
                    disk.remove_tree(self._spool.fold_files / entry.name)
        if names:
            raise ListLost(f"{self._spool.fold_files} lost files while they were written")

    def _write_datasets(self, complete: Complete) -> None:
        new = Counter(fold.dataset for fold in complete.new)
        none: Mapping[FoldState, int] = {}
        content = encode_list(
            [
                {
                    **dataset,
                    "folds": {state.value: n for state, n in complete.counts.get(name, none).items() if n},
                    "new": new[name],
                }
                for name, dataset in self._datasets.items()
            ]
        )
        if content != self._datasets_written:
            disk.write_atomically(self._spool.datasets_file, content, durable=False)
            self._datasets_written = content


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
