"""A real pool over real processes: datasets are prepared, submissions written, folds run, folders read."""

from __future__ import annotations

import json
import select
import sys
import textwrap
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sklearn import datasets

from datarun_daemon.runner import processes
from datarun_daemon.runner.pool import Pool
from datarun_daemon.runner.protocol import (
    FoldFinished,
    FoldJob,
    FoldVanished,
    Limits,
    Prepared,
    PrepareFailed,
    PrepareTask,
    Report,
    ServerReady,
)

LIMITS = Limits(
    wall_soft_seconds=20,
    wall_hard_seconds=30,
    memory_bytes=400 << 20,
    processes=30,
    file_bytes=100 << 20,
    log_bytes=100_000,
    predictions_bytes=50 << 20,
)
DEADLINE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Data:
    """A prepared dataset and the CSV file it was made of."""

    name: str
    csv: Path
    folder: Path
    target: str
    elements: tuple[str, ...]
    n_train: int
    n_test: int


class House:
    """A pool with a folder, and what tests do with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pool = Pool(environments={"default": sys.executable})
        self.seen: list[Report] = []
        self._count = 0

    def wait_for(self, wanted: Callable[[Report], bool], *, seconds: float = DEADLINE_SECONDS) -> Report:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            reports = self.pool.look()
            self.seen += reports
            for report in reports:
                if wanted(report):
                    return report
            select.select([self.pool], [], [], 0.05)
        raise AssertionError(f"not in {seconds} s; seen: {self.seen[-10:]}")

    def prepare(
        self, name: str, csv: Path, target: str, elements: tuple[str, ...], *, share: float = 0.2
    ) -> Data | PrepareFailed:
        self._count += 1
        folder = self.folder / f"prepared-{name}-{self._count}"
        self.pool.prepare(PrepareTask(name, csv, target, elements, share, 42, folder))
        report = self.wait_for(lambda report: isinstance(report, Prepared | PrepareFailed))
        if isinstance(report, PrepareFailed):
            return report
        assert isinstance(report, Prepared)
        return Data(f"{name}-{self._count}", csv, folder, target, elements, report.n_train, report.n_test)

    def prepare_own(
        self, files: Mapping[str, str], elements: tuple[str, ...], *, specific: str = "specific.py", **limits: Any
    ) -> Data | PrepareFailed:
        """A dataset with code of its own; Data.csv is the folder that its files were dropped in."""
        self._count += 1
        name = f"own-{self._count}"
        dropped = self.folder / name
        dropped.mkdir()
        for file, text in files.items():
            (dropped / file).write_text(textwrap.dedent(text))
        folder = self.folder / f"prepared-{name}"
        task = PrepareTask(
            name, None, "kind", elements, None, None, folder,
            specific=specific, files=tuple(files), dataset_folder=dropped, **limits,
        )  # fmt: skip
        self.pool.prepare(task)
        report = self.wait_for(lambda report: isinstance(report, Prepared | PrepareFailed))
        if isinstance(report, PrepareFailed):
            return report
        assert isinstance(report, Prepared)
        assert sorted(report.files) == sorted(path for path in folder.rglob("*") if path.is_file())
        return Data(name, dropped, folder, "kind", elements, report.n_train, report.n_test)

    def submission(self, **files: str) -> Path:
        self._count += 1
        folder = self.folder / f"submission-{self._count}"
        folder.mkdir()
        for name, text in files.items():
            (folder / f"{name}.py").write_text(textwrap.dedent(text))
        return folder

    def start(
        self,
        data: Data,
        submission: Path,
        *,
        train_is: Sequence[int] | None = None,
        test_is: Sequence[int] = (),
        **limits: float,
    ) -> FoldJob:
        self._count += 1
        fold = f"fold-{self._count}"
        rows = array("q", range(0, data.n_train, 2) if train_is is None else train_is)
        job = FoldJob(
            fold=fold,
            attempt=1,
            dataset=data.name,
            prepared_folder=data.folder,
            submission_folder=submission,
            elements=data.elements,
            run_folder=self.folder / "runs" / fold / "1",
            train_is=rows,
            limits=replace(LIMITS, **limits),  # type: ignore[arg-type]
            facts={"submission": "7"},
            test_is=array("q", test_is),
        )
        self.pool.start(job)
        return job

    def end_of(self, job: FoldJob, *, seconds: float = DEADLINE_SECONDS) -> FoldFinished | FoldVanished:
        report = self.wait_for(
            lambda report: isinstance(report, FoldFinished | FoldVanished) and report.fold == job.fold, seconds=seconds
        )
        assert isinstance(report, FoldFinished | FoldVanished)
        return report

    def run(self, data: Data, submission: Path, **more: Any) -> dict[str, Any]:
        """What result.json says in the end."""
        job = self.start(data, submission, **more)
        assert isinstance(self.end_of(job), FoldFinished)
        return self.result(job)

    def result(self, job: FoldJob) -> dict[str, Any]:
        result: dict[str, Any] = json.loads((job.run_folder / "out" / "result.json").read_bytes())
        return {**result, "out": job.run_folder / "out"}

    def processes_of_folds(self) -> list[str]:
        """Command names of all that runs below the servers and is none of the house's own."""
        names = []
        for server in self.pool.pids:
            for pid in processes.descendants(server):
                names.append(name_of(pid))
        return [name for name in names if name not in ("datarun-keeper", "datarun-writer", "datarun-fold", "")]


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """It is there, and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(true: Callable[[], bool], *, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        select.select([], [], [], 0.01)
    return true()


def write_csv(path: Path, columns: Mapping[str, Sequence[object]]) -> Path:
    lines = [",".join(columns)]
    lines += [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_data(path: Path, bunch: Any, *, text_labels: bool) -> Path:
    columns: dict[str, Sequence[object]] = {
        f"x{number}": bunch.data[:, number].tolist() for number in range(bunch.data.shape[1])
    }
    names = [str(bunch.target_names[y]) for y in bunch.target] if text_labels else bunch.target.tolist()
    return write_csv(path, {**columns, "y": names})


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house"))
    house.wait_for(lambda report: isinstance(report, ServerReady))
    yield house
    house.pool.close()


@pytest.fixture(scope="module")
def iris(house: House) -> Data:
    csv = write_data(house.folder / "iris.csv", datasets.load_iris(), text_labels=True)
    data = house.prepare("iris", csv, "y", ("classifier",))
    assert isinstance(data, Data)
    return data
