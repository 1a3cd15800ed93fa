"""What the inbox finds: bundles that are whole, wrong, late, or gone."""

from __future__ import annotations

from dataclasses import dataclass

from datarun_daemon.core.errors import Problem
from datarun_daemon.core.model import BundleId, BundleKind
from datarun_daemon.spool.indices import FoldIndices
from datarun_daemon.spool.manifest import FileDigest, Manifest


@dataclass(frozen=True, slots=True)
class Claimed:
    """A bundle that is ours now: all of it is durable in the store."""

    bundle: BundleId
    owner_uid: int
    manifest: Manifest
    #: in the store, relative to the spool; None for a request, which is all in its manifest
    folder: str | None
    #: sha256 over the manifest and all files
    digest: str
    #: what the manifest names; index files too, which are kept only packed
    files: dict[str, FileDigest]
    #: lay in the bundle too, and were not taken
    ignored: tuple[str, ...]
    fold_indices: tuple[FoldIndices, ...]
    #: file of packed row numbers, relative to the spool; "" if the bundle brings none
    indices: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A bundle that can never be accepted as it is; nothing of it is in the store."""

    bundle: BundleId
    owner_uid: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A bundle that waits for the rest of itself for long; it is still watched."""

    kind: BundleKind
    name: str
    owner_uid: int
    missing: tuple[str, ...]
    #: how long it has been there
    since_seconds: float


@dataclass(frozen=True, slots=True)
class Cleared:
    """A bundle that an earlier daemon had taken or refused is out of the incoming folder now."""

    bundle: BundleId


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A bundle that was reported incomplete has gone from its folder."""

    kind: BundleKind
    name: str


Finding = Claimed | Refused | Incomplete | Cleared | Withdrawn


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What the catalog says was taken or refused, without saying that it was cleared away."""

    bundle: BundleId
    #: None if it was accepted
    problems: tuple[Problem, ...] | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A bundle in an incoming folder that is neither registered nor rejected yet."""

    kind: BundleKind
    name: str
    #: by the clock that look() is given
    since: float
    waits_for: str
