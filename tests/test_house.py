"""The rules of the house: who may import whom, and what only one file may do."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "datarun_daemon"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "_examples" not in path.parts)
STANDARD_LIBRARY = frozenset(sys.stdlib_module_names)
#: every line of the house may stand on those below it, and on its own
BELOW = {
    "core": set(),
    "disk": {"core"},
    "spool": {"core", "disk"},
    "runner": {"core", "disk"},
    "client": {"core", "disk", "spool"},
    "daemon": {"core", "disk", "spool", "runner"},
    "cli": {"core", "disk", "spool", "runner", "client", "daemon"},
}
SCIENCE = {"numpy", "pandas", "sklearn", "scipy"}
#: of runner/: what runs in an environment's interpreter, where nothing of ours is installed
IN_ANY_INTERPRETER = {
    "server", "prepare", "fold", "workflow", "keeper", "results", "limits", "isolation",
}  # fmt: skip
MAY_IMPORT_SCIENCE = {
    "server", "prepare", "table", "specific", "splitters", "label_file", "fold", "workflow", "keeper", "results",
    "writer", "mapped", "kit", "object_labels", "predictions", "json_items",
}  # fmt: skip
DURABLE_CALLS = {"fsync", "fdatasync", "syncfs", "rename", "replace", "renames"}


def layer_of(module: str) -> str:
    """Of a dotted name below datarun_daemon; files beside the daemon are its own."""
    first = module.partition(".")[0]
    return {"commands": "cli", "cli": "cli", "__main__": "cli"}.get(first, first if first in BELOW else "daemon")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports_of(path: Path, *, all_depths: bool = True) -> Iterator[str]:
    """Absolute dotted names; only at run time, not for type checkers."""
    package = ["datarun_daemon", *path.relative_to(PACKAGE).parts[:-1]]
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree) if all_depths else tree.body:
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{module}.{alias.name}"


def ours(path: Path) -> set[str]:
    names = (name.removeprefix("datarun_daemon.") for name in imports_of(path) if name.startswith("datarun_daemon."))
    return {name for name in names if not name.startswith("__")}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    layer = layer_of(name_of(path))

    assert {layer_of(name) for name in ours(path)} <= BELOW[layer] | {layer}


@pytest.mark.parametrize("path", [path for path in FILES if layer_of(name_of(path)) == "core"], ids=name_of)
def test_the_core_needs_the_standard_library_only(path: Path) -> None:
    assert {name.partition(".")[0] for name in imports_of(path)} <= STANDARD_LIBRARY | {"datarun_daemon"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_disk_fsyncs_and_renames(path: Path) -> None:
    if path.name == "disk.py":
        return
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    of_os = {
        call.attr
        for call in calls
        if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name) and call.value.id == "os"
    }

    assert not of_os & DURABLE_CALLS


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_runner_processes_import_numpy_pandas_and_scikit_learn(path: Path) -> None:
    wanted = {name.partition(".")[0] for name in imports_of(path)} & SCIENCE

    if layer_of(name_of(path)) == "client":
        wanted -= {"numpy"}  # inside of functions that return arrays: the next but one test sees that
    assert not wanted or (path.parent.name == "runner" and path.stem in MAY_IMPORT_SCIENCE), wanted


def test_what_runs_in_any_interpreter_imports_nothing_of_ours_but_its_neighbours() -> None:
    reached = set(IN_ANY_INTERPRETER)
    waiting = list(reached)
    while waiting:
        for name in ours(PACKAGE / "runner" / f"{waiting.pop()}.py"):
            assert name.startswith("runner."), name
            stem = name.split(".")[1]
            if stem not in reached and (PACKAGE / "runner" / f"{stem}.py").exists():
                reached.add(stem)
                waiting.append(stem)
    for stem in reached:
        foreign = {name.partition(".")[0] for name in imports_of(PACKAGE / "runner" / f"{stem}.py")}
        assert foreign <= STANDARD_LIBRARY | SCIENCE | {"datarun_daemon", "threadpoolctl"}, stem


@pytest.mark.parametrize("module", ["datarun_daemon.daemon", "datarun_daemon.client"])
def test_the_daemon_and_clients_do_without_numpy(module: str) -> None:
    program = f"import sys, {module}; print(sorted({SCIENCE!r} & sys.modules.keys()))"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_is_longer_than_450_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 450


def test_files_are_named_after_what_they_know() -> None:
    assert not {"utils", "util", "common", "helpers", "misc"} & {part for path in FILES for part in path.parts} | {
        path.stem for path in FILES if path.stem in ("utils", "util", "common", "helpers", "misc", "manager", "handler")
    }


def test_the_skeleton_of_the_spool_has_every_folder_that_a_spool_has() -> None:
    from datarun_daemon.spool.layout import Spool

    spool = Spool(ROOT / "spool")
    made = {*spool.incoming_folders(), spool.receipts, spool.rejected, spool.outbox, spool.status, spool.catalog}

    assert {folder for folder in made | {spool.store, spool.runs} if not folder.is_dir()} == set()
