"""Passcodes of callers: compared a few at a time, and not for those who guess."""

from __future__ import annotations

import asyncio
from functools import cache

import pytest

from hilum.gateway.flow import identity
from hilum.gateway.flow.identity import MAX_FAILURES, PARALLEL, PasscodeChecker
from hilum.gateway.store.entries import Account, Snapshot
from hilum.gateway.store.passcodes import hash_passcode, is_passcode
from hilum.wire.items import UserIdentityRQ, UserIdentityType


@cache
def snapshot() -> Snapshot:
    account = Account(7, "alice", None, False, 0, (), hash_passcode("right"))
    return Snapshot(1, (account,), (), (), (), {})


def said(passcode: str) -> UserIdentityRQ:
    return UserIdentityRQ(UserIdentityType.USERNAME_PASSCODE, b"alice", passcode.encode())


async def test_who_guesses_many_at_once_is_not_served_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = 0

    def counted(passcode: bytes, hashed: str) -> bool:
        nonlocal compared
        compared += 1
        return is_passcode(passcode, hashed)

    monkeypatch.setattr(identity, "is_passcode", counted)
    checker = PasscodeChecker()
    guesses = [checker.check(said(f"{n}"), snapshot(), "10.0.0.1") for n in range(40)]
    assert await asyncio.gather(*guesses) == [None] * 40
    assert compared < MAX_FAILURES + PARALLEL
    assert await checker.check(said("right"), snapshot(), "10.0.0.1") is None
    alice = await checker.check(said("right"), snapshot(), "10.0.0.2")
    assert alice is not None and alice.name == "alice"


async def test_who_is_right_may_call_many_times_at_once() -> None:
    checker = PasscodeChecker()
    calls = [checker.check(said("right"), snapshot(), "10.0.0.1") for _ in range(MAX_FAILURES + 2)]
    assert all(await asyncio.gather(*calls))


async def test_ones_own_passcode_between_guesses_does_not_let_one_go_on() -> None:
    checker = PasscodeChecker()
    for number in range(MAX_FAILURES - 1):
        assert await checker.check(said(f"{number}"), snapshot(), "10.0.0.1") is None
    assert await checker.check(said("right"), snapshot(), "10.0.0.1")
    assert await checker.check(said("another"), snapshot(), "10.0.0.1") is None
    assert await checker.check(said("right"), snapshot(), "10.0.0.1") is None
