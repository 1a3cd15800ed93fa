"""A dataset with code of its own, by the functions of the REST client: lists of unequal length, three elements."""

from __future__ import annotations

import base64
import os
import pwd
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datarun_daemon.client import post_api
from tests.daemon_process import RunningDaemon, wait_for
from tests.runner.test_specific import CALIBRATOR, CLASSIFIER, EXTRACTOR, star_files

#: what datarun should predict, said without it
SCRIPT = """
    import sys
    import types
    import numpy as np

    data, submission = sys.argv[1:]
    sys.path.insert(0, data)
    package = types.ModuleType("sub_7")
    package.__path__ = [submission]
    sys.modules["sub_7"] = package
    import specific

    specific.prepare_data(data)
    X, y = specific.get_train_data(data)
    X_test, _ = specific.get_test_data(data)
    trained = specific.train_submission("sub_7", X, y, np.arange(40))
    np.save(submission + "/full_train.npy", specific.test_submission(trained, X, np.arange(len(X))))
    np.save(submission + "/test.npy", specific.test_submission(trained, X_test, np.arange(len(X_test))))
"""


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(textwrap.dedent(text))
    return folder


@pytest.mark.parametrize("own_training", [True, False])
def test_a_custom_split_and_three_elements_predict_what_a_plain_script_does(
    daemon: RunningDaemon, tmp_path: Path, own_training: bool
):
    data = write(tmp_path / "data", star_files(training=own_training))
    elements = {"feature_extractor.py": EXTRACTOR, "classifier.py": CLASSIFIER, "calibrator.py": CALIBRATOR}
    submission = write(tmp_path / "submission", elements)
    login = (str(daemon.spool.root), pwd.getpwuid(os.getuid()).pw_name, "ignored")

    sent = post_api.post_data(
        *login, "stars", "kind", "feature_extractor, classifier, calibrator", str(data / "stars.csv"),
        [str(data / name) for name in ("specific.py", "reading.py", "points.csv")],
    )  # fmt: skip
    number = sent.json()["id"]
    assert post_api.custom_post_split(*login, number).ok
    fold = post_api.post_submission_fold(
        *login, 7, 70, np.arange(40), np.arange(40, 63), "L", number, [str(submission / name) for name in elements]
    )
    assert fold.status_code == 201, fold.text
    row = wait_for(lambda: ended(*login), "the fold to end")

    assert row["state"] == "TESTED", row["log_messages"]
    if own_training:
        expected = write(tmp_path / "copy", star_files(training=True))
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(expected), str(submission)]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        for name, rows in (("full_train", 63), ("test", 27)):
            wanted = np.load(submission / f"{name}.npy")
            packed = row[f"{name}_predictions"]
            found = np.frombuffer(zlib.decompress(base64.b64decode(packed))).reshape(rows, -1)
            assert np.array_equal(found, wanted)


def ended(host_url: str, username: str, password: str) -> dict[str, Any] | None:
    (row,) = post_api.get_prediction_list(host_url, username, password, [70]).json()
    return row if row["state"] != "TODO" else None
