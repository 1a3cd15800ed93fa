"""What datasets and folds are shown as in ``status/``: copies that no later fact changes, and their JSON.

A fold that has ended is shown as RUNNING until its result can be taken.
"""

from __future__ import annotations

import base64
import sys
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from datarun_daemon.core.ledger import Ledger
from datarun_daemon.core.model import FoldState, Owner, Priority, Stage, json_id, uid_of
from datarun_daemon.core.records import Dataset, Fold
from datarun_daemon.spool.indices import FoldIndices, unpack
from datarun_daemon.spool.layout import Spool
from datarun_daemon.spool.outbox import Outbox, ResultPlace
from datarun_daemon.spool.views import iso

#: what a TODO fold of a submission waits for, in words
WaitsFor = Callable[[Ledger, str], str]

_ENCODER = msgspec.json.Encoder()
#: row numbers in base64 that are kept, so that each change of a fold in motion need not compress them again
_KEPT_BYTES = 4 << 20
_ZLIB_LEVEL = 1


class FoldView(msgspec.Struct, frozen=True, gc=False):
    """One fold as it was at one moment. Times are in seconds since the epoch; 0 is never."""

    id: str
    #: page of folds.jsonl on which it stands
    page: int
    submission: str
    dataset: str
    owner: Owner
    state: FoldState
    new: bool
    priority: Priority
    waits_for: str | None
    #: number of the catalog line that accepted it
    sequence: int
    accepted_at: float
    attempt: int
    lost: int
    started_at: float
    ended_at: float
    stage: Stage | None
    message: str | None
    code_digest: str
    #: file of packed row numbers, relative to the spool
    indices: str
    offset: int
    n_train: int
    n_test: int
    published: bool


class _Line(msgspec.Struct, frozen=True, gc=False):
    id: int | str
    submission: int | str
    dataset: str
    state: FoldState
    new: bool
    priority: Priority
    waits_for: str | None


class _Everything(msgspec.Struct, frozen=True, gc=False):
    id: int | str
    submission: int | str
    dataset: str
    state: FoldState
    new: bool
    priority: Priority
    waits_for: str | None
    owner_uid: int
    owner: Owner
    sequence: int
    accepted_at: str
    attempt: int
    lost: int
    started_at: str | None
    ended_at: str | None
    stage: Stage | None
    message: str | None
    submission_sha256: str | None
    published: bool
    result: str | None
    archive: str | None
    n_train_is: int
    n_test_is: int
    train_is: str | None
    test_is: str | None


def view_fold(ledger: Ledger, fold: Fold, page: int, waits_for: WaitsFor) -> FoldView:
    state = fold.state
    waiting = None
    if state is FoldState.TODO:
        waiting = waits_for(ledger, fold.submission)
    elif state.ended and not fold.published:
        state = FoldState.RUNNING  # for clients it ends when its result can be taken
    return FoldView(
        fold.id, page, fold.submission, fold.dataset, fold.owner, state, fold.new, fold.priority, waiting,
        fold.sequence, fold.accepted_at, fold.attempt, fold.lost, fold.started_at, fold.ended_at, fold.stage,
        fold.message, fold.code_digest, fold.indices, fold.offset, fold.n_train, fold.n_test, fold.published,
    )  # fmt: skip


def line_stem(view: FoldView) -> bytes:
    """The fold's line in folds.jsonl up to its position: ``{"id":11,…,"position":``."""
    line = _Line(
        json_id(view.id), json_id(view.submission), view.dataset, view.state, view.new, view.priority, view.waits_for
    )  # fmt: skip
    return _ENCODER.encode(line)[:-1] + b',"position":'


class FoldFiles:
    """Makes the content of ``folds/ID.json``."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._outbox = Outbox(spool)
        self._kept: OrderedDict[tuple[str, int], tuple[str, str]] = OrderedDict()
        self._kept_bytes = 0

    def content(self, view: FoldView) -> bytes:
        """Everything about one fold; its row numbers are null if the store has lost them."""
        place = ResultPlace(view.dataset, view.submission, view.id, view.attempt)
        in_outbox = self._spool.relative(self._outbox.folder_of(place)) if view.new else None
        archive = self._spool.relative(self._outbox.archive_of(place)) if view.published else None
        train_is, test_is = self._rows(view)
        everything = _Everything(
            json_id(view.id), json_id(view.submission), view.dataset, view.state, view.new, view.priority,
            view.waits_for, uid_of(view.owner), view.owner, view.sequence, iso(view.accepted_at), view.attempt,
            view.lost, _iso_or_none(view.started_at), _iso_or_none(view.ended_at), view.stage, view.message,
            view.code_digest or None, view.published, in_outbox, archive, view.n_train, view.n_test, train_is, test_is,
        )  # fmt: skip
        return _ENCODER.encode(everything) + b"\n"

    def _rows(self, view: FoldView) -> tuple[str | None, str | None]:
        """train_is and test_is as base64(zlib(little-endian int64))."""
        key = view.indices, view.offset
        if rows := self._kept.get(key):
            self._kept.move_to_end(key)
            return rows
        try:
            both = unpack(
                self._spool.root / view.indices,
                FoldIndices(view.id, view.priority, view.offset, view.n_train, view.n_test, 0),
            )
        except (FileNotFoundError, EOFError):
            return None, None  # `datarun fsck` tells of it
        rows = _packed(both[0]), _packed(both[1])
        self._kept[key] = rows
        self._kept_bytes += len(rows[0]) + len(rows[1])
        while self._kept_bytes > _KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest[0]) + len(oldest[1])
        return rows


def view_dataset(dataset: Dataset) -> dict[str, object]:
    """What datasets.json says of a dataset beside the numbers of its folds."""
    split: object = None
    if dataset.split is not None:
        own = {"held_out_test": dataset.split.held_out_test, "random_state": dataset.split.random_state}
        split = "custom" if dataset.split.own else own
    return {
        "name": dataset.name,
        "id": dataset.number,
        "state": dataset.split_state.value,
        "reason": dataset.reason,
        "target_column": dataset.target_column,
        "workflow_elements": list(dataset.workflow_elements),
        "format": dataset.format,
        "n_train": dataset.n_train,
        "n_test": dataset.n_test,
        "split": split,
        "owner_uid": uid_of(dataset.owner),
        "owner": dataset.owner,
        "accepted_at": iso(dataset.accepted_at),
        "dataset_sha256": dataset.digest,
    }


def encode_list(items: list[dict[str, object]]) -> bytes:
    """A JSON list with one item a line."""
    return b"[" + b",\n ".join(map(_ENCODER.encode, items)) + b"]\n"


def _packed(rows: array[int]) -> str:
    if sys.byteorder == "big":
        rows.byteswap()
    return base64.b64encode(zlib.compress(rows.tobytes(), _ZLIB_LEVEL)).decode("ascii")


def _iso_or_none(seconds: float) -> str | None:
    return iso(seconds) if seconds else None
