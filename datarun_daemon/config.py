"""What an administrator may choose: one YAML file, every mistake in it told at once, in plain words.

``config.yaml`` at the top of the repository documents each option; a test holds the two together.
A :class:`Config` never changes: a reload makes a new one and says which of its changes wait for a
restart.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypedDict

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from datarun_daemon.core.errors import ConfigError, Problem, Rejection
from datarun_daemon.core.model import Priority
from datarun_daemon.machine import Machine
from datarun_daemon.spool.yaml_reading import read_yaml

SYSTEM_FILE = Path("/etc/datarun/config.yaml")
#: share of the machine's memory that folds may take together unless the file says otherwise
_AUTO_MEMORY_SHARE = 0.8
_UNITS = {"B": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("KMGT", start=1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}
_MIB, _GIB = 2**20, 2**30
#: options read once, when the processes that use them start
NEEDING_A_RESTART = frozenset(
    {"spool", "cores_per_slot", "max_loaded_datasets", "environments", "intake.watch"}
)


def _refuse(found: object, expected: str) -> NoReturn:
    raise PydanticCustomError("datarun", "{found}: {expected}", {"found": str(found), "expected": expected})


def parse_bytes(value: object) -> object:
    """Bytes from a whole number, or from text with a unit: ``512 MiB``, ``2 GB`` (1 GB is 1000 MB)."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([KMGT]?i?B)", value.strip())
    if match is None or match[2] not in _UNITS:
        _refuse(repr(value), "a number of bytes, or text with a unit such as 512 MiB or 2 GB")
    return int(float(match[1]) * _UNITS[match[2]])


def _auto_as_none(value: object) -> object:
    return None if value == "auto" else value


_Positive = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86400)]
_Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=1)]
#: None stands for ``auto``
_AutoCount = Annotated[_Positive | None, BeforeValidator(_auto_as_none)]
_AutoBytes = Annotated[_Bytes | None, BeforeValidator(_auto_as_none)]


class _Options(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, validate_default=True, allow_inf_nan=False
    )


class PriorityLimits(_Options):
    """What folds of one priority may take."""

    #: how many of the slots they may fill at the same time; None: all
    slots: _AutoCount = None
    wall_soft_seconds: _Seconds
    wall_hard_seconds: _Seconds
    #: of one fold; None: ``fold.memory_bytes``
    memory_bytes: _AutoBytes = None

    @field_validator("wall_hard_seconds")
    @classmethod
    def _after_the_soft_limit(cls, hard_seconds: float, info: ValidationInfo) -> float:
        soft_seconds = info.data.get("wall_soft_seconds")
        if soft_seconds is not None and hard_seconds < soft_seconds:
            _refuse(f"{hard_seconds:g}", f"at least wall_soft_seconds, which is {soft_seconds:g}")
        return hard_seconds


class HighLimits(PriorityLimits):
    wall_soft_seconds: _Seconds = 3600.0
    wall_hard_seconds: _Seconds = 3900.0


class LowLimits(PriorityLimits):
    wall_soft_seconds: _Seconds = 14400.0
    wall_hard_seconds: _Seconds = 15000.0


class Priorities(_Options):
    H: HighLimits = HighLimits()
    L: LowLimits = LowLimits()


class FoldLimits(_Options):
    """What one fold may take, whatever its priority."""

    memory_bytes: _Bytes = 2 * _GIB
    processes: _Positive = 64
    file_bytes: _Bytes = _GIB
    log_bytes: _Bytes = _MIB
    predictions_bytes: _Bytes = _GIB


class Scheduling(_Options):
    high_in_a_row: _Positive = 8
    low_patience_seconds: _Seconds = 600.0
    affinity_window: Annotated[int, Field(ge=0)] = 16
    affinity_skips: Annotated[int, Field(ge=0)] = 8


class Intake(_Options):
    settle_seconds: Annotated[float, Field(ge=0)] = 5.0
    incomplete_after_seconds: _Seconds = 60.0
    scan_seconds: _Seconds = 5.0
    glance_seconds: _Seconds = 0.02
    poll_seconds: _Seconds = 2.0
    watch: Literal["auto", "events", "polling"] = "auto"
    max_bundle_bytes: _Bytes = 20 * _GIB
    max_bundle_files: _Positive = 10_000
    max_copy_seconds: _Seconds = 3600.0


class Log(_Options):
    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class LimitsOfAFold(TypedDict):
    """All limits of one fold, under the names that its runner knows."""

    wall_soft_seconds: float
    wall_hard_seconds: float
    memory_bytes: int
    processes: int
    file_bytes: int
    log_bytes: int
    predictions_bytes: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one machine offers under one configuration, with every ``auto`` worked out."""

    slots: int
    slots_by_priority: dict[Priority, int]
    memory_budget_bytes: int


@dataclass(frozen=True, slots=True)
class Reload:
    """What became of a changed configuration file."""

    #: to go on with: the new one, except for what needs a restart
    config: Config
    #: dotted names of what is in force now
    changed: tuple[str, ...]
    #: dotted names of what changed in the file and stays as it was until a restart
    needs_restart: tuple[str, ...]


class Config(_Options):
    spool: Path = Field(default=Path("spool"), strict=False)
    slots: _AutoCount = None
    cores_per_slot: _Positive = 1
    priorities: Priorities = Priorities()
    fold: FoldLimits = FoldLimits()
    memory_budget_bytes: _AutoBytes = None
    max_attempts: _Positive = 3
    max_loaded_datasets: _Positive = 4
    split_wall_seconds: _Seconds = 3600.0
    shared_accounts: list[int | str] = []
    scheduling: Scheduling = Scheduling()
    intake: Intake = Intake()
    environments: dict[str, str] = {"default": "auto"}
    isolation: Literal["auto", "off", "strict"] = "auto"
    status_seconds: _Seconds = 2.0
    on_stop: Literal["keep", "end"] = "keep"
    log: Log = Log()
    _source: Path | None = PrivateAttr(default=None)
    _overrides: dict[str, object] = PrivateAttr(default_factory=dict)

    @field_validator("environments")
    @classmethod
    def _with_a_default_of_absolute_paths(cls, environments: dict[str, str]) -> dict[str, str]:
        for name, interpreter in environments.items():
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
                _refuse(repr(name), "names of letters, digits, dot, dash and underscore")
            if interpreter != "auto" and not interpreter.startswith("/"):
                _refuse(f"{name}: {interpreter}", "the absolute path of a Python interpreter, or auto")
        return {"default": "auto"} | environments

    @field_validator("isolation")
    @classmethod
    def _only_what_there_is(cls, isolation: str) -> str:
        if isolation == "strict":
            _refuse("strict", "auto or off: this version has no sandbox yet, so strict could run nothing")
        return isolation

    @field_validator("memory_budget_bytes")
    @classmethod
    def _a_fold_fits(cls, budget_bytes: int | None, info: ValidationInfo) -> int | None:
        fold, priorities = info.data.get("fold"), info.data.get("priorities")
        if budget_bytes is None or fold is None or priorities is None:
            return budget_bytes
        largest = max(limits.memory_bytes or fold.memory_bytes for limits in (priorities.H, priorities.L))
        if budget_bytes < largest:
            _refuse(budget_bytes, f"at least {largest}, the memory_bytes of one fold, or none could ever run")
        return budget_bytes

    @property
    def source(self) -> Path | None:
        """The file this was read from; None: there was none, all is default."""
        return self._source

    @property
    def overrides(self) -> Mapping[str, object]:
        """What was given on the command line instead, by dotted name."""
        return self._overrides

    def capacity(self, machine: Machine) -> Capacity:
        """An ``auto`` memory budget is at least what one fold of each priority may take."""
        slots = self.slots or max(1, machine.cores // self.cores_per_slot)
        wanted = {Priority.HIGH: self.priorities.H.slots, Priority.LOW: self.priorities.L.slots}
        largest_fold_bytes = max(self._memory_bytes(priority) for priority in Priority)
        budget_bytes = self.memory_budget_bytes or max(
            largest_fold_bytes, int(machine.memory_bytes * _AUTO_MEMORY_SHARE)
        )
        return Capacity(
            slots=slots,
            slots_by_priority={priority: min(slots, limit or slots) for priority, limit in wanted.items()},
            memory_budget_bytes=budget_bytes,
        )

    def fold_limits(self, priority: Priority) -> LimitsOfAFold:
        limits = self._by_priority(priority)
        return {
            "wall_soft_seconds": limits.wall_soft_seconds,
            "wall_hard_seconds": limits.wall_hard_seconds,
            "memory_bytes": self._memory_bytes(priority),
            "processes": self.fold.processes,
            "file_bytes": self.fold.file_bytes,
            "log_bytes": self.fold.log_bytes,
            "predictions_bytes": self.fold.predictions_bytes,
        }

    def interpreters(self) -> dict[str, str]:
        """The interpreter of each environment; ``auto`` is the one that runs the daemon."""
        return {
            name: sys.executable if interpreter == "auto" else interpreter
            for name, interpreter in self.environments.items()
        }

    def options(self) -> dict[str, object]:
        """Every option by its dotted name, as a file would spell it."""
        return {name: "auto" if value is None else value for name, value in _flat(self.model_dump())}

    def reload_from(self, new: Config) -> Reload:
        """Takes of ``new`` what can change while folds run."""
        before, after = self.options(), new.options()
        different = [name for name in after if before[name] != after[name]]
        held = tuple(name for name in different if name in NEEDING_A_RESTART)
        values = new.model_dump()
        for name in held:
            _set(values, name, before[name])
        config = _validated(values, source=new.source, overrides=new.overrides)
        return Reload(config, tuple(name for name in different if name not in held), held)

    def _by_priority(self, priority: Priority) -> PriorityLimits:
        return self.priorities.H if priority is Priority.HIGH else self.priorities.L

    def _memory_bytes(self, priority: Priority) -> int:
        return self._by_priority(priority).memory_bytes or self.fold.memory_bytes


def find_config(path: Path | None, *, environ: Mapping[str, str], folder: Path) -> Path | None:
    """The file named, else ``$DATARUN_CONFIG``, ``config.yaml`` in ``folder``, the system's, or none."""
    if path is not None:
        return path
    if environ.get("DATARUN_CONFIG"):
        return Path(environ["DATARUN_CONFIG"])
    return next((file for file in (folder / "config.yaml", SYSTEM_FILE) if file.is_file()), None)


def load_config(
    path: Path | None = None,
    overrides: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Config:
    """The configuration of this start.

    Args:
        path: the file; None: as :func:`find_config` finds it.
        overrides: by dotted name (``intake.scan_seconds``); they win over the file.

    Raises:
        ConfigError: the file cannot be read, or with every option that cannot be used as it is.
    """
    folder = folder or Path.cwd()
    source = find_config(path, environ=os.environ if environ is None else environ, folder=folder)
    values: dict[str, Any] = {}
    if source is not None:
        source = source.absolute()
        values = _read(source)
        folder = source.parent
    if isinstance(values.get("spool"), str):
        values["spool"] = str(folder / Path(values["spool"]).expanduser())
    values.setdefault("spool", str(folder / "spool"))
    for name, value in (overrides or {}).items():
        _set(values, name, str(Path(str(value)).absolute()) if name == "spool" else value)
    return _validated(values, source=source, overrides=overrides or {})


def _read(source: Path) -> dict[str, Any]:
    try:
        content = read_yaml(source.read_bytes(), file_name=source.name)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {source}: {error.strerror}") from error
    except Rejection as error:
        raise _config_error(source, error.problems) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        problem = Problem("the file", type(content).__name__, "options, as `name: value` lines")
        raise _config_error(source, [problem])
    # a group whose options are all commented out reads as nothing
    return {name: value for name, value in content.items() if value is not None}


def _validated(values: dict[str, Any], *, source: Path | None, overrides: Mapping[str, object]) -> Config:
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        problems = [_problem(details) for details in error.errors(include_url=False)]
        raise _config_error(source, problems) from error
    config._source, config._overrides = source, dict(overrides)
    return config


def _config_error(source: Path | None, problems: list[Problem]) -> ConfigError:
    where = str(source) if source else "the options given"
    return ConfigError("\n  ".join([f"{where} cannot be used:", *map(str, problems)]))


def _problem(details: ErrorDetails) -> Problem:
    *_, option = names = [str(part) for part in details["loc"] if part != "[key]"] or ["the file"]
    found, expected = _shortened(details["input"]), details["msg"]
    context = details.get("ctx", {})
    match details["type"]:
        case "datarun":
            found, expected = context["found"], context["expected"]
        case "extra_forbidden":
            close = get_close_matches(option, _option_names(), n=1, cutoff=0.6)
            found = "an unknown option"
            expected = f"{close[0]}, perhaps" if close else "a name that config.yaml lists"
        case "int_type" | "int_parsing" | "int_from_float":
            expected = "a whole number"
        case "float_type" | "float_parsing" | "finite_number":
            expected = "a number"
        case "string_type" | "path_type":
            expected = "text"
        case "greater_than":
            expected = f"more than {context['gt']:g}"
        case "greater_than_equal":
            expected = f"at least {context['ge']}"
        case "less_than_equal":
            expected = f"at most {context['le']:g}"
        case "literal_error":
            expected = f"one of {context['expected']}"
        case "model_type" | "dict_type":
            expected = "a group of options, as indented `name: value` lines"
    return Problem(".".join(names), found, expected)


def _shortened(value: object, limit: int = 60) -> str:
    text = repr(value) if isinstance(value, str) else "nothing" if value is None else str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and name != "environments":
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _option_names() -> list[str]:
    names = {name.rpartition(".")[2] for name in Config().options()}
    return sorted(names | set(Config.model_fields))


def _set(values: dict[str, Any], dotted: str, value: object) -> None:
    *groups, option = dotted.split(".")
    for group in groups:
        inner = values.setdefault(group, {})
        if not isinstance(inner, dict):
            return  # validation tells of it
        values = inner
    values[option] = value
