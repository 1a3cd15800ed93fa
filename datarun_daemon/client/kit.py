"""A RAMP kit on this machine, as what a spool runs: its dataset, the files of its submissions, and its folds.

A kit is a folder with ``problem.py``, ``data/``, perhaps ``external_imports/``, and a folder for each
submission in ``submissions/``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datarun_daemon.client.answers import FoldRows
from datarun_daemon.client.connecting import connected
from datarun_daemon.client.dropping import Dropping, rejections
from datarun_daemon.client.errors import Rejected
from datarun_daemon.client.making import Making
from datarun_daemon.client.packing import GENEROUS_BOUNDS, TooManyFiles, digest_of, pack
from datarun_daemon.client.sending import check_content
from datarun_daemon.client.views import Views
from datarun_daemon.core.errors import DatarunError, Problem, Rejection
from datarun_daemon.core.model import BundleKind, SplitState
from datarun_daemon.spool.bundle import too_many_files
from datarun_daemon.spool.claim import bundle_digest
from datarun_daemon.spool.layout import is_ignored_file
from datarun_daemon.spool.manifest import MANIFEST_NAME, parse_manifest
from datarun_daemon.spool.manifest_kits import SUBMISSIONS, is_entered, needed_files, path_problems
from datarun_daemon.spool.manifest_values import PROBLEM, RAMP
from datarun_daemon.spool.names import MAX_LEVELS, file_name_fault, id_fault

#: the daemon's words, which clients of the REST API know too
_KNOWN_NAME = "RawData with this name already exists"
_SHOWN_CHARACTERS = 4000


class KitFailed(DatarunError):
    """The code of a kit failed here, on the machine of its owner."""

    exit_code = 65


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a kit's dataset."""

    #: it went over now; False: the spool had a dataset of that name
    is_new: bool
    #: the spool's has these very files
    is_same: bool


def kit_dataset(kit: Path, name: str, fold_files: Sequence[str] = ()) -> Making:
    """The dataset of a kit: all its files but the submissions. Links are followed.

    Args:
        fold_files: files and folders of it that hold no labels, and that folds may read.

    Raises:
        Rejection: it is no kit, or has files that no daemon would take.
    """
    if not (kit / PROBLEM).is_file():
        found = f"no {PROBLEM}" if kit.is_dir() else "no folder"
        raise Rejection([Problem(str(kit), found, f"the folder of a RAMP kit, with its {PROBLEM}")])
    if fault := id_fault(name):
        expected = "1-100 letters, digits, '.', '_', '-', beginning with a letter or digit; --dataset gives another"
        raise Rejection([Problem("name", f"{name!r}, which {fault}", expected)])
    fields: dict[str, Any] = {"name": name, "format": RAMP}
    if fold_files:
        fields["fold_files"] = [path.rstrip("/") for path in fold_files]
    manifest = parse_manifest(BundleKind.DATASETS, json.dumps(fields).encode())
    names = needed_files(manifest, _files_below(kit))
    problems = path_problems(names)
    problems += [
        Problem(each, "no regular file", "a file; or leave it out of the kit")
        for each in names
        if not (kit / each).is_file()
    ]
    if problems:
        raise Rejection(problems)
    return Making(fields, {each: (kit / each).resolve() for each in names})


def submission_files(kit: Path, submission: str) -> list[Path]:
    """The files that lie directly in the submission's folder, but for what programs leave behind.

    Raises:
        Rejection: there is no such submission, it has no Python file, or one of a name that no daemon takes.
    """
    folder = kit / SUBMISSIONS / submission
    if not submission or not folder.is_dir():
        there = sorted(each.name for each in (kit / SUBMISSIONS).glob("*/") if not is_ignored_file(each.name))
        expected = f"one of those in {kit / SUBMISSIONS}: {', '.join(there) or 'there are none'}"
        raise Rejection([Problem("submission", repr(submission), expected)])
    files = [
        each
        for each in sorted(folder.iterdir())
        if each.is_file() and not is_ignored_file(each.name) and each.suffix not in (".pyc", ".ipynb")
    ]
    # a submission is no package: rampwf imports its files one by one
    files = [each for each in files if each.name != "__init__.py"]
    problems = [
        Problem(str(each), f"a name that {fault}", "another name")
        for each in files
        if (fault := file_name_fault(each.name))
    ]
    if not any(each.suffix == ".py" for each in files):
        problems.append(Problem(str(folder), "no Python file", "the files of a submission, such as estimator.py"))
    if problems:
        raise Rejection(problems)
    return files


def submission_id(dataset: str, submission: str) -> str:
    """By which a spool knows it. Raises Rejection: it is no id."""
    together = f"{dataset}-{submission}"
    if fault := id_fault(together):
        expected = "a folder of 1-100 letters, digits, '.', '_', '-' together with the dataset's name"
        raise Rejection([Problem("submission", f"{together!r}, which {fault}", expected)])
    return together


def fold_rows(submission: str, folds: Sequence[tuple[list[int], list[int]]]) -> list[FoldRows]:
    """The folds of a kit for the submission of this id."""
    return [FoldRows(f"{submission}-{k}", train_is, test_is) for k, (train_is, test_is) in enumerate(folds)]


def folds_of_kit(kit: Path) -> list[tuple[list[int], list[int]]]:
    """Of each fold, train_is and test_is as the kit's get_cv gives them, by this interpreter in a process of its own.

    Raises:
        Rejection: ramp-workflow is not installed here.
        KitFailed: the kit's code failed, with its traceback.
    """
    if importlib.util.find_spec("rampwf") is None:
        expected = "`pip install 'datarun-daemon[ramp]'` with it"
        raise Rejection([Problem("ramp-workflow", f"not installed for {sys.executable}", expected)])
    program = Path(__file__).with_name("kit_folds.py")
    with tempfile.TemporaryDirectory(prefix="datarun-folds-") as scratch:
        target = Path(scratch, "folds.json")
        done = subprocess.run(
            [sys.executable, "-P", str(program), str(target)],
            cwd=kit,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            told = done.stdout.decode("utf-8", "replace")[-_SHOWN_CHARACTERS:].strip()
            raise KitFailed(f"{kit / PROBLEM}: its get_train_data or get_cv failed here:\n{told}")
        folds = [(train_is, test_is) for train_is, test_is in json.loads(target.read_bytes())]
    if not folds:
        raise KitFailed(f"{kit / PROBLEM}: its get_cv gives no folds")
    return folds


def send_dataset(
    location: str | Path, making: Making, *, wait_seconds: float, ssh_options: Sequence[str] = ()
) -> Sent:
    """The spool has a dataset of this name; what it has already is not sent again, unless it could not be split.

    Raises:
        Rejected, NoAnswer, and what ``Spool`` raises.
    """
    name = making.manifest["name"]
    what = f"dataset {name}"
    transport = connected(location, ssh_options)
    try:
        with tempfile.TemporaryDirectory(prefix="datarun-kit-") as scratch, rejections(what):
            folder = Path(scratch)
            digest = write_dataset(making, folder)
            known = next((row for row in Views(transport).datasets() if row["name"] == name), None)
            if known and known["state"] != SplitState.FAILED.value:
                return Sent(is_new=False, is_same=known["dataset_sha256"] == digest)
            dropping = Dropping(transport)
            dropped = dropping.drop(folder, BundleKind.DATASETS, name, what)
            try:
                dropping.receipt(dropped, wait_seconds=wait_seconds)
            except Rejected as rejected:
                if any(_KNOWN_NAME in problem.expected for problem in rejected.problems):
                    return Sent(is_new=False, is_same=False)
                raise
            return Sent(is_new=True, is_same=True)
    finally:
        transport.close()


def write_dataset(making: Making, folder: Path) -> str:
    """The bundle is in ``folder``, checked and, if its manifest has room for that, packed; returns its digest."""
    making.write(folder)
    with contextlib.suppress(TooManyFiles):
        pack(folder)
    check_content(BundleKind.DATASETS, folder)
    raw = (folder / MANIFEST_NAME).read_bytes()
    declared = parse_manifest(BundleKind.DATASETS, raw).files
    return bundle_digest(raw, declared or {name: digest_of(folder / name) for name in making.files})


def write_whole(folder: Path) -> None:
    """The links in a bundle's folder are copies of what they led to."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            file = path.resolve()
            path.unlink()
            shutil.copyfile(file, path)


def _files_below(kit: Path) -> list[str]:
    """Paths of all files that may belong to the kit's dataset."""
    found: list[str] = []
    for folder, below, files in os.walk(kit, followlinks=True):
        inside = Path(folder).relative_to(kit)
        below[:] = sorted(each for each in below if _may_enter(inside / each))
        found += ((inside / each).as_posix() for each in files)
        if len(found) > GENEROUS_BOUNDS.files:
            raise Rejection([too_many_files(GENEROUS_BOUNDS)])
    return found


def _may_enter(folder: Path) -> bool:
    if not is_entered(folder.as_posix()) or is_ignored_file(folder.name):
        return False
    if len(folder.parts) >= MAX_LEVELS:
        expected = f"files at most {MAX_LEVELS} levels deep, folders counted"
        raise Rejection([Problem(str(folder), "a folder at that depth", expected)])
    return True
