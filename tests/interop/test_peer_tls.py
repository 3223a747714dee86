"""Peers that we call over TLS: ``hilum peer add --tls…`` with DCMTK and Orthanc behind it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from tests import peers, samples
from tests.conftest import require
from tests.e2e.gateway import HILUM, Gateway, environment, hilum, prepare
from tests.interop.test_commitment import command, commit
from tests.interop.test_query_retrieve import push
from tests.net.certificates import Authority

pytestmark = pytest.mark.interop

CT = next(path for path in samples.paths() if path.name == "CT_small.dcm")
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
STUDY = str(pydicom.dcmread(CT).StudyInstanceUID)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    prepare(tmp_path / "data")
    with Gateway(tmp_path / "data", settings={"HILUM_FETCH_SETTLE": "2"}) as running:
        yield running


def ours(authority: Authority) -> list[str]:
    certificate, key = authority.issue("ours")
    return ["--tls-ca", str(authority.ca), "--tls-cert", str(certificate), "--tls-key", str(key)]


def add(gateway: Gateway, name: str, address: str, *words: object) -> None:
    command("peer", "add", name, address, *words, "--data", gateway.data)


def echo(gateway: Gateway, name: str) -> int:
    done = subprocess.run(
        [*HILUM, "peer", "echo", name, "--data", gateway.data],
        env=environment(), capture_output=True, timeout=60,
    )  # fmt: skip
    return done.returncode


def test_a_move_to_storescp_over_tls(
    gateway: Gateway, dcmtk: None, tmp_path: Path, authority: Authority
) -> None:
    require("movescu")
    certificate, key = authority.issue("server")
    stranger = Authority(tmp_path, "stranger")
    options = ("+B", "+tls", str(key), str(certificate), "+cf", str(authority.ca), "-rc")
    keys = ("-S", "-aem", "STORESCP", "-k", "QueryRetrieveLevel=STUDY",
            "-k", f"StudyInstanceUID={STUDY}")  # fmt: skip
    push(gateway, [CT])
    with peers.storescp(tmp_path / "got", *options) as receiver:
        address = f"STORESCP@127.0.0.1:{receiver.port}"
        refused = {
            "plain": [],
            "another authority": ["--tls-ca", str(stranger.ca)],
            "without our certificate": ["--tls-ca", str(authority.ca)],
            "another name": [*ours(authority), "--tls-name", "pacs.example.org"],
        }
        for words in refused.values():
            add(gateway, "to", address, *words)
            assert echo(gateway, "to") == 1
            assert peers.movescu("RAIVEN", gateway.port, *keys).returncode != 0
            assert not receiver.files()
        for words in (ours(authority), [*ours(authority), "--tls-name", "localhost"],
                      [*ours(authority)[2:], "--tls-no-verify"]):  # fmt: skip
            add(gateway, "to", address, *words)
            assert echo(gateway, "to") == 0
            peers.movescu("RAIVEN", gateway.port, *keys).check()
            (file,) = receiver.files()
            assert samples.sample(file).data == samples.sample(CT).data
            file.unlink()


def test_fetch_and_commitment_over_tls(
    gateway: Gateway, tmp_path: Path, authority: Authority
) -> None:
    require("Orthanc")
    certificate, key = authority.issue("server")
    settings = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(certificate),
        "DicomTlsPrivateKey": str(key),
        "DicomTlsTrustedCertificates": str(authority.ca),
        "DicomTlsRemoteCertificateRequired": True,
    }
    # What it opens comes back to our plain listener.
    known = {"hilum": peers.Modality("HILUM", gateway.port)}
    with peers.orthanc(tmp_path / "there", modalities=known, settings=settings) as orthanc:
        address = f"ORTHANC@127.0.0.1:{orthanc.port}"
        sent = hilum("store", address, CT, *ours(authority))
        assert sent["ok"], sent
        add(gateway, "pacs", address, *ours(authority))
        (listed,) = hilum("peer", "ls", "--data", gateway.data)
        assert listed["tls"]["verify"] is True
        data = ("--data", gateway.data)
        fetched = hilum("fetch", "pacs", "--study", STUDY, "--wait", *data)
        assert fetched["over"], fetched
        rows = hilum("ls", "--level", "instance", *data)
        assert [row["sop_uid"] for row in rows] == [str(pydicom.dcmread(CT).SOPInstanceUID)]
        said = commit(CT, "--to", "pacs", *data, "--wait", 60)
        assert (said["committed"], said["failed"]) == (1, [])


def test_results_of_commitment_go_to_a_peer_over_tls(
    gateway: Gateway, tmp_path: Path, authority: Authority
) -> None:
    """A second gateway asks us, and hears the result on its TLS listener."""
    certificate, key = authority.issue("server")
    prepare(tmp_path / "other")
    port = peers.free_port()
    there = ("--data", tmp_path / "other")
    command("listener", "add", "secure", f"127.0.0.1:{port}", "--tls", *there)
    command("peer", "add", "first", f"RAIVEN@127.0.0.1:{gateway.port}", *there,
            "--calling", "RAIVEN2")  # fmt: skip
    tls = {"CERTIFICATE": certificate, "KEY": key, "CLIENT_CA": authority.ca}
    settings = {f"HILUM_TLS_{name}": str(path) for name, path in tls.items()}
    command("ae", "add", "RAIVEN2", *there)
    add(gateway, "second", f"RAIVEN2@127.0.0.1:{port}", *ours(authority), "--commitment", "new")
    push(gateway, [CT])
    with Gateway(tmp_path / "other", settings=settings):
        said = commit(CT, "--to", "first", "--wait", 60, *there)
        assert (said["committed"], said["failed"]) == (1, [])


# ── who sees what ─────────────────────────────────────────────────────────────────────────────


def test_data_of_a_group_is_shown_to_its_peers_alone(
    tmp_path: Path, dcmtk: None, authority: Authority
) -> None:
    """findscu with and without its certificate, pynetdicom with and without a passcode."""
    from hilum.gateway.app import Storage
    from hilum.gateway.config import Config

    require("findscu")
    data = tmp_path / "data"
    prepare(data)  # with alice and bob
    server, key = authority.issue("server")
    ours_, others = authority.issue("ws"), authority.issue("other")
    storage = Storage(Config(data=str(data)))
    storage.directory.set_groups("alice", ["radiology"])
    storage.directory.set_groups("bob", ["radiology"])
    storage.directory.add_account("carol")
    for name in ("alice", "carol"):
        storage.directory.set_passcode(name, f"passcode of {name}")
    storage.close()
    port = peers.free_port()
    where = ("--data", data)
    command("listener", "add", "secure", f"127.0.0.1:{port}", "--tls", *where)
    may = ("--service", "query", "--service", "retrieve")
    command("peer", "add", "ws", "WS@127.0.0.1", *may, "--group", "radiology",
            "--certificate", ours_[0], *where)  # fmt: skip
    command("peer", "add", "desk", "DESK@127.0.0.1", *may, "--group", "radiology", *where)
    tls = {"CERTIFICATE": server, "KEY": key, "CLIENT_CA": authority.ca}
    settings = {f"HILUM_TLS_{name}": str(path) for name, path in tls.items()}
    studies = {}
    for called in ("RVU-alice", "RVU-bob", "RVU-carol", "RAIVEN"):
        ds = pydicom.dcmread(CT)
        ds.StudyInstanceUID = f"{STUDY}.{len(studies)}"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{STUDY}.9.{len(studies)}"
        studies[called] = (str(ds.StudyInstanceUID), tmp_path / f"{called}.dcm")
        ds.save_as(studies[called][1])

    def found_by_findscu(calling: str, certificate: tuple[Path, Path]) -> set[str]:
        secure = ("+tls", str(certificate[1]), str(certificate[0]), "+cf", str(authority.ca))
        done = peers.findscu("RAIVEN", port, "-S", "-aet", calling, *secure,
                             "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID").check()  # fmt: skip
        return {name for name, (study, _) in studies.items() if study in done.output}

    def found_and_got(calling: str, passcode_of: str = "") -> tuple[set[str], set[str]]:
        return found_and_got_by_pynetdicom(gateway.port, calling, passcode_of, studies)

    group, everyones = {"RVU-alice", "RVU-bob", "RAIVEN"}, {"RAIVEN"}
    with Gateway(data, settings=settings) as gateway:
        for called, (_, path) in studies.items():
            push(gateway, [path], called)
        assert found_by_findscu("WS", ours_) == group
        assert found_by_findscu("WS", others) == everyones, "another one's certificate"
        assert found_by_findscu("DESK", ours_) == everyones, "another peer's certificate"
        assert found_by_findscu("SOMEONE", ours_) == everyones, "no known peer"
        assert found_and_got("WS") == (everyones, everyones), "without its certificate"
        assert found_and_got("DESK") == (everyones, everyones), "without a passcode"
        assert found_and_got("DESK", "alice") == (group, group)
        hers = {"RVU-carol", "RAIVEN"}
        assert found_and_got("DESK", "carol") == (hers, hers), "she is of no group"
        assert found_and_got("SOMEONE", "alice") == (everyones, everyones), "no known peer"


def found_and_got_by_pynetdicom(
    port: int, calling: str, passcode_of: str, studies: dict[str, tuple[str, Path]]
) -> tuple[set[str], set[str]]:
    """What a query shows, and what comes when everything is asked for by its UID."""
    from pynetdicom import AE, build_role, evt
    from pynetdicom.pdu_primitives import UserIdentityNegotiation
    from pynetdicom.sop_class import (
        StudyRootQueryRetrieveInformationModelFind as Find,
    )
    from pynetdicom.sop_class import (
        StudyRootQueryRetrieveInformationModelGet as Get,
    )

    items: list[object] = [build_role(CT_IMAGE, scp_role=True)]
    if passcode_of:
        identity = UserIdentityNegotiation()
        identity.user_identity_type = 2
        identity.primary_field = passcode_of.encode()
        identity.secondary_field = f"passcode of {passcode_of}".encode()
        items.append(identity)
    ae = AE(calling)
    for uid in (Find, Get, CT_IMAGE):
        ae.add_requested_context(uid)
    came: list[str] = []

    def store(event: evt.Event) -> int:
        came.append(str(event.dataset.StudyInstanceUID))
        return 0

    association = ae.associate(
        "127.0.0.1", port, ae_title="RAIVEN", ext_neg=items, evt_handlers=[(evt.EVT_C_STORE, store)]
    )
    assert association.is_established
    asked = pydicom.Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", ""
    found = [str(ds.StudyInstanceUID) for _, ds in association.send_c_find(asked, Find) if ds]
    asked.StudyInstanceUID = [study for study, _ in studies.values()]
    list(association.send_c_get(asked, Get))
    association.release()
    return (
        {name for name, (study, _) in studies.items() if study in found},
        {name for name, (study, _) in studies.items() if study in came},
    )
