"""How far folds are, as a bar on a terminal; nothing where there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from datarun_daemon.core.model import FoldState

Show = Callable[[Mapping[str, FoldState | None]], None]


@contextmanager
def bar(*, wanted: bool) -> Iterator[Show]:
    """What to tell the state of each fold; it is drawn on stderr, if that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not wanted or not console.is_terminal:
        yield lambda states: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    words = TextColumn("{task.description}")
    columns = (TextColumn("folds"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), words)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=None)

        def show(states: Mapping[str, FoldState | None]) -> None:
            ended = sum(state is not None and state.ended for state in states.values())
            progress.update(task, total=len(states), completed=ended, description=in_words(states))

        yield show


def in_words(states: Mapping[str, FoldState | None]) -> str:
    """``3 tested, 1 error, 12 todo``, in the order in which folds go on."""
    counts = Counter(state or FoldState.TODO for state in states.values())
    order = [*sorted((s for s in counts if s.ended), key=list(FoldState).index),
             *sorted((s for s in counts if not s.ended), key=list(FoldState).index)]  # fmt: skip
    return ", ".join(f"{counts[state]} {state.value.lower()}" for state in order)
