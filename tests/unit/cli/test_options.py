"""What is typed on a command line, and what is said about it when it is wrong."""

from __future__ import annotations

import argparse

import pytest

from hilum.cli.options import (
    PeerAddress,
    client_tls,
    limits_of,
    parser,
    peer_and_rest,
    requestor_options,
    timeouts_of,
)
from hilum.errors import ConfigurationError


def command() -> argparse.ArgumentParser:
    result = parser("test", "…")
    requestor_options(result)
    result.add_argument("words", nargs="*")
    return result


@pytest.mark.parametrize(
    ("words", "peer", "rest"),
    [
        (["PACS@host:104"], PeerAddress("host", 104, "PACS"), []),
        (["host:104", "a", "b"], PeerAddress("host", 104), ["a", "b"]),
        (["host", "104", "a"], PeerAddress("host", 104), ["a"]),
        (["PACS@host", "104"], PeerAddress("host", 104, "PACS"), []),
        (["127.0.0.1", "11112", "104"], PeerAddress("127.0.0.1", 11112), ["104"]),
        (["[::1]:104", "a"], PeerAddress("::1", 104), ["a"]),
        (["PACS@[fe80::1]:104"], PeerAddress("fe80::1", 104, "PACS"), []),
        (["fe80::1", "104"], PeerAddress("fe80::1", 104), []),
        (["[::1]", "104"], PeerAddress("::1", 104), []),
        (["A@B@host:1"], PeerAddress("host", 1, "A@B"), []),
        (["MY PACS@host:1"], PeerAddress("host", 1, "MY PACS"), []),
    ],
)
def test_a_peer_in_either_habit(words: list[str], peer: PeerAddress, rest: list[str]) -> None:
    assert peer_and_rest(command(), words, None) == (peer, rest)


def test_a_peer_is_written_as_it_is_read() -> None:
    for text in ("PACS@host:104", "host:104", "PACS@[::1]:104"):
        assert str(peer_and_rest(command(), [text], None)[0]) == text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["host"], "no port in 'host'; write HOST:PORT or HOST PORT"),
        (["host", "files"], "'files' is no TCP port"),
        (["host:0"], "'0' is no TCP port"),
        (["host:70000"], "'70000' is no TCP port"),
        (["host:\u0661"], "is no TCP port"),
        ([":104"], "no host"),
        (["PACS@:104"], "no host"),
        (["ABCDEFGHIJKLMNOPQ@host:104"], "has 17 characters, at most 16"),
        (["@host:104"], "'' is no AE title"),
        (["A\\B@host:104"], "no AE title"),
        (["OTHER@host:104"], "'OTHER' in the peer, but 'PACS' as option; give one"),
    ],
)
def test_a_peer_that_is_none(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        peer_and_rest(command(), words, "PACS" if "OTHER" in words[0] else None)
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


def test_the_called_title_may_be_an_option() -> None:
    assert peer_and_rest(command(), ["h:1"], "PACS")[0].called == "PACS"
    assert peer_and_rest(command(), ["PACS@h:1"], "PACS")[0].called == "PACS"


@pytest.mark.parametrize(
    "words",
    [
        ["-aet", "ME", "-aec", "YOU", "-to", "1", "-ta", "2", "-td", "3", "-tn", "4.5", "-pdu", "4096"],
        ["--calling", "ME", "--called", "YOU", "--timeout", "1", "--acse-timeout", "2",
         "--dimse-timeout", "3", "--network-timeout", "4.5", "--max-pdu", "4096"],
    ],
)  # fmt: skip
def test_options_of_other_toolkits(words: list[str]) -> None:
    options = command().parse_args([*words, "-v"])
    timeouts = timeouts_of(options)
    assert (options.calling, options.called, options.verbose) == ("ME", "YOU", True)
    assert (timeouts.connect, timeouts.associate, timeouts.release) == (1, 2, 2)
    assert (timeouts.dimse, timeouts.write) == (3, 4.5)
    assert limits_of(options).max_length == 4096
    assert client_tls(options) is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-aet", ""], "no AE title"),
        (["-aet", "A" * 17], "at most 16"),
        (["-aet", "Ärzte"], "no AE title"),
        (["-to", "0"], "give seconds above 0"),
        (["-to", "nan"], "give seconds above 0"),
        (["-td", "soon"], "give seconds above 0"),
        (["-pdu", "100"], "4096"),
        (["-pdu", "-1"], "-pdu"),
        (["-ll", "loud"], "log level 'loud' is none of"),
        (["--unheard-of"], "unrecognized"),
        (["--calli", "ME"], "unrecognized"),
    ],
)
def test_options_that_are_wrong(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        command().parse_args(words)
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--tls"], ["+tla"], ["-ic"], ["--tls-name", "pacs"]])
def test_any_option_of_tls_turns_it_on(words: list[str]) -> None:
    context = client_tls(command().parse_args(words))
    assert context is not None
    assert context.check_hostname == (words != ["-ic"])


def test_a_certificate_that_is_not_there() -> None:
    options = command().parse_args(["+tls", "nowhere.key", "nowhere.pem"])
    with pytest.raises(ConfigurationError, match=r"nowhere\.pem"):
        client_tls(options)
