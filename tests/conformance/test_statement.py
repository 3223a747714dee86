"""The generated conformance statement is current, and says what associations show."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

from hilum.cli.conformance import made, main
from hilum.cli.statement import Offer, statement
from hilum.net.service import Accept, service_policy, storage_policy
from hilum.services.service_classes import SERVICES
from hilum.services.sop_classes import (
    MODALITY_WORKLIST_FIND,
    STORAGE_COMMITMENT_PUSH_MODEL,
    STUDY_ROOT_FIND,
    VERIFICATION,
)
from hilum.wire.command import CommandField

DOCS = Path(__file__).parents[2] / "docs" / "conformance.md"


@pytest.fixture(scope="module")
def text() -> str:
    return made()


def test_the_statement_in_docs_is_current(text: str) -> None:
    kept = DOCS.read_text(encoding="utf-8")
    if f"pydicom {version('pydicom')} " not in kept:
        pytest.skip("made with another pydicom, whose list of SOP classes may be another")
    assert kept == text, "docs/conformance.md is out of date; run: make docs"


def test_it_names_every_service(text: str) -> None:
    for service in SERVICES:
        assert f"| {service.name} | PS3.4 {service.annex} |" in text
    for title in ("Gateway", "Tools", "Library", "Transfer syntaxes", "Status codes",
                  "Character sets", "Security"):  # fmt: skip
        assert f"\n## {title}\n" in text


def test_tables_are_tables(text: str) -> None:
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block[:200]


async def handler(request: object) -> object:
    raise AssertionError


def test_an_offer_is_what_an_acceptance_takes() -> None:
    offer = Offer.of(
        Accept(
            policy=service_policy(
                [STUDY_ROOT_FIND, STORAGE_COMMITMENT_PUSH_MODEL],
                otherwise=storage_policy(sop_classes=frozenset()),
            ),
            roles={STORAGE_COMMITMENT_PUSH_MODEL: (True, True)},
            handlers={CommandField.C_FIND_RQ: handler, CommandField.N_ACTION_RQ: handler},  # type: ignore[dict-item]
        )
    )
    assert set(offer.accepted) == {VERIFICATION, STUDY_ROOT_FIND, STORAGE_COMMITMENT_PUSH_MODEL}
    assert not offer.private
    said = statement(offer, [])
    assert "| Query/Retrieve | PS3.4 C | SCP (1) |" in said
    assert "| Storage Commitment | PS3.4 J | SCP, SCU (1) |" in said
    assert "| Basic Worklist Management | PS3.4 K | no |" in said
    assert MODALITY_WORKLIST_FIND in said  # a tool asks for it


def test_without_the_gateway() -> None:
    said = statement(None, [])
    assert "## Gateway" not in said
    assert "| Storage | PS3.4 B |  |" in said


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == text
    assert main(["-o", str(tmp_path / "file.md")]) == 0
    assert (tmp_path / "file.md").read_text(encoding="utf-8") == text
    assert main(["-o", str(tmp_path / "none" / "file.md")]) == 1
    assert "hilum conformance:" in capsys.readouterr().err
