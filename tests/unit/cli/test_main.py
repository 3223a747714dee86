"""The first word, and what is imported for it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from hilum import __version__
from hilum.cli import main as main_module
from hilum.cli.main import main


def test_help_names_both_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("echo", "store", "scp", "serve", "ls", "user", "peer", 'pip install "hilum[gat'):
        assert word in text


def test_without_a_word_help_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage" in err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hilum {__version__}\n"


@pytest.mark.parametrize("word", ["echo", "store", "scp"])
def test_each_tool_explains_itself(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert main([word, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: hilum {word}")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["echo"], "required"),
        (["echo", "h:1", "more"], "unexpected 'more'"),
        (["store", "h:1"], "nothing to send"),
        (["store", "h:1", "/nowhere/at/all"], "no file or folder '/nowhere/at/all'"),
        (["store", "h:1", ".", "-j", "0"], "'0' is no number from 1"),
        (["scp"], "store|echo"),
        (["scp", "store"], "which port"),
        (["scp", "store", "1", "--port", "2"], "which port"),
        (["scp", "store", "0", "--out", "/nowhere/at/all"], "no folder '/nowhere/at/all'"),
        (["scp", "store", "0", "--host", "256.1.1.1"], "cannot listen"),
    ],
)
def test_usage_errors_end_with_2_and_a_remedy(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert main(words) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(("word", "says"), [("serve", "hilum[gateway]"), ("sreve", "no command")])
def test_without_the_gateways_packages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, word: str, says: str
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'typer'", name="typer")

    monkeypatch.setattr(main_module, "import_module", missing)
    assert main([word]) == 2
    assert says in capsys.readouterr().err


def test_a_fault_of_ours_is_not_taken_for_a_missing_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'hilum.lost'", name="hilum.lost")

    monkeypatch.setattr(main_module, "import_module", missing)
    with pytest.raises(ModuleNotFoundError):
        main(["serve"])


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "import_module", interrupted)
    assert main(["echo"]) == 130


def test_the_tools_need_nothing_of_the_gateway() -> None:
    code = (
        "import sys\n"
        "class No:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.split('.')[0] in BANNED or name.startswith('hilum.gateway'):\n"
        "            raise ImportError(name)\n"
        "BANNED = {'sqlalchemy', 'typer', 'uvloop', 'structlog', 'xxhash', 'numpy', 'uvicorn'}\n"
        "sys.meta_path.insert(0, No())\n"
        "import hilum.cli.main as m, hilum.cli.echo, hilum.cli.store, hilum.cli.scp\n"
        "sys.exit(m.main(['store', '127.0.0.1:1', sys.argv[1]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, __file__], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1, done.stderr
    assert "0 sent, 0 warnings, 0 failed, 1 skipped" in done.stdout


def test_a_raw_standard_output_is_buffered_by_lines() -> None:
    """A short write to a pipe loses the rest of a long document otherwise."""
    program = (
        "import io, sys; from hilum.cli.main import main; main(['--version']);"
        "assert isinstance(sys.stdout.buffer, io.BufferedWriter); assert sys.stdout.line_buffering"
    )
    done = subprocess.run([sys.executable, "-u", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hilum ")
