"""Results of folds as values: predictions as numpy arrays, measurements, log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datarun_daemon.client.answers import FoldId
from datarun_daemon.client.errors import TransferFailed
from datarun_daemon.core.model import FoldState

if TYPE_CHECKING:
    import numpy as np


#: of the folder that answers a predictions request: what it holds
DELIVERY_FILE = "predictions.json"


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What is known of one fold: everything, once it has ended."""

    fold: FoldId
    submission: FoldId
    dataset: str
    state: FoldState
    #: it was not delivered before
    new: bool
    #: for every row of the training set, a column per class or target; None: the fold did not get that far.
    #: A list with an item a row where a kit's predictions are no numbers
    full_train: np.ndarray[Any, Any] | list[Any] | None = field(default=None, repr=False)
    #: for every row of the held-out test set, likewise
    test: np.ndarray[Any, Any] | list[Any] | None = field(default=None, repr=False)
    #: names of the columns of both
    columns: tuple[str, ...] = ()
    #: of an ERROR: data, train, validation or test
    stage: str | None = None
    #: of an ERROR, one line
    message: str | None = None
    #: the content of result.json; empty while the fold has not ended
    result: dict[str, Any] = field(default_factory=dict, repr=False)
    #: what the fold printed, and for an ERROR why
    log: str = field(default="", repr=False)

    @property
    def ended(self) -> bool:
        return self.state.ended

    @property
    def log_messages(self) -> str:
        """Of an ERROR: its message or traceback, with the tag ``ERROR(train)`` or alike; else empty."""
        return str(self.result.get("log_messages") or "")


def read_delivery(folder: Path) -> tuple[list[Predictions], list[FoldId]]:
    """What the answer to a predictions request holds; and the ids that the daemon did not know.

    Raises:
        TransferFailed: something is missing in it or cannot be read.
    """
    try:
        content = json.loads((folder / DELIVERY_FILE).read_bytes())
        return [_predictions(folder, row) for row in content["folds"]], content["unknown"]
    except (OSError, ValueError, KeyError) as error:
        raise TransferFailed(
            f"{folder}: the predictions that the daemon wrote cannot be read ({type(error).__name__}: {error})"
        ) from error


def _predictions(folder: Path, row: Mapping[str, Any]) -> Predictions:
    about = Predictions(row["id"], row["submission"], row["dataset"], FoldState(row["state"]), new=row["new"])
    if row["folder"] is None:
        return about
    log = folder / row["folder"] / "log.txt"
    return replace(
        about,
        full_train=_array(folder, row["full_train_predictions"]),
        test=_array(folder, row["test_predictions"]),
        columns=tuple(row.get("columns") or ()),
        stage=row.get("stage"),
        message=row.get("message"),
        result=json.loads((folder / row["folder"] / "result.json").read_bytes()),
        log=log.read_text(encoding="utf-8", errors="replace") if log.exists() else "",
    )


def _array(folder: Path, described: Mapping[str, Any] | None) -> np.ndarray[Any, Any] | list[Any] | None:
    if described is None:
        return None
    if described["file"].endswith(".json"):
        items: list[Any] = json.loads((folder / described["file"]).read_bytes())
        return items
    import numpy as np

    array: np.ndarray[Any, Any] = np.load(folder / described["file"], allow_pickle=False)
    return array
