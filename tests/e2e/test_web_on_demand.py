"""The web process is there while someone asks it, and no longer than its gateway."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tests.e2e.gateway import Gateway, prepare

_SHOWN = re.compile(r"status page on (http://[0-9.:]+/)")


def children(process: int) -> list[int]:
    found = Path(f"/proc/{process}/task").glob("*/children")
    return [int(number) for path in found for number in path.read_text().split()]


def get(url: str) -> tuple[int, bytes]:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.status, answer.read()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are counted in /proc")
def test_the_web_process_starts_with_the_first_request(tmp_path: Path) -> None:
    data = tmp_path / "data"
    prepare(data)
    with Gateway(data, words=["--web", "127.0.0.1:0"]) as gateway:
        url = gateway.wait_for(_SHOWN)[1]
        assert children(gateway.process.pid) == []
        assert get(f"{url}readyz") == (200, b"[]")
        (web,) = children(gateway.process.pid)
        assert get(f"{url}healthz")[0] == 200
        assert children(gateway.process.pid) == [web]
        assert gateway.stop() == 0
        assert not Path(f"/proc/{web}").exists()


def test_the_reserve_is_known_to_the_status_page(tmp_path: Path) -> None:
    data = tmp_path / "data"
    prepare(data)
    settings = {"HILUM_STORE_RESERVE": str(1 << 60)}
    with Gateway(data, settings=settings, words=["--web", "127.0.0.1:0"]) as gateway:
        url = gateway.wait_for(_SHOWN)[1]
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(f"{url}readyz")
        assert refused.value.code == 503
        (problem,) = json.loads(refused.value.read())
        assert "reserve" in problem
        assert b"reserve" in get(url)[1]
