"""The train-test task of the REST service, as its Celery workers ran it: data read, modules imported, results as text.

A worker imports this module by name (``celery -A benchmarks.celery_tasks worker``). Beside the service itself it is
spared the HTTP request and the database row of each fold.
"""

from __future__ import annotations

import base64
import importlib
import os
import sys
import time
import zlib
from typing import Any

import numpy as np
import pandas as pd
from celery import Celery  # type: ignore[import-untyped]

_URL = os.environ["DATARUN_BENCH_REDIS"]
app = Celery("benchmarks", broker=_URL, backend=_URL)
app.conf.update(task_serializer="json", result_serializer="json", accept_content=["json"])


@app.task(name="train_test_fold")  # type: ignore[untyped-decorator]
def train_test_fold(data_folder: str, target: str, submissions: str, submission: str, train_is: str) -> list[Any]:
    """state, train and test seconds, both predictions as base64(zlib(float64))."""
    if submissions not in sys.path:
        sys.path.insert(0, submissions)
    train, test = pd.read_csv(f"{data_folder}/train.csv"), pd.read_csv(f"{data_folder}/test.csv")
    rows = np.frombuffer(zlib.decompress(base64.b64decode(train_is)), np.int64)
    X_train, X_test = train.drop([target], axis=1), test.drop([target], axis=1)
    start = time.monotonic()
    classifier = importlib.import_module(".classifier", submission).Classifier()
    classifier.fit(np.array(X_train.iloc[rows]), np.array(train[target].iloc[rows]))
    trained = time.monotonic()
    on_train = classifier.predict_proba(np.array(X_train))
    on_test = classifier.predict_proba(np.array(X_test))
    return ["TESTED", trained - start, time.monotonic() - trained, _packed(on_train), _packed(on_test)]


def _packed(predictions: Any) -> str:
    return base64.b64encode(zlib.compress(predictions.tobytes())).decode()
