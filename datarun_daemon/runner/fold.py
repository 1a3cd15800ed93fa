"""One fold in its own process: the only place where submission code runs.

The process is forked ahead of need, shuts itself in, and waits for a job. What it tells the keeper are
bare words (a phase has ended, or the fold failed); everything longer lies in files of its scratch
folder, and nobody believes any of it unchecked.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType, ModuleType
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from . import isolation, kit, label_file, predictions, processes, specific, surroundings, wire, workflow

PACKAGE = "submission"
FAILURE = "failure.json"
CLASSES = "classes.json"
#: the words a fold may say
FAILED = b"failed"
#: of a traceback
_FAILURE_CHARACTERS = 200_000
#: the soft limit strikes again after this long, if the submission went on
_REMINDER_SECONDS = 5.0


class SoftTimeLimitExceeded(BaseException):
    """Raised in the submission's code when its time is up; no Exception, so that few swallow it."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a keeper holds, and its folds see: no labels."""

    #: all rows of the training set, with what pandas keeps beside their labels (:func:`label_file.axes_of`)
    X_train: Any
    #: all rows of the held-out test set; None if there is none
    X_test: Any
    meta: Mapping[str, Any]
    #: the folder with the dataset's own code; then X_train and X_test are sealed
    code: str | None = None


def main(dataset: Dataset, *, link: socket.socket, log: int, keeper: int, cores: int) -> NoReturn:
    """Waits for a job, runs it, and ends. Of the keeper's descriptors it keeps only its link and log."""
    # First of all: what is open here holds locks of other folds.
    processes.keep_only([0, 1, 2, link.fileno(), log])
    os.setsid()
    processes.die_with_parent(keeper)
    processes.adopt_orphans()
    processes.set_name("datarun-fold")
    surroundings.redirect(log)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    record = isolation.enter_early(new_session=True)
    gc.enable()
    _use_cores(cores)
    surroundings.empty_environment()
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


@dataclass(frozen=True, slots=True)
class _Trained:
    """What the train phase leaves to the others."""

    predict_training_set: Callable[[], Any]
    #: None: there is no test set
    predict_test_set: Callable[[], Any] | None
    #: what the columns of an array of predictions stand for, if anything tells
    column_names: Callable[[Any], list[str] | None]


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
        self._folders = [folder for folder in (self._submission, dataset.code) if folder is not None]

    def run(self) -> None:
        """Every phase that succeeds is told; the first that does not is told with its reason, and is the last."""
        try:
            self._arm()
            self._enter()
            trained = self._train()
            self._tell("train")
            self._predict(trained)
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
        surroundings.live_in(self._scratch)
        if self._dataset.meta["format"] != "ramp":  # a kit's workflow imports by path
            package = ModuleType(PACKAGE)
            package.__path__ = [self._submission]
            sys.modules[PACKAGE] = package
            sys.path.append(self._submission)
        record = isolation.enter(
            self._record, scratch=self._scratch, submission=self._submission, limits=self._job["limits"]
        )
        _write("isolation.json", record)

    def _train(self) -> _Trained:
        if self._dataset.meta["format"] == "ramp":
            return self._train_kit()
        (X, axes), X_test = self._open()
        meta, elements = self._dataset.meta, self._job["elements"]
        labels = meta["labels"]
        train_is, _, y = label_file.received(self._rows, labels, self._job["rows"])
        model: workflow.Model | specific.OwnModel
        if meta["own_training"]:
            classifies = "regressor" not in elements
            given = self._given(y, train_is, axes)
            model = specific.train(PACKAGE, X, given, train_is, classifies=classifies)
        else:
            X, X_test = (workflow.prepared(each, elements) for each in (X, X_test))
            given = y
            if axes is not None and isinstance(X, pd.DataFrame):
                given = label_file.with_axes(y, axes, labels, train_is)
            model = workflow.train(self._load, elements, X, given, train_is)
        names = partial(_class_names, model, y)
        return _Trained(partial(model.predict, X), partial(model.predict, X_test), names)

    def _open(self) -> tuple[tuple[Any, label_file.Axes | None], Any]:
        """Both sets. Those of a dataset with code of its own are opened here, before the submission is imported."""
        dataset = self._dataset
        if dataset.code is None:
            return dataset.X_train, dataset.X_test
        with _without_garbage(), specific.first_on_path(dataset.code):
            opened = dataset.X_train.open(), dataset.X_test.open()
            if dataset.meta["own_training"]:
                importlib.import_module(specific.MODULE)
        return opened

    def _train_kit(self) -> _Trained:
        dataset = self._dataset
        assert dataset.code is not None
        with _without_garbage():
            problem = kit.import_problem(dataset.code)
            X, axes = dataset.X_train.open()
            X_test = None if dataset.X_test is None else dataset.X_test.open()
            train_is, valid_is, y = label_file.received(self._rows, dataset.meta["labels"], self._job["rows"])
        model = kit.train(problem, self._submission, X, self._given(y, train_is, axes), (train_is, valid_is))
        test = None if dataset.X_test is None else partial(model.predict, X_test, is_training_set=False)
        return _Trained(partial(model.predict, X, is_training_set=True), test, model.column_names)

    def _given(self, y: Any, train_is: Any, axes: label_file.Axes | None) -> Any:
        """Labels of all training rows as their author had them, of which only the fold's own are true."""
        meta = self._dataset.meta
        given = label_file.masked(y, train_is, meta["n_train"], pickled=meta["labels"]["pickled"])
        return given if axes is None else label_file.with_axes(given, axes, meta["labels"])

    def _load(self, element: str) -> ModuleType:
        name = f"{PACKAGE}.{element}"
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            raise workflow.ElementMissing(f"the submission has no file {element}.py") from None

    def _predict(self, trained: _Trained) -> None:
        meta = self._dataset.meta
        save = partial(predictions.save, objects=meta["format"] == "ramp")
        returned = trained.predict_training_set()
        array = save("full_train_predictions", returned, rows=meta["n_train"], what="full train")
        if array is not None:
            _write(CLASSES, trained.column_names(array))
        if trained.predict_test_set is not None:
            self._tell("validation")
            save("test_predictions", trained.predict_test_set(), rows=meta["n_test"], what="test")
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._tell("validation" if trained.predict_test_set is None else "test", is_last=True)

    def _tell(self, word: str, *, is_last: bool = False) -> None:
        """Says that a phase has ended and waits until it has been measured."""
        if os.getpid() != self._pid:
            os._exit(0)  # a child that the submission forked came back here
        sys.stdout.flush()
        sys.stderr.flush()
        self._link.send(word.encode())
        if not is_last and wire.receive(self._link) is None:
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
        if isinstance(error, predictions.WrongPredictions):
            text = str(error)
            return " ".join(text.split()), f"{text} \n"
        message, log = surroundings.story(error, folders=self._folders)
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


def _class_names(model: workflow.Model | specific.OwnModel, y: Any, array: Any) -> list[str] | None:
    if not model.classifies or array.ndim == 1:
        return None
    return workflow.class_names(model.estimator, y, array.shape[1])


@contextmanager
def _without_garbage() -> Iterator[None]:
    """For making lists of a million items, nothing of which is garbage."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def _write(name: str, value: object) -> None:
    with open(name, "w") as file:
        json.dump(value, file)


def _use_cores(cores: int) -> None:
    """The server kept every library to one thread, for it forks; a fold may use its slot's cores."""
    if cores > 1:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        os.environ.update(dict.fromkeys(surroundings.THREAD_VARIABLES, str(cores)))
        threadpool_limits(limits=cores)


def touch_pages() -> None:
    """Copies the pages that nearly every fit writes to, before a fold waits for it."""
    from sklearn.ensemble import RandomForestClassifier

    X = np.arange(40.0).reshape(20, 2)
    RandomForestClassifier(2, n_jobs=1).fit(X, np.arange(20) % 2).predict_proba(X)
