"""Waits until folds have ended, by the views that the daemon writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from datarun_daemon.client import progress
from datarun_daemon.client.answers import FoldId
from datarun_daemon.client.errors import NotDone, UnknownFolds
from datarun_daemon.client.views import Views
from datarun_daemon.core.model import FoldState

#: the views are some seconds late; a fold that they do not show then is not there
_UNKNOWN_SECONDS = 30.0
_NAMED = 10


def wait_for_folds(
    views: Views,
    folds: Callable[[], tuple[Mapping[str, FoldId], int]],
    *,
    accepted: Callable[[str], bool],
    sequence: int,
    look_again_seconds: float,
    timeout_seconds: float | None,
    show_progress: bool,
) -> dict[FoldId, FoldState]:
    """The state of each fold, all of which have ended.

    Args:
        folds: ids as text, to how they are to be returned; and how many bundles there are besides
            whose folds are still being made.
        accepted: the daemon is known to have this fold, even if no view shows it.
        sequence: views that have not reached this line of the catalog are not believed.

    Raises:
        NotDone: after ``timeout_seconds``.
        UnknownFolds: the views do not show them, and nobody accepted them.
    """
    began = time.monotonic()
    with progress.bar(wanted=show_progress) as show:
        while True:
            wanted, unmade = folds()
            known = views.states() if views.reach(sequence) else {}
            states = {fold: known.get(fold) for fold in wanted}
            show(states)
            left = [fold for fold, state in states.items() if state is None or not state.ended]
            if not left and not unmade:
                return {given: known[fold] for fold, given in wanted.items()}
            waited_seconds = time.monotonic() - began
            if waited_seconds > _UNKNOWN_SECONDS:
                unknown = [fold for fold in left if states[fold] is None and not accepted(fold)]
                if unknown:
                    message = f"the spool does not know {_named(unknown)}; are the ids right?"
                    raise UnknownFolds(message, [wanted[fold] for fold in unknown])
            if timeout_seconds is not None and waited_seconds >= timeout_seconds:
                besides = f", and {unmade} bundles' folds are not made yet" if unmade else ""
                message = f"not ended after {timeout_seconds:g} seconds: {_named(left)}{besides}"
                by_given = {given: states[fold] for fold, given in wanted.items()}
                raise NotDone(message, [wanted[fold] for fold in left], by_given)
            pause_seconds = look_again_seconds
            if timeout_seconds is not None:
                pause_seconds = min(pause_seconds, timeout_seconds - waited_seconds)
            time.sleep(pause_seconds)


def _named(folds: list[str]) -> str:
    named = ", ".join(folds[:_NAMED])
    more = len(folds) - _NAMED
    return f"{len(folds)} fold{'' if len(folds) == 1 else 's'}: {named}" + (f" and {more} more" if more > 0 else "")
