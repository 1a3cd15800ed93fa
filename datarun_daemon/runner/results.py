"""The result of a fold: what the fold left is checked, rewritten by us, and described in result.json.

Runs in a keeper's writer process, which no fold descends from (it sees every fold's predictions), once
no process of the fold is left. Nothing that a fold wrote is believed: files are opened without following
links, and sizes and headers are checked before memory is allocated. result.json is written last; while
it is missing or torn there is no result.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from . import fold, json_items, log_ring

_FAILURE_BYTES = 2_000_000
_CLASSES_BYTES = 4_000_000
_NAME_CHARACTERS = 200
_NPY_HEADER_BYTES = 4096
_CSV_ROWS_AT_ONCE = 20_000
#: per array of predictions: file name, phase in which it is made, key of its number of rows
_ARRAYS = (
    ("full_train_predictions", "validation", "n_train", "full train"),
    ("test_predictions", "test", "n_test", "test"),
)
#: by state: what there is to say
_GOOD_ENDS = {"TESTED": None, "VALIDATED_ONLY": "the kit has no test set"}


class Unacceptable(Exception):
    """A file of the fold's that is not what it should be; the text says how."""


def write(job: dict[str, Any], outcome: dict[str, Any]) -> None:
    """``run_folder/out`` is complete afterwards, and the scratch folder gone.

    Args:
        job: run_folder, limits, meta (of the dataset), and told (what goes into the result as it is).
        outcome: what the keeper saw: state, stage, message, log, phases_done, measured …

    Raises OSError (a full disk); then there is no result.json.
    """
    folder = job["run_folder"]
    out = f"{folder}/out"
    if os.path.lexists(out):
        _remove(folder, "out")
    os.mkdir(out)
    scratch = _open_scratch(folder)
    try:
        result, files = _write_parts(out, scratch, job, outcome)
    finally:
        os.close(scratch)
    _remove(folder, "scratch")
    result["files"] = files
    _write_file(f"{out}/result.json", [json.dumps(result, indent=1).encode() + b"\n"])


def _write_parts(
    out: str, scratch: int, job: dict[str, Any], outcome: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    verdict = _verdict(scratch, outcome)
    files: dict[str, Any] = {}
    classes = _classes(scratch)
    shown: list[str] | None = None
    for name, phase, rows, what in _ARRAYS:
        if phase not in outcome["phases_done"]:
            break
        limit_bytes = job["limits"]["predictions_bytes"]
        try:
            if job["meta"]["format"] == "ramp" and _is_there(scratch, f"{name}.json"):
                files[f"{name}.json"] = _pass_items(scratch, f"{name}.json", out, job["meta"][rows], limit_bytes)
                continue
            array = _read_predictions(scratch, f"{name}.npy", job["meta"][rows], limit_bytes)
        except Unacceptable as error:
            verdict = _error(phase, f"Wrong {what} predictions: {error}", f"Wrong {what} predictions: \n{error} \n")
            break
        shown = _columns(array, classes, job)
        files[f"{name}.npy"] = _write_npy(f"{out}/{name}.npy", array)
        files[f"{name}.csv"] = _write_file(f"{out}/{name}.csv", _csv(array, shown))
    log_limit = job["limits"]["log_bytes"]
    log = log_ring.collect(job["run_folder"], **outcome["printed"], limit_bytes=log_limit)
    if verdict["log_messages"]:
        log += (b"" if log.endswith(b"\n") or not log else b"\n") + verdict["log_messages"].encode()
    files["log.txt"] = _write_file(f"{out}/log.txt", [log])
    result = {
        **_passed_on(job["run_folder"]),
        **job["told"],
        **verdict,
        "classes": shown,
        **outcome["measured"],
        "limits": job["limits"],
        "isolation": _isolation(scratch),
        "log_bytes_dropped": max(0, outcome["printed"]["taken_bytes"] - log_limit) + outcome["printed"]["lost_bytes"],
    }
    return result, files


def _verdict(scratch: int, outcome: dict[str, Any]) -> dict[str, Any]:
    """state, stage, message and log_messages."""
    if outcome["state"] in _GOOD_ENDS:
        message = _GOOD_ENDS[outcome["state"]]
        return {"state": outcome["state"], "stage": None, "message": message, "log_messages": ""}
    message, log = outcome["message"], outcome["log"]
    if message is None:
        message, log = _failure(scratch)
    if outcome["state"] != "ERROR":  # cancelled: no fault of the submission, and so without a stage
        return {"state": outcome["state"], "stage": None, "message": message, "log_messages": log}
    return _error(outcome["stage"], message, log)


def _error(stage: str, message: str, log: str) -> dict[str, Any]:
    """Spelled as the REST service did: whoever reads log_messages looks for the tag."""
    return {"state": "ERROR", "stage": stage, "message": message, "log_messages": f"{log} - ERROR({stage})\n"}


def _failure(scratch: int) -> tuple[str, str]:
    """What the fold says of its own failure."""
    try:
        told = _read_json(scratch, fold.FAILURE, _FAILURE_BYTES)
        return _text(told["message"]), _text(told["log"])
    except (Unacceptable, KeyError, TypeError) as error:
        message = f"the fold failed, and what it says of it can't be read: {error}"
        return message, f"{message}\n"


def _isolation(scratch: int) -> Any:
    try:
        told = _read_json(scratch, "isolation.json", 100_000)
    except Unacceptable:
        return {}  # it ended before it was shut in, and so before any submission code ran
    if not isinstance(told, dict):
        return {}
    return {_text(key)[:_NAME_CHARACTERS]: _text(value)[:2000] for key, value in list(told.items())[:50]}


def _classes(scratch: int) -> list[str] | None:
    try:
        told = _read_json(scratch, fold.CLASSES, _CLASSES_BYTES)
    except Unacceptable:
        return None
    if not isinstance(told, list) or not all(isinstance(name, str) for name in told):
        return None
    names = [_text(name)[:_NAME_CHARACTERS] for name in told]
    names = ["".join(mark if mark.isprintable() else " " for mark in name) for name in names]
    return names if len(set(names)) == len(names) else None


def _columns(array: Any, classes: list[str] | None, job: dict[str, Any]) -> list[str]:
    target = job["meta"]["target"]
    count = 1 if array.ndim == 1 else array.shape[1]
    is_kit = job["meta"]["format"] == "ramp"
    if is_kit and classes is not None and len(classes) == count:
        return classes
    if is_kit or array.ndim == 1 or "regressor" in job["told"]["elements"]:
        return [target] if count == 1 else [f"{target}_{number}" for number in range(count)]
    if classes is not None and len(classes) == count:
        return classes
    return [f"class_{number}" for number in range(count)]


def _passed_on(folder: str) -> dict[str, Any]:
    with open(f"{folder}/facts.json", "rb") as file:
        passed: dict[str, Any] = json.load(file)
    return passed


def _read_predictions(scratch: int, name: str, rows: int, limit_bytes: int) -> Any:
    with contextlib.closing(_open(scratch, name, limit_bytes + _NPY_HEADER_BYTES)) as file:
        size = os.fstat(file.fileno()).st_size
        start = io.BytesIO(file.read(_NPY_HEADER_BYTES))
        try:
            if np.lib.format.read_magic(start) != (1, 0):
                raise Unacceptable("not a .npy file of version 1.0")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(start)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
            raise Unacceptable(f"not a .npy file: {error}") from None
        if dtype.kind not in "biuf" or dtype.itemsize > 8 or dtype.hasobject or fortran:
            raise Unacceptable(f"{dtype} is no plain number")
        if len(shape) not in (1, 2) or shape[0] != rows or 0 in shape[1:]:
            raise Unacceptable(f"shape {shape} instead of {rows} rows")
        count = 1
        for length in shape:
            count *= length
        if count * dtype.itemsize != size - start.tell():
            raise Unacceptable(f"{size} bytes do not fit shape {shape}")
        array = np.empty(shape, dtype)
        file.seek(start.tell())
        if file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
            raise Unacceptable("cut short")
        return array


def _read_json(scratch: int, name: str, limit_bytes: int) -> Any:
    with contextlib.closing(_open(scratch, name, limit_bytes)) as file:
        try:
            return json.loads(file.read(limit_bytes))
        except (ValueError, RecursionError) as error:
            raise Unacceptable(f"{name} is no JSON: {error}") from None


def _is_there(folder: int, name: str) -> bool:
    with contextlib.suppress(OSError):
        os.stat(name, dir_fd=folder, follow_symlinks=False)
        return True
    return False


def _open(folder: int, name: str, limit_bytes: int) -> io.BufferedReader:
    """A regular file of at most that size, right in the folder. Raises Unacceptable."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        raise Unacceptable(f"{name}: {error.strerror}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > limit_bytes:
        os.close(descriptor)
        raise Unacceptable(f"{name}: {status.st_size} bytes in a regular file of at most {limit_bytes} are expected")
    return open(descriptor, "rb")


def _pass_items(scratch: int, name: str, out: str, rows: int, limit_bytes: int) -> dict[str, Any]:
    """The list that a fold left is in ``out``, written by us an item at a time. Raises Unacceptable."""
    with contextlib.closing(_open(scratch, name, limit_bytes)) as file:
        try:
            return _write_file(f"{out}/{name}", json_items.lines(json_items.items(file, rows)))
        except (json_items.NoJson, ValueError, RecursionError) as error:
            os.unlink(f"{out}/{name}")
            raise Unacceptable(str(error)) from None


def _write_npy(path: str, array: Any) -> dict[str, Any]:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return _write_file(path, [header.getvalue(), array.reshape(-1).view(np.uint8).data])


def _csv(array: Any, columns: Sequence[str]) -> Iterator[bytes]:
    """A row number, then the values so that reading them gives the same numbers."""
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(["row", *columns])
    yield header.getvalue().encode(errors="replace")
    table = array.reshape(len(array), -1)
    for start in range(0, len(table), _CSV_ROWS_AT_ONCE):
        rows = table[start : start + _CSV_ROWS_AT_ONCE].tolist()
        yield "".join([f"{number},{','.join(map(repr, row))}\n" for number, row in enumerate(rows, start)]).encode()


def _write_file(path: str, parts: Iterable[Any]) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with open(path, "xb") as file:
        for part in parts:
            digest.update(part)
            size += memoryview(part).nbytes
            file.write(part)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _text(value: object) -> str:
    """As text that every JSON reader takes: no lone surrogates."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def _open_scratch(folder: str) -> int:
    try:
        return os.open(f"{folder}/scratch", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        # The fold has put something else in its place: then it left us nothing, like our empty folder.
        return os.open(f"{folder}/out", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _remove(folder: str, name: str) -> None:
    """The folder's entry is gone, whatever a fold made of it (links are not followed)."""
    path = f"{folder}/{name}"
    if os.path.islink(path) or not os.path.isdir(path):
        with contextlib.suppress(FileNotFoundError):  # a fold may remove its own scratch folder
            os.unlink(path)
        return
    try:
        for entry in os.listdir(path):
            os.unlink(f"{path}/{entry}")
        os.rmdir(path)
    except OSError:
        _remove_tree(path)


def _remove_tree(path: str) -> None:
    """For what a fold made on purpose: folders nested deeper than a path may be long, or closed to their owner.

    What can't be removed even so stays there: it must not cost the fold its result.
    """
    with contextlib.suppress(OSError):
        os.chmod(path, 0o700)
    subprocess.run(["/bin/chmod", "-R", "u+rwx", "--", path], stderr=subprocess.DEVNULL, check=False)
    subprocess.run(["/bin/rm", "-rf", "--", path], stderr=subprocess.DEVNULL, check=False)
