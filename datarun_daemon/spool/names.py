"""Which names a client may use: of files in a bundle, and of datasets, submissions and folds.

A name that passes here may be joined to a folder's path and shown in a terminal, whoever sent it.
"""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from collections.abc import Iterable, Iterator

#: names that programs leave behind while they copy, or that desktops strew about
_TEMPORARY = re.compile(
    "|".join(
        fnmatch.translate(pattern)
        for pattern in (
            ".*",
            "*.part",
            "*.filepart",
            "*.tmp",
            "~$*",
            "Thumbs.db",
            "desktop.ini",
            "@eaDir",
            "lost+found",
        )
    )
)

#: lower case; ours, and the package marker that would run before the submission
RESERVED_FILES = frozenset({"manifest.yaml", "manifest.yml", "reason.txt", "__init__.py"})

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: a copying program adds a prefix and a suffix to the name, and file systems end at 255 bytes
_FILE_NAME_BYTES = 200
#: of a path in a bundle: folders, and the file in the innermost of them
MAX_LEVELS = 8
#: what datarun keeps for itself only directly in a bundle
_FREE_IN_FOLDERS = RESERVED_FILES - {"reason.txt"}


def is_temporary(name: str) -> bool:
    """The name is of a file that is on its way, or of a desktop's own: no bundle, nor part of one."""
    return _TEMPORARY.match(name) is not None


def file_name_fault(name: str) -> str | None:
    """What makes ``name`` unfit for a file that lies directly in a bundle, in words; None if it is fit."""
    if not name or name != name.strip():
        return "is empty, or begins or ends with a space"
    if "/" in name or "\\" in name:
        return "is a path; files lie directly in the bundle"
    return _component_fault(name, RESERVED_FILES)


def file_path_fault(path: str) -> str | None:
    """What makes ``path`` unfit for a file that lies in a bundle or in folders of it, in words; None if it is fit.

    A path that is fit is relative and has plain names between its slashes: it leads nowhere else.
    """
    if "\\" in path:
        return "holds a backslash; folders are divided by /"
    names = path.split("/")
    if any(name in ("", ".", "..") for name in names):
        return "is no plain relative path"
    if len(names) > MAX_LEVELS:
        return f"lies deeper than {MAX_LEVELS} levels"
    for name in names:
        if name != name.strip():
            return "holds a name that begins or ends with a space"
        reserved = RESERVED_FILES if len(names) == 1 else RESERVED_FILES - _FREE_IN_FOLDERS
        if fault := _component_fault(name, reserved):
            return fault if len(names) == 1 else f"holds the name {printable(name, 60)}, which {fault}"
    return None


def clashes(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each path that some drive cannot tell from an earlier one, or from a folder of one; and what it clashes with.

    Drives differ in whether they tell upper from lower case, and é from e with an accent.
    """
    seen: dict[str, tuple[str, bool]] = {}
    for path in paths:
        names = path.split("/")
        if len(names) > MAX_LEVELS:
            continue  # unfit anyway, and as many prefixes as it has slashes would be a lot of memory
        for level in range(1, len(names) + 1):
            place, is_folder = "/".join(names[:level]), level < len(names)
            folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", place).casefold())
            if folded not in seen:
                seen[folded] = (place, is_folder)
            elif not is_folder or seen[folded] != (place, True):
                other, is_other_a_folder = seen[folded]
                yield path, f"{other}/" if is_other_a_folder else other
                break


def _component_fault(name: str, reserved: frozenset[str]) -> str | None:
    if not name.isprintable():
        return "holds an invisible or control character"
    if name.startswith("."):
        return "begins with a dot"
    if name.endswith("."):
        return "ends with a dot"
    if len(name.encode()) > _FILE_NAME_BYTES:
        return f"is longer than {_FILE_NAME_BYTES} bytes"
    if name.lower() in reserved:
        return "is a name that datarun keeps for itself"
    if is_temporary(name):
        return "is a name of temporary files, which are passed over"
    return None


def id_fault(text: str) -> str | None:
    """What makes ``text`` unfit as an id, or as a dataset's name, in words; None if it is fit."""
    if not _ID.fullmatch(text):
        return "has other characters than an id may have, or is empty or too long"
    if text.endswith("."):
        return "ends with a dot"
    if is_temporary(text):
        return "ends like the name of a temporary file"
    return None


def field_within(path: str, key: str) -> str:
    """The path of the field ``key`` of the mapping at ``path``: ``submission.id``, ``files[iris.csv]``."""
    shown = printable(key, 100)
    if not path:
        return shown
    return f"{path}.{shown}" if key.isidentifier() else f"{path}[{shown}]"


def printable(text: str, limit: int = 80) -> str:
    """``text`` on one line, shortened to ``limit`` characters, then with each invisible one escaped."""
    shown = text if len(text) <= limit else f"{text[: limit - 1]}…"
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
