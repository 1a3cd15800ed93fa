"""Reports come in, facts go into the books: bundles found, processes that moved, results stored."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from datarun_daemon import librarian as lib
from datarun_daemon import registrar
from datarun_daemon.accounts import Accounts
from datarun_daemon.books import Books
from datarun_daemon.core import events as e
from datarun_daemon.core.errors import Problem
from datarun_daemon.core.model import BundleId, FoldState, Stage, uid_of
from datarun_daemon.core.records import Dataset, Fold
from datarun_daemon.core.scheduler import DeliverPredictions, GenerateFolds, PublishFold, SplitDataset, StopAttempt
from datarun_daemon.intake import Accept, Amend, Found, Intake, Reject, ReportIncomplete, Withdraw
from datarun_daemon.results import result_facts, rows_of
from datarun_daemon.runner import protocol
from datarun_daemon.spool.deliveries import Answer
from datarun_daemon.spool.findings import Claimed, Cleared, Finding, Incomplete, Refused, Waiting, Withdrawn
from datarun_daemon.spool.views import iso

log = structlog.get_logger()


@dataclass(slots=True)
class Looking:
    """Turns each report into facts; never waits, never decides."""

    books: Books
    intake: Intake
    librarian: lib.Librarian
    max_attempts: int
    accounts: Accounts
    #: what lies in the incoming folders, as of the last look
    arriving: tuple[Waiting, ...] = ()
    last_rejected: deque[tuple[float, e.BundleRejected]] = field(default_factory=lambda: deque(maxlen=20))
    last_ended: deque[Fold] = field(default_factory=lambda: deque(maxlen=20))
    #: tasks that the disk refused, with the time.monotonic() at which they are given again
    postponed: list[tuple[float, lib.Task]] = field(default_factory=list)
    _transient: dict[str, int] = field(default_factory=dict)

    def take(self, report: object) -> None:
        """Note what follows from one report of the intake, the pool or the librarian."""
        match report:
            case Found():
                self._found(report)
            case lib.Collected(place, result):
                self._collected(place.fold, place.attempt, result)
            case lib.Staged(place):
                self._staged(place.fold, place.attempt)
            case lib.Damaged(place, reason):
                self._lost(place.fold, place.attempt, f"its result was damaged: {reason}")
            case lib.Delivered(answer):
                self._delivered(answer)
            case lib.Taken(places):
                self._taken([(place.fold, place.attempt) for place in places])
            case lib.Postponed(task, reason):
                log.warning("result_not_stored_yet", reason=reason, retry_seconds=lib.RETRY_SECONDS)
                self.postponed.append((time.monotonic() + lib.RETRY_SECONDS, task))
            case lib.Durable(inner):
                self._durable(inner)
            case _:
                self._from_pool(report)

    def give_postponed_again(self) -> None:
        now = time.monotonic()
        due = [task for at, task in self.postponed if at <= now]
        self.postponed = [(at, task) for at, task in self.postponed if at > now]
        for task in due:
            self.librarian.give(task)

    def collect(self, fold: Fold, attempt: int) -> None:
        """Have the result of a finished attempt stored; one that no longer counts goes no further than the archive."""
        place = self.books.place(fold, attempt)
        run_folder = self.books.spool.run(fold.id, attempt)
        facts = result_facts(self.books.ledger, fold)
        rows = rows_of(self.books.spool, fold)
        counts = (fold.id, attempt) not in self.books.ledger.superseded
        self.librarian.give(lib.Collect(place, run_folder, facts, rows, counts))

    def _found(self, found: Found) -> None:
        self.arriving = found.waiting
        self.books.changes += 1
        for notice in found.notices:
            log.warning(notice.event, **notice.values)
        for repaired in found.repaired:
            log.warning("watch_repaired", folder=str(repaired.folder), reason=repaired.reason)
        for finding in found.findings:
            self._bundle(finding)
        if found.cleared:
            self.books.note(e.BundlesCleared(found.cleared))

    def _bundle(self, finding: Finding) -> None:
        at = iso(time.time())
        match finding:
            case Claimed(bundle=bundle, owner_uid=owner):
                verdict = registrar.register(self.books.ledger, finding, self.books.spool.root, self.accounts)
                if isinstance(verdict, list):
                    self._reject(bundle, owner, tuple(verdict), at)
                    return
                self.books.note(verdict.fact)
                receipt = {"sequence": self.books.ledger.sequence, **verdict.receipt}
                self.books.afterwards(self.intake, Accept(bundle, owner, at, receipt, finding.ignored))
                log.info("bundle_accepted", kind=bundle.kind.value, bundle=bundle.name, ticket=bundle.ticket)
            case Refused(bundle, owner, problems):
                self._reject(bundle, owner, problems, at)
            case Incomplete(kind, name, owner, missing, _):
                self.intake.give(ReportIncomplete(kind, name, owner, at, missing))
                log.warning("bundle_incomplete", kind=kind.value, bundle=name, missing=list(missing[:5]))
            case Withdrawn(kind, name):
                self.intake.give(Withdraw(kind, name))
            case Cleared():
                pass  # its ticket is among found.cleared

    def _reject(self, bundle: BundleId, owner: int, problems: tuple[Problem, ...], at: str) -> None:
        fact = e.BundleRejected(bundle, owner, problems)
        self.books.note(fact)
        self.books.afterwards(self.intake, Reject(bundle, owner, at, problems))
        self.last_rejected.appendleft((time.time(), fact))
        log.warning(
            "bundle_rejected", kind=bundle.kind.value, bundle=bundle.name, problems=len(problems),
            first=str(problems[0]),
        )  # fmt: skip

    def _from_pool(self, report: object) -> None:
        match report:
            case protocol.ServerReady(environment, python, packages):
                log.info("runner_ready", environment=environment, python=python, **packages)
            case protocol.ServerDied(environment, reason, retry_seconds):
                log.warning("runner_died", environment=environment, reason=reason, retry_seconds=retry_seconds)
            case protocol.DatasetLoaded(dataset):
                log.debug("dataset_loaded", dataset=dataset)
                self.books.changes += 1
            case protocol.DatasetUnloadable(dataset, reason):
                log.warning("dataset_unloadable", dataset=dataset, reason=reason)
            case protocol.PhaseEnded(fold, attempt, protocol.Phase.TRAIN, seconds):
                self.books.note(e.FoldTrained(fold, attempt, seconds))
            case protocol.PhaseEnded(fold, attempt, protocol.Phase.VALIDATION, seconds):
                self.books.note(e.FoldValidated(fold, attempt, seconds))
            case protocol.FoldFinished(fold, attempt):
                self._finished(fold, attempt)
            case protocol.FoldVanished(fold, attempt, reason):
                self._lost(fold, attempt, reason)
            case protocol.Prepared():
                folder = report.prepared_folder
                folders = {above for file in report.files for above in file.parents if above.is_relative_to(folder)}
                paths = (*report.files, *folders, folder.parent)
                self.librarian.give(lib.MakeDurable(paths, self.books.spool.root, report))
            case protocol.PrepareFailed():
                self._prepare_failed(report)
            case protocol.FoldsGenerated(key):
                file = self.books.spool.root / self._generated_file(int(key))
                self.librarian.give(lib.MakeDurable((file, file.parent), self.books.spool.root, report))
            case protocol.FoldsNotGenerated():
                self._not_generated(report)
            case _:
                raise TypeError(f"a report that nobody reads: {report!r}")

    def _finished(self, fold_id: str, attempt: int) -> None:
        superseded = self.books.ledger.superseded.get((fold_id, attempt))
        self.collect(superseded or self.books.ledger.folds[fold_id], attempt)

    def _collected(self, fold_id: str, attempt: int, result: Mapping[str, object]) -> None:
        if (fold_id, attempt) in self.books.ledger.superseded:
            self._lost(fold_id, attempt, "its result no longer counts, for it is to run anew")
            return
        state, stage = result.get("state"), result.get("stage")
        message = str(result.get("message") or "")
        if state == FoldState.CANCELLED.value:
            if self.books.ledger.folds[fold_id].cancelling:
                self.books.note(e.FoldCancelled(fold_id, attempt))
                log.info("fold_cancelled", fold=fold_id, attempt=attempt)
                self._staged(fold_id, attempt)
            else:
                self._lost(fold_id, attempt, message, counted=False)
            return
        if state == FoldState.TESTED.value:
            seconds = [_seconds(result.get(f"{phase}_seconds")) for phase in ("train", "validation", "test")]
            self.books.note(e.FoldTested(fold_id, attempt, *seconds))
            log.info("fold_tested", fold=fold_id, attempt=attempt, train_seconds=seconds[0])
        elif state == FoldState.VALIDATED_ONLY.value:
            took = [_seconds(result.get(f"{phase}_seconds")) for phase in ("train", "validation")]
            self.books.note(e.FoldEndedUntested(fold_id, attempt, *took))
            log.info("fold_ended_untested", fold=fold_id, attempt=attempt, train_seconds=took[0])
        else:
            where = Stage(stage) if isinstance(stage, str) and stage in set(Stage) else Stage.TRAIN
            self.books.note(e.FoldFailed(fold_id, attempt, where, message))
            log.info("fold_failed", fold=fold_id, attempt=attempt, stage=where.value, message=message)
        self._staged(fold_id, attempt)

    def _staged(self, fold_id: str, attempt: int) -> None:
        self.books.underway.discard(PublishFold(fold_id, attempt))
        self.books.underway.discard(StopAttempt(fold_id, attempt))
        fold = self.books.ledger.folds[fold_id]
        if fold.id not in self.books.ledger.ended_unpublished or fold.attempt != attempt:
            return  # forced to run again meanwhile
        self.books.note(e.FoldPublished(fold_id, attempt))
        self.books.publish_afterwards(self.books.place(fold))
        self.last_ended.appendleft(fold)

    def _lost(self, fold_id: str, attempt: int, reason: str, *, counted: bool = True) -> None:
        self.books.underway.discard(StopAttempt(fold_id, attempt))
        self.books.note(e.FoldLost(fold_id, attempt, reason, counted))
        self.librarian.give(lib.Remove(self.books.spool.run(fold_id, attempt)))
        log.warning("fold_lost", fold=fold_id, attempt=attempt, reason=reason)

    def _delivered(self, answer: Answer) -> None:
        self.books.note(e.PredictionsDelivered(answer.ticket))
        self.books.underway.discard(DeliverPredictions(answer.ticket))
        self.books.publish_afterwards(answer)
        log.info("predictions_delivered", request=answer.name, folds=len(answer.folds), new=len(answer.delivered))

    def _taken(self, taken: list[tuple[str, int]]) -> None:
        for fold_id, attempt in taken:
            fold = self.books.ledger.new.get(fold_id)
            if fold is not None and fold.attempt == attempt:
                self.books.note(e.FoldTaken(fold_id, attempt))
                log.info("result_taken", fold=fold_id, attempt=attempt)

    def _durable(self, report: object) -> None:
        match report:
            case protocol.Prepared(name, folder, n_train, n_test):
                dataset = self.books.ledger.datasets[name]
                assert dataset.split is not None
                prepared = self.books.spool.relative(folder)
                old = dataset.prepared
                self.books.note(e.DatasetSplit(name, dataset.split, n_train, n_test, prepared))
                self._tell_of_split(dataset)
                if old:
                    self.books.afterwards(self.librarian, lib.Remove(self.books.spool.root / old))
                self.books.underway.discard(SplitDataset(name))
                log.info("dataset_split", dataset=name, n_train=n_train, n_test=n_test)
            case protocol.FoldsGenerated(key, generated):
                self._generated(int(key), generated)

    def _prepare_failed(self, report: protocol.PrepareFailed) -> None:
        self.books.underway.discard(SplitDataset(report.dataset))
        dataset = self.books.ledger.datasets[report.dataset]
        self.librarian.give(lib.Remove(report.prepared_folder))
        if report.transient and self._try_again(f"split of {report.dataset}"):
            log.warning("split_lost", dataset=report.dataset, reason=report.reason)
            return
        assert dataset.split is not None
        self.books.note(e.DatasetSplitFailed(report.dataset, dataset.split, report.reason))
        self._tell_of_split(dataset)
        log.warning("split_failed", dataset=report.dataset, reason=report.reason)

    def _tell_of_split(self, dataset: Dataset) -> None:
        """In the receipt of whoever asked for it."""
        receipt = {"sequence": self.books.ledger.sequence, **registrar.split_receipt(dataset)}
        self.books.afterwards(self.intake, Amend(dataset.asked_by, uid_of(dataset.owner), iso(time.time()), receipt))

    def _generated_file(self, ticket: int) -> str:
        return f"{self.books.ledger.to_generate[ticket].folder}/.indices.npy"

    def _generated(self, ticket: int, generated: tuple[protocol.GeneratedFold, ...]) -> None:
        accepted = self.books.ledger.to_generate[ticket]
        self.books.underway.discard(GenerateFolds(ticket))
        rows = tuple(
            e.FoldRow(
                registrar.generated_id(accepted.submission, number), accepted.priority,
                fold.offset, fold.n_train, fold.n_test, fold.max_index,
            )
            for number, fold in enumerate(generated)
        )  # fmt: skip
        taken = [row.id for row in rows if row.id in self.books.ledger.folds]
        if taken and "submission_fold" not in accepted.force:
            self._no_folds(ticket, f"folds {', '.join(taken[:5])} are there already; `force: submission_fold`")
            return
        self.books.note(e.FoldsGenerated(ticket, self._generated_file(ticket), rows))
        receipt: dict[str, object] = {
            "sequence": self.books.ledger.sequence,
            "submission": accepted.submission,
            "folds": [row.id for row in rows],
        }
        self._amend(accepted, receipt)
        log.info("folds_generated", submission=accepted.submission, folds=len(rows))

    def _not_generated(self, report: protocol.FoldsNotGenerated) -> None:
        ticket = int(report.key)
        self.books.underway.discard(GenerateFolds(ticket))
        if report.transient and self._try_again(f"folds of {ticket}"):
            return
        self._no_folds(ticket, report.reason)

    def _no_folds(self, ticket: int, reason: str) -> None:
        accepted = self.books.ledger.to_generate[ticket]
        self.books.note(e.FoldsNotGenerated(ticket, reason))
        receipt: dict[str, object] = {"submission": accepted.submission, "folds": [], "failed": f"cv: {reason}"}
        self._amend(accepted, receipt)
        log.warning("folds_not_generated", submission=accepted.submission, reason=reason)

    def _amend(self, accepted: e.FoldsAccepted, receipt: dict[str, object]) -> None:
        task = Amend(accepted.bundle, uid_of(accepted.owner), iso(time.time()), receipt)
        self.books.afterwards(self.intake, task)

    def _try_again(self, what: str) -> bool:
        self._transient[what] = self._transient.get(what, 0) + 1
        return self._transient[what] < self.max_attempts


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0

