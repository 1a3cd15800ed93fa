"""Sends one bundle after another to one spool, and holds what is known from the receipts."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datarun_daemon.client.answers import FoldId, Receipt
from datarun_daemon.client.errors import NoAnswer, Rejected, TransferFailed, Unreachable
from datarun_daemon.client.making import Making, manifest_bytes
from datarun_daemon.client.packing import pack
from datarun_daemon.client.predictions import DELIVERY_FILE
from datarun_daemon.client.sending import await_receipt, check_content, receipt_content
from datarun_daemon.client.transport import PATHS, Transport
from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.core.model import BundleKind
from datarun_daemon.spool.manifest import MANIFEST_NAME

#: of the names of what is dropped from Python
NAME_PREFIX = "client-"


def unique_name() -> str:
    """Of a bundle: nobody else drops one of this name, and those of one client are in order of time."""
    return f"{NAME_PREFIX}{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{os.getpid()}-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class Dropped:
    """A bundle that lies in the incoming folder, or was taken already."""

    kind: BundleKind
    name: str
    #: in a few words, for messages
    what: str
    #: version of the receipt that an earlier bundle of this name had
    newer_than: str = ""


class Dropping:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        #: the highest catalog line that a receipt told of
        self.sequence = 0

    def drop(self, source: Path, kind: BundleKind, name: str, what: str) -> Dropped:
        """``source``, checked and packed, is there under this name."""
        before = self._transport.read(PATHS.receipt(kind, name))
        self._transport.send(source, kind, name)
        return Dropped(kind, name, what, before.version if before else "")

    def drop_made(self, making: Making, kind: BundleKind, name: str, what: str) -> Dropped:
        """The bundle is checked, packed and there. Raises Rejected: it cannot be accepted."""
        with tempfile.TemporaryDirectory(prefix="datarun-made-") as folder, rejections(what):
            making.write(Path(folder))
            pack(Path(folder))
            check_content(kind, Path(folder))
            return self.drop(Path(folder), kind, name, what)

    def request(self, action: str, fields: Mapping[str, Any], what: str, *, wait_seconds: float) -> Receipt:
        """The receipt of an accepted request."""
        with tempfile.TemporaryDirectory(prefix="datarun-made-") as folder, rejections(what):
            file = Path(folder, MANIFEST_NAME)
            file.write_bytes(manifest_bytes({"action": action, **fields}, alone=True))
            check_content(BundleKind.REQUESTS, Path(folder))
            dropped = self.drop(file, BundleKind.REQUESTS, f"{unique_name()}.yaml", what)
        return self.receipt(dropped, wait_seconds=wait_seconds)

    def receipt(self, dropped: Dropped, *, wait_seconds: float) -> Receipt:
        """Of an accepted bundle. Raises Rejected, NoAnswer."""
        content = await_receipt(
            self._transport, dropped.kind, dropped.name, newer_than=dropped.newer_than, timeout_seconds=wait_seconds
        )
        receipt = Receipt(dropped.kind, dropped.name, content)
        if content["status"] == "rejected":
            raise Rejected(dropped.what, _problems(content), receipt)
        self.sequence = max(self.sequence, receipt.sequence)
        return receipt

    def again(self, receipt: Receipt) -> Receipt:
        """The receipt as it is now: that of a splitter's folds is written anew once they are made."""
        file = PATHS.receipt(receipt.kind, receipt.name)
        found = self._transport.read(file)
        content = receipt_content(found.data, file.name) if found else receipt.content
        fresh = Receipt(receipt.kind, receipt.name, content)
        if failed := content.get("failed"):
            what = f"folds of submission {content.get('submission')}"
            raise Rejected(what, [Problem("cv", str(failed), "a splitter that can divide the training set")], fresh)
        self.sequence = max(self.sequence, fresh.sequence)
        return fresh

    @contextmanager
    def delivery(self, receipt: Receipt, *, wait_seconds: float) -> Iterator[Path]:
        """The folder that answers a predictions request, on this machine; it is gone from the outbox afterwards.

        Raises:
            NoAnswer: it is not there after ``wait_seconds``.
        """
        folder = PATHS.outbox_request(receipt.name)
        deadline = time.monotonic() + wait_seconds
        while self._transport.read(folder / DELIVERY_FILE) is None:
            if time.monotonic() >= deadline:
                raise NoAnswer(
                    f"{self._transport.place}: no {folder} after {wait_seconds:g} seconds; "
                    "does a daemon run there? What was asked for will appear there"
                )
            time.sleep(self._transport.look_again_seconds)
        with self._transport.fetch(folder) as fetched:
            yield fetched
        try:
            self._transport.remove(folder)
        except (TransferFailed, Unreachable) as error:
            # what it holds has been read
            warnings.warn(f"{error}; it stays there until somebody removes it", RuntimeWarning, stacklevel=2)


@contextmanager
def rejections(what: str) -> Iterator[None]:
    """A Rejection inside of it is raised as Rejected."""
    try:
        yield
    except Rejection as rejection:
        raise Rejected(what, rejection.problems) from rejection


def portions(folds: Sequence[FoldId], size: int) -> Iterable[Sequence[FoldId]]:
    return (folds[start : start + size] for start in range(0, len(folds), size))


def _problems(content: Mapping[str, Any]) -> list[Problem]:
    return [
        Problem(str(each.get("field")), str(each.get("found")), str(each.get("expected")))
        for each in content.get("problems") or ()
    ]
