"""pynetdicom's eight applications on Hilum, by changing their imports, against real peers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from tests.interop.programs import Programs
from tests.peers import (
    HOST,
    Server,
    dcmqrscp,
    echoscu,
    free_port,
    missing,
    native,
    pynetdicom_echoscu,
    pynetdicom_storescp,
    pynetdicom_storescu,
    run,
    storescp,
    storescu,
)

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(missing("storescp") is not None, reason=f"needs {missing('storescp')}"),
]

FILES = [get_testdata_file(name) for name in ("CT_small.dcm", "MR_small.dcm", "rtdose.dcm")]
JPEG = get_testdata_file("JPEG2000.dcm")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs.make(tmp_path_factory.mktemp("programs"))


@pytest.fixture(params=["dcmtk", "pynetdicom"])
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    start = storescp if request.param == "dcmtk" else pynetdicom_storescp
    options = ("+xa",) if request.param == "dcmtk" else ()
    with start(tmp_path / "received", *options) as server:
        yield server


def uids(folder: Path) -> set[str]:
    return {
        str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".sqlite" and path.name != "index.dat"
    }


SENT = {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in FILES}


def test_echoscu(programs, receiver):
    done = programs.run("echoscu", receiver.port, "-v", "--repeat", 3).check()
    assert "Association Released" in done.output


def test_echoscu_says_that_nobody_is_there(programs):
    done = programs.run("echoscu", free_port(), "-v")
    assert done.returncode == 1
    assert "unable to connect to remote" in done.output


def test_storescu(programs, receiver):
    programs.run("storescu", receiver.port, *FILES, JPEG, "-v", "-cx", "-r").check()
    wanted = SENT | {str(dcmread(JPEG, stop_before_pixels=True).SOPInstanceUID)}
    if receiver.name == "storescp":
        # DCMTK takes what its command line says; the three uncompressed ones in any case.
        assert uids(receiver.directory) >= SENT
    else:
        assert uids(receiver.directory) == wanted


def test_echoscp(programs, tmp_path):
    with programs.serving("echoscp", tmp_path / "none", "-ba", HOST) as server:
        echoscu("ANY", server.port).check()
        pynetdicom_echoscu("ANY", server.port).check()


def test_storescp(programs, tmp_path):
    received = tmp_path / "received"
    with programs.serving("storescp", received, "-ba", HOST, "-od", received) as server:
        storescu("ANY", server.port, FILES[:2]).check()
        pynetdicom_storescu("ANY", server.port, FILES[2:]).check()
        programs.run("storescu", server.port, JPEG, "-cx").check()
    assert len(uids(received)) == 4
    stored = {str(made.SOPInstanceUID): made for made in map(dcmread, received.iterdir())}
    for path in (*FILES, JPEG):
        sent = dcmread(path)
        assert stored[sent.SOPInstanceUID].PixelData == sent.PixelData


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """dcmqrscp with three files, and a receiver that it may move to."""
    with (
        storescp(tmp_path / "moved") as receiver,
        dcmqrscp(tmp_path / "archive", moves={"STORESCP": receiver.port}) as server,
    ):
        storescu("ARCHIVE", server.port, FILES).check()
        yield server, receiver


QUERY = ("-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=*", "-k", "StudyInstanceUID=")


def test_findscu_with_dcmtk(programs, archive, tmp_path):
    server, _ = archive
    done = programs.run(
        "findscu", server.port, "-v", "-S", "-aec", "ARCHIVE", *QUERY, "-w", folder=tmp_path
    ).check()
    assert done.returncode == 0
    assert len(list(tmp_path.glob("rsp*.dcm"))) == 3


def studies() -> list[str]:
    return [str(dcmread(path, stop_before_pixels=True).StudyInstanceUID) for path in FILES]


def test_getscu_with_dcmtk(programs, archive, tmp_path):
    server, _ = archive
    for study in studies():
        keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}")
        arguments = ("-v", "-S", "-aec", "ARCHIVE", *keys, "-od", tmp_path / "got")
        programs.run("getscu", server.port, *arguments).check()
    assert uids(tmp_path / "got") == SENT


def test_movescu_with_dcmtk(programs, archive):
    server, receiver = archive
    for study in studies():
        keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}")
        arguments = ("-v", "-S", "-aec", "ARCHIVE", "-aem", "STORESCP", *keys)
        programs.run("movescu", server.port, *arguments).check()
    assert uids(receiver.directory) == SENT


@pytest.fixture
def served(programs: Programs, tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """qrscp on Hilum with three files, and a receiver that it may move to."""
    with storescp(tmp_path / "moved") as receiver:
        configuration = tmp_path / "qrscp.ini"
        configuration.write_text(
            "[DEFAULT]\nae_title = QRSCP\nport = 1\nmax_pdu = 16382\nacse_timeout = 30\n"
            "dimse_timeout = 30\nnetwork_timeout = 30\nbind_address =\n"
            f"instance_location = {tmp_path / 'instances'}\n"
            f"database_location = {tmp_path / 'instances.sqlite'}\nlog_identifier = True\n"
            f"[STORESCP]\naddress = {HOST}\nport = {receiver.port}\n"
        )
        with programs.serving("qrscp", tmp_path / "instances", "-c", configuration) as server:
            storescu("QRSCP", server.port, FILES).check()
            yield server, receiver


def test_qrscp_answers_dcmtk(served, tmp_path):
    server, receiver = served
    keys = [key for study in studies()[:1] for key in ("-k", f"StudyInstanceUID={study}")]
    level = ["-S", "-aec", "QRSCP", "-k", "QueryRetrieveLevel=STUDY"]
    to = [HOST, str(server.port)]
    found = run([native("findscu"), *level, "-k", "StudyInstanceUID", *to, "-v"]).check()
    assert found.output.count("Find Response:") == 3 or found.output.count("(Pending)") == 3
    (tmp_path / "got").mkdir()
    run([native("getscu"), *level, *keys, "-od", str(tmp_path / "got"), *to]).check()
    assert len(uids(tmp_path / "got")) == 1
    run([native("movescu"), *level, *keys, "-aem", "STORESCP", *to]).check()
    assert uids(receiver.directory) == uids(tmp_path / "got")


def test_qrscp_answers_pynetdicom_and_itself(served, programs, tmp_path):
    server, receiver = served
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={studies()[1]}")
    common = ("-S", "-aec", "QRSCP", *keys)
    import sys

    theirs = [sys.executable, "-m", "pynetdicom"]
    to = [HOST, str(server.port)]
    run([*theirs, "findscu", *to, *common, "-v"]).check()
    run([*theirs, "getscu", *to, *common, "-od", str(tmp_path / "theirs")]).check()
    programs.run("getscu", server.port, *common, "-od", tmp_path / "ours").check()
    assert uids(tmp_path / "theirs") == uids(tmp_path / "ours") != set()
    run([*theirs, "movescu", *to, *common, "-aem", "STORESCP"]).check()
    assert uids(receiver.directory) == uids(tmp_path / "ours")
