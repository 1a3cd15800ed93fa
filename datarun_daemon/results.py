"""What the daemon knows of a fold, as it stands in result.json beside what the run measured."""

from __future__ import annotations

from datarun_daemon.core.ledger import Ledger
from datarun_daemon.core.model import FoldState, json_id, uid_of
from datarun_daemon.core.records import Fold
from datarun_daemon.librarian import Rows
from datarun_daemon.spool.layout import Spool


def rows_of(spool: Spool, fold: Fold) -> Rows:
    """Where the row numbers of the fold are stored."""
    return Rows(spool.root / fold.indices, fold.offset, fold.n_train, fold.n_test)


def result_facts(ledger: Ledger, fold: Fold) -> dict[str, object]:
    """Ids, digests and times of the fold; ids that are whole numbers are JSON numbers."""
    dataset = ledger.datasets.get(fold.dataset)
    return {
        "format": 1,
        "id": json_id(fold.id),
        "submission": json_id(fold.submission),
        "dataset": fold.dataset or None,
        "owner_uid": uid_of(fold.owner),
        "owner": fold.owner,
        "priority": fold.priority.value,
        "attempt": fold.attempt,
        "accepted_at_unix_seconds": fold.accepted_at,
        "submission_sha256": fold.code_digest or None,
        "dataset_sha256": dataset.digest if dataset else None,
        "held_out_test": dataset.split.held_out_test if dataset and dataset.split else None,
        "random_state": dataset.split.random_state if dataset and dataset.split else None,
        "n_train": dataset.n_train if dataset else None,
        "n_test": dataset.n_test if dataset else None,
        "new": True,
    }


def requested_facts(fold: Fold) -> dict[str, object]:
    """What an answer to a predictions request tells of a fold whose result it does not hold."""
    # a result that is not published yet is not there for clients: its fold still runs
    unpublished = fold.state.ended and not fold.published
    state = FoldState.RUNNING if unpublished else fold.state
    return {
        "id": json_id(fold.id),
        "submission": json_id(fold.submission),
        "dataset": fold.dataset or None,
        "state": state.value,
    }


def failed_facts(ledger: Ledger, fold: Fold) -> dict[str, object]:
    """The whole result.json of a fold that ended in ERROR without a run that told why."""
    stage = fold.stage.value if fold.stage else None
    return {
        **result_facts(ledger, fold),
        "state": fold.state.value,
        "stage": stage,
        "message": fold.message,
        "log_messages": failed_log(fold),
    }


def failed_log(fold: Fold) -> str:
    """The message with the tag by which clients of the REST API sort errors."""
    if fold.state is FoldState.CANCELLED:
        return f"{fold.message}\n"
    tag = "split data" if fold.stage == "data" else fold.stage
    return f"{fold.message}\n - ERROR({tag})\n"

