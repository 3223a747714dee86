"""Processes that decode images: their limits, the room for what they give, decoding ahead."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests import samples

from hilum.errors import InvalidDicom
from hilum.gateway.flow.transcoding import Transcoding
from hilum.gateway.store import decoding
from hilum.gateway.store.decoding import Decoders, DecodingLimits, NoRoom, Whole
from hilum.net.sources import FileSource
from hilum.services.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

MEGABYTE = 1 << 20
LIMITS = DecodingLimits(processes=1, seconds=60.0, size=4 * MEGABYTE, room=8 * MEGABYTE, reserve=0)
# 64 by 64 pixels in RLE: announced as 9 KB of data set, 8 KB of pixels, and a megabyte for icons.
NAME = "MR_small_RLE.dcm"
NEED = MEGABYTE + 8192 + len(samples.named(NAME).data)


def source() -> FileSource:
    return FileSource.open(next(path for path in samples.paths() if path.name == NAME))


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Decoders]]:
    found: list[Decoders] = []

    def make(**changed: object) -> Decoders:
        found.append(Decoders(tmp_path, LIMITS._replace(**changed)))  # type: ignore[arg-type]
        return found[-1]

    yield make
    for each in found:
        each.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_after_another_by_the_same_process(made: Callable[..., Decoders]) -> None:
    decoders = made()
    first, (pid,) = decoders.decode(source()), decoders.pids
    second = decoders.decode(source())
    assert decoders.pids == [pid]
    assert b"".join(first.pieces()) == b"".join(second.pieces())
    assert first.length == second.length < NEED
    assert decoders.used == 0


def test_room_is_spoken_for_until_it_is_given_back(made: Callable[..., Decoders]) -> None:
    decoders = made()
    whole = decoders.decode(source())
    assert decoders.used == whole.length
    whole.close()
    whole.close()
    assert decoders.used == 0
    pieces = decoders.decode(source()).pieces()
    next(pieces)
    pieces.close()
    assert decoders.used == 0


def test_half_of_the_room_is_for_what_is_waited_for(made: Callable[..., Decoders]) -> None:
    decoders = made(room=2 * NEED - 1000)
    with pytest.raises(NoRoom):
        decoders.decode(source(), ahead=True)
    decoders.decode(source()).close()
    assert len(decoders.pids) == 1, "a refusal costs no process"


def test_who_has_to_be_sent_now_waits_for_room(made: Callable[..., Decoders]) -> None:
    decoders = made(room=NEED)
    whole = decoders.decode(source())
    found: list[Whole] = []
    waiting = threading.Thread(target=lambda: found.append(decoders.decode(source())))
    waiting.start()
    assert not found
    whole.close()
    waiting.join(30)
    assert [each.length for each in found] == [whole.length]
    found[0].close()


def test_nobody_waits_for_room_for_ever(made: Callable[..., Decoders]) -> None:
    decoders = made(room=NEED)
    whole = decoders.decode(source())
    decoders.limits = decoders.limits._replace(seconds=5.0)
    with pytest.raises(NoRoom):
        decoders.decode(source())
    whole.close()


def test_what_is_too_large_is_not_begun(made: Callable[..., Decoders]) -> None:
    decoders = made(size=8000)
    with pytest.raises(InvalidDicom, match="at most 8,000"):
        decoders.decode(source())
    assert decoders.used == 0


def test_a_full_disk(made: Callable[..., Decoders]) -> None:
    with pytest.raises(NoRoom, match="disk"):
        made(reserve=1 << 62).decode(source())


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import time; time.sleep(60)", "within 0.5 s"),
        ("import sys; sys.stdin.buffer.read(10)", "ended"),
        ("import sys, time; sys.stdout.buffer.write(b'X' * 99); sys.stdout.flush(); time.sleep(60)",
         "ended"),
        ("import sys, time; sys.stdout.buffer.write(b'F' + b'\\xc0\\0\\0\\0'); sys.stdout.flush();"
         "time.sleep(60)", "ended"),
        ("import sys, time; sys.stdout.buffer.write(b'N\\0\\0\\0\\5' + bytes(5));"
         "sys.stdout.flush(); time.sleep(60)", "ended"),
    ],
    ids=["hangs", "ends", "talks", "a reason of 3 GiB", "a length of five bytes"],
)  # fmt: skip
def test_a_process_that_is_none(
    made: Callable[..., Decoders], monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    monkeypatch.setattr(decoding, "COMMAND", (sys.executable, "-c", program))
    decoders = made(seconds=0.5 if "within" in reason else 30.0)
    with pytest.raises(InvalidDicom, match=reason):
        decoders.decode(source())
    assert decoders.pids == []
    assert decoders.used == 0


def test_a_process_is_told_no_settings(
    made: Callable[..., Decoders], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HILUM_DATABASE", "postgresql://u:secret@db/hilum")
    program = (
        "import os, struct, sys, time\n"
        "said = ' '.join(n for n in os.environ if n.startswith('HILUM')).encode() or b'nothing'\n"
        "sys.stdout.buffer.write(struct.pack('>cI', b'F', len(said)) + said)\n"
        "sys.stdout.flush(); time.sleep(60)"
    )
    monkeypatch.setattr(decoding, "COMMAND", (sys.executable, "-c", program))
    with pytest.raises(InvalidDicom, match=r"^nothing$"):
        made().decode(source())


def test_conversions_and_a_deflated_bomb(made: Callable[..., Decoders]) -> None:
    decoders = made()
    data = samples.named("image_dfl.dcm").data
    whole = decoders.convert(
        iter([data]), len(data), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN
    )
    assert whole.length > len(data)
    whole.close()
    with pytest.raises(InvalidDicom, match="inflated to more"):
        made(size=10_000).convert(
            iter([data]), len(data), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
        )
    assert decoders.used == 0


def test_after_the_end(made: Callable[..., Decoders], tmp_path: Path) -> None:
    (tmp_path / "decoded").mkdir()
    (tmp_path / "decoded" / "left").write_bytes(b"x")
    decoders = made()
    assert not list((tmp_path / "decoded").iterdir())
    decoders.close()
    with pytest.raises(InvalidDicom, match="ends"):
        decoders.decode(source())


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on processes there")
def test_a_process_that_hangs_ends_without_its_parent() -> None:
    program = "from hilum.gateway.store.child import limit_time; limit_time(0)\nwhile True: pass"
    done = subprocess.run([sys.executable, "-c", program], timeout=60)
    assert done.returncode == -signal.SIGXCPU


# ── ahead ─────────────────────────────────────────────────────────────────────────────────────


def test_the_next_ones_are_decoded_while_one_is_sent(made: Callable[..., Decoders]) -> None:
    decoders = made(room=40 * MEGABYTE)
    transcoding = Transcoding(decoders, ahead=2)
    sources = [source() for _ in range(5)]
    transcoding.expect(sources)
    assert decoders.used == 0, "nothing is known to be wanted"
    first = b"".join(transcoding.pieces(sources[0], EXPLICIT_VR_LITTLE_ENDIAN))
    until(lambda: decoders.used == 2 * len(first))
    assert b"".join(transcoding.pieces(sources[1], EXPLICIT_VR_LITTLE_ENDIAN)) == first
    until(lambda: decoders.used == 2 * len(first))
    implicit = b"".join(transcoding.pieces(sources[4], IMPLICIT_VR_LITTLE_ENDIAN))
    assert 0 < len(implicit) != len(first)
    transcoding.close()
    until(lambda: decoders.used == 0)
    with pytest.raises(InvalidDicom, match="over"):
        transcoding.pieces(sources[2], EXPLICIT_VR_LITTLE_ENDIAN)
