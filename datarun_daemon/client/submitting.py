"""Submits folds, and remembers which: those of a splitter are known only once the daemon has made them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from datarun_daemon.client.answers import FoldId, FoldsReceipt, Receipt
from datarun_daemon.client.dropping import Dropping, rejections, unique_name
from datarun_daemon.client.making import Making
from datarun_daemon.core.model import BundleKind


class Submitted:
    """All folds that one client submitted."""

    def __init__(self, dropping: Dropping) -> None:
        self._dropping = dropping
        #: by id as text, to as they were given
        self.folds: dict[str, FoldId] = {}
        #: receipts of bundles whose folds the daemon has yet to make
        self._unmade: list[Receipt] = []

    def submit(
        self, submission: FoldId, bundles: Iterable[Making], *, wait_seconds: float, look_again_seconds: float
    ) -> FoldsReceipt:
        """All bundles are accepted: the first, before the others were sent."""
        what = f"folds of submission {submission}"
        deadline = time.monotonic() + wait_seconds
        given: dict[str, FoldId] = {}
        first: Receipt | None = None
        others = []
        with rejections(what):
            for making in bundles:
                given |= {str(fold["id"]): fold["id"] for fold in making.manifest.get("folds", ())}
                dropped = self._dropping.drop_made(making, BundleKind.FOLDS, unique_name(), what)
                if first is None:
                    first = self._dropping.receipt(dropped, wait_seconds=wait_seconds)
                    self.remember(first, given)
                else:
                    others.append(dropped)
        assert first is not None
        for dropped in others:
            left_seconds = max(look_again_seconds, deadline - time.monotonic())
            self.remember(self._dropping.receipt(dropped, wait_seconds=left_seconds), given)
        waits_for = first.content.get("waits_for")
        while not given and not waits_for:
            fresh = self._dropping.again(first)
            if isinstance(listed := fresh.content["folds"], list):
                first, given = fresh, {str(fold): fold for fold in listed}
                self.look_again()
            elif time.monotonic() >= deadline:
                waits_for = "its folds to be made"
            else:
                time.sleep(look_again_seconds)
        return FoldsReceipt(
            BundleKind.FOLDS, first.name, first.content, submission, tuple(given.values()), waits_for
        )

    def remember(self, receipt: Receipt, given: Mapping[str, FoldId] | None = None) -> None:
        """The folds that the receipt lists are ours, or will be once it lists them."""
        listed = receipt.content.get("folds")
        if isinstance(listed, list):
            self.folds |= {str(fold): (given or {}).get(str(fold), fold) for fold in listed}
        else:
            self._unmade.append(receipt)

    def of(self, receipt: FoldsReceipt) -> tuple[Mapping[str, FoldId], int]:
        """The folds of one receipt by id as text; and 1 instead, while they are still to be made."""
        if receipt.folds:
            return {str(fold): fold for fold in receipt.folds}, 0
        fresh = self._dropping.again(receipt)
        if not isinstance(listed := fresh.content["folds"], list):
            return {}, 1
        return {str(fold): fold for fold in listed}, 0

    def look_again(self) -> int:
        """How many bundles there are whose folds are not made yet. Raises Rejected: they cannot be made."""
        unmade, self._unmade = self._unmade, []
        for number, receipt in enumerate(unmade):
            try:
                self.remember(self._dropping.again(receipt))
            except BaseException:
                self._unmade += unmade[number + 1 :]
                raise
        return len(self._unmade)
