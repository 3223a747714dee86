"""kill -9 at random moments under load: what was acknowledged is there after the restart.

``HILUM_STORM=600`` makes the storm that many seconds long; ``HILUM_STORM_SEED`` repeats its random
choices, though not the scheduling.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.e2e.gateway import USERS, Gateway, hilum, prepare
from tests.e2e.senders import TITLES, Crowd, Ledger, check

from hilum.gateway.store.scan import scan_segment

pytestmark = [pytest.mark.crash, pytest.mark.slow]

STORM = float(os.environ.get("HILUM_STORM", "25"))
SEED = int(os.environ.get("HILUM_STORM_SEED", str(random.SystemRandom().randrange(10**6))))
ROUNDS_AT_LEAST = 3


async def test_a_storm_of_kills_loses_nothing(tmp_path: Path) -> None:
    data, ledger, choose = tmp_path / "data", Ledger(), random.Random(SEED)
    prepare(data)
    deadline, rounds, before = time.monotonic() + STORM, 0, 0
    found: Counter[str] = Counter()
    print(f"HILUM_STORM_SEED={SEED}")
    while rounds < ROUNDS_AT_LEAST or time.monotonic() < deadline:
        rounds += 1
        strategy = choose.choice(("auto", "fsync", "syncfs"))
        if choose.random() < 0.25:
            await _killed_while_starting(data, choose)
        spooled = _objects_in_spool(data)
        with Gateway(data, settings={"HILUM_STORE_STRATEGY": strategy}) as gateway:
            found.update(gateway.reconciled)
            report = Counter(gateway.reconciled)
            in_buckets = report["files"] + report["waiting"] - spooled
            assert in_buckets <= len(ledger.sent) - before, (
                "files of closed buckets were read again"
            )
            if rounds > 1:
                check(data, ledger)
            before = len(ledger.sent)
            await _load_until_killed(gateway, ledger, choose)
    with Gateway(data) as gateway:
        check(data, ledger)
        _check_commands(data, ledger)
        assert gateway.stop() == 0
    assert len(ledger.acknowledged) > rounds * 10
    assert None in ledger.statuses(), "nothing was in flight when it was killed"
    assert set(ledger.statuses()) == {0, None}
    check(data, ledger)
    print(f"{rounds} kills, {len(ledger.acknowledged)} of {len(ledger.sent)} acknowledged")
    print(f"on the way: {dict(found)}")


def _objects_in_spool(data: Path) -> int:
    """All that a start reads there: with rows, moved already, and never acknowledged."""
    segments = (data / "objects" / "spool").glob("*.seg")
    return sum(1 for one in segments for _ in scan_segment(str(data), one.stem))


async def _killed_while_starting(data: Path, choose: random.Random) -> None:
    """A crash while the traces of the crash before are being cleared away."""
    with Gateway(data, wait=False) as gateway:
        await asyncio.sleep(choose.uniform(0.0, 1.5))
        gateway.kill()


async def _load_until_killed(gateway: Gateway, ledger: Ledger, choose: random.Random) -> None:
    crowd = Crowd(gateway.port, ledger)
    await crowd.answered(choose.randrange(1, 60))
    await asyncio.sleep(choose.uniform(0.0, 0.4))  # the random moment
    gateway.kill()
    await crowd.over()


def _check_commands(data: Path, ledger: Ledger) -> None:
    """What a person sees with the commands, beside the running gateway."""
    assert hilum("verify", "--data", data)["findings"] == []
    acknowledged = ledger.acknowledged
    for user in USERS:
        listed = hilum("ls", "--level", "instance", "--user", user, "--data", data)
        seen = [row["sop_uid"] for row in listed]
        assert len(seen) == len(set(seen))
        others = {
            uid for uid, sent in acknowledged.items() if TITLES[sent.title] not in (None, user)
        }
        assert set(seen) >= acknowledged.keys() - others
        assert not others & set(seen)
