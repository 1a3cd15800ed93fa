"""Datasets and folds as rows of the REST API: RawData, SubmissionFold and its two shorter forms."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datarun_daemon.client.predictions import Predictions
from datarun_daemon.core.model import FoldState

if TYPE_CHECKING:
    import numpy as np

_TODO = FoldState.TODO.value
#: fields of a row to fields of result.json, both in seconds
_SECONDS = {
    "train_time": "train_seconds",
    "validation_time": "validation_seconds",
    "test_time": "test_seconds",
    "train_cpu_time": "train_cpu_seconds",
    "test_cpu_time": "test_cpu_seconds",
}
#: in MiB, to bytes
_MEMORY = {"train_memory": "train_peak_bytes", "test_memory": "test_peak_bytes"}
_MIB_BYTES = 1 << 20


def raw_data_row(dataset: Mapping[str, Any]) -> dict[str, object]:
    """Of a line of ``status/datasets.json``; ``state`` and ``reason`` of the split come on top of the API's fields."""
    return {
        "id": dataset["id"],
        "name": dataset["name"],
        "files_path": None,
        "workflow_elements": ", ".join(dataset["workflow_elements"]),
        "target_column": dataset["target_column"],
        "state": dataset["state"],
        "reason": dataset["reason"],
    }


def state_of(fold_state: str) -> str:
    """As clients of the API know it: a fold in motion is TODO, for they take all else as final."""
    state = FoldState(fold_state)
    if state is FoldState.CANCELLED:
        return FoldState.ERROR.value
    if state is FoldState.VALIDATED_ONLY:
        return FoldState.VALIDATED.value
    return state.value if state.ended else _TODO


def light_row(fold: Mapping[str, Any]) -> dict[str, object]:
    """Of a line of ``status/folds.jsonl``."""
    return {
        "databoard_sf_id": fold["id"],
        "databoard_s": fold["submission"],
        "state": state_of(fold["state"]),
        "new": is_new(fold),
    }


def is_new(fold: Mapping[str, Any]) -> bool:
    """Nobody was given its result yet; so also if there is none."""
    return bool(fold["new"]) or not FoldState(fold["state"]).ended


def fold_row(fold: Mapping[str, Any], outcome: Mapping[str, object] | None = None) -> dict[str, object]:
    """All fields, of a ``status/folds/ID.json``.

    Args:
        outcome: of ``outcome_of`` or ``outcome_in``; None: it has not ended.
    """
    return {
        "databoard_sf_id": fold["id"],
        "databoard_s": fold["submission"],
        "train_is": fold["train_is"],
        "test_is": fold["test_is"],
        "priority": fold["priority"],
        **(outcome or _outcome({}, None, None)),
        "state": state_of(fold["state"]),
        "new": is_new(fold),
        "task_id": task_id(fold["sequence"]),
    }


def prediction_row(predictions: Predictions) -> dict[str, object]:
    """What the API sent with predictions."""
    return {
        "databoard_sf_id": predictions.fold,
        "databoard_s": predictions.submission,
        **outcome_of(predictions),
        "state": state_of(predictions.state),
    }


def task_id(sequence: int) -> str:
    """Of the catalog line that asked for the work; forced again, a fold has another."""
    return f"datarun-{sequence}"


def outcome_of(predictions: Predictions) -> dict[str, object]:
    """Predictions, log and measurements of a fold, as far as it got."""
    return _outcome(predictions.result, predictions.full_train, predictions.test)


def outcome_in(folder: Path) -> dict[str, object]:
    """The same of a result as it lies in the outbox. Raises OSError: it is there no more."""
    import numpy as np

    def array(name: str) -> np.ndarray[Any, Any] | None:
        file = folder / name
        loaded: np.ndarray[Any, Any] | None = np.load(file, allow_pickle=False) if name in result["files"] else None
        return loaded

    result = json.loads((folder / "result.json").read_bytes())
    return _outcome(result, array("full_train_predictions.npy"), array("test_predictions.npy"))


def packed_rows(rows: Any) -> str:
    """Row numbers as base64(zlib(int64))."""
    return base64.b64encode(zlib.compress(rows.tobytes())).decode("ascii")


def _outcome(
    result: Mapping[str, Any],
    full_train: np.ndarray[Any, Any] | list[Any] | None,
    test: np.ndarray[Any, Any] | list[Any] | None,
) -> dict[str, object]:
    return {
        "full_train_predictions": _packed_floats(full_train),
        "test_predictions": _packed_floats(test),
        "log_messages": result.get("log_messages"),
        **{name: result.get(of) or 0.0 for name, of in _SECONDS.items()},
        **{name: (result.get(of) or 0) / _MIB_BYTES for name, of in _MEMORY.items()},
    }


def _packed_floats(array: np.ndarray[Any, Any] | list[Any] | None) -> str | None:
    """base64(zlib(float64 in C order)): the shape is the client's to know. None for what is no array of numbers."""
    if array is None or isinstance(array, list):
        return None
    return base64.b64encode(zlib.compress(array.astype("<f8").tobytes(order="C"))).decode("ascii")
