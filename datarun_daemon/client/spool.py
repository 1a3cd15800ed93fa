"""A spool as Python sees it: send datasets and folds, wait for them, take predictions."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from datarun_daemon.client.answers import DatasetReceipt, FoldId, FoldRows, FoldsReceipt, Receipt, Rows
from datarun_daemon.client.connecting import connected
from datarun_daemon.client.dropping import Dropping, portions, rejections, unique_name
from datarun_daemon.client.errors import NoAnswer, Rejected, UnknownFolds
from datarun_daemon.client.making import dataset_bundle, fold_bundles
from datarun_daemon.client.predictions import Predictions, read_delivery
from datarun_daemon.client.sending import bundle_kind, check, checked_name, packed
from datarun_daemon.client.submitting import Submitted
from datarun_daemon.client.views import Views
from datarun_daemon.client.waiting import wait_for_folds
from datarun_daemon.core.errors import Problem
from datarun_daemon.core.model import BundleKind, FoldState
from datarun_daemon.spool.layout import ARCHIVE_SUFFIXES, REQUEST_SUFFIXES
from datarun_daemon.spool.names import id_fault

#: one id, several, or the receipt of folds
Folds = FoldId | Iterable[FoldId] | FoldsReceipt

#: of one request: so many of the longest ids fit into a manifest
_FOLDS_A_REQUEST = 1000
#: the views are some seconds late
_CATCH_UP_SECONDS = 30.0


class Spool:
    """The spool at a path, or on another machine.

    Whatever is sent is checked first, packed, and appears there whole. Every method that sends
    returns once the daemon has accepted it, and raises

    - Rejected: it cannot be accepted; the message lists every reason,
    - NoAnswer: no daemon said a word within ``wait_seconds``; what was sent stays there,
    - Unreachable, TransferFailed: it could not be sent, and nothing of it is there.

    Args:
        location: a path, or ``ssh://[user@]host[:port]/path`` (``/~/path``: below the home folder).
        ssh_options: for ``ssh``, beside what ~/.ssh/config says: ``("-i", "key")``.
        user: on whose behalf everything is sent that names no other user, where the daemon lets this
            account say so.

    Raises:
        SpoolError: there is no spool.
        Unreachable: there is no way to its machine.
    """

    def __init__(
        self, location: str | Path, *, ssh_options: Sequence[str] = (), user: str | None = None
    ) -> None:
        self._transport = connected(location, ssh_options)
        self._user = user
        self._dropping = Dropping(self._transport)
        self._views = Views(self._transport)
        self._submitted = Submitted(self._dropping)

    def __repr__(self) -> str:
        return f"Spool({self._transport.place!r})"

    def close(self) -> None:
        """No connection is left open. Nobody needs to call it: it happens at the end of the program, too."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add_dataset(
        self,
        name: str,
        *,
        workflow_elements: str | Sequence[str],
        target_column: str | None = None,
        data_file: str | Path | None = None,
        extra_files: Sequence[str | Path] = (),
        split: Mapping[str, Any] | Literal["custom"] | None = None,
        user: str | None = None,
        bundle_name: str | None = None,
        wait_seconds: float = 60.0,
    ) -> DatasetReceipt:
        """The dataset is registered; its split, if one is asked for, is made next.

        Args:
            split: ``{"held_out_test": 0.2, "random_state": 42}``; "custom", if its own code splits it; or
                None, for later.
        """
        what = f"dataset {name}"
        with rejections(what):
            making = dataset_bundle(
                name,
                workflow_elements=workflow_elements,
                target_column=target_column,
                data_file=data_file,
                extra_files=extra_files,
                split=split,
                user=user or self._user,
            )
            dropped_as = checked_name(bundle_name or unique_name())
        dropped = self._dropping.drop_made(making, BundleKind.DATASETS, dropped_as, what)
        receipt = self._dropping.receipt(dropped, wait_seconds=wait_seconds)
        content = receipt.content
        return DatasetReceipt(receipt.kind, receipt.name, content, content["dataset"], content["id"])

    def add_bundle(
        self,
        bundle: str | Path,
        kind: BundleKind | str | None = None,
        *,
        bundle_name: str | None = None,
        wait_seconds: float = 60.0,
    ) -> Receipt:
        """A bundle that lies ready, as a folder, archive or request's file, is accepted.

        Args:
            kind: datasets, folds or requests; None: by what its manifest says.
        """
        bundle = Path(bundle)
        what = f"bundle {bundle}"
        if problems := check(bundle):
            raise Rejected(what, problems)
        with rejections(what):
            found = bundle_kind(bundle)
            suffix = next((s for s in (*ARCHIVE_SUFFIXES, *REQUEST_SUFFIXES) if bundle.name.endswith(s)), "")
            name = checked_name(bundle_name or unique_name() + ("" if bundle.is_dir() else suffix))
            if kind is not None and BundleKind(kind) is not found:
                raise Rejected(what, [Problem("kind", BundleKind(kind).value, f"{found.value}, by its manifest")])
            with packed(bundle) as source:
                dropped = self._dropping.drop(source, found, name, what)
        receipt = self._dropping.receipt(dropped, wait_seconds=wait_seconds)
        if found is BundleKind.FOLDS:
            self._submitted.remember(receipt)
        return receipt

    def split(
        self,
        dataset: str,
        held_out_test: float | None = None,
        random_state: int = 42,
        *,
        custom: bool = False,
        force: bool = False,
        user: str | None = None,
        wait_seconds: float = 60.0,
    ) -> Receipt:
        """The split of the dataset is asked for; ``custom``: its own code makes it."""
        fields: dict[str, Any] = {"dataset": dataset}
        if not custom:
            fields |= {"held_out_test": held_out_test, "random_state": random_state}
        if force:
            fields["force"] = True
        action = "custom_split" if custom else "split"
        return self._request(action, fields, f"split of dataset {dataset}", user, wait_seconds)

    def submit_fold(
        self,
        submission: FoldId,
        fold: FoldId,
        train_is: Rows,
        test_is: Rows,
        *,
        dataset: str | None = None,
        files: Sequence[str | Path] = (),
        priority: str = "L",
        force: str | Sequence[str] | None = None,
        user: str | None = None,
        wait_seconds: float = 60.0,
    ) -> FoldsReceipt:
        """One fold, as :meth:`submit_folds` does it."""
        return self.submit_folds(
            submission,
            [FoldRows(fold, train_is, test_is)],
            dataset=dataset, files=files, priority=priority, force=force, user=user, wait_seconds=wait_seconds,
        )  # fmt: skip

    def submit_folds(
        self,
        submission: FoldId,
        folds: Iterable[FoldRows] | None = None,
        *,
        cv: Mapping[str, Any] | None = None,
        dataset: str | None = None,
        files: Sequence[str | Path] = (),
        priority: str = "L",
        force: str | Sequence[str] | None = None,
        user: str | None = None,
        wait_seconds: float = 60.0,
    ) -> FoldsReceipt:
        """The folds are registered, and run when their turn comes.

        More folds than one manifest holds are sent as several bundles: the first, with the files, is
        accepted before the others go. If one of those is rejected, the rest is in all the same.

        Args:
            folds: their rows; or instead of them:
            cv: a splitter of scikit-learn and its parameters, ``{"class": "KFold", "n_splits": 5}``. Its
                folds are made once the dataset is there and split; they are waited for, and if
                ``wait_seconds`` are not enough ``folds`` of the receipt is empty.
            dataset, files: of a new submission, or to replace its files; not for one that is there.
            force: "submission_fold" runs folds again, "submission" replaces the submission's files;
                or both, as "submission, submission_fold".
        """
        if (folds is None) == (cv is None):
            raise TypeError("submit_folds takes either folds or cv")
        forced = force.replace(" ", "").split(",") if isinstance(force, str) else list(force or ())
        part = {"id": submission} | ({"dataset": dataset} if dataset is not None else {})
        bundles = fold_bundles(
            part, folds, files=files, cv=cv, priority=priority, force=forced, user=user or self._user
        )
        return self._submitted.submit(
            submission,
            bundles,
            wait_seconds=wait_seconds,
            look_again_seconds=self._transport.look_again_seconds,
        )

    def wait(
        self,
        folds: Folds | None = None,
        *,
        timeout_seconds: float | None = None,
        progress: bool = True,
    ) -> dict[FoldId, FoldState]:
        """The state of each fold, keyed by the ids as they were given, once all have ended.

        Args:
            folds: None: all that this object submitted.
            timeout_seconds: None: for ever.
            progress: a bar on stderr, if that is a terminal.

        Raises:
            NotDone: the time is over; ``.left`` and ``.states`` tell how far they are.
            UnknownFolds: there are no such folds.
            Rejected: a splitter could not make the folds.
        """
        asked = {} if folds is None else _by_text(folds)

        def wanted() -> tuple[Mapping[str, FoldId], int]:
            if isinstance(folds, FoldsReceipt):
                return self._submitted.of(folds)
            unmade = self._submitted.look_again()
            return (self._submitted.folds, unmade) if folds is None else (asked, 0)

        return wait_for_folds(
            self._views,
            wanted,
            accepted=lambda fold: isinstance(folds, FoldsReceipt) or fold in self._submitted.folds,
            sequence=self._dropping.sequence,
            look_again_seconds=self._transport.follow_seconds,
            timeout_seconds=timeout_seconds,
            show_progress=progress,
        )

    def predictions(
        self, folds: Folds, *, user: str | None = None, wait_seconds: float = 60.0
    ) -> dict[FoldId, Predictions]:
        """What is there of these folds, keyed by the ids as they were given; they are no longer new then.

        Raises:
            UnknownFolds: some of them are not there, or not yours; its ``found`` has the others.
        """
        asked = _by_text(folds)
        found: dict[FoldId, Predictions] = {}
        unknown: list[FoldId] = []
        for portion in portions(list(asked.values()), _FOLDS_A_REQUEST):
            part, not_there = self._delivered({"folds": list(portion)}, user, wait_seconds)
            found |= {asked[str(each.fold)]: each for each in part}
            unknown += [asked[str(fold)] for fold in not_there]
        if unknown:
            named = ", ".join(map(str, unknown[:10])) + (" …" if len(unknown) > 10 else "")
            message = f"{self._transport.place} has no folds of yours with these ids: {named}"
            raise UnknownFolds(message, unknown, found)
        return found

    def new_predictions(
        self, dataset: str | None = None, *, user: str | None = None, wait_seconds: float = 60.0
    ) -> dict[FoldId, Predictions]:
        """Every result of yours that was not taken yet, once; an id that is a whole number is an integer."""
        fields = {"new": True} | ({"dataset": dataset} if dataset is not None else {})
        found, _ = self._delivered(fields, user, wait_seconds)
        return {each.fold: each for each in found}

    def datasets(self) -> list[dict[str, Any]]:
        """What status/datasets.json shows, not older than what this object sent."""
        self._catch_up()
        return self._views.datasets()

    def folds(self) -> list[dict[str, Any]]:
        """What status/folds.jsonl shows of every fold of the spool, not older than what this object sent."""
        self._catch_up()
        return self._views.folds()

    def fold(self, fold: FoldId) -> dict[str, Any]:
        """Everything known of one fold, not older than what this object sent. Raises UnknownFolds."""
        self._catch_up()
        (text,) = _by_text(fold)
        found = None if id_fault(text) else self._views.fold(text)
        if found is None:
            raise UnknownFolds(f"{self._transport.place} does not show a fold {text}", [fold])
        return found

    def fetched(self, folder: str | Path) -> AbstractContextManager[Path]:
        """A folder of the spool, such as a result in its outbox, to be read on this machine; it stays there, too."""
        return self._transport.fetch(Path(folder))

    def cancel(
        self,
        folds: Folds | None = None,
        *,
        submission: FoldId | None = None,
        user: str | None = None,
        wait_seconds: float = 60.0,
    ) -> tuple[Receipt, ...]:
        """The folds, or all of a submission, end as CANCELLED, running or not; a receipt for every 1,000 of them."""
        return self._for_folds("cancel", folds, submission, {}, user, wait_seconds)

    def rerun(
        self,
        folds: Folds | None = None,
        *,
        submission: FoldId | None = None,
        user: str | None = None,
        wait_seconds: float = 60.0,
    ) -> tuple[Receipt, ...]:
        """The folds, or all of a submission, run again; a receipt for every 1,000 of them."""
        return self._for_folds("rerun", folds, submission, {}, user, wait_seconds)

    def set_priority(
        self,
        folds: Folds | None = None,
        priority: str = "H",
        *,
        submission: FoldId | None = None,
        user: str | None = None,
        wait_seconds: float = 60.0,
    ) -> tuple[Receipt, ...]:
        """The folds, or all of a submission, that still wait have this priority; a receipt for every 1,000."""
        return self._for_folds("priority", folds, submission, {"priority": priority}, user, wait_seconds)

    def _for_folds(
        self,
        action: str,
        folds: Folds | None,
        submission: FoldId | None,
        fields: Mapping[str, Any],
        user: str | None,
        wait_seconds: float,
    ) -> tuple[Receipt, ...]:
        if (folds is None) == (submission is None):
            raise TypeError(f"{action} takes either folds or submission")
        whom: list[dict[str, Any]] = [{"submission": submission}]
        if folds is not None:
            ids = list(_by_text(folds).values())
            whom = [{"folds": list(portion)} for portion in portions(ids, _FOLDS_A_REQUEST)]
        return tuple(self._request(action, {**each, **fields}, action, user, wait_seconds) for each in whom)

    def _request(
        self, action: str, fields: Mapping[str, Any], what: str, user: str | None, wait_seconds: float
    ) -> Receipt:
        fields = {**fields, "user": user or self._user}
        return self._dropping.request(action, fields, f"request: {what}", wait_seconds=wait_seconds)

    def _delivered(
        self, fields: Mapping[str, Any], user: str | None, wait_seconds: float
    ) -> tuple[list[Predictions], list[FoldId]]:
        receipt = self._request("predictions", fields, "predictions", user, wait_seconds)
        with self._dropping.delivery(receipt, wait_seconds=wait_seconds) as folder:
            return read_delivery(folder)

    def _catch_up(self) -> None:
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        while not self._views.reach(self._dropping.sequence):
            if time.monotonic() >= deadline:
                raise NoAnswer(
                    f"{self._transport.place}: status/ does not show yet what was accepted last; does a daemon run?"
                )
            time.sleep(self._transport.look_again_seconds)


def _by_text(folds: Folds) -> dict[str, FoldId]:
    """The ids as text, to as they were given."""
    if isinstance(folds, FoldsReceipt):
        folds = folds.folds
    if isinstance(folds, str) or not isinstance(folds, Iterable):
        folds = [folds]
    return {str(fold): fold for fold in folds}
