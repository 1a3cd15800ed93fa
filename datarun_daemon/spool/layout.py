"""Where everything in a spool lies, and which names in it count.

The one place that knows a path of the spool. Every name that a client chose goes through here on
its way into a path of ours: what comes out has no slash, no control character and a bounded length.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datarun_daemon.core.errors import SpoolError
from datarun_daemon.core.model import BundleKind
from datarun_daemon.spool.names import id_fault, is_temporary
from datarun_daemon.spool.readme_texts import README_TEXTS

MARKER = ".datarun-spool"
FORMAT = 1
REASON = "REASON.txt"
#: in the outbox, beside the datasets' folders: so no dataset may have this name
REQUESTS = "requests"
#: there, too: results of folds whose dataset is not known
NO_DATASET = "no-dataset"
README = "README.txt"
#: a bundle that is being removed from an incoming folder bears this name, and its ticket, meanwhile
TAKEN_PREFIX = ".datarun-taken-"
ARCHIVE_SUFFIXES = (".zip", ".tar.gz")
REQUEST_SUFFIXES = (".yaml", ".yml")

_TICKETS_A_SHARD = 1000
#: of a name in receipts/, rejected/: leaves room for ".yaml" and a temporary's suffix in 255 bytes
_NAME_BYTES = 200


def is_bundle_name(name: str) -> bool:
    """A name in an incoming folder that is to become a bundle; temporaries and our README are not."""
    return name != README and not is_ignored_file(name)


def is_ignored_file(name: str) -> bool:
    """A name inside a bundle that is no part of it: temporaries, and a REASON.txt that came back."""
    return name == REASON or is_temporary(name)


def display_name(entry: str) -> str:
    """The name of a directory entry as text that is safe in a path, a log, JSON and a terminal.

    Nearly always the entry itself; bytes of unprintable characters are percent-encoded.
    """
    if entry.isprintable():
        return entry
    return "".join(c if c.isprintable() else _percent(c) for c in entry)


def bundle_stem(name: str) -> str:
    """The bundle's name without what says how it was packed: ``team_a`` for ``team_a.tar.gz``."""
    for suffix in (*ARCHIVE_SUFFIXES, *REQUEST_SUFFIXES):
        if name.endswith(suffix) and len(name) > len(suffix):
            return name.removesuffix(suffix)
    return name


def answer_name(request: str) -> str:
    """Of the folder in ``outbox/requests`` that answers the request dropped under this name."""
    return _fitting(bundle_stem(request))


def check_id(text: str) -> str:
    """``text``, fit to be one component of a path; ids are checked at intake, so else it is our mistake."""
    if fault := id_fault(text):
        raise ValueError(f"{text!r} is no id: it {fault}")
    return text


@dataclass(frozen=True, slots=True)
class Spool:
    """Paths only: nothing here looks at the disk but :meth:`create` and :meth:`open`."""

    root: Path

    @classmethod
    def create(cls, root: Path, *, shared: bool = False) -> Spool:
        """The skeleton is there, each folder with a README.txt; what was there already is kept.

        Args:
            shared: the incoming folders, and what clients take from or mend, are writable by the
                folder's group, which new entries inherit (mode 2775).
        """
        spool = cls(root)
        for folder in spool._folders():
            private = folder in (spool.store, spool.runs)
            made = not folder.is_dir()
            folder.mkdir(parents=True, exist_ok=True)
            if shared and folder in spool._shared_folders():
                folder.chmod(0o2775)
            elif made:
                folder.chmod(0o700 if private else 0o755)
        for name, text in README_TEXTS.items():
            readme = root / name / README
            if not readme.exists():
                readme.write_text(text, encoding="utf-8")
        # last: its presence says that the skeleton is complete
        if not spool.marker.exists():
            spool.marker.write_text(f"datarun spool, format {FORMAT}\n", encoding="ascii")
        return spool

    @classmethod
    def open(cls, root: Path) -> Spool:
        """The spool at ``root``.

        Raises:
            SpoolError: it is none, is incomplete, or is of another format.
        """
        spool = cls(root)
        if not root.is_dir():
            raise SpoolError(f"{root}: there is no such folder; `datarun init {root}` makes a spool")
        try:
            marker = spool.marker.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            raise SpoolError(
                f"{root} is not a spool: it has no {MARKER}; `datarun init {root}` makes it one"
            ) from None
        except OSError as error:
            raise SpoolError(f"{spool.marker} cannot be read ({error.strerror})") from error
        if marker.strip() != f"datarun spool, format {FORMAT}":
            raise SpoolError(
                f"{spool.marker} says {marker.strip()[:60]!r}; this version of datarun reads format {FORMAT}"
            )
        missing = [str(folder.relative_to(root)) for folder in spool._folders() if _is_missing(folder)]
        if missing:
            raise SpoolError(
                f"{root}: these folders of the spool are missing: {', '.join(missing)}; "
                f"is a drive not mounted? `datarun init {root}` makes them again"
            )
        return spool

    @property
    def marker(self) -> Path:
        return self.root / MARKER

    @property
    def lock_file(self) -> Path:
        """Whoever holds an flock on it is the spool's daemon; it says who that is."""
        return self.root / ".datarun-lock"

    @property
    def incoming(self) -> Path:
        return self.root / "incoming"

    def incoming_of(self, kind: BundleKind) -> Path:
        return self.incoming / kind.value

    def incoming_folders(self) -> tuple[Path, ...]:
        return tuple(self.incoming_of(kind) for kind in BundleKind)

    @property
    def receipts(self) -> Path:
        return self.root / "receipts"

    def receipts_of(self, kind: BundleKind) -> Path:
        return self.receipts / kind.value

    def receipt(self, kind: BundleKind, name: str) -> Path:
        """``receipts/folds/team_a.yaml`` for the bundles ``team_a``, ``team_a.zip`` and ``team_a.tar.gz``."""
        return self.receipts_of(kind) / f"{_fitting(bundle_stem(name))}.yaml"

    @property
    def rejected(self) -> Path:
        return self.root / "rejected"

    def rejected_of(self, kind: BundleKind) -> Path:
        return self.rejected / kind.value

    def rejected_bundle(self, kind: BundleKind, name: str, *, again: int = 1) -> Path:
        """``rejected/folds/team_a``; ``team_a-2`` for ``again=2``, while the first still lies there."""
        stem = _fitting(bundle_stem(name))
        return self.rejected_of(kind) / (stem if again == 1 else f"{stem}-{again}")

    @property
    def outbox(self) -> Path:
        return self.root / "outbox"

    def outbox_result(self, dataset: str, submission: str, fold: str) -> Path:
        """``dataset`` may be "": of a fold that ended before its submission, which would have named one, was there."""
        return self.outbox / check_id(dataset or NO_DATASET) / check_id(submission) / check_id(fold)

    def outbox_request(self, request: str) -> Path:
        """Where the answer to the predictions request dropped under this name appears."""
        return self.outbox / REQUESTS / answer_name(request)

    @property
    def status(self) -> Path:
        return self.root / "status"

    @property
    def overview_file(self) -> Path:
        return self.status / "overview.json"

    @property
    def datasets_file(self) -> Path:
        return self.status / "datasets.json"

    @property
    def folds_file(self) -> Path:
        return self.status / "folds.jsonl"

    @property
    def fold_files(self) -> Path:
        return self.status / "folds"

    def fold_file(self, fold: str) -> Path:
        # in one piece, for it is made as often as a fold changes
        return Path(f"{self.root}/status/folds/{check_id(fold)}.json")

    @property
    def views_stamp(self) -> Path:
        """Up to which line of the catalog the files of ``status/`` are written."""
        return self.status / ".views.json"

    @property
    def catalog(self) -> Path:
        return self.root / "catalog"

    @property
    def catalog_file(self) -> Path:
        return self.catalog / "catalog.jsonl"

    @property
    def store(self) -> Path:
        return self.root / "store"

    def store_of(self, kind: BundleKind) -> Path:
        return self.store / kind.value

    def shard(self, kind: BundleKind, ticket: int) -> Path:
        return self.store_of(kind) / f"{ticket // _TICKETS_A_SHARD:06d}"

    def stored_bundle(self, kind: BundleKind, ticket: int, name: str) -> Path:
        """The folder of one claimed bundle: ``store/folds/000012/000012345-team_a``."""
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", bundle_stem(name))[:60]
        # in one piece: joining a Path part by part costs more than copying a small file
        return Path(f"{self.root}/store/{kind.value}/{ticket // _TICKETS_A_SHARD:06d}/{ticket:09d}-{safe}")

    @property
    def results(self) -> Path:
        return self.store / "results"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def run(self, fold: str, attempt: int) -> Path:
        return self.runs / check_id(fold) / f"{attempt:d}"

    def relative(self, path: Path) -> str:
        """As the catalog names it."""
        return path.relative_to(self.root).as_posix()

    def _shared_folders(self) -> frozenset[Path]:
        """Where clients put things, take them away, or move them back from."""
        mended = (self.rejected_of(kind) for kind in BundleKind)
        return frozenset({*self.incoming_folders(), *mended, self.outbox})

    def _folders(self) -> Iterator[Path]:
        yield from (self.root, self.incoming, self.receipts, self.rejected)
        for kind in BundleKind:
            yield from (self.incoming_of(kind), self.receipts_of(kind), self.rejected_of(kind))
        yield from (self.outbox, self.status, self.catalog, self.store, self.results, self.runs)
        yield from (self.store_of(BundleKind.DATASETS), self.store_of(BundleKind.FOLDS))


def _is_missing(folder: Path) -> bool:
    try:
        return not folder.is_dir()
    except PermissionError:
        return False  # in the daemon's own folders, into which clients do not see


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in os.fsencode(character))


def _fitting(name: str) -> str:
    raw = name.encode("utf-8", "replace")
    if len(raw) <= _NAME_BYTES:
        return name
    return f"{raw[:_NAME_BYTES].decode('utf-8', 'ignore')}~{hashlib.sha256(raw).hexdigest()[:8]}"
