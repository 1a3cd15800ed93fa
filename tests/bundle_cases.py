"""A case of the tables of bundles, and what its files are made of."""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import pytest

from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.core.model import BundleKind
from datarun_daemon.spool.manifest import parse_manifest

IRIS_TRAIN_ROWS = 75

DATASETS, FOLDS, REQUESTS = BundleKind.DATASETS, BundleKind.FOLDS, BundleKind.REQUESTS

CLASSIFIER = b"""from sklearn.tree import DecisionTreeClassifier


class Classifier(DecisionTreeClassifier):
    def __init__(self):
        super().__init__(max_depth=2, random_state=0)
"""


class SeenBy(Enum):
    """The first step that can tell that a bundle is malformed."""

    #: reading the manifest alone
    MANIFEST = "manifest"
    #: reading the index files that it names
    INDICES = "indices"
    #: comparing with the dataset, once it is split
    RANGE = "range"
    #: waiting for files: it is told as incomplete, and may still be completed
    INTAKE = "intake"


@dataclass(frozen=True, slots=True)
class Malformed:
    name: str
    kind: BundleKind
    #: by name, with manifest.yaml
    files: dict[str, bytes]
    expected_field: str
    seen_by: SeenBy = SeenBy.MANIFEST


@dataclass(frozen=True, slots=True)
class Good:
    name: str
    kind: BundleKind
    files: dict[str, bytes]


def npy(rows: Iterable[int], *, kind: str = "<q", descr: str = "<i8", shape: str | None = None) -> bytes:
    """A .npy file, byte by byte, so that it may also be a wrong one."""
    values = list(rows)
    shape = shape if shape is not None else f"({len(values)},)"
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    data = struct.pack(f"{kind[0]}{len(values)}{kind[1]}", *values)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def rest_base64(rows: Iterable[int]) -> str:
    """Row numbers as the REST API took them."""
    values = list(rows)
    return base64.b64encode(zlib.compress(struct.pack(f"<{len(values)}q", *values))).decode()


def digest(data: bytes) -> str:
    return f"{{bytes: {len(data)}, sha256: '{hashlib.sha256(data).hexdigest()}'}}"


def refused(kind: BundleKind, manifest: str) -> list[Problem]:
    """Everything that is wrong with a manifest that must not be read."""
    with pytest.raises(Rejection) as caught:
        parse_manifest(kind, manifest.encode())
    return caught.value.problems
