"""A program, run in a RAMP kit's folder: ``python -P kit_folds.py FILE`` writes the folds of the kit's get_cv.

FILE then holds a JSON list with an item a fold, each ``[train_is, test_is]``. The kit's problem.py is
imported as ``ramp-test`` does it, by an interpreter that ends afterwards; nothing of ours is imported.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def main(target: Path) -> None:
    problem = _problem()
    X_train, y_train = problem.get_train_data(path=".")
    folds = [[_rows(train_is), _rows(test_is)] for train_is, test_is in problem.get_cv(X_train, y_train)]
    target.write_text(json.dumps(folds), encoding="ascii")


def _problem() -> Any:
    sys.path += [str(Path("external_imports").resolve()), str(Path.cwd())]
    spec = importlib.util.spec_from_file_location("problem", "problem.py")
    assert spec is not None
    assert spec.loader is not None
    problem = importlib.util.module_from_spec(spec)
    sys.modules["problem"] = problem
    spec.loader.exec_module(problem)
    return problem


def _rows(given: Any) -> list[int]:
    import numpy as np

    rows = np.asarray(given)
    if rows.dtype == bool:
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise TypeError(f"get_cv gave an array of {rows.dtype} with {rows.ndim} dimensions instead of row numbers")
    return rows.tolist()  # type: ignore[no-any-return]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
