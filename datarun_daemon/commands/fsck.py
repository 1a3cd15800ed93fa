"""``datarun fsck``: does what the catalog says lie in the folders, and the other way round? Changes nothing."""

from __future__ import annotations

import json as json_text
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from datarun_daemon import disk
from datarun_daemon.commands.choosing import chosen_config
from datarun_daemon.commands.finding import Finding, Verdict, line
from datarun_daemon.core.errors import CatalogCorrupt
from datarun_daemon.core.ledger import Ledger
from datarun_daemon.core.model import BundleKind, SplitState
from datarun_daemon.core.records import Fold
from datarun_daemon.spool.catalog import read
from datarun_daemon.spool.layout import Spool
from datarun_daemon.spool.outbox import Outbox, ResultPlace

#: of each kind of fault only so many are told one by one
_TOLD = 20


def fsck(spool: Path | None, config: Path | None, *, json: bool) -> int:
    """1 if something is missing or damaged. Best while no daemon runs, else what moves may be told."""
    opened = Spool.open(chosen_config(config, spool).spool)
    findings = list(examine(opened))
    if json:
        print(json_text.dumps({"findings": [asdict(finding) for finding in findings]}))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for finding in findings:
            console.print(line(finding))
    return 1 if any(finding.verdict is Verdict.FAIL for finding in findings) else 0


def examine(spool: Spool) -> Iterator[Finding]:
    """What was found, catalog first; a damaged catalog ends the examination."""
    if disk.is_locked(spool.lock_file):
        yield Finding(
            "daemon", Verdict.WARN, "it is running, so what is on its way may look wrong", "stop it first, to be sure"
        )
    ledger = Ledger()
    try:
        yield _catalog(spool, ledger)
    except CatalogCorrupt as error:
        yield Finding("catalog", Verdict.FAIL, str(error), "what lies in the folders was not looked at")
        return
    yield from _told("datasets", _datasets(spool, ledger), f"{len(ledger.datasets)}, all in the store")
    yield from _told("submissions", _submissions(spool, ledger), f"{len(ledger.submissions)}, all in the store")
    yield from _told("folds", _folds(spool, ledger), f"{len(ledger.folds)}, with rows and results where they belong")
    yield from _told("left over", _left_over(spool, ledger), "nothing", Verdict.WARN)


def _catalog(spool: Spool, ledger: Ledger) -> Finding:
    whole_bytes = 0
    for entry, end in read(spool.catalog_file):
        ledger.apply(entry.fact, sequence=entry.sequence, at=entry.at)
        whole_bytes = end
    torn_bytes = spool.catalog_file.stat().st_size - whole_bytes
    if torn_bytes:
        found = f"{ledger.sequence} lines, and a torn last one of {torn_bytes} bytes"
        return Finding("catalog", Verdict.WARN, found, "the next start cuts it off and keeps it aside")
    return Finding("catalog", Verdict.OK, f"{ledger.sequence} lines")


def _told(
    about: str, faults: Iterator[Finding], all_well: str, verdict: Verdict = Verdict.FAIL
) -> Iterator[Finding]:
    number = 0
    for number, fault in enumerate(faults, 1):
        if number <= _TOLD:
            yield fault
    if number > _TOLD:
        yield Finding(about, verdict, f"and {number - _TOLD} more of the kind")
    if not number:
        yield Finding(about, Verdict.OK, all_well)


def _datasets(spool: Spool, ledger: Ledger) -> Iterator[Finding]:
    for dataset in ledger.datasets.values():
        folder = spool.root / dataset.folder
        files = (name for name in (dataset.data_file, *dataset.extra_files) if name)
        gone = next((name for name in files if not (folder / name).is_file()), None)
        if gone:
            yield _missing(f"dataset {dataset.name}", folder / gone, "restore it from a backup")
        elif dataset.split_state is SplitState.SPLIT and not (spool.root / dataset.prepared / "meta.json").is_file():
            yield _missing(f"dataset {dataset.name}", spool.root / dataset.prepared, "restore it from a backup")


def _submissions(spool: Spool, ledger: Ledger) -> Iterator[Finding]:
    for submission in ledger.submissions.values():
        for name in submission.files:
            path = spool.root / submission.folder / name
            if not path.is_file():
                yield _missing(f"submission {submission.id}", path, "send it again with force")


def _folds(spool: Spool, ledger: Ledger) -> Iterator[Finding]:
    outbox = Outbox(spool)
    for fold in ledger.folds.values():
        if fold.indices and not (spool.root / fold.indices).is_file():
            yield _missing(f"fold {fold.id}", spool.root / fold.indices, "send it again with force")
        if fold.published:
            yield from _result(outbox, fold)
        elif fold.state.ended:
            yield Finding(f"fold {fold.id}", Verdict.WARN, "ended, not published yet", "the next start publishes it")
        elif fold.state.in_motion and not spool.run(fold.id, fold.attempt).is_dir():
            yield Finding(f"fold {fold.id}", Verdict.WARN, "its run is gone", "the next start runs it again")


def _result(outbox: Outbox, fold: Fold) -> Iterator[Finding]:
    place = ResultPlace(fold.dataset, fold.submission, fold.id, fold.attempt)
    if not outbox.is_archived(place):
        yield _missing(f"fold {fold.id}", outbox.archive_of(place), "run it again with force")
    if fold.new and not outbox.folder_of(place).is_dir() and not outbox.staged_attempts() & {(fold.id, fold.attempt)}:
        found = "its result was taken away, which the catalog does not say yet"
        yield Finding(f"fold {fold.id}", Verdict.WARN, found, "the daemon notes it when it runs")


def _left_over(spool: Spool, ledger: Ledger) -> Iterator[Finding]:
    for kind in (BundleKind.DATASETS, BundleKind.FOLDS):
        for stored in spool.store_of(kind).glob("[0-9]*/[0-9]*"):
            ticket = stored.name.partition("-")[0]
            if ticket.isdigit() and int(ticket) >= ledger.next_ticket:
                found = f"{spool.relative(stored)}, copied but never registered"
                yield Finding("left over", Verdict.WARN, found, "the next start removes it or sets it aside")
    for result in spool.outbox.glob("[!.]*/*/*/result.json"):
        known = ledger.folds.get(result.parent.name)
        if known is None:
            found = f"{spool.relative(result.parent)}, of which the catalog knows nothing"
            yield Finding("left over", Verdict.WARN, found, "move it away if it is not yours")


def _missing(about: str, path: Path, advice: str) -> Finding:
    return Finding(about, Verdict.FAIL, f"{path} is missing", advice)
