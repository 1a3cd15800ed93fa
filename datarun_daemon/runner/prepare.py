"""What needs all labels: splitting a dataset, and choosing the rows of folds.

Runs in children of the server that end, so that no process that holds labels is ever an ancestor of a
fold: a worker that reads the data, and may run the dataset's own code, and this one, which watches it and
describes what it left. The test labels are not kept at all; the training labels lie in a folder of their
own, which only the daemon opens.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import platform
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from . import dataset_code, kit, label_file, mapped, object_labels, processes, specific, splitters, table, wire
from .labels import META_VERSION
from .unusable import Unusable
from .watched_task import DaemonGone, Say, WatchedTask

_FOLDS_A_PACKET = 1000
_LABELS = "labels"
#: of datasets with code of their own, by format
_OWN_CODE: dict[str, Any] = {"custom": specific, "ramp": kit}


def main(link: socket.socket, task: dict[str, Any], *, server: int) -> NoReturn:
    """Sees to one task, tells the daemon how it ended, and ends; no process of it is left then."""
    processes.die_with_parent(server)
    processes.adopt_orphans()
    processes.set_name("datarun-task")
    processes.keep_only([0, 1, 2, link.fileno()])
    gc.enable()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(DaemonGone, OSError):  # nobody waits for the answer
        word = WatchedTask(task, _work, doing=_first_step(task)).last_word(link)
        if word["op"] == "prepared":
            word = _answer(lambda: _describe(task, word), task)
        wire.send(link, word)
    os._exit(0)


def _first_step(task: dict[str, Any]) -> str:
    if task["kind"] == "generate":
        return str(task["splitter"])
    return f"reading {task['specific'] or Path(task['data_file']).name}"


def _work(task: dict[str, Any], say: Say) -> None:
    """In the worker: does the task, and says how it ended."""

    def do() -> dict[str, Any]:
        if task["kind"] == "generate":
            folds = splitters.generate(task)
            for start in range(0, len(folds), _FOLDS_A_PACKET):
                say({"op": "folds", "folds": folds[start : start + _FOLDS_A_PACKET]})
            return {"op": "generated"}
        own = _OWN_CODE.get(task["format"])
        if own is None:
            return {"op": "prepared", **table.split(task)}
        return {"op": "prepared", **own.split(task, doing=lambda what: say({"op": "doing", "what": what}))}

    say(_answer(do, task))


def _answer(do: Callable[[], dict[str, Any]], task: dict[str, Any]) -> dict[str, Any]:
    """What it returns, or why it failed."""
    try:
        return do()
    except Unusable as error:
        return {"op": "failed", "reason": str(error), "transient": False}
    except MemoryError as error:
        limit = task.get("memory_bytes", 0)
        reason = f"MemoryError: {error}" + (f" (the memory limit is {limit} bytes)" if limit else "")
        return {"op": "failed", "reason": reason, "transient": not limit}
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return {"op": "failed", "reason": reason, "transient": isinstance(error, OSError)}


def _describe(task: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """The prepared folder is complete afterwards, and holds what belongs there and nothing else.

    What the worker says, and what it left, may be a stranger's: files are looked at, not opened by what they
    claim to be, and meta.json and the code that folds import are written here.

    Raises Unusable: something is not there, or not what it should be. OSError.
    """
    folder = Path(task["prepared_folder"])
    n_test = told.get("n_test")
    if not isinstance(n_test, int) or n_test < (0 if task["format"] == "ramp" else 1):
        raise Unusable(f"{n_test!r} rows of test data; at least one is expected")
    sets = ("X_train", "X_test") if n_test else ("X_train",)
    data_files = [file for name in sets for file in mapped.files_of(folder / name)]
    for entry in os.scandir(folder):
        if entry.name != _LABELS and folder / entry.name not in data_files:
            _remove(entry.path)
    label_files, n_train, labels = _checked_labels(folder / _LABELS, told["labels"])
    for file in data_files:
        _check(file, stat.S_ISREG)
    code: list[Path] = []
    own = _OWN_CODE.get(task["format"])
    if own is not None:
        code = dataset_code.copy_files(task, own.code_names(task), folder / dataset_code.CODE, python_file=own.FILE)
    meta = {
        "version": META_VERSION,
        "format": task["format"],
        "n_train": n_train,
        "n_test": n_test,
        "test_set": n_test > 0,
        "target": task["target_column"] or "y",
        "x_kind": str(told["x_kind"]),
        "own_training": bool(task["specific"]) and bool(told["own_training"]),
        "labels": labels,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pandas": pd.__version__,
    }
    meta_file = folder / "meta.json"
    meta_file.write_text(json.dumps(meta, indent=1) + "\n")
    files = [*label_files, *data_files, *code, meta_file]
    names = [str(file.relative_to(folder)) for file in files]
    return {"op": "prepared", "n_train": n_train, "n_test": n_test, "files": names}


def _checked_labels(folder: Path, told: dict[str, Any]) -> tuple[list[Path], int, dict[str, Any]]:
    """The files, how many rows they hold, and what tells how to read these."""
    _check(folder, stat.S_ISDIR)
    pickled = bool(told["pickled"])
    files = [folder / name for name in (object_labels.FILES if pickled else (label_file.FILE,))]
    for entry in os.scandir(folder):
        if folder / entry.name not in files:
            _remove(entry.path)
    given = {key: str(told[key]) for key in ("given_dtype", "pandas_dtype")}
    try:
        if pickled:
            return files, object_labels.describe(folder), given | {"pickled": True, "stacked": bool(told["stacked"])}
        rows, labels = label_file.describe(folder)
        return files, rows, labels | given
    except (ValueError, SyntaxError, TypeError, RecursionError) as error:
        raise Unusable(f"the stored labels were changed by the dataset's code: {error}") from None


def _check(path: Path, kind: Callable[[int], bool]) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        mode = 0
    if not kind(mode):
        raise Unusable(f"{path.name}, which was stored, was removed or replaced by the dataset's code")


def _remove(path: str) -> None:
    """It is gone, whatever the dataset's code made of it (links are not followed)."""
    if not os.path.isdir(path) or os.path.islink(path):
        os.unlink(path)
        return
    # Folders may be nested deeper than a path may be long, or closed to their owner.
    for command in (["/bin/chmod", "-R", "u+rwx"], ["/bin/rm", "-rf"]):
        subprocess.run([*command, "--", path], stderr=subprocess.DEVNULL, check=False)
