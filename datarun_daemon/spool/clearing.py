"""Taking a bundle out of an incoming folder once the catalog says what became of it.

Accepted ones go; refused ones move whole into rejected/, with a REASON.txt. Both can be done twice.
What the file system does not permit a daemon that is not root (moving a folder that it does not own
to another parent, removing what lies in it) is copied, or left behind under a hidden name.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from datarun_daemon import disk
from datarun_daemon.core.errors import Problem
from datarun_daemon.core.model import BundleId, BundleKind
from datarun_daemon.spool.bundle import Bounds, copy_whole, open_file
from datarun_daemon.spool.descent import FOLDER_FLAGS
from datarun_daemon.spool.layout import REASON, TAKEN_PREFIX, Spool
from datarun_daemon.spool.names import printable
from datarun_daemon.spool.notices import Notices

_COPYING_PREFIX = ".datarun-copying-"
_SHOWN_CHARACTERS = 2000
_REMOVED_AT_ONCE = 200


def take_away(incoming: Path, entry: str, ticket: int) -> Path:
    """The bundle is no longer under its name; returns its hidden name, by which it can be removed.

    Raises:
        FileNotFoundError: it has gone.
        OSError: a rename inside the incoming folder is not permitted.
    """
    hidden = incoming / f"{TAKEN_PREFIX}{ticket:09d}"
    disk.rename(incoming / entry, hidden)
    return hidden


def remove_hidden(spool: Spool, hidden: deque[Path], notices: Notices) -> None:
    """The next of these are gone; one that may not be removed stays hidden, and that is told."""
    for _ in range(min(len(hidden), _REMOVED_AT_ONCE)):
        path = hidden.popleft()
        try:
            disk.remove_tree(path)
        except OSError as error:
            notices.tell_once("taken_bundle_not_removed", path=spool.relative(path), reason=str(error))


def move_to_rejected(
    spool: Spool, entry: str, bundle: BundleId, *, owner_uid: int, bounds: Bounds
) -> tuple[Path, bool]:
    """The bundle lies whole in a folder of its own in rejected/; ``write_reason`` is to follow.

    Returns:
        that folder, and whether nothing is left under the bundle's name in incoming/ (a sticky folder
        there may forbid it).

    Raises:
        OSError: it could not even be copied; then it is where it was.
        NotReady, Rejection: it had to be copied and is beyond the bounds; then it is where it was.
    """
    source = spool.incoming_of(bundle.kind) / entry
    target = _free_place(spool, bundle)
    gone = True
    try:
        if source.is_dir() and not source.is_symlink():
            disk.rename(source, target)
        else:
            _make_folder(target, owner_uid)
            disk.rename(source, target / entry)
    except PermissionError:
        _remove_if_empty(target)
        _copy(source, target, bundle, owner_uid=owner_uid, bounds=bounds)
        gone = _remove_original(source, bundle)
    except BaseException:
        _remove_if_empty(target)
        raise
    return target, gone


def write_reason(spool: Spool, folder: Path, bundle: BundleId, problems: Sequence[Problem]) -> None:
    """REASON.txt in ``folder``, or beside it where its owner lets nobody write."""
    text = reason_text(spool, folder, bundle, problems).encode(errors="backslashreplace")
    try:
        disk.write_atomically(folder / REASON, text, mode=0o664)
    except PermissionError:
        disk.write_atomically(folder.parent / f"{folder.name}.{REASON}", text, mode=0o664)


def unexplained(spool: Spool, bundle: BundleId) -> Path | None:
    """The latest rejected bundle of this name, if a crash came between its move and its REASON.txt."""
    latest = None
    for again in range(1, 1000):
        folder = spool.rejected_bundle(bundle.kind, bundle.name, again=again)
        if not os.path.lexists(folder):
            break
        latest = folder
    if latest is None or latest.is_symlink() or (latest / REASON).exists():
        return None
    return None if (latest.parent / f"{latest.name}.{REASON}").exists() else latest


def reason_text(spool: Spool, folder: Path, bundle: BundleId, problems: Sequence[Problem]) -> str:
    """What a person reads who finds the bundle in rejected/."""
    lies = next((path for path in (folder / bundle.name,) if os.path.lexists(path)), folder)
    is_folder = lies == folder
    count = "One thing has" if len(problems) == 1 else f"{len(problems)} things have"
    lines = [
        f"datarun could not accept incoming/{bundle.kind.value}/{bundle.name}.",
        f"{count} to be mended:",
        "",
    ]
    for number, problem in enumerate(problems, 1):
        lines += [
            f"{number}. {printable(problem.field, _SHOWN_CHARACTERS)}",
            f"   found:    {printable(problem.found, _SHOWN_CHARACTERS)}",
            f"   expected: {printable(problem.expected, _SHOWN_CHARACTERS)}",
            "",
        ]
    what = "the folder (this file may stay in it)" if is_folder else "the file"
    lines += [
        f"Nothing was changed. Mend it here and move {what} back; in the spool's folder:",
        "",
        f"    mv {shlex.quote(spool.relative(lies))} incoming/{bundle.kind.value}/",
        "",
        "Or drop a mended copy there and delete this one: datarun does not need it any more.",
        "",
    ]
    return "\n".join(lines)


def clean(spool: Spool, next_ticket: int, notices: Notices) -> None:
    """Nothing is left, where bundles come and go, of what an earlier daemon began and no catalog line names."""
    for kind in BundleKind:
        begun = uncommitted(spool, kind, next_ticket)
        for path in (*leftovers(spool, kind), *begun):
            try:
                if path not in begun:
                    disk.remove_tree(path)
                elif place := settle_uncommitted(spool, kind, path):
                    notices.tell("unregistered_bundle_set_aside", place=spool.relative(place))
            except OSError as error:
                notices.tell("leftover_not_removed", path=spool.relative(path), reason=str(error))


def leftovers(spool: Spool, kind: BundleKind) -> list[Path]:
    """Half-removed accepted bundles, and half-made copies of rejected ones: all may go."""
    found: list[Path] = []
    for folder, prefix in (
        (spool.incoming_of(kind), TAKEN_PREFIX),
        (spool.rejected_of(kind), _COPYING_PREFIX),
    ):
        with contextlib.suppress(OSError), os.scandir(folder) as listing:
            found += [folder / entry.name for entry in listing if entry.name.startswith(prefix)]
    return found


def uncommitted(spool: Spool, kind: BundleKind, next_ticket: int) -> list[Path]:
    """Folders of the store that no catalog line names: copied, and then the daemon ended."""
    oldest_shard = spool.shard(kind, next_ticket).name
    found: list[Path] = []
    with contextlib.suppress(FileNotFoundError), os.scandir(spool.store_of(kind)) as shards:
        for shard in shards:
            if re.fullmatch(r"[0-9]{6,}", shard.name) and int(shard.name) >= int(oldest_shard):
                for folder in Path(shard.path).iterdir():
                    number = folder.name.partition("-")[0]
                    if number.isdecimal() and int(number) >= next_ticket:
                        found.append(folder)
    return found


def settle_uncommitted(spool: Spool, kind: BundleKind, path: Path) -> Path | None:
    """A folder of the store that no line names is removed if its bundle still lies in incoming/.

    Else the catalog has lost lines (an older one was restored, or none): then it is set aside in
    ``store/unregistered/``, and the place returned.
    """
    with os.scandir(spool.incoming_of(kind)) as listing:
        here = {spool.stored_bundle(kind, 0, entry.name).name.partition("-")[2] for entry in listing}
    if path.name.partition("-")[2] in here:
        disk.remove_tree(path)
        return None
    aside = spool.store / "unregistered"
    aside.mkdir(mode=0o700, exist_ok=True)
    again = 1
    while (place := aside / f"{kind.value}-{path.name}-{again}").exists():
        again += 1
    disk.rename(path, place)
    return place


def _copy(source: Path, target: Path, bundle: BundleId, *, owner_uid: int, bounds: Bounds) -> None:
    copy = target.parent / f"{_COPYING_PREFIX}{bundle.ticket:09d}"
    disk.remove_tree(copy)
    try:
        if source.is_dir() and not source.is_symlink():
            descriptor = os.open(source, FOLDER_FLAGS)
            try:
                copy_whole(descriptor, copy, bounds)
            finally:
                os.close(descriptor)
        else:
            _copy_file(source, copy, bounds)
        _give_to(copy, owner_uid)
        disk.make_durable([copy, *copy.rglob("*")], below=copy)
        disk.rename(copy, target)
    except BaseException:
        disk.remove_tree(copy)
        raise


def _remove_original(source: Path, bundle: BundleId) -> bool:
    try:
        hidden = take_away(source.parent, source.name, bundle.ticket)
    except PermissionError:
        return False
    with contextlib.suppress(PermissionError):  # stays hidden: clean() tells of it at the next start
        disk.remove_tree(hidden)
    return True


def _copy_file(source: Path, folder: Path, bounds: Bounds) -> None:
    folder.mkdir(mode=0o755)
    parent = os.open(source.parent, FOLDER_FLAGS)
    try:
        descriptor = open_file(parent, source.name)
    finally:
        os.close(parent)
    try:
        disk.copy_bounded(descriptor, folder / source.name, limit_bytes=bounds.bytes)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path, owner_uid: int) -> None:
    folder.mkdir()
    _give_to(folder, owner_uid)


def _give_to(folder: Path, owner_uid: int) -> None:
    """Its sender may mend it; where we cannot give it away, the folder's group may."""
    # the top one last: until then its sender cannot put a link in place of what we change
    for path in (*sorted(folder.rglob("*"), reverse=True), folder):
        with contextlib.suppress(PermissionError):
            path.chmod(0o775 if path.is_dir() else 0o664)
            if owner_uid != os.geteuid():
                os.chown(path, owner_uid, -1, follow_symlinks=False)


def _free_place(spool: Spool, bundle: BundleId) -> Path:
    again = 1
    while os.path.lexists(place := spool.rejected_bundle(bundle.kind, bundle.name, again=again)):
        again += 1
    return place


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
