"""The TLS options of ``hilum echo``, ``store`` and ``scp`` with DCMTK and pynetdicom over TLS."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import peers, samples
from tests.interop.test_tools import data_set_of, hilum, received, scp
from tests.net.certificates import Authority

pytestmark = pytest.mark.interop

CT = next(path for path in samples.paths() if path.name == "CT_small.dcm")
MR = next(path for path in samples.paths() if path.name == "MR_small.dcm")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server_files(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("server")


@pytest.fixture(scope="module")
def client_files(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("client")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


# ── as client ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["storescp", "pynetdicom"])
def secure_server(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    authority: Authority,
    server_files: tuple[Path, Path],
) -> Iterator[tuple[int, Path]]:
    """A provider that asks for a certificate of our authority: its port, and where files go."""
    certificate, key = server_files
    folder = tmp_path / "there"
    if request.param == "storescp":
        request.getfixturevalue("dcmtk")
        options = ("+B", "+xa", "+tls", str(key), str(certificate), "+cf", str(authority.ca), "-rc")
        with peers.storescp(folder, *options) as server:
            yield server.port, folder
        return
    folder.mkdir()
    with pynetdicom_over_tls(folder, authority, certificate, key) as port:
        yield port, folder


class pynetdicom_over_tls:
    """pynetdicom's server in a thread of this process; its applications have no TLS options."""

    def __init__(self, folder: Path, authority: Authority, certificate: Path, key: Path) -> None:
        self.folder = folder
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.ca)
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.load_cert_chain(certificate, key)
        self.lock = threading.Lock()

    def __enter__(self) -> int:
        from pynetdicom import AE, AllStoragePresentationContexts, evt
        from pynetdicom.sop_class import Verification

        ae = AE("STORESCP")
        ae.supported_contexts = AllStoragePresentationContexts
        ae.add_supported_context(Verification)
        port = peers.free_port()
        self.server = ae.start_server(
            (peers.HOST, port), block=False, ssl_context=self.context,
            evt_handlers=[(evt.EVT_C_STORE, self.keep)],
        )  # fmt: skip
        return port

    def keep(self, event: Any) -> int:
        name = event.request.AffectedSOPInstanceUID
        with self.lock:
            (self.folder / name).write_bytes(event.encoded_dataset())
        return 0

    def __exit__(self, *exc: object) -> None:
        self.server.shutdown()


def pairs(certificate: Path, key: Path) -> list[list[object]]:
    """The ways to name our certificate: in our words, and in DCMTK's."""
    return [["--tls-cert", certificate, "--tls-key", key], ["+tls", key, certificate]]


def test_echo_and_store(
    secure_server: tuple[int, Path], authority: Authority, client_files: tuple[Path, Path]
) -> None:
    port, folder = secure_server
    for own in pairs(*client_files):
        done = hilum("echo", peers.HOST, port, *own, "--tls-ca", authority.ca)
        assert done.returncode == 0, done.stderr
    done = hilum(
        "store", f"{peers.HOST}:{port}", CT, MR, *pairs(*client_files)[1], "+cf", authority.ca,
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["sent"] == 2
    kept = received(folder)
    assert {data_set_of(path) for path in kept.values()} == {data_set_of(CT), data_set_of(MR)}


def test_who_is_not_known_is_not_talked_to(
    secure_server: tuple[int, Path],
    authority: Authority,
    stranger: Authority,
    client_files: tuple[Path, Path],
) -> None:
    port, folder = secure_server
    own = pairs(*client_files)[0]
    # The system's authorities did not sign its certificate, nor did a stranger.
    assert hilum("echo", peers.HOST, port, "--tls", *own).returncode == 1
    assert hilum("echo", peers.HOST, port, *own, "--tls-ca", stranger.ca).returncode == 1
    wrong_name = hilum(
        "echo", peers.HOST, port, *own, "--tls-ca", authority.ca, "--tls-name", "pacs.invalid"
    )
    assert wrong_name.returncode == 1
    assert hilum("echo", peers.HOST, port, *own, "--tls-no-verify").returncode == 0
    right_name = hilum(
        "echo", peers.HOST, port, *own, "--tls-ca", authority.ca, "--tls-name", "localhost"
    )
    assert right_name.returncode == 0, right_name.stderr
    # It wants a certificate of ours, and one that it knows; in plain it does not answer at all.
    for words in (
        ["--tls-ca", authority.ca],
        ["--tls-ca", authority.ca, *pairs(*stranger.issue("client"))[0]],
        ["-ta", "3"],
    ):
        done = hilum("store", f"{peers.HOST}:{port}", CT, "--retries", "0", *words)
        assert done.returncode == 1, words
    assert received(folder) == {}


# ── as server ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def secure_receiver(
    tmp_path: Path, authority: Authority, server_files: tuple[Path, Path]
) -> Iterator[peers.Server]:
    certificate, key = server_files
    options = ("--tls-cert", certificate, "--tls-key", key, "--tls-ca", authority.ca)
    with scp(tmp_path / "received", *map(str, options)) as server:
        yield server


def test_dcmtk_over_tls(
    dcmtk: None,
    secure_receiver: peers.Server,
    authority: Authority,
    client_files: tuple[Path, Path],
) -> None:
    certificate, key = client_files
    options = ["+tls", str(key), str(certificate), "+cf", str(authority.ca)]
    port = secure_receiver.port
    peers.echoscu("HILUM", port, *options).check()
    peers.storescu("HILUM", port, [CT], *options).check()
    # The extended profile and TLS 1.3 too, as far as this DCMTK knows them.
    peers.storescu("HILUM", port, [MR], *options, "+pz").check()
    assert len(received(secure_receiver.directory)) == 2  # storescu leaves out trailing padding
    assert peers.echoscu("HILUM", port).returncode != 0
    anonymous = peers.echoscu("HILUM", port, "+tla", "+cf", str(authority.ca))
    assert anonymous.returncode != 0


def test_pynetdicom_over_tls(
    secure_receiver: peers.Server, authority: Authority, client_files: tuple[Path, Path]
) -> None:
    from pydicom import dcmread
    from pynetdicom import AE
    from pynetdicom.sop_class import CTImageStorage, Verification

    context = ssl.create_default_context(cafile=authority.ca)
    context.load_cert_chain(*client_files)
    ae = AE()
    ae.add_requested_context(Verification)
    ae.add_requested_context(CTImageStorage, dcmread(CT).file_meta.TransferSyntaxUID)
    association = ae.associate(peers.HOST, secure_receiver.port, tls_args=(context, "localhost"))
    assert association.is_established
    assert association.send_c_echo().Status == 0
    assert association.send_c_store(CT).Status == 0
    association.release()
    assert set(map(data_set_of, received(secure_receiver.directory).values())) == {data_set_of(CT)}
