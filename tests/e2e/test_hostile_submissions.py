"""Submissions that misbehave end in ERROR with a message; the daemon and the neighbours go on."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.bundles import FOREST, fold_bundle, iris_bundle
from tests.conftest import StartDaemon
from tests.daemon_process import RunningDaemon, wait_for

BODY = """\
import os, sys, time, signal
import numpy as np


class Classifier:
    def fit(self, X, y):
        {fit}

    def predict_proba(self, X):
        {predict}
"""
GOOD = "return np.full((len(X), 3), 1 / 3)"
FORK_BY_DOUBLE_FORK = """\
if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(600)
            os._exit(0)
        os.wait()"""

#: name: (what fit does, what predict_proba does, stage, words of the message)
MISBEHAVIOUR = {
    "raises": ("raise ValueError('no such luck')", GOOD, "train", "no such luck"),
    "raises_in_predict": ("pass", "raise KeyError('x')", "validation", "KeyError"),
    "raises_on_the_test_set": ("pass", "assert len(X) != 74, 'the test set'\n        " + GOOD, "test", "the test set"),
    "wrong_length": ("pass", "return np.zeros((7, 3))", "validation", "7 instead of 76"),
    "strings": ("pass", "return np.array([['a', 'b']] * len(X))", "validation", "numbers"),
    "objects": ("pass", "return [object()] * len(X)", "validation", "numbers"),
    "nothing": ("pass", "return None", "validation", "None"),
    "sleeps": ("time.sleep(600)", GOOD, "train", "Soft Time Limit Exceeded"),
    "spins_ignoring_the_soft_limit": (
        "signal.signal(signal.SIGALRM, signal.SIG_IGN)\n        while True: pass", GOOD, "train",
        "Hard Time Limit Exceeded",
    ),
    "leaves_a_grandchild": (FORK_BY_DOUBLE_FORK + "\n        raise OSError('left one')", GOOD, "train", "left one"),
    "eats_memory": ("self.all = [bytearray(1 << 24) for _ in range(400)]", GOOD, "train", "memory"),
    "exits_silently": ("os._exit(0)", GOOD, "train", "exit"),
    "sys_exit": ("sys.exit(3)", GOOD, "train", "SystemExit"),
    "kills_itself": ("os.kill(os.getpid(), signal.SIGKILL)", GOOD, "train", "SIGKILL"),
    "too_deep": ("self.fit(X, y)", GOOD, "train", "RecursionError"),
}  # fmt: skip


@pytest.fixture
def strict_daemon(make_daemon: StartDaemon, tmp_path: Path) -> RunningDaemon:
    limits = {"wall_soft_seconds": 3.0, "wall_hard_seconds": 5.0}
    daemon = make_daemon(
        priorities={"L": limits, "H": dict(limits)},
        fold={"memory_bytes": "256 MiB", "log_bytes": "100 KiB", "processes": 20},
    ).start()
    # 76 training rows and 74 of test, so that a submission can tell them apart
    daemon.drop(iris_bundle(tmp_path / "iris", split={"held_out_test": 0.49, "random_state": 1}), "datasets")
    return daemon


def test_each_misbehaviour_ends_in_error_with_its_stage_and_words_and_neighbours_go_on(
    strict_daemon: RunningDaemon, tmp_path: Path
):
    for name, (fit, predict, _, _) in MISBEHAVIOUR.items():
        code = BODY.format(fit=fit, predict=predict)
        strict_daemon.drop(fold_bundle(tmp_path / name, [name], submission=f"s-{name}", code=code), "folds")
        neighbour = f"n-{name}"
        strict_daemon.drop(fold_bundle(tmp_path / neighbour, [neighbour], submission=f"s-{neighbour}"), "folds")

    for name, (_, _, stage, words) in MISBEHAVIOUR.items():
        result = strict_daemon.wait_for_result("iris", f"s-{name}", name, seconds=100)
        assert (result["state"], result["stage"]) == ("ERROR", stage), (name, result["log_messages"])
        assert words in result["message"] + result["log_messages"], name
        assert f"ERROR({stage})" in result["log_messages"], name
        neighbour = strict_daemon.wait_for_result("iris", f"s-n-{name}", f"n-{name}")
        assert neighbour["state"] == "TESTED", name
    assert not strict_daemon.has_ended
    assert strict_daemon.catalog("FoldLost") == []

    strict_daemon.stop()
    wait_for(lambda: not strict_daemon.leftovers(), "every process to end")


def test_printing_a_gigabyte_neither_fails_the_fold_nor_fills_the_disk(strict_daemon: RunningDaemon, tmp_path: Path):
    code = FOREST.replace(
        "        self.forest.fit(X, y)",
        textwrap.indent("for _ in range(1024):\n    print('x' * (1 << 20))\nself.forest.fit(X, y)", " " * 8),
    )
    strict_daemon.drop(fold_bundle(tmp_path / "loud", [1], submission=1, code=code), "folds")

    result = strict_daemon.wait_for_result("iris", "1", 1)

    assert result["state"] == "TESTED", result["log_messages"]
    log = (strict_daemon.result_folder("iris", "1", 1) / "log.txt").read_text()
    assert len(log) < 110 * 1024
    assert "102400" in log or "100 KiB" in log
