"""When a bundle is ready, and taking it: one pass that copies and hashes.

A bundle whose manifest declares the size and sha256 of every file it names is *certain*: if the copy
agrees it is whole, whatever its sender does meanwhile; so is one that needs no files and whose manifest
ends with the line ``...``. Any other has to have settled first.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from datarun_daemon import disk
from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.core.model import BundleKind
from datarun_daemon.spool.archives import ArchiveSource
from datarun_daemon.spool.bundle import (
    Bounds,
    FolderSource,
    NotReady,
    RequestSource,
    Source,
    open_file,
)
from datarun_daemon.spool.descent import FOLDER_FLAGS, folders_of
from datarun_daemon.spool.indices import FoldIndices, IndexFile, pack_indices
from datarun_daemon.spool.layout import ARCHIVE_SUFFIXES, REQUEST_SUFFIXES
from datarun_daemon.spool.manifest import (
    MANIFEST_NAME,
    FileDigest,
    FoldsManifest,
    Manifest,
    parse_manifest,
)
from datarun_daemon.spool.manifest_kits import needed_files, path_problems, takes_all
from datarun_daemon.spool.names import printable

_END_OF_YAML = b"\n...\n"
#: beside the claimed files; no file of a client's bundle begins with a dot
PACKED_INDICES = ".indices.npy"


@dataclass(frozen=True, slots=True)
class Whole:
    """A bundle of which everything is there."""

    raw_manifest: bytes
    manifest: Manifest
    #: to copy: all that the manifest names or declares, or, of a kit that declares nothing, that there is
    needed: tuple[str, ...]
    #: every one of them has a declared size, which it has, and a declared sha256; or there are none, and the
    #: manifest is whole
    certain: bool


@dataclass(frozen=True, slots=True)
class Copied:
    """What lies in the store now, not durable yet."""

    files: dict[str, FileDigest]
    #: sha256 over the manifest and, sorted, name, size and sha256 of every file
    digest: str
    fold_indices: tuple[FoldIndices, ...]
    #: everything that has to be made durable, the folder too
    written: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())


def open_bundle(folder_fd: int, entry: str, *, kind: BundleKind, bounds: Bounds) -> Source:
    """The bundle ``entry`` of an incoming folder, opened without following a link.

    Raises:
        FileNotFoundError: it has gone.
        Rejection: it can be no bundle, or has too many files.
        NotReady: it may not be read.
    """
    try:
        return _open(folder_fd, entry, kind, bounds)
    except PermissionError as error:
        found = f"the daemon (user {os.geteuid()}) cannot read it ({error.strerror})"
        raise NotReady([found], until_it_changes=False) from error


def _open(folder_fd: int, entry: str, kind: BundleKind, bounds: Bounds) -> Source:
    try:
        return FolderSource(os.open(entry, FOLDER_FLAGS, dir_fd=folder_fd), bounds)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
    descriptor = open_file(folder_fd, entry)
    if entry.endswith(ARCHIVE_SUFFIXES):
        return ArchiveSource(descriptor, entry, bounds)
    if kind is BundleKind.REQUESTS and entry.endswith(REQUEST_SUFFIXES):
        return RequestSource(descriptor, entry)
    os.close(descriptor)
    expected = "a folder that holds manifest.yaml, or that folder as NAME.zip or NAME.tar.gz"
    if kind is BundleKind.REQUESTS:
        expected = f"NAME.yaml, or {expected}"
    raise Rejection([Problem(printable(entry), "a single file", expected)])


def signature_now(incoming: Path, entry: str, *, kind: BundleKind, bounds: Bounds) -> str:
    """The signature of what lies under this name in the incoming folder. Raises what open_bundle() does."""
    descriptor = os.open(incoming, FOLDER_FLAGS)
    try:
        source = open_bundle(descriptor, entry, kind=kind, bounds=bounds)
    finally:
        os.close(descriptor)
    with closing(source):
        return source.signature


def inspect(source: Source, kind: BundleKind) -> Whole:
    """What the bundle is, once all it needs is there.

    Raises:
        NotReady: files are missing or shorter or longer than declared.
        Rejection: as it is, it can never be accepted; half-written ones look like that, too.
    """
    raw = source.read_manifest()
    manifest = parse_manifest(kind, raw)
    needed = needed_files(manifest, source.names())
    missing: list[str] = []
    problems = path_problems(needed) if takes_all(manifest) else []
    for name in needed:
        size = source.size_of(name)
        declared = manifest.files.get(name)
        if size is None:
            missing.append(printable(name))
        elif fault := source.fault_of(name):
            problems.append(fault)
        elif declared is not None and declared.bytes != size:
            missing.append(f"{printable(name)}: {size} of {declared.bytes} bytes are there")
    if problems:
        raise Rejection(problems)
    if missing:
        raise NotReady(missing)
    # what is only a manifest is whole if it ends as YAML ends: no part of it does
    certain = all(name in manifest.files for name in needed) if needed else raw.endswith(_END_OF_YAML)
    return Whole(raw, manifest, needed, certain)


def is_being_written(source: Source) -> bool:
    """Somebody has the manifest of a bundle open for writing, as far as the kernel tells."""
    try:
        return source.is_being_written(())
    except (Rejection, NotReady):
        return False  # its manifest is no file


def copy_into(folder: Path, source: Source, whole: Whole, bounds: Bounds) -> Copied:
    """``folder`` (made) holds the manifest and the files it names; of index files only packed row numbers.

    Nothing is left of it after an exception.

    Raises:
        NotReady: a digest differs, or a file changed or went.
        Rejection: too large, or row numbers that cannot be used.
        OSError: on either side.
    """
    folder.mkdir(mode=0o755)
    try:
        return _copy_into(folder, source, whole, bounds)
    except BaseException:
        disk.remove_tree(folder)
        raise


def _copy_into(folder: Path, source: Source, whole: Whole, bounds: Bounds) -> Copied:
    files = source.copy(whole.needed, folder, deadline=time.monotonic() + bounds.copy_seconds)
    declared = whole.manifest.files
    differing = [name for name, file in files.items() if name in declared and declared[name] != file]
    if differing:
        raise NotReady([f"{printable(name)}: its sha256 differs from the manifest's" for name in differing])
    manifest_file = folder / MANIFEST_NAME
    manifest_file.write_bytes(whole.raw_manifest)
    kept = [folder, manifest_file]
    packed: tuple[FoldIndices, ...] = ()
    index_files: set[str] = set()
    if isinstance(whole.manifest, FoldsManifest) and whole.manifest.folds:
        folds = whole.manifest.folds
        packed = pack_indices(folds, folder, folder / PACKED_INDICES)
        kept.append(folder / PACKED_INDICES)
        sources = (source for fold in folds for source in (fold.train_is, fold.test_is))
        index_files = {source.name for source in sources if isinstance(source, IndexFile)}
        index_files.difference_update(whole.manifest.submission.files)
        for name in index_files:
            (folder / name).unlink()
    kept += [folder / name for name in (*files, *folders_of(files)) if name not in index_files]
    return Copied(files, bundle_digest(whole.raw_manifest, files), packed, tuple(kept))


def request_digest(whole: Whole) -> str:
    return bundle_digest(whole.raw_manifest, {})


def bundle_digest(raw_manifest: bytes, files: Mapping[str, FileDigest]) -> str:
    """By which a bundle is known to be the same as another: see :class:`Copied`."""
    digest = hashlib.sha256(raw_manifest)
    for name in sorted(files):
        digest.update(f"\0{name}\0{files[name].bytes}\0{files[name].sha256}".encode())
    return digest.hexdigest()
