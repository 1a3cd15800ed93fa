"""One fold in its own process: the only place where submission code runs.

The process is forked ahead of need, shuts itself in, and waits for a job. What it tells the keeper are
bare words (a phase has ended, or the fold failed); everything longer lies in files of its scratch
folder, and nobody believes any of it unchecked.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType, ModuleType, TracebackType
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from . import isolation, processes, wire, workflow

PACKAGE = "submission"
FAILURE = "failure.json"
CLASSES = "classes.json"
#: the words a fold may say
FAILED = b"failed"
#: of a traceback
_FAILURE_CHARACTERS = 200_000
#: the soft limit strikes again after this long, if the submission went on
_REMINDER_SECONDS = 5.0
_THREAD_VARIABLES = tuple(name for name in os.environ if name.endswith("_NUM_THREADS") or name.startswith("VECLIB_"))
_here = os.path.dirname(os.path.abspath(__file__)) + os.sep


class SoftTimeLimitExceeded(BaseException):
    """Raised in the submission's code when its time is up; no Exception, so that few swallow it."""


class WrongPredictions(Exception):
    """What the submission returned can't be its predictions; the text is for its author."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a keeper holds, and its folds see: no labels."""

    #: all rows of the training set, and of the held-out test set
    X_train: Any
    X_test: Any
    meta: Mapping[str, Any]


def main(dataset: Dataset, *, link: socket.socket, log: int, keeper: int, cores: int) -> NoReturn:
    """Waits for a job, runs it, and ends. Of the keeper's descriptors it keeps only its link and log."""
    # First of all: what is open here holds locks of other folds.
    processes.keep_only([0, 1, 2, link.fileno(), log])
    os.setsid()
    processes.die_with_parent(keeper)
    processes.adopt_orphans()
    processes.set_name("datarun-fold")
    _redirect(log)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    record = isolation.enter_early(new_session=True)
    gc.enable()
    _use_cores(cores)
    _empty_environment()
    np.random.seed()  # children of one parent share its state
    job, descriptors = wire.receive_with_descriptors(link)
    if job is not None and "warm" in job:
        touch_pages()
        job, descriptors = wire.receive_with_descriptors(link)
    if job is None:
        os._exit(0)
    _Fold(dataset, link, job, rows=descriptors[0], record=record).run()
    # All is told; only the keeper ends us, after it has measured.
    while wire.receive(link) is not None:
        pass
    os._exit(0)


class _Fold:
    """A job on its way through the phases."""

    def __init__(
        self, dataset: Dataset, link: socket.socket, job: dict[str, Any], *, rows: int, record: dict[str, str]
    ) -> None:
        self._dataset = dataset
        self._link = link
        self._job = job
        self._rows = rows
        self._record = record
        self._pid = os.getpid()
        self._scratch: str = job["scratch"]
        self._submission: str = job["submission"]

    def run(self) -> None:
        """Every phase that succeeds is told; the first that does not is told with its reason, and is the last."""
        try:
            self._arm()
            self._enter()
            y, model = self._train()
            self._tell("train")
            self._predict(model, y)
        except BaseException as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._fail(error)

    def _arm(self) -> None:
        signal.signal(signal.SIGALRM, self._remind)
        signal.setitimer(signal.ITIMER_REAL, self._job["limits"]["wall_soft_seconds"], _REMINDER_SECONDS)

    def _remind(self, _number: int, _frame: FrameType | None) -> None:
        seconds = self._job["limits"]["wall_soft_seconds"]
        raise SoftTimeLimitExceeded(f"Soft Time Limit Exceeded ({seconds:g} s)")

    def _enter(self) -> None:
        os.chdir(self._scratch)
        os.environ.update(HOME=self._scratch, TMPDIR=self._scratch)
        package = ModuleType(PACKAGE)
        package.__path__ = [self._submission]
        sys.modules[PACKAGE] = package
        sys.path.append(self._submission)
        record = isolation.enter(
            self._record, scratch=self._scratch, submission=self._submission, limits=self._job["limits"]
        )
        _write("isolation.json", record)

    def _train(self) -> tuple[Any, workflow.Model]:
        train_is, y = self._labels()
        model = workflow.train(self._load, self._job["elements"], self._dataset.X_train, y, train_is)
        return y, model

    def _labels(self) -> tuple[Any, Any]:
        """train_is, and the labels of these rows as the plain script has them: both were sent in one file."""
        meta, count = self._dataset.meta, self._job["rows"]
        with open(self._rows, "rb") as file:
            data = bytearray(file.read())
        train_is = np.frombuffer(data, "<i8", count)
        y = np.frombuffer(data, meta["labels"]["dtype"], count, offset=8 * count)
        if meta["labels"]["kind"] == "text":
            y = y.astype(object)
        if meta["x_kind"] == "frame":
            index = self._dataset.X_train.index[train_is]
            y = pd.Series(y, index=index, name=meta["target"], dtype=meta["labels"]["pandas_dtype"])
        return train_is, y

    def _load(self, element: str) -> ModuleType:
        name = f"{PACKAGE}.{element}"
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            raise workflow.ElementMissing(f"the submission has no file {element}.py") from None

    def _predict(self, model: workflow.Model, y: Any) -> None:
        dataset, meta = self._dataset, self._dataset.meta
        predictions = as_numbers(model.predict(dataset.X_train), rows=meta["n_train"], what="full train")
        _save("full_train_predictions", predictions)
        if model.classifies and predictions.ndim == 2:
            _write(CLASSES, workflow.class_names(model, y, predictions.shape[1]))
        self._tell("validation")
        predictions = as_numbers(model.predict(dataset.X_test), rows=meta["n_test"], what="test")
        _save("test_predictions", predictions)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._tell("test")

    def _tell(self, word: str) -> None:
        """Says that a phase has ended and waits until it has been measured."""
        if os.getpid() != self._pid:
            os._exit(0)  # a child that the submission forked came back here
        sys.stdout.flush()
        sys.stderr.flush()
        self._link.send(word.encode())
        if word != "test" and wire.receive(self._link) is None:
            os._exit(0)

    def _fail(self, error: BaseException) -> None:
        if os.getpid() != self._pid:
            os._exit(1)
        try:
            message, log = self._describe(error)
        except BaseException as second:  # an exception whose text raises, a patched traceback module …
            message, log = type(error).__name__, f"{type(error).__name__} (and {type(second).__name__} on showing it)\n"
        try:
            _write(FAILURE, {"message": message, "log": log})
        except OSError as second:
            os.write(2, f"{message}\n(the reason could not be written: {second})\n".encode(errors="replace"))
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BaseException:
                continue  # the submission replaced or closed it
        self._link.send(FAILED)

    def _describe(self, error: BaseException) -> tuple[str, str]:
        """One line, and the whole story as log_messages have it (without the stage's tag)."""
        if isinstance(error, WrongPredictions):
            text = str(error)
            return " ".join(text.split()), f"{text} \n"
        lines = traceback.format_exception(type(error), error, _their_frames(error.__traceback__))
        log = "".join(lines).replace(self._submission + os.sep, "")
        own = "".join(traceback.format_exception_only(type(error), error)).strip()
        message = own.splitlines()[-1] if own else type(error).__name__
        if isinstance(error, SoftTimeLimitExceeded):
            message = str(error)
            log = f"{message}\n{log}"
        elif isinstance(error, MemoryError):
            limit = self._job["limits"]["memory_bytes"]
            message = f"{message} (the memory limit is {limit} bytes on top of the libraries and the dataset)"
            log = f"{log}{message}\n"
        elif isinstance(error, SystemExit):
            message = f"the submission ended itself: SystemExit: {error.code}"
        if len(log) > _FAILURE_CHARACTERS:
            half = _FAILURE_CHARACTERS // 2
            log = f"{log[:half]}\n[{len(log) - 2 * half} characters dropped here]\n{log[-half:]}"
        return message[:2000], log


def as_numbers(returned: Any, *, rows: int, what: str) -> Any:
    """Predictions as an array that can be stored and read back anywhere: C order, little-endian, bool, int or float.

    Raises WrongPredictions: not numbers, not 1-D or 2-D, no columns, or a row too many or too few.
    """
    array = np.asarray(returned)
    if array.dtype.kind not in "biuf":
        raise WrongPredictions(
            f"Wrong {what} predictions: \n"
            f"{type(returned).__name__} of dtype {array.dtype} instead of an array of numbers"
        )
    if array.ndim not in (1, 2) or 0 in array.shape[1:]:
        raise WrongPredictions(
            f"Wrong {what} prediction shape: \n{array.shape} instead of ({rows},) or ({rows}, number of columns)"
        )
    if len(array) != rows:
        raise WrongPredictions(f"Wrong {what} prediction size: \n{len(array)} instead of {rows}")
    dtype = np.dtype(np.float64) if array.dtype.itemsize > 8 else array.dtype.newbyteorder("<")
    return np.ascontiguousarray(array, dtype)


def _save(name: str, array: Any) -> None:
    with open(f"{name}.npy", "wb") as file:
        np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)


def _write(name: str, value: object) -> None:
    with open(name, "w") as file:
        json.dump(value, file)


def _their_frames(frames: TracebackType | None) -> TracebackType | None:
    """The traceback from the submission's first frame on; None if the error never got there."""
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if not file.startswith((_here, "<frozen importlib")) and file != importlib.__file__:
            return frames
        frames = frames.tb_next
    return None


def _redirect(log: int) -> None:
    """Reads nothing, and prints into the log, a line at a time so that nothing is lost with the process."""
    null = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(log)
    # New ones: those of the server believe that they can seek.
    sys.stdout = sys.__stdout__ = _text_stream(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _text_stream(2)  # type: ignore[misc]


def _text_stream(descriptor: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.FileIO(descriptor, "w", closefd=False), "utf-8", "backslashreplace", line_buffering=True
    )


def _empty_environment() -> None:
    """Of ours only the number of threads is left, and nothing is compiled into folders of ours."""
    kept = {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ}
    os.environ.clear()
    os.environ.update(kept, PATH="/usr/local/bin:/usr/bin:/bin", LANG="C.UTF-8")
    sys.dont_write_bytecode = True
    sys.argv[:] = [""]


def _use_cores(cores: int) -> None:
    """The server kept every library to one thread, for it forks; a fold may use its slot's cores."""
    if cores > 1:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(cores)))
        threadpool_limits(limits=cores)


def touch_pages() -> None:
    """Copies the pages that nearly every fit writes to, before a fold waits for it."""
    from sklearn.ensemble import RandomForestClassifier

    X = np.arange(40.0).reshape(20, 2)
    RandomForestClassifier(2, n_jobs=1).fit(X, np.arange(20) % 2).predict_proba(X)
