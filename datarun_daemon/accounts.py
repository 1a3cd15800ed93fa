"""Whose a bundle is: the account that its files belong to, or a user behind an account that several share."""

from __future__ import annotations

import pwd
from collections.abc import Iterable
from dataclasses import dataclass

from datarun_daemon.core.errors import Problem
from datarun_daemon.core.model import Owner


@dataclass(frozen=True, slots=True)
class Accounts:
    """The accounts that the administrator named as shared, by their uids."""

    shared: frozenset[int] = frozenset()

    @classmethod
    def named(cls, names: Iterable[str | int]) -> Accounts:
        """Login names and uids; a name that this machine does not know counts for nothing."""
        return cls(frozenset(uid for uid in map(_uid, names) if uid is not None))

    def owner(self, uid: int, user: str | None) -> Owner | Problem:
        """Of a bundle dropped by ``uid`` whose manifest names ``user``; a Problem if it may not name that user."""
        if user is None:
            return uid
        if uid in self.shared:
            return f"{uid}/{user}"
        login = login_name(uid)
        if user == login:
            return uid
        expected = (
            f"{login!r}, the account that dropped the bundle, or nothing; only an account that the configuration "
            "lists in `shared_accounts` may drop bundles for others"
        )
        return Problem("user", repr(user), expected)


def login_name(uid: int) -> str:
    """Its digits, if the machine has no name for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _uid(name: str | int) -> int | None:
    if isinstance(name, int):
        return name
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None
