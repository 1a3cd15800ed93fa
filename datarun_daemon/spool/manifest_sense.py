"""What the fields of a manifest mean together, checked on the raw values.

Raw, because these checks are told along with whatever is wrong in single fields; so each looks
only at values of the right type and passes over the others, which are told of already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from datarun_daemon.core.errors import Problem
from datarun_daemon.spool.indices import is_index_file
from datarun_daemon.spool.manifest_fields import ELEMENTS, EXPECTED, shown
from datarun_daemon.spool.names import field_within, printable

_Raw = Mapping[str, object]


def dataset_faults(raw: _Raw) -> Iterator[Problem]:
    """What does not go together in a dataset's manifest."""
    data_file = raw.get("data_file")
    yield from _unnamed_digests(raw, {data_file} if isinstance(data_file, str) else set())


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
    seen: set[str] = set()
    for at, name in enumerate(files):
        if not isinstance(name, str):
            continue
        if name.lower() in seen:
            yield Problem(f"submission.files[{at}]", f"{shown(name)} a second time", "each file once")
        elif name in index_files:
            found = f"{shown(name)}, which holds row numbers too"
            yield Problem(f"submission.files[{at}]", found, "a file for one purpose")
        seen.add(name.lower())
    wanted = [f"{element}.py" for element in ELEMENTS]
    if len(names) == len(files) and not seen.intersection(wanted):
        found = f"only {printable(', '.join(names), 60)}"
        yield Problem("submission.files", found, f"a file for each workflow element: {', '.join(wanted)}")


def _without_files(files: object, dataset: object, force: object) -> Iterator[Problem]:
    if files == [] or dataset is not None:
        expected = "the submission's files with its dataset, or neither if the submission is already here"
        yield Problem("submission.files", shown(files), expected)
    listed = force.split(",") if isinstance(force, str) else force
    words = {word.strip() for word in listed if isinstance(word, str)} if isinstance(listed, list) else set()
    if "submission" in words:
        expected = "`submission` only with the files that replace the old ones; else submission_fold"
        yield Problem("force", shown(force), expected)


def _unnamed_digests(raw: _Raw, named: set[object]) -> Iterator[Problem]:
    digests = raw.get("files")
    for name in digests if isinstance(digests, dict) else ():
        if name not in named:
            expected = "only files that the manifest names elsewhere too"
            yield Problem(field_within("files", name), "a file that nothing else names", expected)
