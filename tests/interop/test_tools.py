"""``hilum echo``, ``hilum store`` and ``hilum scp`` beside DCMTK, pynetdicom and Orthanc."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests import peers, samples

from hilum.errors import InvalidDicom
from hilum.services.convert import CONVERTIBLE
from hilum.services.part10 import FileHead, file_name, parse_head
from hilum.services.sop_classes import is_storage
from hilum.services.transfer_syntaxes import ALL_TRANSFER_SYNTAXES

pytestmark = pytest.mark.interop

HILUM = [sys.executable, "-m", "hilum"]
HOST = peers.HOST


# ── files ───────────────────────────────────────────────────────────────────────────────────


def head_of(path: Path) -> FileHead | None:
    try:
        return parse_head(path.read_bytes(), final=True)
    except InvalidDicom:
        return None


def data_set_of(path: Path) -> bytes:
    raw = path.read_bytes()
    head = parse_head(raw, final=True)
    assert head is not None
    return raw[head.data_set_offset :]


@pytest.fixture(scope="module")
def readable() -> dict[str, Path]:
    """One real file for each SOP Instance UID, of the classes that a storage provider takes."""
    found: dict[str, Path] = {}
    for path in samples.paths():
        head = head_of(path)
        if head is not None and is_storage(head.sop_class_uid) and data_set_of(path):
            found.setdefault(head.sop_instance_uid, path)
    assert len(found) > 100
    return found


def syntaxes(paths: Iterator[Path]) -> set[str]:
    return {head.transfer_syntax_uid for path in paths if (head := head_of(path)) is not None}


def even(data: bytes) -> bytes:
    """As it travels: a data set of odd length is padded (PS3.8 annex F)."""
    return data + b"\0" * (len(data) % 2)


# ── ours ────────────────────────────────────────────────────────────────────────────────────


def hilum(*words: object, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HILUM, *map(str, words)], capture_output=True, text=True, timeout=seconds
    )


def store(server: peers.Server, *words: object) -> tuple[dict[str, Any], int]:
    done = hilum("store", f"{server.ae_title}@{server.host}:{server.port}", "--json", *words)
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done.returncode


@contextmanager
def scp(folder: Path, *options: str) -> Iterator[peers.Server]:
    """``hilum scp store``, stopped by SIGTERM, which must end it well."""
    folder.mkdir(exist_ok=True)
    command = [*HILUM, "scp", "store", "--host", HOST, "--port", "0", "--out", str(folder)]
    log = folder.with_suffix(".log")
    with log.open("wb") as errors:
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=errors)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        assert line.startswith(f"listening on {HOST}:"), line + log.read_text()
        port = int(line.rpartition(":")[2])
        yield peers.Server("hilum", "HILUM", port, process, folder, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.communicate()


def received(folder: Path) -> dict[str, Path]:
    """Files of a receiver by the SOP Instance UID in their file meta."""
    heads = ((head_of(path), path) for path in folder.iterdir())
    return {head.sop_instance_uid: path for head, path in heads if head is not None}


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[peers.Server]:
    with scp(tmp_path / "received") as server:
        yield server


@pytest.fixture(params=["storescp", "pynetdicom_storescp", "orthanc", "receiver"])
def any_server(request: pytest.FixtureRequest) -> peers.Server:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


# ── hilum echo ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("habit", ["one word", "two words"])
def test_echo(any_server: peers.Server, habit: str) -> None:
    peer = [f"{any_server.ae_title}@{HOST}:{any_server.port}"]
    if habit == "two words":
        peer = [HOST, str(any_server.port), "-aec", any_server.ae_title, "-aet", "ME"]
    done = hilum("echo", *peer, "--repeat", 3)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"0000H success, \d+\.\d ms", done.stdout)) == 3


def test_echo_of_nobody(unused_tcp_port: int) -> None:
    done = hilum("echo", HOST, unused_tcp_port, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"].startswith(f"no connection to {HOST}")


def test_echo_rejected(tmp_path: Path) -> None:
    with scp(tmp_path / "out", "-aet", "US", "--require-called") as server:
        assert hilum("echo", f"US@{HOST}:{server.port}").returncode == 0
        done = hilum("echo", f"THEM@{HOST}:{server.port}")
    assert done.returncode == 1
    assert "called AE title not recognised" in done.stderr


# ── hilum store ─────────────────────────────────────────────────────────────────────────────


def test_store_everything_into_storescp(storescp: peers.Server, readable: dict[str, Path]) -> None:
    document, code = store(storescp, *readable.values())
    assert (code, document["summary"]["sent"]) == (0, len(readable)), document["summary"]
    assert len(syntaxes(iter(readable.values()))) >= 8
    kept = {head_of(path).sop_instance_uid: path for path in storescp.directory.iterdir()}  # type: ignore[union-attr]
    assert set(kept) == set(readable)
    for uid, path in readable.items():
        assert data_set_of(kept[uid]) == even(data_set_of(path)), path.name


def test_store_everything_into_pynetdicom(
    pynetdicom_storescp: peers.Server, readable: dict[str, Path]
) -> None:
    document, _ = store(pynetdicom_storescp, *readable.values())
    # It decodes what it gets, so that some broken data sets are refused with a status; and it
    # does not know every class and syntax. Each has its result, most arrived.
    assert len(document["files"]) == len(readable)
    outcomes = {file["outcome"] for file in document["files"]}
    assert outcomes <= {"sent", "warning", "failed"}
    arrived = [file for file in document["files"] if file["outcome"] == "sent"]
    assert len(arrived) > 0.8 * len(readable)
    for file in document["files"]:
        if file["outcome"] == "failed":
            assert file["status"] or "no presentation context" in file["reason"], file


def test_store_everything_into_orthanc(orthanc: peers.Server, readable: dict[str, Path]) -> None:
    # It waits half a minute for the rest of a data set that is cut inside an element.
    cut = {"MR_truncated.dcm", "rtplan_truncated.dcm", "SC_rgb_jpeg.dcm"}
    cut |= {"mri_small_jpeg_2k_lossless_too_short.dcm"}
    files = [path for path in readable.values() if path.name not in cut]
    document, _ = store(orthanc, *files)
    assert len(document["files"]) == len(files)
    arrived = {f["sop_instance_uid"] for f in document["files"] if f["outcome"] == "sent"}
    assert len(arrived) > 0.8 * len(files)
    assert len(orthanc.rest("/instances")) == len(arrived)


@pytest.mark.parametrize("nodelay", [False, True], ids=["as shipped", "TCP_NODELAY"])
@pytest.mark.parametrize("pdu", [4096, 16384, 131072])
def test_the_peers_maximum_length_is_kept(
    dcmtk: None, tmp_path: Path, readable: dict[str, Path], pdu: int, nodelay: bool
) -> None:
    # storescp ends an association in which a PDU is longer than it said.
    files = sorted(readable.values())[::4]
    with peers.storescp(tmp_path / "out", "+B", "+xa", "-pdu", str(pdu), nodelay=nodelay) as server:
        document, code = store(server, *files)
    assert (code, document["summary"]["associations"]) == (0, 1), document["summary"]


def test_what_a_peer_does_not_accept_fails_alone(
    dcmtk: None, tmp_path: Path, readable: dict[str, Path]
) -> None:
    with peers.storescp(tmp_path / "out", "+B", "+xi") as server:  # Implicit VR Little Endian only
        document, code = store(server, *readable.values())
    assert code == 1
    for file in document["files"]:
        convertible = file["transfer_syntax_uid"] in CONVERTIBLE
        assert file["outcome"] == ("sent" if convertible else "failed")
        if not convertible:
            assert file["transfer_syntax_uid"] in file["reason"]
    assert document["summary"]["associations"] == 1


def test_a_peer_that_drops_the_association(
    dcmtk: None, tmp_path: Path, readable: dict[str, Path]
) -> None:
    files = sorted(readable.values())[:6]
    with peers.storescp(tmp_path / "out", "+B", "+xa", "--abort-after") as server:
        document, code = store(server, *files, "--retries", "0")
    assert code == 1
    assert len(document["files"]) == 6
    assert document["summary"]["unknown"] >= 1


def test_several_associations_into_storescp(
    dcmtk: None, tmp_path: Path, readable: dict[str, Path]
) -> None:
    with peers.storescp(tmp_path / "out", "+B", "+xa", "--fork") as server:
        document, code = store(server, "--parallel", 3, *readable.values())
        assert (code, document["summary"]["sent"]) == (0, len(readable)), document["summary"]
        assert len(received(server.directory)) == len(readable)


def test_folders_archives_and_what_lies_beside(
    receiver: peers.Server, tmp_path: Path, readable: dict[str, Path]
) -> None:
    import zipfile

    paths = sorted(readable.values())
    folder = tmp_path / "study"
    (folder / "below").mkdir(parents=True)
    for number, path in enumerate(paths[:20]):
        (folder / "below" / f"{number}").write_bytes(path.read_bytes())
    (folder / "README").write_text("no image")
    with zipfile.ZipFile(folder / "more.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, path in enumerate(paths[20:40]):
            archive.write(path, f"../{number}")
    document, code = store(receiver, folder)
    assert code == 0, document["summary"]
    assert document["summary"]["sent"] == 40
    assert [Path(item["file"]).name for item in document["skipped"]] == ["README"]
    kept = received(receiver.directory)
    for path in paths[:40]:
        head = head_of(path)
        assert head is not None
        assert data_set_of(kept[head.sop_instance_uid]) == even(data_set_of(path)), path.name


def test_the_summary_line(receiver: peers.Server, readable: dict[str, Path]) -> None:
    files = sorted(readable.values())[:5]
    done = hilum("store", HOST, receiver.port, *files)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"5 sent, 0 warnings, 0 failed; \d+\.\d MB in \d+\.\d s, \d+\.\d MB/s\n", done.stdout
    )
    assert done.stderr == ""


# ── hilum scp ───────────────────────────────────────────────────────────────────────────────


def same_as_sent(folder: Path, sent: dict[str, Path]) -> None:
    kept = received(folder)
    assert set(kept) == set(sent)
    for uid, path in sent.items():
        assert kept[uid].name == file_name(uid)
        assert data_set_of(kept[uid]) == even(data_set_of(path)), path.name


def test_echoes_of_others(dcmtk: None, pynetdicom_apps: None, receiver: peers.Server) -> None:
    assert peers.echoscu("ANY", receiver.port, "--repeat", "3").returncode == 0
    assert peers.pynetdicom_echoscu("ANY", receiver.port).returncode == 0


def test_scp_echo_serves_no_storage(dcmtk: None, readable: dict[str, Path]) -> None:
    process = subprocess.Popen(
        [*HILUM, "scp", "echo", "--host", HOST, "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        assert peers.echoscu("ANY", port).returncode == 0
        assert peers.storescu("ANY", port, sorted(readable.values())[:1]).returncode != 0
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def native(readable: dict[str, Path]) -> dict[str, Path]:
    """Files that DCMTK and pynetdicom can read and send without converting anything."""
    native_syntaxes = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
    chosen = {}
    for uid, path in readable.items():
        raw, head = path.read_bytes(), head_of(path)
        assert head is not None
        if raw[128:132] == b"DICM" and head.transfer_syntax_uid in native_syntaxes:
            chosen[uid] = path
    return chosen


@pytest.mark.parametrize("pdu", [4096, 16384, 131072])
def test_dcmsend(dcmtk: None, receiver: peers.Server, readable: dict[str, Path], pdu: int) -> None:
    """Bit for bit is not its way: it re-encodes. Everything that it says was stored is here."""
    # It reads Part 10 files only, and ends at the first that it cannot read.
    files = [path for path in readable.values() if path.read_bytes()[128:132] == b"DICM"]
    done = peers.dcmsend("ANY", receiver.port, files, "-v", "--no-halt", "--max-send-pdu", str(pdu))
    stored = len(re.findall(r"Received C-STORE Response \(Success\)", done.output))
    assert stored > 0.8 * len(files), done.output[-3000:]
    kept = received(receiver.directory)
    assert len(kept) == stored
    assert len(syntaxes(iter(kept.values()))) >= 6  # the uncompressed ones all become Explicit


@pytest.mark.parametrize(
    "options",
    [(), ("-xv",), ("-xi",), ("-xb",), ("--max-send-pdu", "4096"), ("--max-send-pdu", "131072")],
    ids=" ".join,
)
def test_storescu(
    dcmtk: None, receiver: peers.Server, native: dict[str, Path], options: tuple[str, ...]
) -> None:
    files = sorted(native.values())[:12]
    done = peers.storescu("ANY", receiver.port, files, *options)
    assert done.returncode == 0, done.output
    assert set(received(receiver.directory)) == {
        uid for uid, path in native.items() if path in files
    }


def test_pynetdicom_storescu(
    pynetdicom_apps: None, receiver: peers.Server, native: dict[str, Path]
) -> None:
    files = sorted(native.values())[:12]
    (folder := receiver.directory.with_name("input")).mkdir()
    for number, path in enumerate(files):
        (folder / f"{number}.dcm").write_bytes(path.read_bytes())
    done = peers.pynetdicom_storescu("ANY", receiver.port, [folder], "-r", "-cx")
    assert done.returncode == 0, done.output
    assert set(received(receiver.directory)) == {
        uid for uid, path in native.items() if path in files
    }


@pytest.mark.parametrize("pdu", [0, 4096, 4097, 16384, 131071, 131072])
def test_our_maximum_length(tmp_path: Path, readable: dict[str, Path], pdu: int) -> None:
    """Our own sender keeps any limit, our receiver any PDU that comes of it."""
    with scp(tmp_path / "out", "--max-pdu", str(pdu)) as server:
        document, code = store(server, *readable.values())
        assert code == 0, document["summary"]
        assert document["summary"]["associations"] == 1
        same_as_sent(server.directory, readable)


def test_every_transfer_syntax_is_taken(receiver: peers.Server, tmp_path: Path) -> None:
    """A data set is bytes: in each syntax, known or not, it arrives as it was sent."""
    from hilum.services.part10 import encode_head

    source = bytes(range(256)) * 100
    folder = tmp_path / "input"
    folder.mkdir()
    sent = {}
    for number, syntax in enumerate((*ALL_TRANSFER_SYNTAXES, "1.2.3.4.5.6")):
        path = folder / f"{number}"
        head = encode_head("1.2.840.10008.5.1.4.1.1.7", f"1.2.3.{number}", syntax)
        path.write_bytes(head + source)
        sent[f"1.2.3.{number}"] = path
    document, code = store(receiver, folder)
    assert code == 0, document["summary"]
    same_as_sent(receiver.directory, sent)


def test_no_output(tmp_path: Path, readable: dict[str, Path]) -> None:
    with scp(tmp_path / "out") as server:
        pass
    process = subprocess.Popen(
        [*HILUM, "scp", "store", "--host", HOST, "--port", "0", "--no-output"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=server.directory,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        done = hilum("store", f"{HOST}:{port}", *readable.values())
        assert done.returncode == 0, done.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stdout.read().startswith(f"received {len(readable)}, ")
    finally:
        process.kill()
        process.communicate()
    assert list(server.directory.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_progress_bar_on_a_terminal(receiver: peers.Server, readable: dict[str, Path]) -> None:
    import os
    import pty

    controller, terminal = pty.openpty()
    files = map(str, readable.values())
    command = [*HILUM, "store", f"{HOST}:{receiver.port}", *files]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=terminal, env=os.environ | {"TERM": "xterm"}
    )
    os.close(terminal)
    drawn = b""
    with pytest.raises(OSError):  # the end of a pseudo-terminal
        while True:
            drawn += os.read(controller, 65536)
    os.close(controller)
    summary = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 0
    assert f"{len(readable)} sent" in summary
    assert "MB/s" in drawn.decode(errors="replace")
    assert "\x1b" not in summary
