"""What a start does with what an earlier daemon left: staged results, attempts in motion, run folders."""

from __future__ import annotations

import structlog

from datarun_daemon import librarian as lib
from datarun_daemon.books import Books
from datarun_daemon.core import events as e
from datarun_daemon.looking import Looking
from datarun_daemon.runner.pool import Pool
from datarun_daemon.runner.protocol import Adoption
from datarun_daemon.spool.deliveries import Deliveries
from datarun_daemon.spool.outbox import Outbox

log = structlog.get_logger()


def settle_outbox(books: Books, outbox: Outbox, deliveries: Deliveries) -> None:
    """Results and answers whose lines were written are in the outbox; what else was staged will be staged anew."""
    folds = books.ledger.folds
    due = [
        books.place(fold)
        for fold_id, attempt in outbox.staged_attempts()
        if (fold := folds.get(fold_id)) and fold.published and fold.attempt == attempt
    ]
    outbox.discard_stale(due)
    deliveries.settle(books.ledger.to_deliver)


def settle_attempts(books: Books, pool: Pool, looking: Looking, outbox: Outbox) -> None:
    """Attempts that still run are watched, those that ended are collected, the others are lost."""
    moving = [(fold.id, fold.attempt) for fold in books.ledger.in_motion.values()]
    for fold_id, attempt in [*moving, *sorted(books.ledger.superseded)]:
        fold = books.ledger.superseded.get((fold_id, attempt)) or books.ledger.folds[fold_id]
        run_folder = books.spool.run(fold_id, attempt)
        found = pool.adopt(run_folder, fold=fold_id, attempt=attempt, dataset=fold.dataset)
        finished = found is Adoption.FINISHED or outbox.is_archived(books.place(fold, attempt))
        if found is Adoption.ALIVE:
            log.info("fold_adopted", fold=fold_id, attempt=attempt)
        elif finished:
            log.info("fold_ended_meanwhile", fold=fold_id, attempt=attempt)
            looking.collect(fold, attempt)
        else:
            reason = "its process was gone when the daemon started again"
            books.note(e.FoldLost(fold_id, attempt, reason))
            log.warning("fold_lost", fold=fold_id, attempt=attempt, reason=reason)


def clean_runs(books: Books, librarian: lib.Librarian) -> None:
    """Only run folders of attempts in motion are left, and those about to be collected."""
    ledger = books.ledger
    keep = {(fold.id, fold.attempt) for fold in ledger.in_motion.values()} | ledger.superseded.keys()
    for of_fold in books.spool.runs.iterdir():
        if not of_fold.is_dir():
            continue
        for run_folder in of_fold.iterdir():
            if (of_fold.name, int(run_folder.name) if run_folder.name.isdigit() else -1) not in keep:
                librarian.give(lib.Remove(run_folder))
