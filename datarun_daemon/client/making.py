"""Manifests and bundles from Python values: a folder of links to the client's files, ready to be sent."""

from __future__ import annotations

import base64
import json
import operator
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datarun_daemon.client.answers import FoldRows
from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.spool.descent import make_folders
from datarun_daemon.spool.index_files import header_of_npy
from datarun_daemon.spool.manifest import MANIFEST_NAME
from datarun_daemon.spool.yaml_reading import MAX_YAML_BYTES

#: row numbers that take more than this as text go into a file of their own
_INLINE_CHARACTERS = 1000
#: what a file's line under `files:` takes, at most, beside its name
_DIGEST_BYTES = 120
#: of a manifest: leaves room for what is not its folds
_FOLDS_BYTES = MAX_YAML_BYTES - 32 * 1024
#: of one bundle; a daemon takes 10000 files unless it is configured otherwise
_FOLDS = 2000


@dataclass(slots=True)
class Making:
    """A bundle that is being made."""

    manifest: dict[str, Any]
    #: by the names, of a kit the paths, that they have in the bundle
    files: dict[str, Path] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)

    def add_file(self, path: str | Path, field_name: str) -> str:
        """The file's name in the bundle. Raises Rejection: there is no such file, or another of that name."""
        path = Path(path)
        name = path.name
        if not path.is_file():
            found = "a folder" if path.is_dir() else "no such file"
            raise Rejection([Problem(field_name, f"{found}: {path}", "a file that is there")])
        if name in self.files and not path.samefile(self.files[name]):
            raise Rejection([Problem(field_name, f"two files named {name}", "files of different names")])
        self.files[name] = path.resolve()
        return name

    def write(self, folder: Path) -> None:
        """The bundle is in ``folder``, which is there already; large files as links."""
        make_folders(folder, self.files)
        for name, path in self.files.items():
            (folder / name).symlink_to(path)
        for name, data in self.contents.items():
            (folder / name).write_bytes(data)
        alone = not self.files and not self.contents
        (folder / MANIFEST_NAME).write_bytes(manifest_bytes(self.manifest, alone=alone))


def manifest_bytes(fields: Mapping[str, Any], *, alone: bool = False) -> bytes:
    """YAML, a field a line; None is left out.

    JSON is YAML in which no text can be mistaken for a number, a date or a word.

    Args:
        alone: there are no files whose digests tell that the bundle is whole, so its last line does.
    """
    lines: list[str] = []
    for name, value in fields.items():
        if value is None:
            continue
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            lines += [f"{name}:", *(f"  - {_json(item)}" for item in value)]
        else:
            lines.append(f"{name}: {_json(value)}")
    if alone:
        lines.append("...")
    return ("\n".join(lines) + "\n").encode()


def dataset_bundle(
    name: str,
    *,
    workflow_elements: str | Sequence[str],
    target_column: str | None,
    data_file: str | Path | None,
    extra_files: Sequence[str | Path],
    split: Mapping[str, Any] | str | None,
    user: str | None,
) -> Making:
    """Raises Rejection: a file is not there."""
    making = Making({"name": name, "target_column": target_column})
    making.manifest["workflow_elements"] = (
        workflow_elements if isinstance(workflow_elements, str) else list(workflow_elements)
    )
    if data_file is not None:
        making.manifest["data_file"] = making.add_file(data_file, "data_file")
    if extra_files:
        making.manifest["extra_files"] = [making.add_file(each, "extra_files") for each in extra_files]
    making.manifest["split"] = dict(split) if isinstance(split, Mapping) else split
    making.manifest["user"] = user
    return making


def fold_bundles(
    submission: Mapping[str, Any],
    folds: Iterable[FoldRows] | None,
    *,
    files: Sequence[str | Path],
    cv: Mapping[str, Any] | None,
    priority: str,
    force: Sequence[str],
    user: str | None,
) -> Iterator[Making]:
    """One bundle or more: as many as the folds need; the first brings the submission's files.

    Raises:
        Rejection: a file is not there, or rows are no row numbers.
    """
    first = Making({"submission": dict(submission)})
    if files:
        first.manifest["submission"]["files"] = [first.add_file(each, "submission.files") for each in files]
    first.manifest |= {"priority": priority, "force": ", ".join(force) or None, "user": user}
    if cv is not None:
        first.manifest["cv"] = dict(cv)
        yield first
        return
    making, used_bytes = first, 0
    making.manifest["folds"] = []
    for number, fold in enumerate(folds or ()):
        entry, contents = _fold(fold, number)
        needed_bytes = len(_json(entry).encode()) + 5 + sum(len(name) + _DIGEST_BYTES for name in contents)
        if making.manifest["folds"] and (
            used_bytes + needed_bytes > _FOLDS_BYTES or len(making.manifest["folds"]) == _FOLDS
        ):
            yield making
            again = ", ".join(each for each in force if each != "submission") or None
            making, used_bytes = Making({"submission": {"id": submission["id"]}}), 0
            making.manifest |= {"priority": priority, "force": again, "user": user, "folds": []}
        making.manifest["folds"].append(entry)
        making.contents |= contents
        used_bytes += needed_bytes
    yield making


def _fold(fold: FoldRows, number: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The fold's line of the manifest, and the files it names."""
    entry: dict[str, Any] = {"id": fold.id}
    contents: dict[str, bytes] = {}
    for part, rows in (("train_is", fold.train_is), ("test_is", fold.test_is)):
        values = row_numbers(rows, f"folds[{number}].{part}")
        raw = _little_endian(values)
        text = base64.b64encode(zlib.compress(raw)).decode("ascii")
        if len(text) > _INLINE_CHARACTERS:
            entry[part] = f"{part}_{number}.npy"
            contents[entry[part]] = header_of_npy(len(values)) + raw
        else:
            entry[part] = text
    if fold.priority is not None:
        entry["priority"] = fold.priority
    return entry, contents


def row_numbers(rows: Any, field_name: str) -> array[int]:
    """Row numbers as typecode 'q', in their order; whether they fit is checked later. No numpy is imported.

    Raises:
        Rejection: they are something else: floats, a boolean mask, an array of two dimensions.
    """
    expected = "row numbers: a list or a one-dimensional array of integers"
    if hasattr(rows, "dtype") and hasattr(rows, "astype"):
        if rows.dtype.kind == "b":
            hint = "row numbers; numpy.flatnonzero(mask) makes them of a mask"
            raise Rejection([Problem(field_name, "a boolean mask", hint)])
        if rows.dtype.kind not in "iu" or getattr(rows, "ndim", 1) != 1:
            found = f"an array of {rows.dtype} with {getattr(rows, 'ndim', 1)} dimensions"
            raise Rejection([Problem(field_name, found, expected)])
        rows = rows.tolist()
    if isinstance(rows, (str, bytes, Mapping)):
        raise Rejection([Problem(field_name, type(rows).__name__, expected)])
    values = array("q")
    try:
        for row in rows:
            if isinstance(row, bool):
                raise TypeError("true and false are no row numbers")
            values.append(operator.index(row))
    except (TypeError, OverflowError) as error:
        raise Rejection([Problem(field_name, str(error), expected)]) from error
    return values


def _little_endian(values: array[int]) -> bytes:
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> object:
    """Of what json does not know: numbers of numpy, and tuples' like."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Iterable):
        return list(value)
    return str(value)
