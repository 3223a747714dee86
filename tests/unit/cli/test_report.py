"""What is printed, for people and for programs."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

import pytest

from hilum.cli.report import StoreReport, shown
from hilum.errors import ConnectionLost
from hilum.net.files import Outcome, SendResult, Summary
from hilum.net.sources import FileSource, Found, PassedOver
from hilum.services.part10 import FileHead


def source(name: str) -> FileSource:
    return FileSource(name, FileHead(300, "1.2", f"1.2.{name}", "1.2.840.10008.1.2"), 1000)


RESULTS = [
    SendResult(source("a"), Outcome.SENT, 0, "", 0.25),
    SendResult(source("b"), Outcome.WARNING, 0xB000, "B000H warning: coerced", 0.25),
    SendResult(source("c"), Outcome.FAILED, 0xA700, "A700H failure: full", 0.25),
    SendResult(source("\x1b[2Jd"), Outcome.UNKNOWN, reason="lost\n"),
    SendResult(source("e"), Outcome.NOT_SENT, reason="lost"),
]


def report(results: list[SendResult], **options: bool) -> bool:
    flags: dict[str, Any] = {"json": False, "quiet": False, "verbose": False, "debug": False}
    found = Found(
        [result.source for result in results],
        skipped=[PassedOver("x.txt", "no DICOM file")],
        failed=[] if len(results) == 2 else [PassedOver("y.dcm", "permission denied")],
    )
    made = StoreReport(Namespace(**(flags | options)), found)
    summary = Summary(bytes=2000, seconds=0.5, associations=2)
    summary.error = None if len(results) == 2 else ConnectionLost("lost")
    with made.progress():
        made.not_sent()
        for result in results:
            summary.counts[result.outcome] += 1
            made.result(result)
    return made.end("PACS@h:1", summary)


def test_a_line_when_all_went_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(RESULTS[:2])
    out, err = capsys.readouterr()
    assert out == "1 sent, 1 warnings, 0 failed, 1 skipped; 0.0 MB in 0.5 s, 0.0 MB/s\n"
    assert err == ""


def test_failures_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert not report(RESULTS)
    out, err = capsys.readouterr()
    assert "1 sent, 1 warnings, 4 failed (1 of them unknown), 1 skipped" in out
    assert err.splitlines() == [
        "failed y.dcm: permission denied",
        "failed c: A700H failure: full",
        "unknown \\x1b[2Jd: lost\\n",
        "1 not sent: lost",
    ]


def test_verbose_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    report(RESULTS, verbose=True)
    out = capsys.readouterr().out
    assert out.startswith(
        "skipped x.txt: no DICOM file\nsent a\nwarning b: B000H warning: coerced\n"
    )


def test_quiet_names_failures_only(capsys: pytest.CaptureFixture[str]) -> None:
    report(RESULTS, quiet=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 4


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    report(RESULTS, json=True)
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    assert document["ok"] is False
    assert document["peer"] == "PACS@h:1"
    assert [file["outcome"] for file in document["files"]] == [
        "sent", "warning", "failed", "unknown", "not sent", "failed",
    ]  # fmt: skip
    assert document["files"][2] == {
        "file": "c",
        "sop_class_uid": "1.2",
        "sop_instance_uid": "1.2.c",
        "transfer_syntax_uid": "1.2.840.10008.1.2",
        "outcome": "failed",
        "status": "A700",
        "reason": "A700H failure: full",
        "bytes": 1000,
        "seconds": 0.25,
    }
    assert document["skipped"] == [{"file": "x.txt", "reason": "no DICOM file"}]
    assert document["summary"]["failed"] == 4
    assert document["summary"]["error"] == "lost"


def test_nothing_to_send_is_no_success() -> None:
    assert not StoreReport(
        Namespace(json=False, quiet=True, verbose=False, debug=False), Found()
    ).end("h:1", Summary())


def test_names_that_are_no_unicode() -> None:
    assert shown("a\udcff\x07ü") == "a\\udcff\\x07ü"
