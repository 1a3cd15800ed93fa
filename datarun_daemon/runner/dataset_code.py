"""A dataset's own code in the worker that splits it: called as a plain script would, and its failures told as its own.

That code is a stranger's. It runs in a worker that splits the dataset, and in folds, nowhere else; what it
stored is opened only there too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from . import mapped, surroundings
from .unusable import Unusable

#: below the prepared folder: where the dataset's code works, and may write; gone once the dataset is split
WORK = "work"
#: below the prepared folder: its Python files, and nothing that holds a label
CODE = "code"
_TRACEBACK_CHARACTERS = 4000
_MESSAGE_CHARACTERS = 500

T = TypeVar("T")


class DatasetCode:
    """The functions of a dataset's Python file, called one after the other."""

    def __init__(self, file: str, folder: str, doing: Callable[[str], None]) -> None:
        """
        Args:
            file: its name, as its author knows it.
            folder: where it works.
            doing: is told what is done next, in words that can be followed by "failed".
        """
        self._file = file
        self._folder = folder
        self._doing = doing
        self.module = ModuleType(file)

    def load(self, importing: Callable[[], ModuleType]) -> None:
        """Raises Unusable."""
        self.module = self.run(f"the import of {self._file}", importing)

    def defines(self, name: str) -> bool:
        """A function of that name."""
        return callable(getattr(self.module, name, None))

    def call(self, function: str, *arguments: Any, **keywords: Any) -> Any:
        """What it returned. Raises Unusable."""
        return self.run(self.where(function), partial(getattr(self.module, function), *arguments, **keywords))

    def where(self, function: str) -> str:
        return f"{function} of {self._file}"

    def pair(self, function: str, returned: Any) -> tuple[Any, Any]:
        """X and y. Raises Unusable: the function did not return two things."""
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            kind = type(returned).__name__
            some = f"{kind} of {len(returned)}" if isinstance(returned, tuple | list) else kind
            raise Unusable(f"{self.where(function)} returned {some}; a pair is expected: X, y")
        return returned[0], returned[1]

    def count(self, function: str, name: str, value: Any) -> int:
        """Rows of X or y. Raises Unusable: it has none that can be counted."""
        return self.run(f"counting the rows of {name} of {self.where(function)}", partial(rows_of, value))

    def pickled(self, function: str, name: str, value: object) -> mapped.Pickled:
        """Raises Unusable."""
        return self.run(f"pickling {name} of {self.where(function)}", partial(mapped.pickled, value))

    def run(self, what: str, act: Callable[[], T]) -> T:
        """Raises Unusable, with the traceback from its first frame on, whatever it raised."""
        self._doing(what)
        try:
            return act()
        except BaseException as error:
            raise Unusable(f"{what} failed: {self._story(error)}") from None

    def _story(self, error: BaseException) -> str:
        try:
            message, text = surroundings.story(error, folders=[self._folder])
        except BaseException as second:  # an exception whose text raises
            return f"{type(error).__name__} (and {type(second).__name__} on showing it)"
        if len(text) > _TRACEBACK_CHARACTERS:
            text = f"[…]{text[-_TRACEBACK_CHARACTERS:]}"
        return f"{message[:_MESSAGE_CHARACTERS]}\n{text.rstrip()}"


def copy_files(task: dict[str, Any], names: Iterable[str], folder: Path, *, python_file: str) -> list[Path]:
    """These files of the dataset lie in the new folder, and the Python file is called ``python_file`` there.

    Raises Unusable (two files of that name), OSError.
    """
    folder.mkdir(parents=True)
    copies = []
    for name in names:
        copy = folder / (python_file if name == task["specific"] else name)
        if copy in copies:
            raise Unusable(f"{task['specific']} is imported as {python_file}, and there is another file of that name")
        copies.append(copy)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(task["dataset_folder"]) / name, copy)
    return copies


def rows_of(value: Any) -> int:
    """Of what has a shape (arrays, frames, sparse matrices), or else a length."""
    shape = getattr(value, "shape", None)
    return int(shape[0]) if shape else len(value)
