"""Checks a bundle as the daemon would, and drops it into a spool so that nobody ever sees half of it.

A bundle is copied under a name that begins with a dot, which no daemon looks at, and renamed when
all of it is there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from datarun_daemon import disk
from datarun_daemon.client.packing import digest_of, kind_of, pack
from datarun_daemon.core.errors import DatarunError, Problem, Rejection
from datarun_daemon.core.model import BundleKind
from datarun_daemon.spool.archives import ArchiveSource
from datarun_daemon.spool.bundle import (
    FILE_FLAGS,
    FOLDER_FLAGS,
    Bounds,
    FolderSource,
    NotReady,
    RequestSource,
    Source,
    not_a_bundle,
)
from datarun_daemon.spool.indices import pack_indices
from datarun_daemon.spool.layout import ARCHIVE_SUFFIXES, REQUEST_SUFFIXES, Spool, is_bundle_name
from datarun_daemon.spool.manifest import FoldsManifest, Manifest, parse_manifest
from datarun_daemon.spool.yaml_reading import read_yaml

#: more than any daemon takes unless it is configured to; its own bounds are not known here
_BOUNDS = Bounds(bytes=2**40, files=100_000, copy_seconds=86_400.0)
_LOOK_AGAIN_SECONDS = 0.02


class NameTaken(DatarunError):
    """A bundle of this name lies in the incoming folder already."""

    exit_code = 73


class NoAnswer(DatarunError):
    """The daemon wrote no receipt in time; the bundle stays where it is and will be taken when it runs."""

    exit_code = 75


def check(bundle: Path) -> list[Problem]:
    """Everything for which a daemon would reject ``bundle``, as far as that can be told without its spool.

    ``bundle`` is a folder with a manifest.yaml, such a folder as .zip or .tar.gz, or a request's YAML file.
    """
    try:
        with _opened(bundle) as source, tempfile.TemporaryDirectory(prefix="datarun-check-") as scratch:
            _check(source, bundle, Path(scratch))
    except Rejection as rejection:
        return rejection.problems
    except NotReady as error:
        return [_missing(name) for name in error.missing]
    except OSError as error:
        return [Problem(bundle.name, error.strerror or str(error), "a bundle that can be read")]
    return []


def submit(bundle: Path, spool: Path, name: str | None = None) -> Path:
    """A checked and packed copy of ``bundle`` lies in the incoming folder of its kind.

    ``bundle`` itself stays as it is; an archive is sent as it is, too.

    Args:
        name: of the bundle there; None: its own.

    Returns:
        where it lies: until the daemon takes it.

    Raises:
        Rejection: :func:`check` found problems; nothing was sent.
        NameTaken: there is one of that name already.
        SpoolError: ``spool`` is no spool.
    """
    there = Spool.open(spool)
    if problems := check(bundle):
        raise Rejection(problems)
    kind = bundle_kind(bundle)
    name = name or bundle.resolve().name
    if not is_bundle_name(name) or "/" in name:
        raise Rejection([Problem("name", repr(name), "a name without slash that does not begin with a dot")])
    target = there.incoming_of(kind) / name
    hidden = target.with_name(f".{name[:200]}.{os.getpid()}")
    try:
        if bundle.is_dir():
            _copy_folder(bundle, hidden)
            pack(hidden)
        else:
            shutil.copyfile(bundle, hidden)
        # rename would replace a file or an empty folder of that name
        if os.path.lexists(target):
            raise NameTaken(f"{target} is there already; wait until it is taken, or give another name")
        disk.rename(hidden, target)
    finally:
        disk.remove_tree(hidden)
    return target


def bundle_kind(bundle: Path) -> BundleKind:
    """Which incoming folder ``bundle`` is for. Raises Rejection, NotReady: it cannot be read."""
    with _opened(bundle) as source:
        return _kind(source, source.read_manifest())


def receipt_version(receipt: Path) -> tuple[int, int] | None:
    """Changes whenever the receipt is written anew; None: there is none."""
    try:
        status = receipt.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def await_receipt(
    receipt: Path, *, newer_than: tuple[int, int] | None, timeout_seconds: float
) -> Mapping[str, object]:
    """The receipt that tells whether the bundle was accepted or rejected, once it is there.

    Args:
        newer_than: :func:`receipt_version` from before the bundle was sent.

    Raises:
        NoAnswer: after ``timeout_seconds``.
    """
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if receipt_version(receipt) not in (None, newer_than):
            content = read_yaml(receipt.read_bytes(), file_name=receipt.name)
            if isinstance(content, dict) and content.get("status") in ("accepted", "rejected"):
                return content
        time.sleep(_LOOK_AGAIN_SECONDS)
    raise NoAnswer(f"no receipt at {receipt} after {timeout_seconds:g} seconds; does a daemon run there?")


@contextmanager
def _opened(bundle: Path) -> Iterator[Source]:
    if bundle.is_dir():
        source: Source = FolderSource(os.open(bundle.resolve(), FOLDER_FLAGS), _BOUNDS)
    elif bundle.name.endswith(ARCHIVE_SUFFIXES):
        source = ArchiveSource(os.open(bundle, FILE_FLAGS), bundle.name, _BOUNDS)
    elif bundle.name.endswith(REQUEST_SUFFIXES) or not bundle.exists():
        source = RequestSource(os.open(bundle, FILE_FLAGS), bundle.name)
    else:
        raise not_a_bundle(bundle.name, requests=True)
    try:
        yield source
    finally:
        source.close()


def _kind(source: Source, raw: bytes) -> BundleKind:
    return BundleKind.REQUESTS if isinstance(source, RequestSource) else kind_of(raw)


def _check(source: Source, bundle: Path, scratch: Path) -> None:
    raw = source.read_manifest()
    manifest = parse_manifest(_kind(source, raw), raw)
    named = manifest.named_files
    problems = [_missing(name) for name in named if source.size_of(name) is None]
    if not problems:
        problems = [fault for name in named if (fault := source.fault_of(name))]
    if problems:
        raise Rejection(problems)
    folder = bundle
    if isinstance(source, ArchiveSource):
        folder = scratch
        source.copy(named, folder, deadline=time.monotonic() + _BOUNDS.copy_seconds)
    if problems := _digest_problems(folder, manifest):
        raise Rejection(problems)
    if isinstance(manifest, FoldsManifest):
        pack_indices(manifest.folds, folder, scratch / ".indices.npy")


def _missing(name: str) -> Problem:
    return Problem(name, "no such file", "a file that the manifest names, beside it in the bundle")


def _digest_problems(folder: Path, manifest: Manifest) -> list[Problem]:
    """Files that are not what the manifest declares."""
    found = {name: digest_of(folder / name) for name in manifest.files}
    return [
        Problem(
            name,
            f"{found[name].bytes} bytes, SHA-256 {found[name].sha256[:8]}…",
            f"{declared.bytes} bytes, SHA-256 {declared.sha256[:8]}…; `datarun pack` declares what is there",
        )
        for name, declared in manifest.files.items()
        if found[name] != declared
    ]


def _copy_folder(bundle: Path, hidden: Path) -> None:
    """Files directly in ``bundle``, readable and removable for whoever the incoming folder is shared with."""
    shared_mode = hidden.parent.stat().st_mode & 0o777
    hidden.mkdir()
    for file in sorted(bundle.iterdir()):
        if file.is_file():
            shutil.copyfile(file, hidden / file.name)
    hidden.chmod(shared_mode)
