"""A running gateway beside real senders: what was on the wire is what is kept, and listed.

The tap reassembles P-DATA on its own; every data set that was answered 0000H is looked up in the
archive and compared byte for byte.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pydicom
import pytest
from tests import peers, samples
from tests.e2e.gateway import Gateway, hilum, prepare
from tests.tap import Conversation, Fault, Message, Tap

from hilum.gateway.store.blobs import BlobStore
from hilum.gateway.store.database import open_database
from hilum.gateway.store.pixels import PixelDigests
from hilum.gateway.store.queries import versions
from hilum.gateway.store.results import Viewer
from hilum.gateway.store.states import InstanceFlag
from hilum.services.content import same_content

pytestmark = pytest.mark.interop

AFFECTED_SOP_INSTANCE_UID = 0x00001000
STATUS = 0x00000900
C_STORE_RSP = 0x8001
SOP_CLASS_NOT_SUPPORTED = 0x0122
COMMAND_FIELD = 0x00000100
NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway with the users alice and bob."""
    prepare(tmp_path / "data")
    with Gateway(tmp_path / "data") as running:
        yield running


# ── the samples ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Good:
    """A file that an archive has to keep: it names itself, and file meta and data set agree."""

    path: Path
    study: str
    transfer_syntax: str


@cache
def good() -> tuple[Good, ...]:
    found = []
    for path in samples.paths():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                data_set = pydicom.dcmread(path, stop_before_pixels=True)
            except pydicom.errors.InvalidDicomError:
                continue
            meta = data_set.file_meta
            named = (data_set.get(k) for k in ("StudyInstanceUID", "SeriesInstanceUID"))
            agrees = all(
                data_set.get(keyword)
                and meta.get("MediaStorage" + keyword) == data_set[keyword].value
                for keyword in ("SOPClassUID", "SOPInstanceUID")
            )
            if all(named) and agrees and "TransferSyntaxUID" in meta:
                found.append(Good(path, data_set.StudyInstanceUID, meta.TransferSyntaxUID))
    return tuple(found)


def test_there_are_samples() -> None:
    assert len(good()) > 100
    syntaxes = {each.transfer_syntax for each in good()}
    assert syntaxes > NATIVE | {"1.2.840.10008.1.2.1.99"}


# ── the check ─────────────────────────────────────────────────────────────────────────────────


def answers(conversations: Sequence[Conversation]) -> dict[int, int]:
    """How often each status was the answer to a C-STORE."""
    found: dict[int, int] = {}
    for conversation in conversations:
        for response in conversation.responses():
            if response.number(COMMAND_FIELD) == C_STORE_RSP:
                status = response.number(STATUS)
                assert status is not None
                found[status] = found.get(status, 0) + 1
    return found


def check_kept(data: Path, stored: Sequence[Message]) -> int:
    """Everything that was answered with success is there as it came.

    Returns:
        How many were there already in another encoding.
    """
    database, blobs = open_database(data / "hilum.db", role="command"), BlobStore.open(data)
    pixels = PixelDigests()
    elsewise = 0
    try:
        for message in stored:
            found = versions(database, Viewer(all=True), message.uid(AFFECTED_SOP_INSTANCE_UID))
            kept = []
            for version in found:
                file, meta = blobs.open_read(version.path)
                with file:
                    kept.append((file.read(), meta.transfer_syntax_uid))
            assert message.data_set is not None
            if (message.data_set, message.transfer_syntax) not in kept:
                assert any(
                    same_content(
                        content,
                        syntax,
                        message.data_set,
                        message.transfer_syntax,
                        decode=pixels.of,
                    )
                    for content, syntax in kept
                ), f"{message.uid(AFFECTED_SOP_INSTANCE_UID)} is not what was sent"
                elsewise += 1
        return elsewise
    finally:
        pixels.close()
        blobs.close()
        database.close()


def studies_of(stored: Sequence[Message]) -> set[str]:
    """The studies on the wire, read by another library."""
    found = set()
    for message in stored:
        file = pydicom.filebase.DicomBytesIO(message.data_set or b"")
        syntax = pydicom.uid.UID(message.transfer_syntax)
        if syntax.is_deflated:
            import zlib

            file = pydicom.filebase.DicomBytesIO(zlib.decompress(message.data_set or b"", -15))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data_set = pydicom.filereader.read_dataset(
                file, syntax.is_implicit_VR, syntax.is_little_endian, stop_when=_past_study
            )
        found.add(str(data_set.StudyInstanceUID))
    return found


def _past_study(tag: Any, _: Any, __: Any) -> bool:
    return bool(tag > 0x0020000D)


def stored_of(conversations: Sequence[Conversation]) -> list[Message]:
    return [message for conversation in conversations for message in conversation.stored()]


def listed(data: Path, level: str = "study", *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = hilum("ls", "--data", data, "--level", level, *words)
    return found


def check_with_dcmtk(data: Path) -> None:
    """Every stored file is one that others read, header and data set."""
    files = [str(path) for path in (data / "objects").rglob("*.dcm")]
    assert files
    peers.run([peers.native("dcmftest"), *files]).check()
    dump = peers.run([peers.native("dcmdump"), "-q", "+L", "+fo", *files[:40]])
    assert "W: DcmFileFormat" not in dump.output


# ── the senders ───────────────────────────────────────────────────────────────────────────────


def hilum_store(called: str, port: int, files: Sequence[Path], *options: str) -> peers.Finished:
    target = f"{called}@127.0.0.1:{port}"
    return peers.run([sys.executable, "-m", "hilum", "store", target, *map(str, files), *options])


def push(
    gateway: Gateway,
    send: Callable[..., peers.Finished],
    files: Sequence[Path],
    *options: str,
    fault: Fault | None = None,
) -> tuple[peers.Finished, list[Conversation]]:
    """Send files through the tap; what was said."""
    with Tap(gateway.port, fault=fault) as tap:
        done = send("RAIVEN", tap.port, files, *options)
        return done, tap.wait_ended(len(tap.conversations))


def test_hilum_store_pushes_every_readable_file(gateway: Gateway) -> None:
    files = [each.path for each in good()]
    done, conversations = push(gateway, hilum_store, files)
    done.check()
    assert answers(conversations) == {0: len(files)}
    stored = stored_of(conversations)
    assert len(stored) == len(files)
    check_kept(gateway.data, stored)
    assert {row["study_uid"] for row in listed(gateway.data)} == {each.study for each in good()}
    assert studies_of(stored) == {each.study for each in good()}
    assert hilum("verify", "--data", gateway.data)["findings"] == []


def test_what_cannot_be_kept_is_refused_and_nothing_of_it_is_visible(gateway: Gateway) -> None:
    accepted = {each.path for each in good()}
    files = [path for path in samples.paths() if path not in accepted]
    _, conversations = push(gateway, hilum_store, files)
    counted = answers(conversations)
    assert counted.keys() <= {0, 0xA900}
    assert counted[0xA900] > 5
    stored = stored_of(conversations)
    check_kept(gateway.data, stored)
    kept = {row["sop_uid"] for row in listed(gateway.data, "instance")}
    assert kept == {message.uid(AFFECTED_SOP_INSTANCE_UID) for message in stored}


def test_dcmtk_dcmsend(gateway: Gateway, dcmtk: None) -> None:
    files = [each.path for each in good()]
    # What DCMTK itself cannot read it leaves out.
    done, conversations = push(gateway, peers.dcmsend, files, "--no-halt", "--no-illegal-proposal")
    counted = answers(conversations)
    # It sends a few in the context of another SOP class, and says so itself.
    wrong = done.output.count("abstract syntax does not match SOP class UID")
    assert counted.pop(SOP_CLASS_NOT_SUPPORTED, 0) == wrong
    assert counted.keys() == {0}, done.output[-2000:]
    stored = stored_of(conversations)
    assert len(stored) > 0.8 * len(files)
    check_kept(gateway.data, stored)
    assert {row["study_uid"] for row in listed(gateway.data)} == studies_of(stored)
    check_with_dcmtk(gateway.data)


def test_dcmtk_storescu(gateway: Gateway, dcmtk: None) -> None:
    files = [each.path for each in good() if each.transfer_syntax in NATIVE]
    done, conversations = push(gateway, peers.storescu, files, "--no-halt", "--required")
    assert answers(conversations).keys() == {0}, done.output[-2000:]
    stored = stored_of(conversations)
    assert len(stored) > 0.8 * len(files)
    check_kept(gateway.data, stored)
    assert {row["study_uid"] for row in listed(gateway.data)} == studies_of(stored)


def test_pynetdicom_storescu(gateway: Gateway, pynetdicom_apps: None) -> None:
    files = [each.path for each in good() if each.transfer_syntax in NATIVE]
    # Its client now and then loses a response that comes very fast, and waits 30 s for it.
    slow = Fault(direction="acceptor", delay=0.003)
    done, conversations = push(
        gateway, peers.pynetdicom_storescu, files, "--required-contexts", fault=slow
    )
    assert answers(conversations).keys() == {0}, done.output[-2000:]
    stored = stored_of(conversations)
    assert len(stored) > 0.8 * len(files)
    check_kept(gateway.data, stored)
    assert {row["study_uid"] for row in listed(gateway.data)} == studies_of(stored)


SPECIAL = (
    "image_dfl.dcm",  # deflated
    "CT_small.dcm",  # private elements, trailing padding
    "MR_small.dcm",
    "explicit_VR-UN.dcm",
    "JPEG2000.dcm",
)


def _special() -> list[Path]:
    found = [each.path for each in good() if each.path.name in SPECIAL]
    small = [each.path for each in good() if each.path.stat().st_size < 6000][:25]
    assert len({path.name for path in found}) >= 4
    return [*found, *small]


@pytest.mark.parametrize("send", [hilum_store, peers.dcmsend])
def test_pieces_of_seven_bytes(
    gateway: Gateway, dcmtk: None, send: Callable[..., peers.Finished]
) -> None:
    options = () if send is hilum_store else ("--no-halt", "--no-illegal-proposal")
    done, conversations = push(gateway, send, _special(), *options, fault=Fault(split=7))
    done.check()
    stored = stored_of(conversations)
    assert len(stored) >= len(_special()) - (send is not hilum_store), "DCMTK lacks JPEG 2000"
    check_kept(gateway.data, stored)
    assert {row["study_uid"] for row in listed(gateway.data)} == studies_of(stored)


# ── titles, as DCMTK calls them ───────────────────────────────────────────────────────────────


def test_titles_decide_who_sees_what(gateway: Gateway, dcmtk: None) -> None:
    everyones, hers = samples.named("CT_small.dcm").path, samples.named("MR_small.dcm").path
    peers.storescu("RAIVEN", gateway.port, [everyones]).check()
    peers.storescu("RVU-alice", gateway.port, [hers]).check()
    modalities = {
        user: {row["modalities"][0] for row in listed(gateway.data, "study", "--user", user)}
        for user in ("alice", "bob")
    }
    assert modalities == {"alice": {"CT", "MR"}, "bob": {"CT"}}
    for called in ("RAIVEN", "HILUM", "RVU-alice", "RVU-bob"):
        peers.echoscu(called, gateway.port).check()


@pytest.mark.parametrize(
    "called", ["XRAIVEN", "raiven", "RVU-unknown", "RVU-Alice", "RVP-unknown", "RVP-alice"]
)
def test_titles_that_nobody_serves_are_rejected(gateway: Gateway, dcmtk: None, called: str) -> None:
    with Tap(gateway.port) as tap:
        file = samples.named("CT_small.dcm").path
        assert peers.storescu(called, tap.port, [file]).returncode
        assert peers.echoscu(called, tap.port).returncode
        for conversation in tap.wait_ended(2):
            # A-ASSOCIATE-RJ: permanent, by the service user, called AE title not recognised.
            assert bytes(conversation.acceptor) == b"\3\0\0\0\0\4\0\1\1\7"
    assert listed(gateway.data, "instance") == []
    assert [p for p in (gateway.data / "objects").rglob("*") if p.is_file()] == []
    assert called in gateway.log


def test_print_is_no_storage(gateway: Gateway, pynetdicom_apps: None) -> None:
    """pynetdicom proposes; print, MPPS and worklist contexts are refused, storage is accepted."""
    from pynetdicom import AE

    storage, private = "1.2.840.10008.5.1.4.1.1.2", "1.3.12.2.1107.5.9.1"
    refused = {
        "1.2.840.10008.5.1.1.9": "Basic Grayscale Print Management Meta",
        "1.2.840.10008.5.1.1.1": "Basic Film Session",
        "1.2.840.10008.3.1.2.3.3": "Modality Performed Procedure Step",
        "1.2.840.10008.5.1.4.31": "Modality Worklist",
    }
    ae = AE(ae_title="PRINTER")
    for abstract in (storage, private, *refused):
        ae.add_requested_context(abstract)
    association = ae.associate("127.0.0.1", gateway.port, ae_title="RAIVEN")
    try:
        assert association.is_established
        assert {str(c.abstract_syntax) for c in association.accepted_contexts} == {storage, private}
        assert {str(c.abstract_syntax) for c in association.rejected_contexts} == set(refused)
        chosen = {str(c.transfer_syntax[0]) for c in association.accepted_contexts}
        assert chosen == {"1.2.840.10008.1.2.1"}, "Explicit VR Little Endian of several"
    finally:
        association.release()


# ── commands beside it ────────────────────────────────────────────────────────────────────────


def command(gateway: Gateway, *words: str, code: int = 0) -> str:
    line = [sys.executable, "-m", "hilum", *words, "--data", str(gateway.data)]
    done = peers.run(line)
    assert done.returncode == code, done.output
    return done.output


def test_changes_are_live_when_the_command_is_over(gateway: Gateway, dcmtk: None) -> None:
    def echo(called: str, port: int = gateway.port) -> bool:
        return peers.echoscu(called, port).returncode == 0

    assert not echo("RVU-carol")
    command(gateway, "user", "add", "carol")
    assert echo("RVU-carol")
    command(gateway, "user", "disable", "carol")
    assert not echo("RVU-carol")
    command(gateway, "ae", "add", "TRIAL")
    assert echo("TRIAL")
    command(gateway, "ae", "rm", "TRIAL")
    assert not echo("TRIAL")
    port = peers.free_port()
    assert not echo("RAIVEN", port)
    command(gateway, "listener", "add", "dose", f"127.0.0.1:{port}", "--any-title", "RAIVEN")
    assert echo("WHATEVER", port)
    assert not echo("WHATEVER")
    command(gateway, "listener", "rm", "dose")
    assert not echo("WHATEVER", port)
    command(gateway, "peer", "add", "nobody", "STORESCU@127.0.0.1", "--service", "query")
    file = samples.named("CT_small.dcm").path
    assert peers.storescu("RAIVEN", gateway.port, [file]).returncode
    peers.echoscu("RAIVEN", gateway.port, "-aet", "STORESCU").check()
    assert listed(gateway.data, "instance") == []
    command(gateway, "peer", "add", "itself", f"RAIVEN@127.0.0.1:{gateway.port}")
    assert "answers in" in command(gateway, "peer", "echo", "itself")
    command(gateway, "peer", "rm", "nobody")
    peers.storescu("RAIVEN", gateway.port, [file]).check()
    assert len(listed(gateway.data, "instance")) == 1


def test_commands_beside_a_running_gateway(gateway: Gateway, dcmtk: None, tmp_path: Path) -> None:
    files = [samples.named(name).path for name in ("CT_small.dcm", "MR_small.dcm")]
    peers.storescu("RAIVEN", gateway.port, files).check()
    assert "2 instances" in command(gateway, "verify")
    assert "is locked by" in command(gateway, "reindex", "--yes", code=1)
    study = next(row["study_uid"] for row in listed(gateway.data) if row["modalities"] == ["MR"])
    command(gateway, "export", "--study", study, "-o", str(tmp_path / "out"))
    (copy,) = (tmp_path / "out").rglob("*.dcm")
    peers.run([peers.native("dcmftest"), str(copy)]).check()
    (path,) = (row["path"] for row in listed(gateway.data, "instance", "--study", study))
    command(gateway, "rm", "--study", study, "--yes")
    assert [row["modalities"] for row in listed(gateway.data)] == [["CT"]]
    _until(lambda: not (gateway.data / path).exists(), "the janitor has not come")
    assert "0 problems" in command(gateway, "verify")
    # What was removed may come again.
    peers.storescu("RAIVEN", gateway.port, files).check()
    assert len(listed(gateway.data)) == 2


def _until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_a_refused_caller_is_told_how_to_get_in(tmp_path: Path, dcmtk: None) -> None:
    prepare(tmp_path / "data")
    settings = {"HILUM_ACCESS_ALLOW_LOCAL": "false"}
    with Gateway(tmp_path / "data", settings=settings) as gateway:
        assert peers.echoscu("RAIVEN", gateway.port, "-aet", "CT 1").returncode
        said = re.search(r"let it in with: hilum (peer add NAME .*?), or everyone", gateway.log)
        assert said is not None
        command(gateway, *shlex.split(said[1].replace("NAME", "ct1")))
        peers.echoscu("RAIVEN", gateway.port, "-aet", "CT 1").check()
        assert peers.echoscu("RAIVEN", gateway.port, "-aet", "CT2").returncode


# ── odd objects ───────────────────────────────────────────────────────────────────────────────


def flags_of(row: dict[str, Any]) -> InstanceFlag:
    return InstanceFlag(row["flags"])


def test_deflation_that_is_not_as_declared_is_kept_and_flagged(
    gateway: Gateway, tmp_path: Path
) -> None:
    import zlib

    plain, inflated_syntax = samples.named("CT_small.dcm"), "1.2.840.10008.1.2.1.99"
    claimed, squeezed = tmp_path / "claims.dcm", tmp_path / "squeezed.dcm"
    claimed.write_bytes(_relabelled(plain.path.read_bytes(), inflated_syntax))
    other = samples.named("MR_small.dcm")
    squeeze = zlib.compressobj(wbits=-15)
    deflated = squeeze.compress(other.data) + squeeze.flush()
    head = other.path.read_bytes().removesuffix(other.data)
    squeezed.write_bytes(head + deflated + b"\0" * (len(deflated) % 2))
    done, conversations = push(gateway, hilum_store, [claimed, squeezed])
    done.check()
    stored = stored_of(conversations)
    assert {message.data_set for message in stored} == {
        plain.data,
        deflated + b"\0" * (len(deflated) % 2),
    }
    assert check_kept(gateway.data, stored) == 0
    rows = {row["transfer_syntax"]: flags_of(row) for row in listed(gateway.data, "instance")}
    assert rows == {
        inflated_syntax: InstanceFlag.MISLABELLED,
        "1.2.840.10008.1.2.1": InstanceFlag.MISLABELLED | InstanceFlag.DEFLATED,
    }
    assert {row["patient_name"] for row in listed(gateway.data)} == {
        "CompressedSamples^CT1",
        "CompressedSamples^MR1",
    }
    target = tmp_path / "out"
    hilum("export", "--data", gateway.data, "--patient", "1CT1", "-o", target)
    (copy,) = target.rglob("*.dcm")
    assert pydicom.dcmread(copy).PatientID == "1CT1"


def _relabelled(file: bytes, transfer_syntax: str) -> bytes:
    """Another transfer syntax in the file meta, nothing else changed."""
    tag = b"\x02\0\x10\0UI"
    at = file.index(tag)
    old = int.from_bytes(file[at + 6 : at + 8], "little")
    value = transfer_syntax.encode() + b"\0" * (len(transfer_syntax) % 2)
    element = tag + len(value).to_bytes(2, "little") + value
    length = int.from_bytes(file[140:144], "little") + len(value) - old
    return file[:140] + length.to_bytes(4, "little") + file[144:at] + element + file[at + 8 + old :]


@pytest.mark.slow
def test_a_gigabyte_takes_little_memory(gateway: Gateway, tmp_path: Path) -> None:
    small = tmp_path / "small.dcm"
    shutil.copy(samples.named("MR_small.dcm").path, small)
    hilum_store("RAIVEN", gateway.port, [small]).check()
    idle = _resident(gateway.process.pid)
    data_set = pydicom.dcmread(small)
    data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    del data_set.PixelData
    big = tmp_path / "big.dcm"
    data_set.save_as(big)
    size = 1 << 30
    with open(big, "ab") as file:
        file.write(b"\xe0\x7f\x10\0OW\0\0" + size.to_bytes(4, "little"))
        file.truncate(file.tell() + size)
    _reset_peak(gateway.process.pid)
    hilum_store("RAIVEN", gateway.port, [big]).check()
    peak = _resident(gateway.process.pid, "VmHWM")
    assert any(row["size"] > size for row in listed(gateway.data, "instance"))
    assert peak - idle <= 64 << 20, f"{(peak - idle) >> 20} MiB above idle"
    print(f"1 GiB object: {(peak - idle) / (1 << 20):.1f} MiB above {idle >> 20} MiB")


def _resident(pid: int, which: str = "VmRSS") -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) << 10
    pytest.skip("this system does not say how much memory a process has")


def _reset_peak(pid: int) -> None:
    if os.path.exists(f"/proc/{pid}/clear_refs"):
        Path(f"/proc/{pid}/clear_refs").write_text("5")
