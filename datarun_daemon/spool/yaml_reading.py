"""Reads YAML that strangers wrote: plain values come out, or a Rejection that says where and why not.

The values are built here from the parser's events, so that nothing of YAML's machinery (tags,
aliases, merge keys, dates) can act, and no depth or size grows beyond a bound. Plain words are
read as in YAML 1.2: ``yes`` and ``12:30`` are text, ``1e-3`` is a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.spool.names import field_within, printable

MAX_YAML_BYTES = 256 * 1024
MAX_DEPTH = 16
MAX_PROBLEMS = 50

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL_LOOK = re.compile(r"[-+]?0[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?")
_WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_INT64_DIGITS = 19


class Unreadable:
    """Stands where a value was that has been reported already."""

    def __repr__(self) -> str:
        return "something unreadable"


UNREADABLE = Unreadable()

#: yaml.ScalarEvent and its like, which are not typed further
_Event = Any


def read_yaml(raw: bytes, *, file_name: str = "manifest.yaml", limit_bytes: int = MAX_YAML_BYTES) -> object:
    """The one document in ``raw`` as None, bool, int, float, str, list and dict (keys are text, as written).

    Raises:
        Rejection: not UTF-8, too big or too deep, a syntax error, or YAML beyond plain values; each
            problem names the line and column.
    """
    value, problems = parse_yaml(raw, file_name=file_name, limit_bytes=limit_bytes)
    if problems:
        raise Rejection(problems)
    return value


def parse_yaml(
    raw: bytes, *, file_name: str = "manifest.yaml", limit_bytes: int = MAX_YAML_BYTES
) -> tuple[object, list[Problem]]:
    """What could be read, with ``UNREADABLE`` in place of each value that a problem speaks of.

    Raises:
        Rejection: nothing could be read at all (size, encoding, syntax, depth).
    """
    reader = _Reader(_decode(raw, file_name, limit_bytes), file_name)
    return reader.document(), reader.problems


def _decode(raw: bytes, file_name: str, limit_bytes: int) -> str:
    if len(raw) > limit_bytes:
        expected = f"at most {limit_bytes} bytes; long index lists belong in files"
        raise Rejection([Problem(file_name, f"{len(raw)} bytes", expected)])
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Rejection([Problem(file_name, "UTF-16 text", "UTF-8 text")])
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        found = f"byte 0x{raw[error.start]:02x} in line {line}, column {column}"
        raise Rejection([Problem(file_name, found, "UTF-8 text")]) from error
    control = _CONTROL.search(text)
    if control:
        start = control.start()
        line, column = text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
        found = f"character U+{ord(control.group()):04X} in line {line}, column {column}"
        raise Rejection([Problem(file_name, found, "text without control characters")])
    return text


class _Reader:
    """Goes once through the events of a text; afterwards ``problems`` holds what was refused on the way."""

    def __init__(self, text: str, file_name: str) -> None:
        self.problems: list[Problem] = []
        self._text = text
        self._file_name = file_name

    def document(self) -> object:
        try:
            loader = _LOADER(self._text)
            try:
                return self._read_stream(_events(loader))
            finally:
                loader.dispose()
        except Rejection:
            raise
        except yaml.MarkedYAMLError as error:
            raise Rejection([*self.problems, self._syntax_problem(error)]) from error
        except Exception as error:  # whatever else the parser trips over is the text's fault, not ours
            found = f"what the YAML parser cannot read ({printable(str(error)) or type(error).__name__})"
            raise Rejection([*self.problems, Problem(self._file_name, found, "YAML")]) from error

    def _syntax_problem(self, error: yaml.MarkedYAMLError) -> Problem:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "its beginning"
        hint = "YAML; a text that holds ': ', '#' or a bracket needs quotes"
        lines = self._text.split("\n")
        if mark and mark.line < len(lines) and lines[mark.line][mark.column :].startswith("\t"):
            hint = "YAML; indent with spaces, not tabs"
        return Problem(self._file_name, f"a syntax error at {place} ({printable(str(error.problem))})", hint)

    def _read_stream(self, events: Iterator[_Event]) -> object:
        next(events)
        if type(next(events)) is yaml.StreamEndEvent:
            return None
        value = self._value(next(events), events, "", 0)
        next(events)
        after = next(events)
        if type(after) is not yaml.StreamEndEvent:
            self._refuse(self._file_name, after, "a second document", "one document")
        return value

    def _value(self, event: _Event, events: Iterator[_Event], path: str, depth: int) -> object:
        """The value that ``event`` begins; the events up to its end are used up."""
        kind = type(event)
        field = path or self._file_name
        if kind is yaml.AliasEvent:
            found = f"the alias *{printable(event.anchor or '')}"
            return self._refuse(field, event, found, "the value itself")
        if event.anchor is not None:
            self._refuse(field, event, f"the anchor &{printable(event.anchor)}", "a value without an anchor")
        if event.tag is not None:
            self._refuse(field, event, f"the tag {_shown_tag(event.tag)}", "a value without a tag")
        if kind is yaml.ScalarEvent:
            return event.value if not event.implicit[0] else self._plain(event, field)
        if depth == MAX_DEPTH:
            # Not gone on from: skipping what is deeper would need the depth that is refused.
            self._refuse(field, event, f"more than {MAX_DEPTH} levels", "a few levels of lists and mappings")
            raise Rejection(self.problems)
        if kind is yaml.MappingStartEvent:
            return self._mapping(events, path, depth + 1)
        return self._sequence(events, path, depth + 1)

    def _sequence(self, events: Iterator[_Event], path: str, depth: int) -> list[object]:
        values: list[object] = []
        for event in events:
            if type(event) is yaml.SequenceEndEvent:
                break
            values.append(self._value(event, events, f"{path}[{len(values)}]", depth))
        return values

    def _mapping(self, events: Iterator[_Event], path: str, depth: int) -> dict[str, object]:
        values: dict[str, object] = {}
        for event in events:
            if type(event) is yaml.MappingEndEvent:
                break
            if type(event) is not yaml.ScalarEvent:
                self._refuse(path or self._file_name, event, "a key that is not text", "keys of plain text")
                self._value(event, events, path, depth)
                self._value(next(events), events, path, depth)
                continue
            key = event.value
            field = field_within(path, key)
            if event.anchor is not None or event.tag is not None or (key == "<<" and event.implicit[0]):
                self._refuse(field, event, "a key with an anchor, a tag or '<<'", "keys of plain text")
            elif key in values:
                self._refuse(field, event, "this key a second time", "each key once")
            value = self._value(next(events), events, field, depth)
            values.setdefault(key, value)
        return values

    def _plain(self, event: _Event, field: str) -> object:
        text = event.value
        if text in _WORDS:
            return _WORDS[text]
        if text[0] not in "+-.0123456789":
            return text
        if _INTEGER.fullmatch(text):
            return self._integer(event, field)
        if _FLOAT.fullmatch(text):
            number = float(text)
            if math.isfinite(number):
                return number
            return self._refuse(field, event, printable(text), "a number that a float64 can hold")
        if _NOT_FINITE.fullmatch(text):
            return self._refuse(field, event, text, "a finite number")
        if _DATE.fullmatch(text):
            expected = "no date; if a text is meant, put it in quotes"
            return self._refuse(field, event, f"the date {printable(text, 40)}", expected)
        return text

    def _integer(self, event: _Event, field: str) -> object:
        text = event.value
        if _OCTAL_LOOK.fullmatch(text):
            expected = "an integer without leading zeros; if a text is meant, put it in quotes"
            return self._refuse(field, event, printable(text, 40), expected)
        if len(text.lstrip("+-")) <= _INT64_DIGITS and -(2**63) <= (number := int(text)) < 2**63:
            return number
        found = f"an integer of {len(text.lstrip('+-'))} digits"
        return self._refuse(field, event, found, "an integer that 64 bits can hold; a long id needs quotes")

    def _refuse(self, field: str, event: _Event, found: str, expected: str) -> Unreadable:
        mark = event.start_mark
        found = f"{found} (line {mark.line + 1}, column {mark.column + 1})"
        self.problems.append(Problem(field, found, expected))
        if len(self.problems) >= MAX_PROBLEMS:
            raise Rejection(self.problems)
        return UNREADABLE


def _shown_tag(tag: str) -> str:
    return printable(re.sub(r"^tag:yaml\.org,2002:", "!!", tag), 40)


def _events(loader: Any) -> Iterator[_Event]:
    get_event = loader.get_event
    while True:
        event = get_event()
        if event is None:
            return
        yield event
