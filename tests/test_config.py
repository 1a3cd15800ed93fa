"""The configuration: its file documents it, and every mistake in one is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datarun_daemon.config import NEEDING_A_RESTART, Config, load_config, parse_bytes
from datarun_daemon.core.errors import ConfigError
from datarun_daemon.core.model import Priority
from datarun_daemon.machine import Machine
from datarun_daemon.spool.yaml_reading import read_yaml

CONFIG_FILE = Path(__file__).parents[1] / "config.yaml"
MACHINE = Machine(cores=8, memory_bytes=16 * 2**30)


def load(folder: Path, text: str, **overrides: object) -> Config:
    (folder / "config.yaml").write_text(text)
    return load_config(None, overrides, environ={}, folder=folder)


def problems_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return str(caught.value).splitlines()[1:]


def option_names(content: Any, prefix: str = "") -> Iterator[str]:
    for name, value in content.items():
        if isinstance(value, dict) and name != "environments":
            yield from option_names(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_the_documented_file_names_every_option_and_no_other() -> None:
    content = read_yaml(CONFIG_FILE.read_bytes())

    assert set(Config().options()) == set(option_names(content))


def test_the_documented_file_holds_the_defaults() -> None:
    defaults = load_config(None, environ={}, folder=CONFIG_FILE.parent / "tests").options()

    assert defaults | {"spool": None} == load_config(CONFIG_FILE).options() | {"spool": None}


def test_every_option_is_explained_by_a_comment_above_or_beside_it() -> None:
    lines = CONFIG_FILE.read_text().splitlines()
    for number, line in enumerate(lines):
        if line and not line.startswith((" ", "#")):
            before, after = lines[number - 1], lines[number + 1] if number + 1 < len(lines) else ""
            explained = before.startswith("#") or "#" in line or after.startswith("  ")
            assert explained, line


def test_all_mistakes_are_told_at_once_each_with_its_option(tmp_path: Path) -> None:
    problems = problems_of(
        tmp_path,
        "slot: 2\nslots: true\ncores_per_slot: 0\non_stop: off\nisolation: strict\n"
        "priorities: {H: {wall_soft_seconds: 99999}, L: 3}\nintake: {watch: inotify, max_bundle_bytes: 10G}\n",
    )

    assert sorted(problem.strip().partition(":")[0] for problem in problems) == [
        "cores_per_slot", "intake.max_bundle_bytes", "intake.watch", "isolation", "on_stop",
        "priorities.H.wall_hard_seconds", "priorities.L", "slot", "slots",
    ]  # fmt: skip


def test_an_unknown_option_is_told_with_the_one_it_resembles(tmp_path: Path) -> None:
    assert problems_of(tmp_path, "slot: 2") == ["  slot: found an unknown option; expected slots, perhaps"]


def test_strict_isolation_is_refused_with_the_reason(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "isolation: strict")

    assert "no sandbox yet" in problem


def test_a_memory_budget_below_one_fold_is_refused(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "memory_budget_bytes: 1 GiB\n")

    assert problem.startswith("  memory_budget_bytes: found 1073741824; expected at least 2147483648")


@pytest.mark.parametrize("text", ["slots: [", "- 1", "slots: 1\nslots: 2", "slots: &x 1", "\xff"])
def test_a_file_that_is_no_mapping_of_options_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_bytes(text.encode("latin-1"))

    with pytest.raises(ConfigError, match=r"config\.yaml cannot be used"):
        load_config(None, environ={}, folder=tmp_path)


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_group_whose_options_are_all_commented_out_is_at_its_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "log:\n  # level: debug\n").log.level == "info"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("512 MiB", 512 * 2**20), ("2 GB", 2 * 10**9), ("1.5 KiB", 1536), ("7B", 7), (9, 9)],
)
def test_sizes_are_numbers_or_text_with_a_unit(text: object, expected: int) -> None:
    assert expected == parse_bytes(text)


def test_the_first_file_wins_flag_then_environment_then_current_folder(tmp_path: Path) -> None:
    for name, slots in (("flag", 1), ("environment", 2), ("config", 3)):
        (tmp_path / f"{name}.yaml").write_text(f"slots: {slots}")
    environ = {"DATARUN_CONFIG": str(tmp_path / "environment.yaml")}

    assert load_config(tmp_path / "flag.yaml", environ=environ, folder=tmp_path).slots == 1
    assert load_config(None, environ=environ, folder=tmp_path).slots == 2
    assert load_config(None, environ={}, folder=tmp_path).slots == 3


def test_what_the_command_line_says_wins_over_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, "slots: 3\nintake: {scan_seconds: 7}", **{"intake.scan_seconds": 1, "spool": "/x"})

    assert (3, 1.0, Path("/x")) == (config.slots, config.intake.scan_seconds, config.spool)


def test_a_relative_spool_lies_beside_the_file_that_names_it(tmp_path: Path) -> None:
    assert load(tmp_path, "spool: here").spool == tmp_path / "here"


def test_auto_is_worked_out_from_the_machine(tmp_path: Path) -> None:
    capacity = load(tmp_path, "cores_per_slot: 3\npriorities: {L: {slots: 1}}").capacity(MACHINE)

    assert capacity.slots == 2
    assert capacity.slots_by_priority == {Priority.HIGH: 2, Priority.LOW: 1}
    assert capacity.memory_budget_bytes == int(16 * 2**30 * 0.8)


def test_a_small_machine_still_has_memory_for_one_fold(tmp_path: Path) -> None:
    small = Machine(cores=1, memory_bytes=2**30)

    assert load(tmp_path, "").capacity(small).memory_budget_bytes == 2 * 2**30


def test_a_priority_may_have_its_own_memory_limit(tmp_path: Path) -> None:
    config = load(tmp_path, "fold: {memory_bytes: 1 GiB}\npriorities: {H: {memory_bytes: 3 GiB}}")

    limits = {priority: config.fold_limits(priority)["memory_bytes"] for priority in Priority}
    assert limits == {Priority.HIGH: 3 * 2**30, Priority.LOW: 2**30}


def test_a_reload_takes_what_it_can_and_names_what_waits_for_a_restart(tmp_path: Path) -> None:
    before = load(tmp_path, "spool: a\nslots: 1\nlog: {level: info}")

    reload = before.reload_from(load(tmp_path, "spool: b\nslots: 2\nlog: {level: debug}\nintake: {watch: polling}"))

    assert (("slots", "log.level"), ("spool", "intake.watch")) == (reload.changed, reload.needs_restart)
    assert (2, "debug", "auto") == (reload.config.slots, reload.config.log.level, reload.config.intake.watch)
    assert reload.config.spool == before.spool


def test_what_needs_a_restart_are_options_that_exist() -> None:
    assert set(Config().options()) >= NEEDING_A_RESTART


def test_the_default_environment_is_always_there(tmp_path: Path) -> None:
    config = load(tmp_path, "environments: {torch: /opt/torch/bin/python}")

    assert set(config.interpreters()) == {"default", "torch"}
    assert os.access(config.interpreters()["default"], os.X_OK)
