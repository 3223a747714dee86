"""Results of commitments that nobody waits for yet: kept, but not without end."""

from __future__ import annotations

import pytest

from hilum.net import commitment
from hilum.net.commitment import Commitments
from hilum.services.commitment import Failure, Reference, Result

CT = "1.2.840.10008.5.1.4.1.1.2"


def result(uid: str, count: int) -> Result:
    committed = tuple(Reference(CT, f"1.2.{number}") for number in range(count - 1))
    return Result(uid, committed, (Failure(CT, "1.3", 0x0110),))


async def test_a_result_that_comes_early_waits() -> None:
    commitments = Commitments()
    commitments.heard(result("2.25.1", 3))
    assert await commitments.result("2.25.1", timeout=1) == result("2.25.1", 3)


async def test_large_results_that_nobody_waits_for_are_not_all_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commitment, "MAX_UNCLAIMED_REFERENCES", 100)
    commitments = Commitments()
    for number in range(50):
        commitments.heard(result(f"2.25.{number}", 30))
    assert (
        sum(len(one.committed) + len(one.failed) for one in commitments._unclaimed.values()) <= 100
    )
    # The last ones are kept, one of any size among them.
    assert await commitments.result("2.25.49", timeout=1) == result("2.25.49", 30)
    commitments.heard(result("2.25.99", 1000))
    assert await commitments.result("2.25.99", timeout=1) == result("2.25.99", 1000)
