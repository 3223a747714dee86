"""docs/library.md, run from top to bottom as it stands there but for the ports."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file
from tests.peers import free_port

PAGE = Path(__file__).parents[2] / "docs" / "library.md"


def test_every_block_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    shutil.copy(get_testdata_file("CT_small.dcm"), tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text()
    for port in sorted(set(re.findall(r"\b1111\d\b", text))):
        text = text.replace(port, str(free_port()))
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 8

    async def main() -> None:
        names: dict[str, Any] = {"__name__": "page"}
        for block in blocks:
            code = compile(block, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, names)
            if inspect.isawaitable(result):
                await result

    asyncio.run(main())
    out = capsys.readouterr().out
    uid = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
    assert out.count("bytes\n") == 3  # stored, got, moved
    assert uid in out
    assert "committed: 1.2.3" in out
