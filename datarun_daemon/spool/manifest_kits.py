"""RAMP kits: a dataset whose ``problem.py`` tells everything that other manifests have fields for.

Raises and returns as ``parse_manifest`` does, of which this is the part for ``format: ramp``; and which
of the files that lie in a kit belong to the dataset.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, ClassVar

from pydantic import BeforeValidator

from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.core.model import Split
from datarun_daemon.spool.field_checks import FilePath, Format, Id, User, fault, shown
from datarun_daemon.spool.layout import is_ignored_file
from datarun_daemon.spool.manifest_fields import EXPECTED, DigestFields, Fields, fields_of
from datarun_daemon.spool.manifest_values import (
    MANIFEST_NAME,
    PROBLEM,
    RAMP,
    DatasetManifest,
    FileDigest,
    Manifest,
)
from datarun_daemon.spool.names import clashes, field_within, file_path_fault, printable
from datarun_daemon.spool.yaml_reading import parse_yaml

#: beside problem.py: what people send in, each in a folder
SUBMISSIONS = "submissions"

_KNOWN_BY_PROBLEM = ("target_column", "workflow_elements", "data_file", "extra_files")
_PATH_WORDS = "a mapping from the paths of the kit's files to their {bytes, sha256}, as `datarun pack` writes it"
_WORDS = {
    **EXPECTED,
    "split": f"custom, or nothing: {PROBLEM} reads the training set and the test set",
    "files": _PATH_WORDS,
    "fold_files": "a list of files and folders of the kit that hold no labels, and that folds may read",
    "fold_files[]": "the path of a file or folder in the kit, e.g. data/images",
}


def _custom(value: object) -> object:
    if value is not None and value != "custom":
        raise fault(shown(value))
    return value


class KitFields(Fields):
    words: ClassVar[Mapping[str, str]] = _WORDS

    name: Id
    format: Format
    split: Annotated[str | None, BeforeValidator(_custom)] = None
    files: dict[FilePath, DigestFields] | None = None
    user: User | None = None
    fold_files: list[FilePath] | None = None


def is_kit(value: Mapping[str, object]) -> bool:
    """A dataset's manifest that was read as ``value`` is a kit's, right or wrong."""
    return value.get("format") == RAMP


def is_manifest_of_kit(raw: bytes) -> bool:
    """The same of a manifest that was not read yet; quick for nearly all that are none."""
    if RAMP.encode() not in raw and b"\\" not in raw:
        return False
    try:
        value, _ = parse_yaml(raw, file_name=MANIFEST_NAME)
    except Rejection:
        return False
    return isinstance(value, dict) and is_kit(value)


def kit_of(raw: Mapping[str, object], unreadable: Iterable[Problem]) -> DatasetManifest:
    """Raises Rejection: with everything that is wrong."""
    given = {name: value for name, value in raw.items() if name not in _KNOWN_BY_PROBLEM}
    fields = fields_of(KitFields, given, unreadable, _faults(raw))
    return DatasetManifest(
        name=fields.name,
        target_column="",
        workflow_elements=(),
        data_file="",
        split=Split(None),
        files={name: FileDigest(each.bytes, each.sha256) for name, each in (fields.files or {}).items()},
        specific=PROBLEM,
        format=RAMP,
        user=fields.user,
        fold_files=tuple(fields.fold_files or ()),
    )


def needed_files(manifest: Manifest, names: Iterable[str]) -> tuple[str, ...]:
    """The files to take of a bundle that holds ``names``, each once: those that the manifest names or declares.

    Of a kit that declares none: its problem.py, and all that is not passed over.
    """
    needed = [*manifest.named_files, *manifest.files]
    if takes_all(manifest):
        needed += sorted(name for name in names if _belongs_to_kit(name))
    return tuple(dict.fromkeys(needed))


def is_entered(folder: str) -> bool:
    """Files in this folder of a kit, and in those below it, may belong to the dataset."""
    names = folder.split("/")
    return names[0] != SUBMISSIONS and "__pycache__" not in names


def takes_all(manifest: Manifest) -> bool:
    return isinstance(manifest, DatasetManifest) and manifest.takes_all


def path_problems(paths: Iterable[str]) -> list[Problem]:
    """Why files of a kit cannot be taken under these paths, whatever they hold."""
    paths = list(paths)
    problems = [
        Problem(printable(path), f"a path that {fault}", "another name; or leave it out of the kit")
        for path in paths
        if (fault := file_path_fault(path))
    ]
    problems += [_clash(printable(path), path, other) for path, other in clashes(paths)]
    return problems


def _belongs_to_kit(path: str) -> bool:
    if path == MANIFEST_NAME or path.endswith((".pyc", ".ipynb")):
        return False
    return is_entered(path) and not any(map(is_ignored_file, path.split("/")))


def _faults(raw: Mapping[str, object]) -> Iterator[Problem]:
    for field in _KNOWN_BY_PROBLEM:
        if raw.get(field) is not None:
            yield Problem(field, shown(raw[field]), f"nothing: the {PROBLEM} of a RAMP kit knows it")
    files = raw.get("files")
    paths = [path for path in files if isinstance(path, str)] if isinstance(files, dict) else []
    if paths and PROBLEM not in paths:
        yield Problem("files", f"no {PROBLEM} among them", f"{_PATH_WORDS}: all files, or no `files` at all")
    for path in paths:
        if not is_entered(path):
            expected = f"nothing in {SUBMISSIONS}/ or __pycache__/: they are no part of the dataset"
            yield Problem(field_within("files", path), "a file that is passed over", expected)
    for path, other in clashes(paths):
        yield _clash(field_within("files", path), path, other)


def _clash(field: str, path: str, other: str) -> Problem:
    found = f"{shown(path)} beside {shown(other)}"
    return Problem(field, found, "names that every drive can tell apart, and none that is a file and a folder")
