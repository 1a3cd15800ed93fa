"""``status/overview.json``: what a person or program may want to know now, as one small file.

It is made anew from the ledger and rewritten by rename; nothing depends on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from datarun_daemon import disk
from datarun_daemon.core.events import BundleRejected
from datarun_daemon.core.ledger import Ledger
from datarun_daemon.core.model import FoldState
from datarun_daemon.core.records import Fold
from datarun_daemon.core.scheduler import Policy, order
from datarun_daemon.spool.layout import Spool

#: of the queue and of what arrives, only so many are shown
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Running:
    """What a process is known to do right now."""

    fold: str
    attempt: int
    phase: str
    elapsed_seconds: float
    memory_bytes: int
    adopted: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything an overview shows beside the ledger."""

    #: seconds since the epoch
    now: float
    #: about the daemon itself
    daemon: Mapping[str, object]
    policy: Policy
    cores_per_slot: int
    running: tuple[Running, ...]
    loaded_datasets: frozenset[str]
    #: kind, name, seconds since it was first seen, what it waits for
    arriving: tuple[tuple[str, str, float, str], ...]
    last_ended: tuple[Fold, ...]
    last_rejected: tuple[tuple[float, BundleRejected], ...]
    #: the other files of status/ are at least as new as this line of the catalog
    sequence: int


def write_overview(spool: Spool, content: Mapping[str, object]) -> None:
    data = json.dumps(content, indent=1).encode("ascii") + b"\n"
    disk.write_atomically(spool.overview_file, data, durable=False)


def iso(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def overview(ledger: Ledger, scene: Scene, waits_for: Callable[[Ledger, str], str]) -> dict[str, object]:
    counts = dict.fromkeys((state.value for state in FoldState), 0)
    for of_dataset in ledger.counts.values():
        for state, number in of_dataset.items():
            counts[state.value] += number
    running_of = {"H": 0, "L": 0}
    for run in scene.running:
        running_of[ledger.folds[run.fold].priority.value] += 1
    return {
        "format": 1,
        "written_at": iso(scene.now),
        "sequence": scene.sequence,
        "daemon": scene.daemon,
        "slots": {
            "total": scene.policy.slots,
            "cores_per_slot": scene.cores_per_slot,
            "running": running_of,
            "limit": {priority.value: limit for priority, limit in scene.policy.slots_of.items()},
        },
        "memory": {
            "budget_bytes": scene.policy.memory_budget_bytes,
            "used_bytes": sum(run.memory_bytes for run in scene.running),
        },
        "counts": counts,
        "outbox": len(ledger.new),
        "datasets": _datasets(ledger, scene.loaded_datasets),
        "queue": {"length": counts[FoldState.TODO.value], "folds": _queue(ledger, scene, waits_for)},
        "running": [_running(ledger, scene, run) for run in scene.running],
        "arriving": [
            {"kind": kind, "name": name, "since": iso(scene.now - seconds), "waits_for": waiting}
            for kind, name, seconds, waiting in scene.arriving[:_SHOWN]
        ],
        "last_results": [_ended(fold) for fold in scene.last_ended],
        "last_rejected": [_rejected(at, fact) for at, fact in scene.last_rejected],
    }


def _datasets(ledger: Ledger, loaded: frozenset[str]) -> list[dict[str, object]]:
    return [
        {
            "name": dataset.name,
            "id": dataset.number,
            "state": dataset.split_state.value,
            "reason": dataset.reason,
            "n_train": dataset.n_train,
            "n_test": dataset.n_test,
            "loaded": dataset.name in loaded,
            "folds": {state.value: n for state, n in ledger.counts.get(dataset.name, {}).items() if n},
        }
        for dataset in ledger.datasets.values()
    ]


def _queue(
    ledger: Ledger, scene: Scene, waits_for: Callable[[Ledger, str], str]
) -> list[dict[str, object]]:
    ready = islice(order(ledger, scene.now, policy=scene.policy), _SHOWN)
    rows = [_waiting(number, fold, "a slot") for number, fold in enumerate(ready, 1)]
    blocked = (
        fold
        for index in (ledger.without_dataset, ledger.without_submission)
        for folds in index.values()
        for fold in folds.values()
    )
    for fold in islice(blocked, _SHOWN - len(rows)):
        rows.append(_waiting(None, fold, waits_for(ledger, fold.submission)))
    for accepted in islice(ledger.to_generate.values(), max(0, _SHOWN - len(rows))):
        waiting = waits_for(ledger, accepted.submission)
        rows.append(
            {
                "position": None,
                "fold": f"{accepted.submission}-*",
                "submission": accepted.submission,
                "dataset": accepted.dataset or "",
                "priority": accepted.priority.value,
                "owner": accepted.owner,
                "accepted_at": None,
                "attempt": 1,
                "waits_for": "its folds to be generated" if waiting == "a slot" else waiting,
            }
        )
    return rows


def _waiting(position: int | None, fold: Fold, waits_for: str) -> dict[str, object]:
    return {
        "position": position,
        "fold": fold.id,
        "submission": fold.submission,
        "dataset": fold.dataset,
        "priority": fold.priority.value,
        "owner": fold.owner,
        "accepted_at": iso(fold.accepted_at),
        "attempt": fold.attempt + 1,
        "waits_for": waits_for,
    }


def _running(ledger: Ledger, scene: Scene, run: Running) -> dict[str, object]:
    fold = ledger.folds[run.fold]
    return {
        "fold": fold.id,
        "submission": fold.submission,
        "dataset": fold.dataset,
        "priority": fold.priority.value,
        "owner": fold.owner,
        "attempt": run.attempt,
        "phase": run.phase,
        "started_at": iso(scene.now - run.elapsed_seconds),
        "elapsed_seconds": round(run.elapsed_seconds, 3),
        "memory_bytes": run.memory_bytes,
        "memory_limit_bytes": scene.policy.memory_bytes_of[fold.priority],
        "adopted": run.adopted,
    }


def _ended(fold: Fold) -> dict[str, object]:
    return {
        "fold": fold.id,
        "submission": fold.submission,
        "dataset": fold.dataset,
        "state": fold.state.value,
        "stage": fold.stage.value if fold.stage and fold.state is FoldState.ERROR else None,
        "message": fold.message if fold.state is FoldState.ERROR else None,
        "ended_at": iso(fold.ended_at),
        "wall_seconds": round(fold.ended_at - fold.started_at, 6) if fold.started_at else None,
        "folder": f"outbox/{fold.dataset}/{fold.submission}/{fold.id}" if fold.new else None,
    }


def _rejected(at: float, fact: BundleRejected) -> dict[str, object]:
    return {
        "kind": fact.bundle.kind.value,
        "name": fact.bundle.name,
        "at": iso(at),
        "problems": len(fact.problems),
        "first": str(fact.problems[0]),
    }


def last_ended(folds: Iterable[Fold], number: int) -> list[Fold]:
    """The folds that ended last, newest first; for an overview after a restart."""
    ended = (fold for fold in folds if fold.published)
    return sorted(ended, key=lambda fold: fold.ended_at, reverse=True)[:number]
