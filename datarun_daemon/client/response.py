"""What the functions of ``post_api`` return: as much of an HTTP answer as clients of the REST API read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

#: of an error that is about no field in particular
NO_FIELD = "non_field_errors"


@dataclass(frozen=True, slots=True)
class Response:
    status_code: int
    #: JSON
    content: bytes

    @classmethod
    def of(cls, status: HTTPStatus, value: object) -> Response:
        return cls(status.value, json.dumps(value).encode("ascii"))

    @property
    def ok(self) -> bool:
        return self.status_code < HTTPStatus.BAD_REQUEST

    def __bool__(self) -> bool:
        """As with the answers of ``requests``: whether it is ok, not whether it is there."""
        return self.ok

    @property
    def reason(self) -> str:
        """In a word or two: ``Created``, ``Bad Request``."""
        return HTTPStatus(self.status_code).phrase

    @property
    def text(self) -> str:
        return self.content.decode("ascii")

    def json(self) -> Any:
        return json.loads(self.content)


def created(row: Mapping[str, object]) -> Response:
    return Response.of(HTTPStatus.CREATED, row)


def found(value: object) -> Response:
    return Response.of(HTTPStatus.OK, value)


def not_found() -> Response:
    return Response.of(HTTPStatus.NOT_FOUND, {"detail": "Not found."})


def invalid(errors: Mapping[str, Iterable[str]]) -> Response:
    """Every message by the field that it is about."""
    return Response.of(HTTPStatus.BAD_REQUEST, {field: list(messages) for field, messages in errors.items()})
