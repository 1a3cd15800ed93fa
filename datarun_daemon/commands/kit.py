"""``datarun kit``: a RAMP kit's dataset, and its submissions on the folds of its own cross-validation."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datarun_daemon.client.kit import (
    fold_rows,
    folds_of_kit,
    kit_dataset,
    send_dataset,
    submission_files,
    submission_id,
    write_dataset,
    write_whole,
)
from datarun_daemon.client.making import Making, fold_bundles
from datarun_daemon.client.packing import pack
from datarun_daemon.client.sending import check_content
from datarun_daemon.client.spool import Spool
from datarun_daemon.client.transport import PATHS
from datarun_daemon.commands.choosing import chosen_spool
from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.core.model import BundleKind, FoldState

_GOOD_ENDS = (FoldState.TESTED, FoldState.VALIDATED_ONLY)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to run, and how."""

    #: folders in the kit's submissions/
    submissions: tuple[str, ...]
    #: None: the kit's folder names it
    dataset: str | None
    priority: str
    #: replaces the submissions' files and runs their folds again
    force: bool
    #: of the kit: what holds no labels, and folds may read
    fold_files: tuple[str, ...] = ()

    @property
    def forced(self) -> tuple[str, ...]:
        return ("submission", "submission_fold") if self.force else ()


@dataclass(frozen=True, slots=True)
class _Made:
    """A kit, read."""

    name: str
    dataset: Making
    #: by ids
    submissions: Mapping[str, list[Path]]
    folds: list[tuple[list[int], list[int]]]


def send(
    kit: Path, spool: str | None, config: Path | None, wanted: Wanted, *, wait: bool, wait_seconds: float
) -> int:
    """All is accepted, and with ``wait`` all folds have ended; 1 if one of them without the result it should have."""
    location = spool if spool is not None else str(chosen_spool(None, config).root)
    with Spool(location) as there:
        made = _read(kit, wanted)
        sent = send_dataset(location, made.dataset, wait_seconds=wait_seconds)
        if sent.is_new:
            print(f"dataset {made.name}: accepted ({len(made.dataset.files)} files)")
        elif sent.is_same:
            print(f"dataset {made.name}: is there already")
        else:
            words = "is there already, with other files than this kit's; the folds run on those. "
            print(f"dataset {made.name}: {words}--dataset NAME sends this kit as another", file=sys.stderr)
        submission_of: dict[str, str] = {}
        for submission, files in made.submissions.items():
            folds = fold_rows(submission, made.folds)
            there.submit_folds(
                submission,
                folds,
                dataset=made.name,
                files=files,
                priority=wanted.priority,
                force=wanted.forced,
                wait_seconds=wait_seconds,
            )
            place = PATHS.outbox_result(made.name, submission, str(folds[0].id)).parent
            print(f"submission {submission}: {len(folds)} folds accepted; results will be in {location}/{place}/")
            submission_of |= {str(fold.id): submission for fold in folds}
        if not wait:
            return 0
        states: Mapping[Any, FoldState] = there.wait(submission_of)
    for fold, state in states.items():
        print(f"{state.value}  {location}/{PATHS.outbox_result(made.name, submission_of[fold], fold)}/")
    return 0 if all(state in _GOOD_ENDS for state in states.values()) else 1


def write_bundles(kit: Path, target: Path, wanted: Wanted) -> int:
    """The bundles are in ``target``, whole and packed, as they would be sent."""
    made = _read(kit, wanted)
    datasets, folds = target / BundleKind.DATASETS.value, target / BundleKind.FOLDS.value
    _write_dataset(made.dataset, _new_folder(datasets / made.name))
    for submission, files in made.submissions.items():
        part = {"id": submission, "dataset": made.name}
        bundles = fold_bundles(
            part,
            fold_rows(submission, made.folds),
            files=files,
            cv=None,
            priority=wanted.priority,
            force=wanted.forced,
            user=None,
        )
        for number, making in enumerate(bundles, 1):
            folder = _new_folder(folds / (submission if number == 1 else f"{submission}_{number}"))
            making.write(folder)
            pack(folder)
            check_content(BundleKind.FOLDS, folder)
            write_whole(folder)
    print(f"{target}: the bundles are there. To send them:")
    print(f"  rsync -a {shlex.quote(str(target))}/ SERVER:SPOOL/incoming/")
    return 0


def _read(kit: Path, wanted: Wanted) -> _Made:
    name = wanted.dataset or kit.resolve().name
    dataset = kit_dataset(kit, name, wanted.fold_files)
    submissions = {submission_id(name, each): submission_files(kit, each) for each in wanted.submissions}
    if wanted.priority not in ("H", "L"):
        raise Rejection([Problem("--priority", repr(wanted.priority), "H or L")])
    return _Made(name, dataset, submissions, folds_of_kit(kit))


def _write_dataset(making: Making, folder: Path) -> None:
    write_dataset(making, folder)
    write_whole(folder)


def _new_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        expected = "a folder that is not there yet; remove it, or give another --to"
        raise Rejection([Problem(str(folder), "something of that name", expected)]) from None
    return folder

