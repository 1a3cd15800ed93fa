"""``datarun pack``, ``check`` and ``submit``: what a client does with a bundle."""

from __future__ import annotations

import json as json_text
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from datarun_daemon.client.local import LocalTransport
from datarun_daemon.client.packing import pack
from datarun_daemon.client.sending import await_receipt, bundle_kind, check, submit
from datarun_daemon.client.transport import PATHS
from datarun_daemon.commands.choosing import chosen_spool
from datarun_daemon.core.errors import Problem, Rejection


def pack_bundle(folder: Path) -> int:
    if not folder.is_dir():
        raise Rejection([Problem(str(folder), "no folder", "the folder of a bundle, with its manifest.yaml")])
    pack(folder)
    print(f"{folder}: its manifest names what it holds")
    return 0


def check_bundle(bundle: Path, *, json: bool) -> int:
    problems = check(bundle)
    if json:
        print(json_text.dumps({"bundle": str(bundle), "problems": [asdict(problem) for problem in problems]}))
    elif problems:
        _print_problems(bundle, problems)
    else:
        print(f"{bundle}: nothing is wrong with it")
    return 1 if problems else 0


def submit_bundle(
    bundle: Path,
    spool: Path | None,
    config: Path | None,
    *,
    name: str | None,
    wait_seconds: float | None,
    json: bool,
) -> int:
    """Sent, and with ``wait_seconds`` accepted; 1 if it was not sent, or rejected."""
    there = chosen_spool(spool, config)
    if problems := check(bundle):
        if json:
            print(json_text.dumps({"status": "not sent", "problems": list(map(asdict, problems))}))
        else:
            _print_problems(bundle, problems)
            print("It was not sent.")
        return 1
    transport, kind, name = LocalTransport(there.root), bundle_kind(bundle), name or bundle.resolve().name
    receipt_file = there.receipt(kind, name)
    before = transport.read(PATHS.receipt(kind, name))
    sent = submit(bundle, there.root, name)
    if wait_seconds is None:
        if json:
            print(json_text.dumps({"status": "sent", "path": str(sent), "receipt": str(receipt_file)}))
        else:
            print(f"sent as {sent}; what becomes of it will be told in {receipt_file}")
        return 0
    receipt = await_receipt(
        transport, kind, name, newer_than=before.version if before else "", timeout_seconds=wait_seconds
    )
    if json:
        print(json_text.dumps(receipt))
    else:
        _print_receipt(receipt, receipt_file)
    return 0 if receipt["status"] == "accepted" else 1


def _print_problems(bundle: Path, problems: Sequence[Problem]) -> None:
    print(f"{bundle}: {len(problems)} problem{'s' if len(problems) > 1 else ''}")
    for problem in problems:
        print(f"  {problem}")


def _print_receipt(receipt: Mapping[str, object], file: Path) -> None:
    print(f"{receipt['status']}; the receipt is {file}")
    if receipt["status"] != "accepted":
        print(file.read_text(encoding="utf-8"))
