"""Decisions become effects: lines first, then processes, tasks and publications."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from datarun_daemon import librarian as lib
from datarun_daemon.books import Books
from datarun_daemon.config import Config
from datarun_daemon.core import events as e
from datarun_daemon.core.model import FoldState, Stage, json_id, uid_of
from datarun_daemon.core.scheduler import (
    Decision,
    DeliverPredictions,
    FailFold,
    GenerateFolds,
    PublishFold,
    SplitDataset,
    StartFold,
    StopAttempt,
)
from datarun_daemon.results import failed_facts, failed_log, requested_facts, rows_of
from datarun_daemon.runner import protocol
from datarun_daemon.runner.pool import Pool
from datarun_daemon.spool.deliveries import Answer, Deliveries, Requested
from datarun_daemon.spool.indices import FoldIndices, unpack
from datarun_daemon.spool.layout import answer_name
from datarun_daemon.spool.manifest_values import RAMP
from datarun_daemon.spool.outbox import Outbox, ResultPlace
from datarun_daemon.spool.views import iso

log = structlog.get_logger()

#: after a run folder could not be made (a full disk, most often), no fold is started for so long
_PAUSE_SECONDS = 10.0


@dataclass(slots=True)
class Acting:
    """Carries out what was decided."""

    books: Books
    pool: Pool
    librarian: lib.Librarian
    outbox: Outbox
    deliveries: Deliveries
    config: Config
    #: time.monotonic() before which nothing is started
    paused_until: float = 0.0

    def carry_out(self, decisions: Iterable[Decision]) -> None:
        """The lines that decisions need are written, then the effects happen."""
        starts = []
        for decision in decisions:
            match decision:
                case FailFold(fold_id, stage, message):
                    fold = self.books.ledger.folds[fold_id]
                    self.books.note(e.FoldFailed(fold_id, fold.attempt if fold.started_at else 0, stage, message))
                    log.info("fold_failed", fold=fold_id, stage=stage.value, message=message)
                case StartFold(fold_id, attempt):
                    self.books.note(e.FoldStarted(fold_id, attempt))
                    starts.append(decision)
                case _:
                    self.books.underway.add(decision)
                    self._set_going(decision)
        self.publish(self.books.commit())
        for start in starts:
            self._start(start)

    def publish(self, staged: Iterable[ResultPlace | Answer]) -> None:
        """The rename of results and answers whose lines are durable."""
        for what in staged:
            try:
                if isinstance(what, Answer):
                    self.deliveries.publish(what.ticket, what.name, what.delivered)
                else:
                    self.outbox.publish(what)
            except OSError as error:
                # it stays staged, and the next start publishes it
                name = what.name if isinstance(what, Answer) else what.fold
                log.error("result_not_published", name=name, reason=str(error))

    def _set_going(self, decision: Decision) -> None:
        match decision:
            case StopAttempt(fold_id, attempt):
                reason = self.books.ledger.folds[fold_id].cancelling or "it is to run anew"
                self.pool.stop(fold_id, attempt, reason=reason)
            case PublishFold(fold_id, attempt):
                self._stage(fold_id)
            case SplitDataset(name):
                self._split(name)
            case GenerateFolds(ticket):
                self._generate(ticket)
            case DeliverPredictions(ticket):
                self._deliver(ticket)

    def _stage(self, fold_id: str) -> None:
        fold = self.books.ledger.folds[fold_id]
        facts = failed_facts(self.books.ledger, fold)
        rows = rows_of(self.books.spool, fold)
        self.librarian.give(lib.Stage(self.books.place(fold), facts, failed_log(fold), rows))

    def _deliver(self, ticket: int) -> None:
        delivery = self.books.ledger.to_deliver[ticket]
        folds = []
        for fold_id, attempt, new in delivery.results:
            fold = self.books.ledger.folds[fold_id]
            place = None if attempt is None else self.books.place(fold, attempt)
            folds.append(Requested(requested_facts(fold), place, new))
        answer = Answer(
            ticket, answer_name(delivery.bundle.name), uid_of(delivery.owner), iso(time.time()), tuple(folds),
            tuple(json_id(fold) for fold in delivery.unknown),
        )  # fmt: skip
        self.librarian.give(lib.Deliver(answer))

    def _split(self, name: str) -> None:
        dataset = self.books.ledger.datasets[name]
        assert dataset.split is not None
        folder = self.books.spool.root / dataset.folder
        self.pool.forget(name)
        own = dataset.specific and dataset.format != RAMP
        files = tuple(file for file in (dataset.data_file, *dataset.extra_files) if file) if own else ()
        task = protocol.PrepareTask(
            name, None if dataset.specific else folder / dataset.data_file, dataset.target_column,
            dataset.workflow_elements, dataset.split.held_out_test, dataset.split.random_state,
            folder / f"prepared.{self.books.ledger.sequence}.{time.time_ns()}",
            format=dataset.format, specific=dataset.specific, files=files, fold_files=dataset.fold_files,
            dataset_folder=folder,
            wall_seconds=self.config.split_wall_seconds,
        )  # fmt: skip
        self.pool.prepare(task)

    def _generate(self, ticket: int) -> None:
        accepted = self.books.ledger.to_generate[ticket]
        assert accepted.cv is not None
        dataset = self.books.ledger.datasets[self.books.ledger.submissions[accepted.submission].dataset]
        root = self.books.spool.root
        task = protocol.GenerateFoldsTask(
            str(ticket), dataset.name, root / dataset.prepared, accepted.cv.class_name, accepted.cv.parameters,
            root / accepted.folder / ".indices.npy",
        )  # fmt: skip
        self.pool.prepare(task)

    def _start(self, start: StartFold) -> None:
        ledger, spool = self.books.ledger, self.books.spool
        fold = ledger.folds[start.fold]
        dataset = ledger.datasets[fold.dataset]
        submission = ledger.submissions[fold.submission]
        indices = FoldIndices(fold.id, fold.priority, fold.offset, fold.n_train, fold.n_test, fold.max_index)
        try:
            train_is, test_is = unpack(spool.root / fold.indices, indices)
            job = protocol.FoldJob(
                fold.id, start.attempt, dataset.name, spool.root / dataset.prepared, spool.root / submission.folder,
                dataset.workflow_elements, spool.run(fold.id, start.attempt), train_is,
                protocol.Limits(**self.config.fold_limits(fold.priority)), test_is=test_is,
            )  # fmt: skip
            self.pool.start(job)
        except (ValueError, IndexError) as error:
            # what is in the store is not what was put there: no other attempt would go better
            self.books.note(e.FoldFailed(fold.id, start.attempt, Stage.DATA, f"it could not be started: {error}"))
            log.error("fold_not_started", fold=fold.id, reason=str(error))
            return
        except OSError as error:
            self.paused_until = time.monotonic() + _PAUSE_SECONDS
            reason = f"it could not be started: {error}"
            self.books.note(e.FoldLost(fold.id, start.attempt, reason, counted=False))
            log.warning("fold_not_started", fold=fold.id, reason=str(error), retry_seconds=_PAUSE_SECONDS)
            return
        assert fold.state is FoldState.RUNNING
        log.info("fold_started", fold=fold.id, attempt=start.attempt, dataset=dataset.name)
