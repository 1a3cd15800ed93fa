"""Writes sizes and digests into a manifest, by which the daemon knows that a bundle has arrived whole.

Only the ``files:`` lines of the manifest change: comments, order and spelling of the rest are its author's.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from datarun_daemon import disk
from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.core.model import BundleKind
from datarun_daemon.spool.bundle import Bounds, FolderSource
from datarun_daemon.spool.descent import FOLDER_FLAGS
from datarun_daemon.spool.manifest import MANIFEST_NAME, FileDigest, parse_manifest
from datarun_daemon.spool.manifest_kits import needed_files, path_problems, takes_all
from datarun_daemon.spool.yaml_reading import MAX_YAML_BYTES, read_yaml

#: more than any daemon takes unless it is configured to; its own bounds are not known here
GENEROUS_BOUNDS = Bounds(bytes=2**40, files=100_000, copy_seconds=86_400.0)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class TooManyFiles(Rejection):
    """A manifest has no room for the digests of all files; it is as it was."""


def pack(folder: Path) -> None:
    """The manifest of the bundle ``folder`` names size and SHA-256 of every file that it needs.

    Doing it again after a file changed brings the manifest up to date: a kit's, which names all its
    files only there, also after a file came or went.

    Raises:
        Rejection: the manifest is wrong, a file that it names is not there, or it is written in a
            way that lines cannot be put into.
        TooManyFiles
    """
    manifest_file = folder / MANIFEST_NAME
    raw = read_manifest(manifest_file)
    kind = kind_of(raw)
    lines, position = _without_files(raw)
    manifest = parse_manifest(kind, "".join(lines).encode())
    named = manifest.named_files
    if takes_all(manifest):
        named = needed_files(manifest, _names_in(folder))
        if problems := path_problems(named):
            raise Rejection(problems)
    if not named:
        return
    missing = [name for name in named if not (folder / name).is_file()]
    if missing:
        raise Rejection([Problem(name, "no such file", "a file that the manifest names") for name in missing])
    digests = {name: digest_of(folder / name) for name in named}
    packed = _with_files(lines, position, digests)
    if len(packed) > MAX_YAML_BYTES:
        found = f"{len(packed)} bytes with the digests of {len(digests)} files"
        expected = f"at most {MAX_YAML_BYTES}; send it without `files:`, as one .zip or .tar.gz file"
        raise TooManyFiles([Problem(MANIFEST_NAME, found, expected)])
    _check(kind, packed, digests)
    if packed != raw:
        mode = manifest_file.stat().st_mode & 0o777
        disk.write_atomically(manifest_file, packed, mode=mode, durable=False)


def read_manifest(manifest_file: Path) -> bytes:
    """Raises Rejection: it is not there, or cannot be read."""
    try:
        return manifest_file.read_bytes()
    except OSError as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror)
        raise Rejection([Problem(manifest_file.name, found, "the manifest of the bundle")]) from error


def kind_of(raw: bytes) -> BundleKind:
    """Which of the three incoming folders a manifest is for, by what only such a manifest holds."""
    content = read_yaml(raw)
    if not isinstance(content, dict):
        return BundleKind.DATASETS
    if "action" in content:
        return BundleKind.REQUESTS
    if "submission" in content or "folds" in content:
        return BundleKind.FOLDS
    return BundleKind.DATASETS


def digest_of(file: Path) -> FileDigest:
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        return FileDigest(bytes=content.tell(), sha256=sha256)


def _names_in(folder: Path) -> list[str]:
    source = FolderSource(os.open(folder.resolve(), FOLDER_FLAGS), GENEROUS_BOUNDS)
    try:
        return source.names()
    finally:
        source.close()


def _without_files(raw: bytes) -> tuple[list[str], int]:
    """The manifest's lines without its top-level ``files``, and the line where they were, or the last."""
    read_yaml(raw)  # refuses what would be unsafe to compose
    lines = raw.decode("utf-8").splitlines(keepends=True)
    root = yaml.compose("".join(lines), Loader=_LOADER)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        expected = "one field a line, as `name: value`, without braces around all"
        raise Rejection([Problem(MANIFEST_NAME, "fields in braces", expected)])
    for key, value in root.value:
        if key.value == "files":
            first, end = key.start_mark.line, max(key.end_mark.line, _last_line(value)) + 1
            return lines[:first] + lines[end:], first
    return lines, len(lines)


def _last_line(node: yaml.Node) -> int:
    # the end mark of a block is where the next thing begins: beyond the comments that follow it
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        return max(_last_line(value) for _, value in node.value)
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return max(map(_last_line, node.value))
    return int(node.end_mark.line)


def _with_files(lines: list[str], position: int, digests: Mapping[str, FileDigest]) -> bytes:
    end = "\r\n" if any(line.endswith("\r\n") for line in lines) else "\n"
    before = "".join(lines[:position])
    if before and not before.endswith(("\n", "\r")):
        before += end
    block = ["files:"] + [
        # always quoted: a digest of digits alone would be a number
        f'  {_key(name)}: {{bytes: {digest.bytes}, sha256: "{digest.sha256}"}}'
        for name, digest in digests.items()
    ]
    return (before + "".join(line + end for line in block) + "".join(lines[position:])).encode()


def _key(name: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", name):
        return name
    return json.dumps(name, ensure_ascii=False)


def _check(kind: BundleKind, packed: bytes, digests: Mapping[str, FileDigest]) -> None:
    """The lines that were put in mean what they should, wherever in the manifest they came to stand."""
    expected = "a manifest that ends after its last field; remove what follows, or write `files:` by hand"
    no_place = Problem(MANIFEST_NAME, "no place for `files:`", expected)
    try:
        files = parse_manifest(kind, packed).files
    except Rejection as error:
        raise Rejection([no_place, *error.problems]) from error
    if files != digests:
        raise Rejection([no_place])
