"""Which names a client may use: of files in a bundle, and of datasets, submissions and folds.

A name that passes here may be joined to a folder's path and shown in a terminal, whoever sent it.
"""

from __future__ import annotations

import fnmatch
import re

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


def is_temporary(name: str) -> bool:
    """The name is of a file that is on its way, or of a desktop's own: no bundle, nor part of one."""
    return _TEMPORARY.match(name) is not None


def file_name_fault(name: str) -> str | None:
    """What makes ``name`` unfit for a file that lies directly in a bundle, in words; None if it is fit."""
    if not name or name != name.strip():
        return "is empty, or begins or ends with a space"
    if "/" in name or "\\" in name:
        return "is a path; files lie directly in the bundle"
    if not name.isprintable():
        return "holds an invisible or control character"
    if name.startswith("."):
        return "begins with a dot"
    if name.endswith("."):
        return "ends with a dot"
    if len(name.encode()) > _FILE_NAME_BYTES:
        return f"is longer than {_FILE_NAME_BYTES} bytes"
    if name.lower() in RESERVED_FILES:
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
