"""Whatever a submission does, its fold ends with a result that says what happened, and leaves no process."""

from __future__ import annotations

import ast
import csv
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import Data, House, alive, eventually

GOOD = """
    class Classifier:
        def fit(self, X, y): pass
        def predict_proba(self, X):
            import numpy as np
            return np.ones((len(X), 3)) / 3
"""


def fits(body: str) -> str:
    """A classifier whose fit does that."""
    lines = "\n".join(f"            {line}" for line in body.splitlines())
    return f"""
    import ctypes, os, signal, subprocess, sys, time
    import numpy as np
    class Classifier:
        def fit(self, X, y):
{lines}
        def predict_proba(self, X):
            return np.ones((len(X), 3)) / 3
    """


def predicts(expression: str, *, of_test: bool = False) -> str:
    """A classifier that returns that; good predictions of the training set, if of_test."""
    condition = "len(X) == 30" if of_test else "True"
    return f"""
    import os, sys, numpy as np, pandas as pd
    class Classifier:
        def fit(self, X, y): pass
        def predict_proba(self, X):
            if {condition}:
                return {expression}
            return np.ones((len(X), 3)) / 3
    """


def error(house: House, data: Data, text: str, **limits: Any) -> dict[str, Any]:
    """The result of a fold that has to end in ERROR, with the tag of its stage and nothing left behind."""
    result = house.run(data, house.submission(classifier=text), **limits)
    assert result["state"] == "ERROR", result
    assert result["log_messages"].endswith(f" - ERROR({result['stage']})\n")
    assert result["message"] in " ".join(result["log_messages"].split()) or result["message"]
    assert (result["out"] / "log.txt").exists()
    assert not (result["out"].parent / "scratch").exists()
    assert house.processes_of_folds() == []
    return result


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('no such luck')", "ValueError: no such luck"),
        ("sys.exit(3)", "the submission ended itself: SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("os._exit(0)", "The process of the fold ended by itself with exit status 0 (train phase)"),
        ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded"),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        ("class Evil(Exception):\n    def __str__(self): raise SystemExit\nraise Evil", "Evil"),
        ("os.close(1); os.close(2); raise ValueError('mute')", "ValueError: mute"),
        ("sys.stdout = None; sys.stderr = 3; raise ValueError('mute')", "ValueError: mute"),
        ("raise ValueError('\\udc80 lone')", "lone"),
        ("os.abort()", "signal 6 (SIGABRT"),
        ("ctypes.string_at(1)", "signal 11 (SIGSEGV"),
    ],
)
def test_a_fit_that_fails_is_an_error_of_training(house: House, iris: Data, body: str, message: str):
    result = error(house, iris, fits(body))

    assert result["stage"] == "train"
    assert message in result["message"]


def test_a_fold_that_kills_itself_is_told_so(house: House, iris: Data):
    result = error(house, iris, fits("os.kill(os.getpid(), signal.SIGKILL)"))

    assert (result["stage"], "signal 9 (SIGKILL; sent by the submission itself" in result["message"]) == ("train", True)


def test_a_traceback_shows_the_submissions_lines_and_none_of_ours(house: House, iris: Data):
    result = error(house, iris, fits("raise ValueError('here')"))

    assert 'File "classifier.py", line' in result["log_messages"]
    assert "raise ValueError('here')" in result["log_messages"]
    assert "datarun" not in result["log_messages"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Classifier(:", "SyntaxError"),
        ("class Klassifier: pass", "classifier.py defines no class Classifier; classes there: Klassifier"),
        ("raise RuntimeError('at import')", "RuntimeError: at import"),
        ("class Classifier:\n    def __init__(self, must): pass", "TypeError"),
    ],
)
def test_a_module_that_can_not_be_used_is_an_error_of_training(house: House, iris: Data, text: str, message: str):
    result = error(house, iris, text)

    assert result["stage"] == "train"
    assert message in result["message"]


def test_a_missing_file_is_named(house: House, iris: Data):
    result = house.run(iris, house.submission(regressor=GOOD))

    assert (result["state"], result["stage"]) == ("ERROR", "train")
    assert "the submission has no file classifier.py" in result["message"]


def test_too_few_predictions_are_told_in_the_words_of_the_old_service(house: House, iris: Data):
    full = error(house, iris, predicts("np.ones((60, 3))"))
    test = error(house, iris, predicts("np.ones((29, 3))", of_test=True))

    assert full["log_messages"] == "Wrong full train prediction size: \n60 instead of 120 \n - ERROR(validation)\n"
    assert test["log_messages"] == "Wrong test prediction size: \n29 instead of 30 \n - ERROR(test)\n"
    assert sorted(test["files"]) == ["full_train_predictions.csv", "full_train_predictions.npy", "log.txt"]


@pytest.mark.parametrize(
    "expression",
    [
        "np.array(['a'] * len(X))",
        "np.array([object()] * len(X))",
        "np.ones((len(X), 3), dtype=complex)",
        "None",
        "np.ones((len(X), 3, 2))",
        "np.ones((len(X), 0))",
        "[[1.0], [1.0, 2.0]]",
        "iter(X)",
        "1 / 0",
    ],
)
def test_predictions_that_are_no_numbers_are_an_error_of_validation(house: House, iris: Data, expression: str):
    assert error(house, iris, predicts(expression))["stage"] == "validation"


@pytest.mark.parametrize(
    ("expression", "dtype"),
    [
        ("[[0.5, 0.25, 0.25]] * len(X)", "<f8"),
        ("pd.DataFrame(np.ones((len(X), 3)))", "<f8"),
        ("np.ones((len(X), 3), dtype='>f4')", "<f4"),
        ("np.asfortranarray(np.ones((len(X), 3), dtype=np.int8))", "|i1"),
        ("np.ones((len(X), 3), dtype=np.longdouble)", "<f8"),
        ("np.zeros(len(X), dtype=bool)", "|b1"),
    ],
)
def test_any_numbers_are_predictions(house: House, iris: Data, expression: str, dtype: str):
    result = house.run(iris, house.submission(classifier=predicts(expression)))

    assert result["state"] == "TESTED", result["log_messages"]
    assert dtype == np.load(result["out"] / "test_predictions.npy", allow_pickle=False).dtype.str


def test_a_sleeper_is_woken_by_the_soft_limit(house: House, iris: Data):
    result = error(house, iris, fits("time.sleep(1000)"), wall_soft_seconds=0.3)

    assert (result["stage"], result["message"]) == ("train", "Soft Time Limit Exceeded (0.3 s)")
    assert "time.sleep(1000)" in result["log_messages"]


def test_a_sleeper_that_ignores_the_soft_limit_is_ended_by_the_hard_one(house: House, iris: Data):
    body = "signal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True:\n    time.sleep(1)"
    result = error(house, iris, fits(body), wall_soft_seconds=0.1, wall_hard_seconds=0.6)

    assert (result["stage"], result["message"]) == ("train", "Hard Time Limit Exceeded (0.6 s)")
    assert result["train_seconds"] is None


def test_a_slow_prediction_is_an_error_of_its_own_stage(house: House, iris: Data):
    result = error(house, iris, predicts("__import__('time').sleep(1000)", of_test=True), wall_soft_seconds=0.5)

    assert (result["stage"], result["message"]) == ("test", "Soft Time Limit Exceeded (0.5 s)")


DESCENDANTS = """
readable, writable = os.pipe()
for kind in range(4):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            if kind == 1:
                os.close(1); os.close(2)
            if kind == 2:
                subprocess.Popen(["sleep", "1000"], start_new_session=True)
            os.write(writable, f"{os.getpid()} ".encode())
            if kind == 3:
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(1000)
        os._exit(0)
time.sleep(0.3)
print(os.read(readable, 1000).decode())
"""


@pytest.mark.parametrize("ending", ["pass", "raise ValueError", "os._exit(0)", "time.sleep(1000)"])
def test_no_descendant_outlives_its_fold(house: House, iris: Data, ending: str):
    submission = house.submission(classifier=fits(DESCENDANTS + ending))

    result = house.run(iris, submission, wall_soft_seconds=2)

    pids = [int(word) for word in (result["out"] / "log.txt").read_text().split() if word.isdigit()][:4]
    assert len(pids) == 4
    assert [pid for pid in pids if alive(pid)] == []
    assert house.processes_of_folds() == []


def test_a_fold_that_disowns_its_orphans_leaves_none_either(house: House, iris: Data):
    disown = "ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)  # no subreaper any more\n"

    result = house.run(iris, house.submission(classifier=fits(disown + DESCENDANTS)))

    pids = [int(word) for word in (result["out"] / "log.txt").read_text().split() if word.isdigit()]
    assert (result["state"], len(pids)) == ("TESTED", 4)
    assert [pid for pid in pids if alive(pid)] == []


def test_too_many_processes_end_the_fold(house: House, iris: Data):
    body = "for _ in range(50):\n    subprocess.Popen(['sleep', '1000'])\ntime.sleep(1000)"

    result = error(house, iris, fits(body), processes=10)

    assert result["message"] == "Process Limit Exceeded (51 processes; at most 10)"


def test_an_allocation_beyond_the_limit_is_a_memory_error(house: House, iris: Data):
    result = error(house, iris, fits("np.ones(300 << 20, dtype=np.uint8)"), memory_bytes=200 << 20)

    assert (result["stage"], "Unable to allocate 300. MiB" in result["message"]) == ("train", True)
    assert f"the memory limit is {200 << 20} bytes" in result["message"]


def test_memory_spread_over_processes_ends_the_fold(house: House, iris: Data):
    body = """
for _ in range(3):
    if os.fork() == 0:
        kept = np.ones(120 << 20, dtype=np.uint8)
        time.sleep(1000)
time.sleep(1000)
"""
    result = error(house, iris, fits(body), memory_bytes=250 << 20)

    assert "Memory Limit Exceeded (used " in result["message"]
    assert f"at most {250 << 20})" in result["message"]


def test_children_that_share_their_parents_memory_are_counted_once(house: House, iris: Data):
    body = """
kept = np.ones(120 << 20, dtype=np.uint8)
for _ in range(4):
    if os.fork() == 0:
        time.sleep(1000)
time.sleep(0.8)
"""
    assert house.run(iris, house.submission(classifier=fits(body)), memory_bytes=300 << 20)["state"] == "TESTED"


def test_the_peak_of_each_phase_is_its_own(house: House, iris: Data):
    result = house.run(iris, house.submission(classifier=fits("np.ones(100 << 20, dtype=np.uint8)")))

    assert 100 << 20 <= result["train_peak_bytes"] < 140 << 20
    assert result["test_peak_bytes"] < 40 << 20
    assert result["peak_bytes"] == result["train_peak_bytes"]


def test_cpu_time_counts_children_and_not_sleep(house: House, iris: Data):
    body = """
if os.fork() == 0:
    end = time.process_time() + 0.4
    while time.process_time() < end: pass
    os._exit(0)
os.wait()
time.sleep(0.5)
"""
    result = house.run(iris, house.submission(classifier=fits(body)))

    assert 0.35 < result["train_cpu_seconds"] < 0.7
    assert result["train_seconds"] > 0.9
    assert result["cpu_seconds"] >= result["train_cpu_seconds"]


def test_a_gigabyte_of_output_leaves_a_log_of_the_allowed_size(house: House, iris: Data):
    body = "line = b'x' * 99 + b'\\n'\nos.write(1, b'first\\n')\n" \
           "for _ in range(1024): sys.stdout.buffer.write(line * 10486)\nprint('last')"

    result = house.run(iris, house.submission(classifier=fits(body)), log_bytes=50_000)

    log = (result["out"] / "log.txt").read_bytes()
    assert result["state"] == "TESTED"
    assert log.startswith(b"first\n")
    assert log.endswith(b"last\n")
    assert len(log) < 50_200
    assert f"[{result['log_bytes_dropped']} bytes dropped here: of a longer log 50000 bytes are kept]".encode() in log
    assert result["log_bytes_dropped"] > 1_073_000_000


def test_a_file_too_large_is_an_error(house: House, iris: Data):
    result = error(house, iris, fits("open('big', 'wb').write(bytes(11 << 20))"), file_bytes=10 << 20)

    assert "File too large" in result["message"]


def test_a_fold_starts_with_nothing_of_ours(house: House, iris: Data):
    body = """
fds = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
names = {os.readlink(fd) for fd in fds if os.path.lexists(fd)}
print(sorted(name for name in names if not name.startswith(("socket:", "pipe:", "/dev/null", "/proc"))))
print(sorted(os.environ), os.getcwd() == os.environ["HOME"] == os.environ["TMPDIR"], os.getsid(0) == os.getpid())
"""
    other = house.start(iris, house.submission(classifier=fits("time.sleep(1)")))
    result = house.run(iris, house.submission(classifier=fits(body)))
    house.end_of(other)

    files, seen = (result["out"] / "log.txt").read_text().splitlines()
    assert files == "[]"
    assert seen.endswith("True True")
    names = set(ast.literal_eval(seen.split("]")[0] + "]"))
    assert {"HOME", "LANG", "PATH", "TMPDIR"} == {name for name in names if not name.endswith("_THREADS")}
    assert "OPENBLAS_NUM_THREADS" in names


@pytest.mark.parametrize(
    "trick",
    [
        "os.symlink('/etc/passwd', 'test_predictions.npy')",
        "os.mkfifo('test_predictions.npy')",
        "os.mkdir('test_predictions.npy')",
        "open('test_predictions.npy', 'wb').write(b'\\x93NUMPY\\x01\\x00\\xff\\xff' + b'(' * 65535)",
        "np.save('test_predictions.npy', np.array([{}], dtype=object), allow_pickle=True)",
        "np.save('test_predictions.npy', np.ones((29, 3)))",
    ],
)
def test_forged_files_of_predictions_are_refused(house: House, iris: Data, trick: str):
    text = f"""
    import os, socket, time, numpy as np
    class Classifier:
        def fit(self, X, y): pass
        def predict_proba(self, X):
            if len(X) == 30:
                {trick}
                for fd in range(3, 20):  # says that it is done, in our name
                    try: os.write(fd, b"test")
                    except OSError: pass
                time.sleep(1000)
            return np.ones((len(X), 3))
    """
    result = error(house, iris, text)

    assert result["stage"] == "test"
    assert "Wrong test predictions" in result["message"]


@pytest.mark.parametrize("word", ["b'nonsense'", "b''", "b'test'", "bytes(60000)"])
def test_a_fold_that_talks_out_of_turn_ends(house: House, iris: Data, word: str):
    body = f"for fd in range(3, 20):\n    try: os.write(fd, {word})\n    except OSError: pass\ntime.sleep(1000)"

    assert error(house, iris, fits(body), wall_soft_seconds=1)["stage"] == "train"


def test_a_scratch_folder_full_of_traps_is_cleared_up(house: House, iris: Data):
    body = """
os.symlink("/etc", "link"); os.mkfifo("pipe"); os.mkdir("shut"); open("shut/in", "w").close(); os.chmod("shut", 0)
for depth in range(600):
    os.mkdir("d" * 200); os.chdir("d" * 200)
"""
    result = house.run(iris, house.submission(classifier=fits(body)))

    assert not (result["out"].parent / "scratch").exists()
    assert Path("/etc/passwd").exists()


def test_a_fold_may_remove_its_own_scratch_folder(house: House, iris: Data):
    result = error(house, iris, fits("import shutil; shutil.rmtree(os.getcwd())"))

    assert result["stage"] in ("train", "validation")


def test_names_of_classes_do_not_break_the_table(house: House, iris: Data):
    text = """
    import numpy as np
    class Classifier:
        classes_ = ['a,"b"', "new\\nline", "\\x1b[31m\\udc80"]
        def fit(self, X, y): pass
        def predict_proba(self, X): return np.ones((len(X), 3))
    """
    result = house.run(iris, house.submission(classifier=text))

    with (result["out"] / "test_predictions.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["row", 'a,"b"', "new line", " [31m\\udc80"]
    assert len(rows) == 30


def test_the_record_of_a_result_is_whole(house: House, iris: Data):
    result = house.run(iris, house.submission(classifier=GOOD))

    out = result["out"]
    digests = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in out.iterdir()
        if path.name != "result.json"
    }
    assert digests == result["files"]
    assert tuple(
        result[key] for key in ("submission", "environment", "attempt", "elements")
    ) == ("7", "default", 1, ["classifier"])
    assert result["isolation"]["no_new_privs"] == "on"
    assert {"lock", "facts.json", "out"} == {path.name for path in out.parent.iterdir()}


def test_a_cancelled_fold_says_why(house: House, iris: Data):
    job = house.start(iris, house.submission(classifier=fits("time.sleep(1000)")))

    house.pool.stop(job.fold, 1, reason="its owner asked")
    house.end_of(job)

    result = house.result(job)
    assert (result["state"], result["message"]) == ("CANCELLED", "its owner asked")
    assert (result["stage"], result["log_messages"]) == (None, "its owner asked\n")


def test_after_all_this_the_server_still_has_one_thread(house: House, iris: Data):
    house.run(iris, house.submission(classifier=GOOD))

    threads = [len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in house.pool.pids]
    assert threads == [1]
    assert eventually(lambda: house.processes_of_folds() == [])
