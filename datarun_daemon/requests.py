"""Requests meet the ledger: what each becomes, or every reason why it becomes nothing, and what its receipt says.

The ledger is read here, never changed.
"""

from __future__ import annotations

from collections.abc import Iterable

from datarun_daemon.core import events as e
from datarun_daemon.core.admission import admit_own_folds, admit_split
from datarun_daemon.core.errors import Problem
from datarun_daemon.core.ledger import Ledger
from datarun_daemon.core.model import BundleId, FoldState, Owner, SplitState, json_id, may_manage
from datarun_daemon.core.records import Fold
from datarun_daemon.spool.layout import REQUESTS, answer_name
from datarun_daemon.spool.manifest_values import (
    CancelRequest,
    PredictionsRequest,
    PriorityRequest,
    RequestManifest,
    RerunRequest,
    SplitRequest,
)

Request = (
    e.SplitRequested | e.PredictionsRequested | e.CancelRequested | e.PriorityRequested | e.RerunRequested
)
Answer = tuple[Request, dict[str, object]] | list[Problem]


def admit_request(ledger: Ledger, bundle: BundleId, request: RequestManifest, owner: Owner) -> Answer:
    """The fact and the receipt, or what is wrong."""
    match request:
        case SplitRequest():
            return _split(ledger, bundle, request, owner)
        case PredictionsRequest():
            return _predictions(ledger, bundle, request, owner)
        case CancelRequest() | PriorityRequest() | RerunRequest():
            return _about_folds(ledger, bundle, request, owner)


def _split(ledger: Ledger, bundle: BundleId, request: SplitRequest, owner: Owner) -> Answer:
    problems = admit_split(
        ledger, dataset=request.dataset, split=request.split, force=request.force, owner=owner
    )
    if problems:
        return problems
    dataset = ledger.datasets[request.dataset]
    again = dataset.split_state is SplitState.SPLIT
    fact = e.SplitRequested(bundle, owner, request.dataset, request.split, again)
    receipt: dict[str, object] = {"dataset": dataset.name, "id": dataset.number, "split": "waiting"}
    if again:
        counts = ledger.counts.get(dataset.name, {})
        in_motion = sum(number for state, number in counts.items() if state.in_motion)
        ended = sum(number for state, number in counts.items() if state.ended)
        receipt["folds"] = (
            f"{counts.get(FoldState.TODO, 0)} that wait run on the new split; {in_motion} that run are stopped and "
            f"run on the new split; {ended} that have ended keep their results of the old split (rerun them if need be)"
        )
    return fact, receipt


def _predictions(ledger: Ledger, bundle: BundleId, request: PredictionsRequest, owner: Owner) -> Answer:
    if request.dataset is not None and request.dataset not in ledger.datasets:
        return [Problem("dataset", repr(request.dataset), "the name of a registered dataset, or nothing")]
    if request.new:
        wanted = tuple(
            fold.id
            for fold in ledger.new.values()
            if may_manage(owner, fold.owner) and request.dataset in (None, fold.dataset)
        )
        unknown: tuple[str, ...] = ()
    else:
        wanted = tuple(fold for fold in request.folds if _is_own(ledger.folds.get(fold), owner))
        # of a fold of somebody else's it is not told that it is there
        known = set(wanted)
        unknown = tuple(fold for fold in request.folds if fold not in known)
    receipt: dict[str, object] = {
        "folds": [json_id(fold) for fold in wanted],
        "results": f"outbox/{REQUESTS}/{answer_name(bundle.name)}",
    }
    if unknown:
        receipt["unknown"] = [json_id(fold) for fold in unknown]
    return e.PredictionsRequested(bundle, owner, wanted, unknown), receipt


def _about_folds(
    ledger: Ledger, bundle: BundleId, request: CancelRequest | PriorityRequest | RerunRequest, owner: Owner
) -> Answer:
    problems, ids = admit_own_folds(ledger, folds=request.folds, submission=request.submission, owner=owner)
    if problems:
        return problems
    folds = [ledger.folds[fold] for fold in ids]
    if isinstance(request, CancelRequest):
        receipt: dict[str, object] = {
            "cancelled": _ids(fold for fold in folds if fold.state is FoldState.TODO),
            "being_stopped": _ids(fold for fold in folds if fold.state.in_motion),
            "ended_already": _ids(fold for fold in folds if fold.state.ended),
        }
        return e.CancelRequested(bundle, owner, tuple(ids)), receipt
    waiting = _ids(fold for fold in folds if fold.state is FoldState.TODO)
    others = _ids(fold for fold in folds if fold.state is not FoldState.TODO)
    if isinstance(request, PriorityRequest):
        receipt = {"priority": request.priority.value, "folds": waiting, "started_already": others}
        return e.PriorityRequested(bundle, owner, tuple(ids), request.priority), receipt
    return e.RerunRequested(bundle, owner, tuple(ids)), {"folds": others, "waiting_already": waiting}


def _is_own(fold: Fold | None, owner: Owner) -> bool:
    return fold is not None and may_manage(owner, fold.owner)


def _ids(folds: Iterable[Fold]) -> list[int | str]:
    return [json_id(fold.id) for fold in folds]
