"""Requests: each action with its fields, and what they mean together.

Raises and returns as ``parse_manifest`` does, of which this is the part for incoming/requests/.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

from pydantic import BeforeValidator

from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.core.model import Split
from datarun_daemon.spool.field_checks import (
    ID_WORDS,
    PRIORITY_WORDS,
    SEED_WORDS,
    SHARE_WORDS,
    USER_WORDS,
    AnotherPriority,
    Flag,
    Id,
    User,
    checked_id,
    fault,
    meant,
    shown,
)
from datarun_daemon.spool.manifest_fields import Fields, SplitFields, fields_of
from datarun_daemon.spool.manifest_values import (
    CancelRequest,
    PredictionsRequest,
    PriorityRequest,
    RequestManifest,
    RerunRequest,
    SplitRequest,
)

#: of a single request
MAX_FOLDS = 10_000

_FOLDS_WORDS = "a list of ids of folds, e.g. [11, team_a-0]"
#: what each field of a request should hold; list positions are left out of the path
_WORDS = {
    "dataset": f"a dataset's name: {ID_WORDS}",
    "held_out_test": SHARE_WORDS,
    "random_state": SEED_WORDS,
    "force": "true or false",
    "folds": _FOLDS_WORDS,
    "folds[]": f"a fold's id: {ID_WORDS}",
    "submission": f"a submission's id, for all of its folds: {ID_WORDS}",
    "new": "true, for every result that was not handed out yet, or nothing",
    "priority": PRIORITY_WORDS,
    "user": USER_WORDS,
}


def _folds(value: object) -> object:
    """A list; one id stands for a list of it."""
    if value is None or isinstance(value, list):
        if value and len(value) > MAX_FOLDS:
            raise fault(shown(value), f"at most {MAX_FOLDS} folds; ask for the rest in another request")
        return value
    return [checked_id(value)]


FoldIds = Annotated[list[Id] | None, BeforeValidator(_folds)]


class _RequestFields(Fields):
    words: ClassVar[Mapping[str, str]] = _WORDS

    #: chosen by it, so it is right
    action: str
    user: User | None = None

    @abstractmethod
    def request(self) -> RequestManifest: ...


class _SplitFields(_RequestFields, SplitFields):
    dataset: Id
    force: Flag = False

    def request(self) -> SplitRequest:
        return SplitRequest(self.dataset, self.split(), self.force, self.user)


class _CustomSplitFields(_RequestFields):
    dataset: Id
    force: Flag = False

    def request(self) -> SplitRequest:
        return SplitRequest(self.dataset, Split(None), self.force, self.user)


class _PredictionsFields(_RequestFields):
    folds: FoldIds = None
    new: Flag = False
    dataset: Id | None = None

    def request(self) -> PredictionsRequest:
        return PredictionsRequest(tuple(self.folds or ()), self.new, self.dataset, self.user)


class _FoldsOrSubmissionFields(_RequestFields):
    folds: FoldIds = None
    submission: Id | None = None


class _CancelFields(_FoldsOrSubmissionFields):
    def request(self) -> CancelRequest:
        return CancelRequest(tuple(self.folds or ()), self.submission, self.user)


class _PriorityFields(_FoldsOrSubmissionFields):
    priority: AnotherPriority

    def request(self) -> PriorityRequest:
        return PriorityRequest(tuple(self.folds or ()), self.submission, self.priority, self.user)


class _RerunFields(_FoldsOrSubmissionFields):
    def request(self) -> RerunRequest:
        return RerunRequest(tuple(self.folds or ()), self.submission, self.user)


_Raw = Mapping[str, object]
_ACTIONS: dict[str, type[_RequestFields]] = {
    "split": _SplitFields,
    "custom_split": _CustomSplitFields,
    "predictions": _PredictionsFields,
    "cancel": _CancelFields,
    "priority": _PriorityFields,
    "rerun": _RerunFields,
}


def request_of(raw: _Raw, unreadable: list[Problem]) -> RequestManifest:
    """What the request that was read as ``raw`` asks for.

    Raises:
        Rejection: with everything that is wrong; of an unknown action only that, for what its other fields
            should be is not known.
    """
    action = raw.get("action")
    model = _ACTIONS.get(action) if isinstance(action, str) else None
    if model is None:
        hint = meant(action, _ACTIONS) if isinstance(action, str) else ""
        expected = f"one of {', '.join(_ACTIONS)}{hint}"
        told = {problem.field for problem in unreadable}
        raise Rejection([*unreadable, *([] if "action" in told else [Problem("action", shown(action), expected)])])
    return fields_of(model, raw, unreadable, _faults(raw, model)).request()


def _faults(raw: _Raw, model: type[Fields]) -> Iterator[Problem]:
    """What does not go together in a request."""
    if "folds" not in model.model_fields:
        return
    if issubclass(model, _PredictionsFields):
        other, given, meaning = "new", raw.get("new") not in (None, False), "`new: true` for every new result"
        if raw.get("dataset") is not None and not given:
            expected = "`dataset` only with `new: true`, for the new results of that dataset"
            yield Problem("dataset", shown(raw["dataset"]), expected)
    else:
        other, given, meaning = "submission", raw.get("submission") is not None, "`submission: ID` for all its folds"
    folds = raw.get("folds")
    if folds is not None and given:
        yield Problem(other, f"both `folds` and `{other}`", f"one of them: ids as `folds`, or {meaning}")
    elif folds == [] or (folds is None and not given):
        yield Problem("folds", shown(folds), f"{_FOLDS_WORDS}; or {meaning}")
    yield from _ids_twice(folds if isinstance(folds, list) else [])


def _ids_twice(folds: list[object]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for at, given in enumerate(folds):
        if type(given) is not int and not isinstance(given, str):
            continue
        before = first.setdefault(str(given), at)
        if before != at:
            yield Problem(f"folds[{at}]", f"{shown(given)}, as in folds[{before}]", "each fold once")
