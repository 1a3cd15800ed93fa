"""An inbox without a daemon around it, and bundles dropped into it by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datarun_daemon.core.model import BundleKind
from datarun_daemon.spool.bundle import Bounds
from datarun_daemon.spool.findings import Claimed, Finding, Incomplete, Refused, Unfinished
from datarun_daemon.spool.inbox import Inbox
from datarun_daemon.spool.layout import Spool
from tests.malformed import npy

DATASETS, FOLDS, REQUESTS = BundleKind.DATASETS, BundleKind.FOLDS, BundleKind.REQUESTS
SETTLE_SECONDS = 5.0
INCOMPLETE_SECONDS = 60.0
BOUNDS = Bounds(bytes=1 << 20, files=50, copy_seconds=60.0)
CODE = b"class Classifier:\n    pass\n"
TRAIN = npy([0, 1, 2, 3])
TEST = npy([4, 5])
FOLD_FILES = {"classifier.py": CODE, "train.npy": TRAIN, "test.npy": TEST}


class Desk:
    """An inbox on a spool, and the clock it is told."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.spool = Spool.create(folder / "spool")
        self.now = 1000.0
        self.open(**options)

    def open(self, *, next_ticket: int = 1, bounds: Bounds = BOUNDS, unfinished: Iterable[Unfinished] = ()) -> None:
        """As a daemon that starts."""
        self.inbox = Inbox(
            self.spool,
            next_ticket=next_ticket,
            settle_seconds=SETTLE_SECONDS,
            incomplete_after_seconds=INCOMPLETE_SECONDS,
            rescan_seconds=5.0,
            bounds=bounds,
            unfinished=unfinished,
        )
        self.inbox.clean()

    def folder(self, name: str, kind: BundleKind = FOLDS) -> Path:
        return self.spool.incoming_of(kind) / name

    def look(self, *, after: float = 0.0) -> list[Finding]:
        """What is found in all looks of this time, in the steps in which a daemon would look."""
        end = self.now + after
        found = self.inbox.look(self.now)
        while self.now < end:
            self.now = min(end, self.now + max(self.inbox.seconds_to_next(self.now), 0.01))
            found += self.inbox.look(self.now)
        return found

    def claim(self, *, after: float = 0.0) -> Claimed:
        """The one bundle that is claimed."""
        found = self.look(after=after)
        assert [Claimed] == [type(each) for each in found], found
        assert isinstance(found[0], Claimed)
        return found[0]

    def refusal(self, *, after: float = 0.0) -> Refused:
        found = self.look(after=after)
        assert [Refused] == [type(each) for each in found], found
        assert isinstance(found[0], Refused)
        return found[0]

    def missing(self, *, after: float = INCOMPLETE_SECONDS + 1) -> tuple[str, ...]:
        """What the one bundle that is incomplete waits for."""
        found = self.look(after=after)
        assert [Incomplete] == [type(each) for each in found], found
        assert isinstance(found[0], Incomplete)
        return found[0].missing

    def stored(self) -> list[str]:
        """Bundles in the store."""
        return sorted(path.name for kind in (DATASETS, FOLDS) for path in self.spool.store_of(kind).glob("*/*"))

    def incoming(self, kind: BundleKind = FOLDS) -> list[str]:
        return sorted(path.name for path in self.spool.incoming_of(kind).iterdir() if path.name != "README.txt")


def fold_manifest(files: Mapping[str, bytes] = FOLD_FILES, *, fold: str = "11", digested: bool = True) -> bytes:
    """Of one fold whose row numbers lie in train.npy and test.npy."""
    digests = "".join(
        f"  {name}: {{bytes: {len(data)}, sha256: '{hashlib.sha256(data).hexdigest()}'}}\n"
        for name, data in files.items()
    )
    return (
        "submission: {id: 24, dataset: iris, files: [classifier.py]}\n"
        f"folds:\n  - {{id: {fold}, train_is: train.npy, test_is: test.npy}}\n"
        + (f"files:\n{digests}" if digested else "")
    ).encode()


def write(folder: Path, files: Mapping[str, bytes], *, leave_out: Sequence[str] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        if name not in leave_out:
            (folder / name).write_bytes(data)
    return folder


def drop(
    desk: Desk, name: str = "team_a", *, digested: bool = True, fold: str = "11", leave_out: Sequence[str] = ()
) -> Path:
    """A fold bundle in the incoming folder, there in one piece."""
    manifest = fold_manifest(fold=fold, digested=digested)
    hidden = write(desk.folder(f".{name}"), {**FOLD_FILES, "manifest.yaml": manifest}, leave_out=leave_out)
    return hidden.rename(desk.folder(name))
