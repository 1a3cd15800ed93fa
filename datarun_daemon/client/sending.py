"""Checks a bundle as the daemon would, packs it, sends it, and awaits what the daemon says to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datarun_daemon.client.errors import NoAnswer
from datarun_daemon.client.local import LocalTransport
from datarun_daemon.client.packing import GENEROUS_BOUNDS, TooManyFiles, digest_of, kind_of, pack
from datarun_daemon.client.transport import PATHS, Transport
from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.core.model import BundleKind
from datarun_daemon.spool.archives import ArchiveSource
from datarun_daemon.spool.bundle import (
    FILE_FLAGS,
    FolderSource,
    NotReady,
    RequestSource,
    Source,
    not_a_bundle,
)
from datarun_daemon.spool.descent import FOLDER_FLAGS, make_folders
from datarun_daemon.spool.indices import pack_indices
from datarun_daemon.spool.layout import ARCHIVE_SUFFIXES, REQUEST_SUFFIXES, Spool, is_bundle_name
from datarun_daemon.spool.manifest import MANIFEST_NAME, DatasetManifest, FoldsManifest, Manifest, parse_manifest
from datarun_daemon.spool.manifest_kits import needed_files, path_problems, takes_all
from datarun_daemon.spool.manifest_values import RAMP
from datarun_daemon.spool.yaml_reading import read_yaml

#: it lists up to some ten thousand ids
_RECEIPT_BYTES = 16 * 1024 * 1024


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


def check_content(kind: BundleKind, folder: Path) -> None:
    """Like :func:`check`, of a folder that we made: its files are there, and what its manifest declares.

    Raises:
        Rejection: with everything for which a daemon would reject it.
    """
    manifest = parse_manifest(kind, (folder / MANIFEST_NAME).read_bytes())
    with tempfile.TemporaryDirectory(prefix="datarun-check-") as scratch:
        _check_rows(manifest, folder, Path(scratch))


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
    transport = LocalTransport(spool)
    if problems := check(bundle):
        raise Rejection(problems)
    kind = bundle_kind(bundle)
    name = checked_name(name or bundle.resolve().name)
    with packed(bundle) as source:
        transport.send(source, kind, name)
    return Spool(spool).incoming_of(kind) / name


def checked_name(name: str) -> str:
    """Raises Rejection: no bundle can have this name."""
    if not is_bundle_name(name) or "/" in name:
        raise Rejection([Problem("name", repr(name), "a name without slash that does not begin with a dot")])
    return name


@contextmanager
def packed(bundle: Path) -> Iterator[Path]:
    """What to send: a folder of links to the bundle's files, and a manifest with sizes and digests.

    A manifest that needs no files ends as YAML ends, which tells the daemon that all of it is there. An archive is
    sent as it is.
    """
    if bundle.name.endswith(ARCHIVE_SUFFIXES):
        yield bundle
        return
    if not bundle.is_dir():
        with tempfile.TemporaryDirectory(prefix="datarun-packed-") as folder:
            request = Path(folder, bundle.name)
            request.write_bytes(_ended(bundle.read_bytes()))
            yield request
        return
    with tempfile.TemporaryDirectory(prefix="datarun-packed-") as folder:
        manifest_file = Path(folder, MANIFEST_NAME)
        shutil.copyfile(bundle / MANIFEST_NAME, manifest_file)
        names = [file.name for file in bundle.iterdir() if file.is_file() and file.name != MANIFEST_NAME]
        with _opened(bundle) as source:
            raw = source.read_manifest()
            manifest = parse_manifest(_kind(source, raw), raw)
            if isinstance(manifest, DatasetManifest) and manifest.format == RAMP:
                names = list(needed_files(manifest, source.names()))
        make_folders(Path(folder), names)
        for name in names:
            Path(folder, name).symlink_to((bundle / name).resolve())
        # without digests it is taken once it has settled: it appears there whole, all the same
        with contextlib.suppress(TooManyFiles):
            pack(Path(folder))
        if not needed_files(manifest, []):
            manifest_file.write_bytes(_ended(manifest_file.read_bytes()))
        yield Path(folder)


def _ended(raw: bytes) -> bytes:
    return raw if raw.endswith(b"\n...\n") else raw.rstrip() + b"\n...\n"


def bundle_kind(bundle: Path) -> BundleKind:
    """Which incoming folder ``bundle`` is for. Raises Rejection, NotReady: it cannot be read."""
    with _opened(bundle) as source:
        return _kind(source, source.read_manifest())


def await_receipt(
    transport: Transport, kind: BundleKind, name: str, *, newer_than: str = "", timeout_seconds: float
) -> Mapping[str, Any]:
    """The receipt that tells whether the bundle was accepted or rejected, once it is there.

    Args:
        newer_than: the version that the receipt had before the bundle was sent.

    Raises:
        NoAnswer: after ``timeout_seconds``.
    """
    file = PATHS.receipt(kind, name)
    deadline = time.monotonic() + timeout_seconds
    missing = ""
    while True:
        if found := transport.read(file, unless=newer_than):
            newer_than = found.version
            content = receipt_content(found.data, file.name)
            if content.get("status") in ("accepted", "rejected"):
                return content
            missing = f"; the bundle is incomplete: {content.get('missing')}"
        if time.monotonic() >= deadline:
            break
        time.sleep(transport.look_again_seconds)
    raise NoAnswer(
        f"{transport.place}: no receipt {file} after {timeout_seconds:g} seconds{missing}; does a daemon run there?"
    )


def receipt_content(data: bytes, file_name: str) -> Mapping[str, Any]:
    content = read_yaml(data, file_name=file_name, limit_bytes=_RECEIPT_BYTES)
    return content if isinstance(content, dict) else {}


@contextmanager
def _opened(bundle: Path) -> Iterator[Source]:
    if bundle.is_dir():
        source: Source = FolderSource(os.open(bundle.resolve(), FOLDER_FLAGS), GENEROUS_BOUNDS)
    elif bundle.name.endswith(ARCHIVE_SUFFIXES):
        source = ArchiveSource(os.open(bundle, FILE_FLAGS), bundle.name, GENEROUS_BOUNDS)
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
    named = needed_files(manifest, source.names())
    problems = path_problems(named) if takes_all(manifest) else []
    problems += [_missing(name) for name in named if source.size_of(name) is None]
    if not problems:
        problems = [fault for name in named if (fault := source.fault_of(name))]
    if problems:
        raise Rejection(problems)
    folder = bundle
    if isinstance(source, ArchiveSource):
        folder = scratch
        source.copy(named, folder, deadline=time.monotonic() + GENEROUS_BOUNDS.copy_seconds)
    if problems := _digest_problems(folder, manifest):
        raise Rejection(problems)
    _check_rows(manifest, folder, scratch)


def _check_rows(manifest: Manifest, folder: Path, scratch: Path) -> None:
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
