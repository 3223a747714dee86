"""docs/settings.md and docs/commands.md say what the settings and the commands are."""

from __future__ import annotations

from pathlib import Path

from hilum.cli.main import _GATEWAY, _TOOLS
from hilum.cli.reference import commands, settings

DOCS = Path(__file__).parents[2] / "docs"


def test_they_are_up_to_date() -> None:
    for page, made in (("settings.md", settings), ("commands.md", commands)):
        assert (DOCS / page).read_text(encoding="utf-8") == made(), "run 'make docs'"


def test_every_command_is_on_a_page() -> None:
    there = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))
    for name in _GATEWAY:
        assert f"## hilum {name}" in there
    for name in _TOOLS:
        assert f"$ hilum {name}" in there


def test_every_page_is_found_from_the_readme() -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert f"docs/{page.name}" in readme
