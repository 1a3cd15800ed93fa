"""The client library over ssh: a real sshd, the real ssh and rsync."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from datarun_daemon.client import FoldRows, NameTaken, NoAnswer, Rejected, Spool, TransferFailed, Unreachable
from datarun_daemon.client.ssh import SshPlace, SshTransport
from datarun_daemon.core.errors import SpoolError
from datarun_daemon.core.model import BundleKind
from datarun_daemon.spool import layout
from tests.bundles import FOREST, iris_bundle
from tests.conftest import StartDaemon
from tests.daemon_process import PATIENCE_SECONDS, wait_for
from tests.scripted_daemon import ScriptedDaemon
from tests.sshd import Sshd, program, running_sshd

RECEIPT = Path("receipts/folds/a.yaml")
#: what a path may hold, and a shell would take for something else
ODD = "sp ool's $HOME; echo \"é\" *"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    program("rsync")
    with running_sshd(tmp_path_factory.mktemp("ssh") / "sshd") as sshd:
        yield sshd


@pytest.fixture
def there(tmp_path: Path) -> layout.Spool:
    return layout.Spool.create(tmp_path / ODD / "spool")


@pytest.fixture
def transport(sshd: Sshd, there: layout.Spool) -> Iterator[SshTransport]:
    transport = SshTransport(SshPlace.parse(url_of(sshd, there)), sshd.options)
    yield transport
    transport.close()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "manifest.yaml").write_text("submission: {id: 1}\n")
    (tmp_path / "elsewhere.csv").write_bytes(b"\x00\xff" * 1000)
    (tmp_path / "elsewhere.csv").chmod(0o600)
    (folder / "linked.csv").symlink_to(tmp_path / "elsewhere.csv")
    (folder / "below").mkdir()
    (folder / "below" / "file").touch()
    return folder


def url_of(sshd: Sshd, there: layout.Spool) -> str:
    return sshd.url(quote(str(there.root)))


def in_folds(there: layout.Spool) -> list[str]:
    return [path.name for path in there.incoming_of(BundleKind.FOLDS).iterdir() if path.name != layout.README]


def test_from_a_csv_to_arrays_of_predictions_over_ssh(sshd: Sshd, make_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = make_daemon().start()
    data_file = iris_bundle(tmp_path / "iris") / "iris.csv"
    (tmp_path / "classifier.py").write_text(FOREST)
    split = {"held_out_test": 0.5}
    with Spool(url_of(sshd, daemon.spool), ssh_options=sshd.options) as spool:
        logins = sshd.logins
        spool.add_dataset(
            "iris", target_column="species", workflow_elements="classifier", data_file=data_file, split=split
        )
        spool.submit_folds(
            "team_a", [FoldRows(1, np.arange(60), [70])], dataset="iris", files=[tmp_path / "classifier.py"]
        )
        spool.submit_folds("team_a", cv={"class": "KFold", "n_splits": 2, "shuffle": True, "random_state": 0})
        with pytest.raises(Rejected, match="dataset iris was rejected"):
            spool.add_dataset("iris", target_column="species", workflow_elements="classifier", data_file=data_file)
        states = spool.wait(timeout_seconds=PATIENCE_SECONDS)
        found = spool.predictions([1])
        new = spool.new_predictions()

        assert {1: "TESTED", "team_a-0": "TESTED", "team_a-1": "TESTED"} == states
        assert {1} == found.keys()
        assert found[1].test is not None
        assert (75, 3) == found[1].test.shape
        assert {"team_a-0", "team_a-1"} == new.keys()
        assert [] == [path for path in (daemon.spool.outbox / "requests").iterdir() if path.is_dir()]
        # each look is cheap, for there is one connection
        assert logins == sshd.logins


def test_a_bundle_arrives_whole_and_readable_whatever_the_path_is_called(
    transport: SshTransport, there: layout.Spool, bundle: Path
) -> None:
    there.incoming_of(BundleKind.FOLDS).chmod(0o2775)

    transport.send(bundle, BundleKind.FOLDS, ODD)

    target = there.incoming_of(BundleKind.FOLDS) / ODD
    assert [ODD] == in_folds(there)
    assert b"\x00\xff" * 1000 == (target / "linked.csv").read_bytes()
    assert not (target / "linked.csv").is_symlink()
    arrived = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o777 for path in target.rglob("*")}
    assert {"manifest.yaml": 0o644, "linked.csv": 0o644, "below": 0o775, "file": 0o644} == arrived
    assert 0o775 == stat.S_IMODE(target.stat().st_mode) & 0o777


def test_a_file_arrives_as_a_file(transport: SshTransport, there: layout.Spool, bundle: Path) -> None:
    transport.send(bundle / "manifest.yaml", BundleKind.FOLDS, "a.yaml")

    assert "submission: {id: 1}\n" == (there.incoming_of(BundleKind.FOLDS) / "a.yaml").read_text()


@pytest.mark.parametrize("other", ["file", "folder", "full folder", "dangling link"])
def test_a_name_that_is_taken_is_not_sent_over(
    transport: SshTransport, there: layout.Spool, bundle: Path, other: str
) -> None:
    target = there.incoming_of(BundleKind.FOLDS) / "a"
    match other:
        case "file":
            target.write_text("other")
        case "dangling link":
            target.symlink_to("nowhere")
        case _:
            target.mkdir()
    if other == "full folder":
        (target / "file").touch()
    before = sorted(target.parent.rglob("*"))

    with pytest.raises(NameTaken, match="/incoming/folds/a is there already"):
        transport.send(bundle, BundleKind.FOLDS, "a")

    assert before == sorted(target.parent.rglob("*"))


def test_nothing_is_left_of_a_bundle_that_could_not_be_sent(
    transport: SshTransport, there: layout.Spool, bundle: Path
) -> None:
    (bundle / "dangling.csv").symlink_to("nowhere")

    with pytest.raises(TransferFailed, match=r"rsync says: .*dangling\.csv"):
        transport.send(bundle, BundleKind.FOLDS, "a")

    assert [] == in_folds(there)


def test_nothing_is_left_of_a_bundle_that_was_interrupted(sshd: Sshd, there: layout.Spool, bundle: Path) -> None:
    # slow enough to be met on its way
    with (bundle / "large.bin").open("wb") as file:
        file.truncate(2 << 30)
    sending = (
        "import sys\nfrom pathlib import Path\nfrom datarun_daemon.client.ssh import *\n"
        "SshTransport(SshPlace.parse(sys.argv[1]), sys.argv[3:]).send(Path(sys.argv[2]), BundleKind.FOLDS, 'a')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", sending, url_of(sshd, there), str(bundle), *sshd.options],
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: in_folds(there), "the transfer to begin")

    # as a terminal does it: to the client, and to the ssh and rsync it runs
    os.killpg(process.pid, 2)
    _, words = process.communicate(timeout=PATIENCE_SECONDS)

    assert "KeyboardInterrupt" in words.decode()
    assert [] == in_folds(there)


def test_a_file_is_read_again_only_when_it_was_written_anew(transport: SshTransport, there: layout.Spool) -> None:
    assert transport.read(RECEIPT) is None
    (there.root / RECEIPT).write_bytes(b"one\n\x00two")

    found = transport.read(RECEIPT)

    assert found is not None
    assert b"one\n\x00two" == found.data
    assert transport.read(RECEIPT, unless=found.version) is None
    (there.root / RECEIPT).write_bytes(b"one\n\x00six")
    again = transport.read(RECEIPT, unless=found.version)
    assert again is not None
    assert b"one\n\x00six" == again.data


def test_a_folder_is_fetched_and_removed(transport: SshTransport, there: layout.Spool) -> None:
    folder = there.outbox / ODD / "11"
    folder.mkdir(parents=True)
    (folder / "log.txt").write_bytes(b"\xff" * 100_000)
    (folder / "link").symlink_to("/etc/passwd")

    with transport.fetch(Path("outbox", ODD)) as fetched:
        assert ["11", "11/log.txt"] == sorted(str(path.relative_to(fetched)) for path in fetched.rglob("*"))
        assert b"\xff" * 100_000 == (fetched / "11" / "log.txt").read_bytes()
    transport.remove(Path("outbox", ODD))

    assert not fetched.exists()
    assert not folder.parent.exists()
    assert there.outbox.is_dir()


def test_the_connection_ends_with_the_client(sshd: Sshd, there: layout.Spool) -> None:
    def ended() -> int:
        return (sshd.folder / "log").read_text(errors="replace").count("Received disconnect")

    before = ended()
    spool = Spool(url_of(sshd, there), ssh_options=sshd.options)
    assert before == ended()

    spool.close()

    wait_for(lambda: ended() == before + 1, "the connection to end")


def test_a_path_below_the_home_folder(sshd: Sshd, tmp_path: Path) -> None:
    relative = os.path.relpath(layout.Spool.create(tmp_path / "spool").root, Path.home())

    with Spool(sshd.url(f"/~/{relative}"), ssh_options=sshd.options) as spool, pytest.raises(NoAnswer):
        spool.cancel([1], wait_seconds=0.0)

    assert list((tmp_path / "spool" / "incoming" / "requests").glob("client-*.yaml"))


def test_a_scripted_answer_comes_over_ssh(sshd: Sshd, there: layout.Spool) -> None:
    with ScriptedDaemon(there) as daemon, Spool(url_of(sshd, there), ssh_options=sshd.options) as spool:
        receipt = spool.submit_folds(7, [FoldRows(1, range(2000), [2000])])
        daemon.show({1: "CANCELLED"})

        assert (1,) == receipt.folds
        assert {1: "CANCELLED"} == spool.wait(timeout_seconds=PATIENCE_SECONDS)


def test_a_folder_that_is_no_spool_is_told(sshd: Sshd, there: layout.Spool, tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match=r"ssh://.* is not a spool: .*datarun-spool.*datarun init"):
        Spool(sshd.url(tmp_path), ssh_options=sshd.options)
    with pytest.raises(SpoolError, match=r"is not a spool: .*nothing"):
        Spool(sshd.url(tmp_path / "nothing"), ssh_options=sshd.options)
    there.incoming_of(BundleKind.FOLDS).rename(tmp_path / "away")
    with pytest.raises(SpoolError, match="incoming/folds is missing"):
        Spool(url_of(sshd, there), ssh_options=sshd.options)
    there.marker.write_text("datarun spool, format 99\n")
    (tmp_path / "away").rename(there.incoming_of(BundleKind.FOLDS))
    with pytest.raises(SpoolError, match="format 99"):
        Spool(url_of(sshd, there), ssh_options=sshd.options)


def test_a_key_that_is_not_wanted_is_told_in_the_words_of_ssh(sshd: Sshd, there: layout.Spool, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    options = [str(key) if each == str(sshd.key) else each for each in sshd.options]

    with pytest.raises(Unreachable, match=r"ssh says: (.|\n)*Permission denied(.|\n)*ssh-copy-id(.|\n)*try: ssh"):
        Spool(url_of(sshd, there), ssh_options=options)


def test_a_machine_that_is_not_known_is_not_trusted(sshd: Sshd, there: layout.Spool) -> None:
    options = [each.replace("known_hosts", "none") for each in sshd.options]

    with pytest.raises(Unreachable, match=r"Host key verification failed(.|\n)*connect once by hand"):
        Spool(url_of(sshd, there), ssh_options=options)


def test_a_port_where_nobody_listens(there: layout.Spool) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"ssh://127.0.0.1:{probe.getsockname()[1]}/spool"

        with pytest.raises(Unreachable, match=r"Connection refused(.|\n)*does sshd run there"):
            Spool(url, ssh_options=["-F", "none"])


def test_a_connection_that_breaks_is_made_again_or_told(tmp_path: Path, there: layout.Spool) -> None:
    with running_sshd(tmp_path / "sshd") as sshd:
        transport = SshTransport(SshPlace.parse(url_of(sshd, there)), sshd.options)
        subprocess.run([*transport._ssh, "-O", "exit", "--", "127.0.0.1"], check=True, capture_output=True)
        assert transport.read(RECEIPT) is None
        subprocess.run([*transport._ssh, "-O", "exit", "--", "127.0.0.1"], check=True, capture_output=True)

    with pytest.raises(Unreachable, match="Connection refused"):
        transport.read(RECEIPT)
    transport.close()


def test_a_machine_without_rsync_is_told(tmp_path: Path, there: layout.Spool, bundle: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "bash", "cat", "stat", "rm", "mv", "chmod"):
        (programs / name).symlink_to(program(name))
    with running_sshd(tmp_path / "sshd", path=str(programs)) as sshd:
        transport = SshTransport(SshPlace.parse(url_of(sshd, there)), sshd.options)

        with pytest.raises(TransferFailed, match="rsync is not installed there"):
            transport.send(bundle, BundleKind.FOLDS, "a")

        transport.close()


def test_this_machine_without_rsync_is_told(
    transport: SshTransport, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ssh").symlink_to(program("ssh"))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(Unreachable, match="rsync is not installed on this machine"):
        transport.send(bundle, BundleKind.FOLDS, "a")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("ssh://lab/srv/spool", SshPlace("lab", None, None, "/srv/spool")),
        ("ssh://al.ice@Lab.Example:2222/srv/a%20b", SshPlace("Lab.Example", "al.ice", 2222, "/srv/a b")),
        ("ssh://alice@lab/~/spool", SshPlace("lab", "alice", None, "spool")),
        ("ssh://[::1]:22/srv", SshPlace("::1", None, 22, "/srv")),
    ],
)
def test_urls_name_places(url: str, place: SshPlace) -> None:
    assert place == SshPlace.parse(url)
    assert place == SshPlace.parse(place.url.replace(" ", "%20"))


@pytest.mark.parametrize(
    "url",
    [
        "ssh://lab", "ssh://lab/", "ssh:///srv", "ssh://-oProxyCommand=x/srv", "ssh://-l@lab/srv", "ssh://lab:x/srv",
        "ssh://alice:secret@lab/srv", "ssh://lab/srv?a=b", "ssh://lab/srv#a", "ssh://lab/a%0Ab",
    ],
)  # fmt: skip
def test_urls_that_name_none(url: str) -> None:
    with pytest.raises(SpoolError) as caught:
        SshPlace.parse(url)

    assert "secret" not in str(caught.value)
