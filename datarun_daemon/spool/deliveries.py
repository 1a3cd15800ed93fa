"""Answers to predictions requests: ``outbox/requests/NAME/`` with predictions.json and a folder for each result.

An answer is made of archived results, so it can be made again after a crash as long as its line is
not written; after the line it is staged beside the outbox exactly as long as its rename is to be done.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from datarun_daemon import disk
from datarun_daemon.spool.layout import REQUESTS, Spool
from datarun_daemon.spool.outbox import RESULT, Outbox, ResultPlace

PREDICTIONS = "predictions.json"
_STAGING = ".staging-requests"
_ARRAYS = ("full_train_predictions", "test_predictions")
#: of a result.json; too long, or of no use without the file that they tell of
_LEFT_OUT = ("train_is", "test_is", "files", "limits", "isolation", "format")


@dataclass(frozen=True, slots=True)
class Requested:
    """One fold of an answer."""

    #: what is known of it without a result: id, submission, dataset, state
    facts: Mapping[str, object]
    #: None: it has not ended yet
    place: ResultPlace | None
    #: nobody had the result before
    new: bool


@dataclass(frozen=True, slots=True)
class Answer:
    ticket: int
    #: of the request, and of the folder in ``outbox/requests``
    name: str
    #: who asked
    owner_uid: int
    at: str
    folds: tuple[Requested, ...]
    #: ids that are not there, or not the owner's
    unknown: tuple[object, ...]

    @property
    def delivered(self) -> tuple[ResultPlace, ...]:
        """Results that are in the outbox by themselves, and leave it since this answer holds them."""
        return tuple(fold.place for fold in self.folds if fold.place and fold.new)


class Deliveries:
    """Stages answers and publishes them; safe to call again after a crash at any point."""

    def __init__(self, spool: Spool, outbox: Outbox) -> None:
        self._spool = spool
        self._outbox = outbox

    def stage(self, answer: Answer) -> None:
        """The whole answer waits, durable, beside the outbox."""
        staged = self._staged(answer.ticket)
        disk.remove_tree(staged)
        self._outbox.make_folder(staged.parent)
        self._outbox.make_folder(staged)
        written = [staged, staged.parent]
        rows = []
        for fold in answer.folds:
            row = {**fold.facts, "new": fold.new, "folder": None, **dict.fromkeys(_ARRAYS)}
            if fold.place is not None:
                row |= self._copy(fold.place, staged, written)
            rows.append(row)
        content = {
            "format": 1, "request": answer.name, "at": answer.at, "folds": rows, "unknown": list(answer.unknown),
        }  # fmt: skip
        disk.write_atomically(staged / PREDICTIONS, json.dumps(content, indent=1).encode() + b"\n", durable=False)
        self._outbox.give_tree(staged, answer.owner_uid)
        disk.make_durable([*written, staged / PREDICTIONS], below=self._spool.root)

    def publish(self, ticket: int, name: str, delivered: Iterable[ResultPlace]) -> None:
        """The staged answer is in the outbox under its name, and the results it delivers are there no more."""
        for place in delivered:
            self._outbox.remove(place)
        staged, target = self._staged(ticket), self._spool.outbox / REQUESTS / name
        if not staged.is_dir():
            return  # published before
        self._outbox.make_folder(target.parent)
        disk.remove_tree(target)
        disk.rename(staged, target)

    def settle(self, waiting: Iterable[int]) -> None:
        """After a crash: what is staged is published, but for requests whose answer has no line yet."""
        unanswered = set(waiting)
        for staged in (self._spool.outbox / _STAGING).glob("*"):
            if not staged.name.isdigit() or int(staged.name) in unanswered:
                disk.remove_tree(staged)
                continue
            content = json.loads((staged / PREDICTIONS).read_bytes())
            places = [
                ResultPlace(fold["dataset"] or "", str(fold["submission"]), str(fold["id"]), fold["attempt"])
                for fold in content["folds"]
                if fold["new"] and fold["folder"]
            ]
            self.publish(int(staged.name), content["request"], places)

    def _copy(self, place: ResultPlace, staged: Path, written: list[Path]) -> dict[str, object]:
        archive, folder = self._outbox.archive_of(place), staged / place.fold
        self._outbox.make_folder(folder)
        written.append(folder)
        for file in archive.iterdir():
            disk.copy_file(file, folder / file.name)
            written.append(folder / file.name)
        result = json.loads((archive / RESULT).read_bytes())
        row = {name: value for name, value in result.items() if name not in _LEFT_OUT and name != "new"}
        row |= {"folder": place.fold, "columns": result.get("classes")}
        for name in _ARRAYS:
            if (folder / f"{name}.json").exists():
                row[name] = {"file": f"{place.fold}/{name}.json"}
            elif (folder / f"{name}.npy").exists():
                row[name] = {"file": f"{place.fold}/{name}.npy", **_dtype_and_shape(folder / f"{name}.npy")}
        return row

    def _staged(self, ticket: int) -> Path:
        return self._spool.outbox / _STAGING / str(ticket)


def _dtype_and_shape(file: Path) -> dict[str, object]:
    """Of a .npy file that we wrote: version 1.0."""
    with file.open("rb") as content:
        start = content.read(10)
        header = ast.literal_eval(content.read(int.from_bytes(start[8:10], "little")).decode("latin-1"))
    return {"dtype": header["descr"], "shape": list(header["shape"])}
