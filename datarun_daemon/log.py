"""Log lines are facts with keys: JSON for machines, columns for a person at a terminal.

What a client wrote may be part of a value, so no control character of one reaches the terminal or
breaks a line: one event is one line.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog


def set_up(
    format: str = "auto",
    level: str = "info",
    *,
    stream: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Every logger of this process writes to ``stream`` (standard error) from now on, also those made before.

    Args:
        format: ``json``, ``console``, or ``auto``: console where ``stream`` is a terminal and no
            journal reads it.
        level: the least that is written: debug, info, warning, error.
    """
    stream = stream or sys.stderr
    environ = os.environ if environ is None else environ
    if format == "auto":
        format = "console" if _read_by_a_person(stream, environ) else "json"
    renderer: Any = structlog.processors.JSONRenderer()
    if format == "console":
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), pad_event_to=28, exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _escape,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )


def _read_by_a_person(stream: TextIO, environ: Mapping[str, str]) -> bool:
    return stream.isatty() and not {"JOURNAL_STREAM", "INVOCATION_ID"} & environ.keys()


def _escape(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Time, level and event first; in texts, what is not printable as an escape sequence."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return first | {key: _printable(value, key == "exception") for key, value in event.items()}


def _printable(value: Any, of_many_lines: bool) -> Any:
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(
        character
        if character.isprintable() or (of_many_lines and character == "\n")
        else character.encode("unicode_escape").decode()
        for character in value
    )
