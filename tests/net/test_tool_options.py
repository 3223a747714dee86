"""Options that users of DCMTK and pynetdicom type by habit are taken; errors say what to do."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from tests import samples

from hilum.cli.main import main

HOST = "127.0.0.1"
EVERYWHERE = [
    "-v", "-d", "-ll", "debug", "-aet", "ME", "-aec", "PEER", "-to", "5", "-ta", "5", "-td", "5",
    "-tn", "5", "-pdu", "16384", "-xe", "-xb", "-xi", "-x=",
]  # fmt: skip
STUDY = ["-k", "StudyInstanceUID=1.2.3"]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The tools set up logging for a process of their own."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def closed() -> Iterator[str]:
    """A port where nobody listens, as nobody else gets it meanwhile."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield str(bound.getsockname()[1])


@pytest.mark.parametrize(
    "words",
    [
        ["echo", "--repeat", "2", "--abort"],
        ["store", "+sd", "+r", "-R", "-nh", "-cx", "-xs", "-xd", "FILE"],
        ["find", "-S", "-w", "--relational-query", "--fuzzy-names", "--dt-matching",
         "--timezone-adj", "--enhanced-conversion", "-k", "0008,0052=STUDY"],
        ["find", "-P", "-X", "--cancel", "3", "-k", "(0010,0010)=DOE*"],
        ["find", "-W", "-k", "PatientName"],
        ["mwl", "-k", "PatientName"],
        ["get", "-P", "-od", ".", "--relational-retrieval", *STUDY],
        ["get", "-O", "--ignore", "--enhanced-conversion", *STUDY],
        ["move", "-S", "-aem", "DEST", "--relational-retrieval", *STUDY],
        ["move", "+P", "0", "-od", ".", *STUDY],
        ["move", "--store", "--store-port", "0", "--store-aet", "ME", "--ignore", *STUDY],
    ],
)  # fmt: skip
def test_they_come_as_far_as_the_connection(
    words: list[str], closed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = [str(samples.named("CT_small.dcm").path) if w == "FILE" else w for w in words[1:]]
    assert main([words[0], *EVERYWHERE, HOST, closed, *rest]) == 1
    assert "connection refused" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["store", "echo", "qr", "mwl"])
def test_those_of_providers(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server((HOST, 0)) as taken:
        words = ["-ba", HOST, "-aet", "ME", "-v", "-d", "-ll", "info", "-ta", "5", "-td", "5",
                 "-tn", "5", "-pdu", "16384", "-pm", "+xa", "--fork"]  # fmt: skip
        assert main(["scp", command, *words, str(taken.getsockname()[1])]) == 2
    said = capsys.readouterr().err
    assert "already in use; choose another port" in said
    assert f"usage: hilum scp {command} [options] PORT" in said


def test_a_name_that_nobody_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["echo", "PACS@no-such-host.invalid:104"]) == 1
    said = capsys.readouterr().err
    assert "name of this host is not known" in said
    assert "Errno" not in said


def test_tls_with_who_speaks_none(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server((HOST, 0)) as server:
        server.settimeout(30)
        port = server.getsockname()[1]

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

        thread = Thread(target=answer)
        thread.start()
        assert main(["echo", "--tls", f"PACS@{HOST}:{port}"]) == 1
        thread.join(30)
    assert "speaks no TLS" in capsys.readouterr().err


def test_files_of_tls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    for name, says in (("text.pem", "no certificate in PEM"), ("none.pem", "no such file")):
        assert main(["echo", "--tls-ca", str(tmp_path / name), f"{HOST}:1"]) == 2
        said = capsys.readouterr().err
        assert says in said
        assert "Errno" not in said
