"""Whom the functions of ``post_api`` talk to: one connection a spool, and what is known of it.

A client of the REST API names host and user in every call; connections, and the names behind the
datasets' numbers, are kept from call to call.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from datarun_daemon.client.errors import TransferFailed, UnknownFolds
from datarun_daemon.client.predictions import Predictions
from datarun_daemon.client.rest_rows import outcome_in, outcome_of
from datarun_daemon.client.spool import Spool
from datarun_daemon.client.ssh import SshPlace
from datarun_daemon.core.model import FoldState

#: what somebody else registered a moment ago is in the views after at most so long
_VIEWS_LATE_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.2

FoldId = int | str


class Session:
    """Raises SpoolError, Unreachable: there is no spool, or no way to it."""

    def __init__(self, host_url: str) -> None:
        self._host_url = host_url
        self.spool = Spool(host_url)
        self._names: dict[str, str] = {}

    def user(self, username: str | None) -> str | None:
        """Whom a manifest has to name as its user; None: nobody, for it is the account that sends it."""
        return None if username in (None, "", self._account) else username

    def remember(self, raw_data_id: int, name: str) -> None:
        self._names[str(raw_data_id)] = name

    def dataset_name(self, raw_data_id: object) -> str | None:
        """None: no dataset has this number."""
        self._look_for(lambda: str(raw_data_id) in self._names)
        return self._names.get(str(raw_data_id))

    def await_dataset(self, name: str) -> None:
        """The views show the dataset of this name, which is known to be there."""
        self._look_for(lambda: name in self._names.values())

    def _look_for(self, known: Callable[[], bool]) -> None:
        """The names of datasets are known as far as the views show them, and if need be will soon."""
        deadline = time.monotonic() + _VIEWS_LATE_SECONDS
        while not known():
            self._names |= {str(each["id"]): each["name"] for each in self.spool.datasets()}
            if known() or time.monotonic() >= deadline:
                return
            time.sleep(_LOOK_AGAIN_SECONDS)

    def delivered(self, folds: Iterable[FoldId], username: str | None) -> list[Predictions]:
        """Of those that are there, and the user's."""
        wanted = list(folds)
        if not wanted:
            return []
        try:
            predictions = self.spool.predictions(wanted, user=self.user(username))
        except UnknownFolds as unknown:
            predictions = unknown.found
        return [predictions[fold] for fold in wanted if fold in predictions]

    def outcomes(
        self, folds: Iterable[Mapping[str, Any]], username: str | None
    ) -> tuple[list[Mapping[str, Any]], dict[FoldId, dict[str, object]]]:
        """Of views of folds: the same, or newer, and by id the outcomes of those that have ended.

        A result that is new stays so: it is read where it waits.
        """
        shown = list(folds)
        outcomes = self._waiting_outcomes([view for view in shown if view["result"] is not None])
        views, taken = [], []
        for view in shown:
            if view["id"] not in outcomes:
                view, outcome = self._waiting_outcome(view)
                if outcome is not None:
                    outcomes[view["id"]] = outcome
                elif FoldState(view["state"]).ended and view["result"] is None:
                    taken.append(view["id"])
            views.append(view)
        outcomes |= {each.fold: outcome_of(each) for each in self.delivered(taken, username)}
        return views, outcomes

    def _waiting_outcomes(self, views: Iterable[Mapping[str, Any]]) -> dict[FoldId, dict[str, object]]:
        """What lies in the outbox of these folds, as far as it is there still; one transfer a dataset."""
        outcomes = {}
        of_dataset: dict[str, list[Mapping[str, Any]]] = {}
        for view in views:
            of_dataset.setdefault(view["dataset"], []).append(view)
        for several in of_dataset.values():
            above = os.path.commonpath([view["result"] for view in several])
            with suppress(TransferFailed), self.spool.fetched(above) as folder:
                for view in several:
                    with suppress(OSError):
                        outcomes[view["id"]] = outcome_in(folder / Path(view["result"]).relative_to(above))
        return outcomes

    def _waiting_outcome(self, view: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, object] | None]:
        """What lies in the outbox of one fold, though it was not there a moment ago; None: nothing."""
        deadline = time.monotonic() + _VIEWS_LATE_SECONDS
        while view["result"] is not None:
            # either it was taken, which the view shows soon, or it is about to appear
            time.sleep(_LOOK_AGAIN_SECONDS)
            view = self.spool.fold(view["id"])
            outcomes = self._waiting_outcomes([view] if view["result"] is not None else [])
            if outcomes:
                return view, outcomes[view["id"]]
            if time.monotonic() >= deadline:
                break
        return view, None

    @cached_property
    def _account(self) -> str:
        """The login name of the account that owns what is sent."""
        if self._host_url.lower().startswith("ssh://"):
            place = SshPlace.parse(self._host_url)
            return place.user or _configured_user(place)
        try:
            return pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            return str(os.geteuid())


#: by process: a connection must not be shared with a fork
_sessions: dict[tuple[int, str], Session] = {}


def session(host_url: str | Path) -> Session:
    """Raises SpoolError, Unreachable."""
    key = os.getpid(), str(host_url)
    if key not in _sessions:
        _sessions[key] = Session(str(host_url))
    return _sessions[key]


def _configured_user(place: SshPlace) -> str:
    """As whom ssh logs in where the URL does not say."""
    port = ["-p", str(place.port)] if place.port else []
    done = subprocess.run(["ssh", "-G", *port, "--", place.host], capture_output=True, text=True, check=True)
    return next(line.removeprefix("user ") for line in done.stdout.splitlines() if line.startswith("user "))
