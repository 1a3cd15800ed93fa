"""What the fields of a manifest mean together, checked on the raw values.

Raw, because these checks are told along with whatever is wrong in single fields; so each looks
only at values of the right type and passes over the others, which are told of already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set

from datarun_daemon.core.errors import Problem
from datarun_daemon.spool.field_checks import shown
from datarun_daemon.spool.indices import is_index_file
from datarun_daemon.spool.manifest_fields import EXPECTED
from datarun_daemon.spool.names import field_within, printable

SPECIFIC = "specific.py"

_FUNCTIONS = "prepare_data, get_train_data and get_test_data"
_Raw = Mapping[str, object]


def specific_file(names: Iterable[str]) -> str:
    """The one of a dataset's files whose functions read and split it; "" if there is none, or which is unclear."""
    python = [name for name in names if name.endswith(".py")]
    return SPECIFIC if SPECIFIC in python else python[0] if len(python) == 1 else ""


def dataset_faults(raw: _Raw) -> Iterator[Problem]:
    """What does not go together in a dataset's manifest."""
    data_file, extra_files = raw.get("data_file"), raw.get("extra_files") or []
    listed = extra_files if isinstance(extra_files, list) else []
    named = [name for name in (data_file, *listed) if isinstance(name, str)]
    yield from _files_twice(listed, "extra_files", {name.lower() for name in named[:1] if name == data_file})
    if any(name.endswith(".py") for name in named):
        yield from _custom_faults(raw, list(dict.fromkeys(named)))
    elif not extra_files:
        yield from _standard_faults(raw)
    elif listed and all(isinstance(name, str) for name in listed):
        found = f"no Python file among {printable(', '.join(named), 60)}"
        yield Problem("extra_files", found, f"a .py file with {_FUNCTIONS}, or nothing beside the CSV file")
    yield from _unnamed_digests(raw, set(named))


def _custom_faults(raw: _Raw, named: list[str]) -> Iterator[Problem]:
    specific = specific_file(named)
    if not specific:
        python = ", ".join(name for name in named if name.endswith(".py"))
        found = f"several Python files: {printable(python, 60)}"
        yield Problem("extra_files", found, f"the one with {_FUNCTIONS} to be called {SPECIFIC}")
    if isinstance(raw.get("split"), dict):
        expected = f"custom, or nothing: prepare_data in {printable(specific or SPECIFIC, 60)} splits the data"
        yield Problem("split", shown(raw["split"]), expected)


def _standard_faults(raw: _Raw) -> Iterator[Problem]:
    for field in ("target_column", "data_file"):
        if raw.get(field) is None:
            yield Problem(field, "nothing", EXPECTED[field])
    if raw.get("split") == "custom":
        found = "custom, for a dataset without a Python file"
        expected = f"{{held_out_test: 0.5, random_state: 42}}, or a .py file with {_FUNCTIONS} in extra_files"
        yield Problem("split", found, expected)


def folds_faults(raw: _Raw) -> Iterator[Problem]:
    """What does not go together in a fold bundle's manifest."""
    submission = raw.get("submission")
    folds = raw.get("folds")
    parts = [fold for fold in folds if isinstance(fold, dict)] if isinstance(folds, list) else []
    yield from _which_folds(raw)
    yield from _ids_twice(folds)
    named = _index_files(parts)
    if isinstance(submission, dict):
        yield from _submission_faults(submission, raw.get("force"), named)
        files = submission.get("files")
        named |= {name for name in files if isinstance(name, str)} if isinstance(files, list) else set()
    yield from _unnamed_digests(raw, named)


def _which_folds(raw: _Raw) -> Iterator[Problem]:
    folds, cv = raw.get("folds"), raw.get("cv")
    if folds is not None and cv is not None:
        yield Problem("cv", "both `folds` and `cv`", "one of them: folds, or a splitter that makes them")
    elif folds is None and cv is None:
        yield Problem("folds", "nothing", f"{EXPECTED['folds']}; or a splitter as `cv`")
    elif folds == []:
        yield Problem("folds", "an empty list", EXPECTED["folds"])


def _ids_twice(folds: object) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for at, fold in enumerate(folds if isinstance(folds, list) else ()):
        given = fold.get("id") if isinstance(fold, dict) else None
        if type(given) is not int and not isinstance(given, str):
            continue
        before = first.setdefault(str(given), at)
        if before != at:
            yield Problem(f"folds[{at}].id", f"{shown(given)}, as in folds[{before}]", "an id of its own")


def _index_files(folds: list[dict[str, object]]) -> set[object]:
    sources = (fold.get(part) for fold in folds for part in ("train_is", "test_is"))
    return {source for source in sources if isinstance(source, str) and is_index_file(source)}


def _submission_faults(submission: _Raw, force: object, index_files: set[object]) -> Iterator[Problem]:
    files, dataset = submission.get("files"), submission.get("dataset")
    if not files:
        yield from _without_files(files, dataset, force)
        return
    if dataset is None:
        yield Problem("submission.dataset", "nothing", "the dataset's name, since the files are given")
    if not isinstance(files, list):
        return
    names = [name for name in files if isinstance(name, str)]
    yield from _files_twice(files, "submission.files", set())
    for at, name in enumerate(files):
        if name in index_files:
            found = f"{shown(name)}, which holds row numbers too"
            yield Problem(f"submission.files[{at}]", found, "a file for one purpose")
    if len(names) == len(files) and not any(name.endswith(".py") for name in names):
        found = f"only {printable(', '.join(names), 60)}"
        expected = "a Python file at least: of most datasets one for each workflow element, such as classifier.py"
        yield Problem("submission.files", found, expected)


def _without_files(files: object, dataset: object, force: object) -> Iterator[Problem]:
    if files == [] or dataset is not None:
        expected = "the submission's files with its dataset, or neither if the submission is already here"
        yield Problem("submission.files", shown(files), expected)
    listed = force.split(",") if isinstance(force, str) else force
    words = {word.strip() for word in listed if isinstance(word, str)} if isinstance(listed, list) else set()
    if "submission" in words:
        expected = "`submission` only with the files that replace the old ones; else submission_fold"
        yield Problem("force", shown(force), expected)


def _files_twice(files: list[object], field: str, before: Set[str]) -> Iterator[Problem]:
    """Names that differ in case alone are one file on some drives."""
    seen = set(before)
    for at, name in enumerate(files):
        if not isinstance(name, str):
            continue
        if name.lower() in seen:
            yield Problem(f"{field}[{at}]", f"{shown(name)} a second time", "each file once")
        seen.add(name.lower())


def _unnamed_digests(raw: _Raw, named: Set[object]) -> Iterator[Problem]:
    digests = raw.get("files")
    for name in digests if isinstance(digests, dict) else ():
        if name not in named:
            expected = "only files that the manifest names elsewhere too"
            yield Problem(field_within("files", name), "a file that nothing else names", expected)
