"""``receipts/KIND/NAME.yaml``: what became of a bundle, for its sender to read.

A receipt holds the last word on a name: a later drop under the same name replaces it. It is whole, and becomes
durable with others of its kind: whoever clears a bundle away makes the receipt durable first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from datarun_daemon import disk
from datarun_daemon.core.errors import Problem
from datarun_daemon.core.model import BundleId, BundleKind
from datarun_daemon.spool.layout import REASON, Spool
from datarun_daemon.spool.names import printable

_SHOWN_CHARACTERS = 2000
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def write_accepted(
    spool: Spool,
    bundle: BundleId,
    *,
    at: str,
    owner_uid: int,
    registered: Mapping[str, object],
    ignored: Sequence[str] = (),
) -> Path:
    """The bundle is registered; ``registered`` are its ids and what they wait for."""
    content = {**_head(bundle.kind, bundle.name, "accepted", at, owner_uid), "ticket": bundle.ticket, **registered}
    if ignored:
        content["ignored_files"] = list(ignored)
    return _write(spool, bundle.kind, bundle.name, content)


def write_rejected(
    spool: Spool, bundle: BundleId, *, at: str, owner_uid: int, problems: Sequence[Problem], folder: str | None
) -> Path:
    """The bundle cannot be accepted; it lies in ``folder``, unless it changed or went meanwhile."""
    content = {**_head(bundle.kind, bundle.name, "rejected", at, owner_uid), "ticket": bundle.ticket}
    if folder:
        content["folder"] = folder
        content["what_to_do"] = f"read {folder}/{REASON}, mend it, move it back to incoming/{bundle.kind.value}/"
    content["problems"] = [
        {
            "field": printable(problem.field, _SHOWN_CHARACTERS),
            "found": printable(problem.found, _SHOWN_CHARACTERS),
            "expected": printable(problem.expected, _SHOWN_CHARACTERS),
        }
        for problem in problems
    ]
    return _write(spool, bundle.kind, bundle.name, content)


def write_incomplete(
    spool: Spool, kind: BundleKind, name: str, *, at: str, owner_uid: int, missing: Sequence[str]
) -> None:
    """The bundle waits for the rest of itself, and is still watched."""
    content = _head(kind, name, "incomplete", at, owner_uid)
    content["missing"] = [printable(each, _SHOWN_CHARACTERS) for each in missing]
    _write(spool, kind, name, content)


def remove_receipt(spool: Spool, kind: BundleKind, name: str) -> None:
    """For a bundle that was withdrawn before it was whole."""
    spool.receipt(kind, name).unlink(missing_ok=True)


def _head(kind: BundleKind, name: str, status: str, at: str, owner_uid: int) -> dict[str, object]:
    return {"status": status, "bundle": f"incoming/{kind.value}/{name}", "at": at, "owner_uid": owner_uid}


def _write(spool: Spool, kind: BundleKind, name: str, content: Mapping[str, object]) -> Path:
    text = yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    path = spool.receipt(kind, name)
    disk.write_atomically(path, text.encode(), durable=False)
    return path
