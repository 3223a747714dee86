"""The gateway's commands on a data directory that nobody serves: output, JSON, exit codes."""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import io
import json
import os
import re
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from tests.unit.gateway.store.archive_world import World, destination, encode, image, keep

from hilum.cli.main import main
from hilum.gateway import heartbeat
from hilum.gateway.config import Config, rows
from hilum.gateway.heartbeat import Heartbeat
from hilum.gateway.store.blobs import MARKER
from hilum.gateway.store.states import MissingUidPolicy


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]


Run = Callable[..., Said]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory that a gateway has served once; alice and images in it."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("HILUM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HILUM_DATA", str(tmp_path / "data"))
    asyncio.run(_fill(tmp_path / "data"))
    return tmp_path / "data"


async def _fill(data: Path) -> None:
    world = World(data)
    alice = world.storage.directory.add_account("alice")
    committer = world.committer()
    await keep(committer, (encode(image("1.1")), "1.1"))
    chest = image("1.2", StudyInstanceUID="1.3", PatientName="Müller^Jörg", PatientID="P2",
                  SpecificCharacterSet="ISO_IR 192", StudyDescription="Chest\x1b[2J")  # fmt: skip
    await keep(committer, (encode(chest), "1.2"))
    hers = destination(owner_id=alice.id, owner="alice")
    await keep(committer, (encode(image("1.4", StudyInstanceUID="1.5")), "1.4"), where=hers)
    aside = destination(missing_uids=MissingUidPolicy.QUARANTINE)
    await keep(committer, (encode(image("1.6", StudyInstanceUID=None)), "1.6"), where=aside)
    await committer.stop()
    world.close()


@pytest.fixture
def run(data: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: object) -> Said:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Said(code, *capsys.readouterr())

    return command


# ── what is in the archive ────────────────────────────────────────────────────────────────────


def test_ls_lists_studies(run: Run) -> None:
    said = run("ls")
    assert said.code == 0
    assert {line[8]: line[9] for line in said.lines} == {
        "1.2": "everyone",
        "1.3": "everyone",
        "1.5": "alice",
    }
    assert "Müller^Jörg" in said.out
    assert "\x1b" not in said.out, "a description must not steer the terminal"


def test_ls_json(run: Run) -> None:
    found = run("ls", "--json").json
    assert {row["study_uid"] for row in found} == {"1.2", "1.3", "1.5"}
    (chest,) = (row for row in found if row["study_uid"] == "1.3")
    assert chest["patient_name"] == "Müller^Jörg"
    assert chest["attributes"]["StudyDate"] == "20260301"
    assert (chest["n_instances"], chest["modalities"]) == (1, ["CT"])


@pytest.mark.parametrize(
    ("level", "count"), [("patient", 2), ("study", 3), ("series", 3), ("instance", 3)]
)
def test_ls_levels(run: Run, level: str, count: int) -> None:
    assert len(run("ls", "--level", level).lines) == count
    assert len(run("ls", "--level", level, "--json").json) == count


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--user", "alice"], {"1.1", "1.2", "1.4"}),
        (["--patient", "P2"], {"1.2"}),
        (["--patient", "P*"], {"1.1", "1.2", "1.4"}),
        (["--name", "müller*"], {"1.2"}),
        (["--modality", "MR"], set()),
        (["--since", "20260302"], set()),
        (["--since", "20260301", "--until", "20260301"], {"1.1", "1.2", "1.4"}),
        (["--study", "1.5"], {"1.4"}),
        (["--instance", "1.1"], {"1.1"}),
        (["--quarantine"], {"1.6"}),
    ],
)
def test_ls_filters(run: Run, options: list[str], expected: set[str]) -> None:
    found = run("ls", "--level", "instance", "--json", *options).json
    assert {row["sop_uid"] for row in found} == expected


def test_ls_limit(run: Run) -> None:
    assert len(run("ls", "--limit", 2).lines) == 2
    assert run("ls", "--limit", -1).code == 2


def test_ls_mistakes(run: Run) -> None:
    level, user = run("ls", "--level", "room"), run("ls", "--user", "bob")
    assert (level.code, user.code) == (1, 1)
    assert "none of patient, study, series, instance" in level.err
    assert "hilum user ls" in user.err
    assert run("ls", "--colour").code == 2


def test_verify(run: Run, data: Path) -> None:
    good = run("verify")
    assert good.code == 0
    assert "4 instances" in good.out
    assert "0 problems" in good.out
    (path,) = (
        row["path"] for row in run("ls", "--level", "instance", "--json", "--instance", "1.1").json
    )
    content = bytearray((data / path).read_bytes())
    content[-1] ^= 1
    (data / path).write_bytes(content)
    assert run("verify", "--quick").code == 0
    bad = run("verify")
    assert bad.code == 1
    assert path in bad.out
    found = run("verify", "--json")
    assert found.code == 1
    assert [f["sop_instance_uid"] for f in found.json["findings"]] == ["1.1"]
    (data / path).unlink()
    assert run("verify", "--quick").code == 1


def test_reindex(run: Run, data: Path) -> None:
    before = run("ls", "--level", "instance", "--json").json
    said = run("reindex", "--json", "--yes")
    assert said.code == 0
    assert said.json["indexed"] == 4
    assert Path(said.json["set_aside"]).exists()
    after = run("ls", "--level", "instance", "--json").json
    assert [row | {"id": 0} for row in after] == [row | {"id": 0} for row in before]
    assert [user["name"] for user in run("user", "ls", "--json").json] == ["alice"]
    assert "4 instances indexed" in run("reindex").out


def test_rm(run: Run, data: Path) -> None:
    said = run("rm", "--study", "1.3", "--yes")
    assert said.code == 0
    assert "1 instances removed" in said.out
    assert {row["study_uid"] for row in run("ls", "--json").json} == {"1.2", "1.5"}
    assert len(list((data / "objects").rglob("*.dcm"))) == 3
    again = run("rm", "--study", "1.3", "--yes", "--json")
    assert again.code == 1
    assert again.json == {"instances": 0, "kept": 0}
    assert "nothing there" in again.err
    assert run("verify").code == 0


def test_rm_only_what_is_one_users(run: Run) -> None:
    assert run("rm", "--patient", "P1", "--user", "alice", "--yes", "--json").json == {
        "instances": 1,
        "kept": 0,
    }
    assert {row["sop_uid"] for row in run("ls", "--level", "instance", "--json").json} == {
        "1.1",
        "1.2",
    }


def test_rm_asks_and_needs_something_to_remove(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("rm", "--yes").code == 1
    assert "--study" in run("rm", "--yes").err
    assert run("rm", "--user", "alice", "--yes").code == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert run("rm", "--study", "1.3").code == 1
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run("rm", "--study", "1.3").code == 1
    assert len(run("ls").lines) == 3


def test_rm_by_someone_without_a_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert run("rm", "--study", "1.3", "--yes").code == 0


def test_export(run: Run, tmp_path: Path) -> None:
    said = run("export", "--study", "1.3", "-o", tmp_path / "out")
    assert said.code == 0
    (copy,) = (tmp_path / "out").rglob("*.dcm")
    assert pydicom.dcmread(copy).SOPInstanceUID == "1.2"
    found = run("export", "--patient", "P1", "-o", tmp_path / "out.zip", "--json").json
    assert zipfile.ZipFile(tmp_path / "out.zip").namelist() == found["files"]
    assert len(found["files"]) == 2


def test_export_mistakes(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("export", "--study", "1.3").code == 2, "-o is needed"
    assert run("export", "-o", out).code == 1
    assert run("export", "--study", "9", "-o", out).code == 1
    assert run("export", "--study", "1.5", "--user", "nobody", "-o", out).code == 1
    assert run("export", "--study", "1.3", "-o", out).code == 0
    again = run("export", "--study", "1.3", "-o", out)
    assert again.code == 1
    assert "exists" in again.err
    (tmp_path / "file").write_text("")
    inside = run("export", "--study", "1.3", "-o", tmp_path / "file" / "out")
    assert inside.code == 1
    assert inside.err.count("\n") == 1
    assert len(list(out.rglob("*.dcm"))) == 1


# ── users, titles, listeners, peers ───────────────────────────────────────────────────────────


def test_users(run: Run) -> None:
    assert run("user", "add", "bob").out == "user bob: RVU-bob\n"
    assert run("user", "add", "radiology-research", "--alias", "RESEARCH").code == 0
    assert run("user", "disable", "bob").code == 0
    found = {u["name"]: (u["titles"], u["disabled"]) for u in run("user", "ls", "--json").json}
    assert found == {
        "alice": (["RVU-alice"], False),
        "bob": (["RVU-bob"], True),
        "radiology-research": (["RESEARCH"], False),
    }
    assert ["bob", "RVU-bob", "disabled", ""] in run("user", "ls").lines
    assert run("user", "enable", "bob").code == 0
    assert run("user", "rm", "bob").code == 0
    assert {u["name"] for u in run("user", "ls", "--json").json} == {"alice", "radiology-research"}


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["user", "add", "alice"], "taken"),
        (["user", "add", "a-name-that-is-long"], "alias"),
        (["user", "add", "bob", "--alias", "RAIVEN"], "called title"),
        (["user", "add", "bo b"], "space"),
        (["user", "rm", "nobody"], "nobody"),
        (["user", "disable", "nobody"], "nobody"),
        (["ae", "add", "RVU-carol"], "prefix"),
        (["ae", "add", "SEVENTEEN LETTERS"], "16"),
        (["ae", "add", "TRIAL", "--user", "nobody"], "hilum user add nobody"),
        (["ae", "add", "TRIAL", "--peer", "nobody"], "hilum peer ls"),
        (["ae", "add", "TRIAL", "--max-associations", "-1"], "less than none"),
        (["ae", "add", "TRIAL", "--user", "alice", "--quarantine"], "either"),
        (["ae", "rm", "NOWHERE"], "NOWHERE"),
        (["listener", "add", "x", "nonsense"], "HOST:PORT"),
        (["listener", "add", "x", "11112"], "already"),
        (["listener", "add", "x", "104", "--allow", "10.0.0.1/8"], "10.0.0.1/8"),
        (["listener", "rm", "nobody"], "nobody"),
        (["peer", "add", "ct", "10.0.0.1"], "AET@HOST"),
        (["peer", "add", "ct", "CT1@10.0.0.0/8:104"], "range"),
        (["peer", "add", "ct", "CT1@host:0"], "port 0"),
        (["peer", "add", "ct", "CT1@host", "--service", "sing"], "sing"),
        (["peer", "rm", "nobody"], "nobody"),
        (["peer", "echo", "nobody"], "hilum peer ls"),
    ],
)
def test_mistakes_are_one_clear_line_and_change_nothing(
    run: Run, words: list[str], word: str
) -> None:
    lists = [("user", "ls"), ("ae", "ls"), ("listener", "ls"), ("peer", "ls")]
    before = [run(*each, "--json").json for each in lists]
    said = run(*words)
    assert said.code == 1
    assert said.err.startswith("hilum: ")
    assert said.err.count("\n") == 1
    assert word in said.err
    assert [run(*each, "--json").json for each in lists] == before


def test_titles(run: Run) -> None:
    run("ae", "add", "TRIAL", "--duplicates", "keep_first", "--missing-uids", "quarantine")
    run("ae", "add", "HERS", "--user", "alice", "--charset", "ISO_IR 100")
    ct, implicit = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2"
    assert run("ae", "add", "CTONLY", "--sop-class", ct, "--transfer-syntax", implicit).code == 0
    assert run("ae", "add", "ASIDE", "--quarantine", "--disabled").code == 0
    run("peer", "add", "ct", "CT1@10.0.0.1")
    assert run("ae", "add", "HILUM", "--peer", "ct", "--max-associations", "5").code == 0
    found = {title["title"]: title for title in run("ae", "ls", "--json").json["titles"]}
    assert found.keys() == {"RAIVEN", "HILUM", "TRIAL", "HERS", "CTONLY", "ASIDE"}
    assert (found["TRIAL"]["duplicates"], found["TRIAL"]["missing_uids"]) == (
        "keep_first",
        "quarantine",
    )
    assert found["HERS"]["kind"] == "account"
    assert found["CTONLY"]["sop_classes"] == [ct]
    assert found["CTONLY"]["transfer_syntaxes"] == [implicit]
    assert not found["ASIDE"]["enabled"]
    lines = run("ae", "ls").lines
    assert ["RVU-alice", "user alice", "", "", ""] in lines
    narrowed = "only ct; 5 associations"
    assert ["HILUM", "global", "keep_both", "refuse", narrowed] in lines
    assert ["listener dicom: *:11112"] in lines
    assert run("ae", "rm", "TRIAL").code == 0
    assert "TRIAL" not in run("ae", "ls").out
    gone = run("user", "rm", "alice")
    assert gone.code == 1
    assert "'HERS' keeps for user 'alice'" in gone.err


def test_listeners(run: Run) -> None:
    assert run("listener", "add", "dose", "8104", "--any-title", "RAIVEN").code == 0
    run("listener", "add", "six", "[::1]:8105", "--tls", "--allow", "10.0.0.0/8", "--disabled")
    found = {each["name"]: each for each in run("listener", "ls", "--json").json}
    assert found.keys() == {"dicom", "dose", "six"}
    assert (found["dose"]["any_title"], found["dose"]["default_title"]) == (True, "RAIVEN")
    shown = {name: (where, state) for name, where, state in run("listener", "ls").lines}
    assert shown["dose"] == ("*:8104 (any title → RAIVEN)", "no gateway runs")
    assert shown["six"][0] == "[::1]:8105 (TLS; from 10.0.0.0/8; disabled)"
    assert run("listener", "rm", "dose").code == 0
    assert "dose" not in run("listener", "ls").out


@pytest.mark.parametrize(
    ("address", "title", "host", "port"),
    [
        ("CT1@10.1.2.3:104", "CT1", "10.1.2.3", 104),
        ("CT1@10.1.2.3", "CT1", "10.1.2.3", None),
        ("*@10.1.0.0/16", "*", "10.1.0.0/16", None),
        ("MY CT@ct.example:11112", "MY CT", "ct.example", 11112),
        ("CT1@[2001:db8::1]:104", "CT1", "2001:db8::1", 104),
        ("CT1@2001:db8::1", "CT1", "2001:db8::1", None),
        ("*@2001:db8::/32", "*", "2001:db8::/32", None),
        ("*@[2001:db8::]/32", "*", "2001:db8::/32", None),
    ],
)
def test_peers(run: Run, address: str, title: str, host: str, port: int | None) -> None:
    said = run("peer", "add", "p", address, "--calling", "US", "--service", "echo")
    assert said.code == 0, said.err
    (found,) = run("peer", "ls", "--json").json
    assert (found["ae_title"], found["host"], found["port"]) == (title, host, port)
    assert (found["calling_ae"], found["services"]) == ("US", ["echo"])
    assert run("peer", "ls").lines[0][0] == "p"
    assert run("peer", "rm", "p").code == 0
    assert run("peer", "ls", "--json").json == []


def test_echo_to_a_peer_that_only_calls_or_does_not_answer(run: Run) -> None:
    run("peer", "add", "caller", "CT1@10.1.2.3")
    said = run("peer", "echo", "caller")
    assert said.code == 1
    assert "only call us" in said.err
    run("peer", "add", "deaf", "CT1@127.0.0.1:1")
    assert run("peer", "echo", "deaf").code == 1


def test_a_change_waits_for_a_running_gateway_and_says_when_it_does_not_follow(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heartbeat.write(data, Heartbeat(changes=10**9))
    assert run("user", "add", "bob").err == ""
    monkeypatch.setattr("hilum.cli.shown._FOLLOWED_WITHIN", 0.1)
    heartbeat.write(data, Heartbeat(changes=0))
    said = run("user", "add", "carol")
    assert said.code == 0
    assert "has not followed" in said.err
    heartbeat.write(data, Heartbeat(changes=0, accepting=False))
    assert run("user", "add", "dave").err == "", "it is stopping: nobody is waited for"


# ── settings and wrong data directories ───────────────────────────────────────────────────────


def test_config_show_lists_every_setting(run: Run) -> None:
    expected = [name for name, *_ in rows(Config())]
    assert [row["name"] for row in run("config", "show", "--json").json] == expected
    said = run("config", "show")
    assert [line[0] for line in said.lines] == expected
    assert all(len(line) == 4 and line[3] for line in said.lines)


def test_config_check(run: Run, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text("[store]\nreserve = 5\n")
    bad.write_text("[store]\ncolour = 5\n")
    assert "settings are good" in run("config", "check", good).out
    said = run("config", "check", bad)
    assert said.code == 1
    assert "store.colour" in said.err
    assert run("config", "show", "--config", good).lines[10][:2] == ["store.reserve", "5"]


# ── settings as files ─────────────────────────────────────────────────────────────────────────


def test_usage_errors_are_one_line(run: Run) -> None:
    for words, says in (
        (["ae", "add"], "hilum ae add: error: missing argument 'TITLE'; see hilum ae add --help"),
        (["ae", "add", "X", "--duplicates", "some"], "'some' is not one of 'keep_both', "),
        (["ls", "--limit", "-1"], "greater than or equal to 0"),
        (["fetch", "pacs", "--modality", "XX"], "hilum fetch PEER: error: invalid value for"),
        (["comitments"], "hilum: no command 'comitments'; did you mean 'commitments'?"),
    ):
        said = run(*words)
        assert said.code == 2
        assert says in said.err
        assert said.err.count("\n") == 1


def test_help_names_values_and_shows_the_options_of_fetch(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    for words in (["fetch", "--help"], ["fetch", "PACS", "--help"]):
        shown = run(*words).out
        assert "hilum fetch PEER [OPTIONS]" in shown
        assert re.search(r"--title +TITLE ", shown)
        assert "--no-again" not in shown
        assert "<str>" not in shown.replace("PEER      <str>", "")


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_on_a_terminal_columns_have_headings_and_uids_stay_whole(data: Path) -> None:
    import pty

    def shown(*words: str) -> list[str]:
        ours, its = pty.openpty()
        try:
            subprocess.run(
                [sys.executable, "-m", "hilum", *words],
                stdout=its, env=os.environ | {"COLUMNS": "40", "TERM": "dumb"}, check=True,
            )  # fmt: skip
            return os.read(ours, 1 << 16).decode().splitlines()
        finally:
            os.close(ours)
            os.close(its)

    heading, *lines = shown("ls")
    assert heading.split()[:3] == ["date", "patient", "ID"]
    assert {line.split()[0] for line in lines if "1." in line} == {"20260301"}
    assert "quarantine" not in heading
    assert shown("jobs", "ls")[-1] == "none"


def test_the_directory_goes_out_and_in(run: Run, data: Path, tmp_path: Path) -> None:
    assert run("peer", "add", "ct", "CT1@192.0.2.7:104").code == 0
    assert run("config", "export", tmp_path / "out.toml").code == 0
    text = (tmp_path / "out.toml").read_text()
    assert run("config", "export").out == text
    assert run("config", "export", tmp_path / "out.toml").code == 1, "it exists"
    assert run("peer", "rm", "ct").code == 0
    said = run("config", "import", tmp_path / "out.toml", "--json")
    assert (said.code, said.json) == (0, {"changed": ["peer ct"]})
    assert run("config", "import", tmp_path / "out.toml").out == "nothing to change\n"
    (tmp_path / "bad.toml").write_text("[[title]]\ntitel = 'A'\n")
    said = run("config", "import", tmp_path / "bad.toml")
    assert said.code == 1
    assert said.err == "hilum: a [[title]] has no 'titel'\n"


def test_settings_of_an_earlier_system(run: Run, tmp_path: Path) -> None:
    (tmp_path / "local_settings.py").write_text("STORE_AET = 'DOSE'\nRM_DCM_MG = True\nDEBUG = 1\n")
    said = run("import-settings", tmp_path / "local_settings.py")
    assert said.code == 0
    assert [line[:3] for line in said.lines] == [
        ["STORE_AET", "DOSE", "set"],
        ["RM_DCM_MG", "True", "kept for later"],
    ]
    assert said.err == "not known here: DEBUG\n"
    assert "DOSE" in run("ae", "ls").out
    (tmp_path / "other").write_text("A = 1")
    assert run("import-settings", tmp_path / "other", "--json").code == 1
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    assert "UTF-8" in run("import-settings", tmp_path / "binary").err
    assert run("import-settings", tmp_path / "none").code == 1


COMMANDS = [
    ["ls"],
    ["verify"],
    ["reindex", "--yes"],
    ["rm", "--study", "1", "--yes"],
    ["export", "--study", "1", "-o", "out"],
    ["import", "."],
    ["config", "export"],
    ["user", "ls"],
    ["user", "add", "bob"],
    ["ae", "ls"],
    ["listener", "ls"],
    ["peer", "ls"],
]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_wrong_data_directory_is_named(run: Run, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a file").write_text("")
    for wrong in ("missing", "empty", "a file"):
        said = run(*words, "--data", tmp_path / wrong)
        assert said.code == 1
        assert said.err.startswith("hilum: ")
        assert said.err.count("\n") == 1
        assert wrong in said.err
        assert list((tmp_path / "empty").iterdir()) == []
        assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] != "reindex"])
def test_a_store_without_a_database_is_named(run: Run, data: Path, words: list[str]) -> None:
    (data / "hilum.db").unlink()
    said = run(*words)
    assert said.code == 1
    assert said.err.startswith("hilum: ")
    assert said.err.count("\n") == 1
    assert not (data / "hilum.db").exists()


@pytest.mark.parametrize("words", [["ls"], ["user", "add", "bob"], ["verify"]])
def test_a_damaged_database_is_one_line(run: Run, data: Path, words: list[str]) -> None:
    (data / "hilum.db").write_bytes(b"not a database" * 500)
    said = run(*words)
    assert said.code == 1
    assert said.err.startswith("hilum: ")
    assert said.err.count("\n") == 1


def test_serve_refuses_what_is_no_store(run: Run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = run("serve", "--data", tmp_path / "empty")
    assert said.code == 1
    assert "--init" in said.err
    (data / MARKER).unlink()
    said = run("serve")
    assert said.code == 1
    assert "mounted" in said.err
    said = run("serve", "--data", tmp_path / "new", "--web", "nonsense")
    assert said.code == 1
    assert not (tmp_path / "new").exists(), "nothing is made before the settings are good"


def test_version_and_help(run: Run) -> None:
    assert run("--version").out.startswith("hilum ")
    for words in ([], ["user"], ["ls"], ["serve"], ["config", "show"]):
        assert run(*words, "--help").code == 0


# ── who is shown whose data ───────────────────────────────────────────────────────────────────


def test_passcodes_and_groups(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse\n"))
    assert run("user", "passwd", "alice", "--stdin").code == 0
    (alice,) = run("user", "ls", "--json").json
    assert alice["passcode"] is True
    assert run("user", "groups", "alice", "research", "radiology").code == 0
    assert run("user", "ls").lines[0][3] == "radiology, research"
    assert "give the passcode with --stdin" in run("user", "passwd", "alice").err
    typed = iter(["one", "another"])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert "the two differ" in run("user", "passwd", "alice").err
    assert run("user", "passwd", "alice", "--remove").code == 0
    (alice,) = run("user", "ls", "--json").json
    assert (alice["passcode"], alice["groups"]) == (False, ["radiology", "research"])
    assert run("user", "groups", "alice").code == 0
    assert run("user", "groups", "alice", "@x").code == 1
    assert run("user", "passwd", "nobody", "--remove").code == 1


def test_peers_that_are_known_by_their_certificate(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ws.pem").write_text(ssl.DER_cert_to_PEM_cert(b"a certificate"))
    digits = hashlib.sha256(b"a certificate").hexdigest()
    add = ("peer", "add", "ws", "WS@10.0.0.1")
    assert run(*add, "--user", "alice", "--certificate", tmp_path / "ws.pem").code == 0
    (peer,) = run("peer", "ls", "--json").json
    assert (peer["belongs_to"], peer["certificate"]) == ("alice", digits)
    assert run(*add, "--group", "radiology", "--certificate", digits.upper()).code == 0
    assert run("peer", "ls").lines[0][-1] == "@radiology"
    for wrong in (
        ("--user", "alice"),
        ("--user", "alice", "--group", "x", "--certificate", digits),
        ("--user", "nobody", "--certificate", digits),
        ("--user", "alice", "--certificate", "no file"),
    ):
        assert run(*add, *wrong).code == 1
