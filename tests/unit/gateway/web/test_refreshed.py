"""Looking something up in a thread: once at a time, not too often, not waited for too long."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hilum.gateway.web.refreshed import Refreshed


async def test_a_value_is_looked_up_once_for_all_who_ask() -> None:
    looks = []
    refreshed = Refreshed(lambda: looks.append(1) or len(looks), every=3600, patience=20)
    answers = await asyncio.gather(*(refreshed.get() for _ in range(50)))
    assert {answer.value for answer in answers} == {1}
    assert all(answer.in_time for answer in answers)
    assert (await refreshed.get()).value == 1


async def test_an_old_value_is_looked_up_again() -> None:
    looks = []
    refreshed = Refreshed(lambda: looks.append(1) or len(looks), every=0, patience=20)
    async with asyncio.timeout(20):
        while (await refreshed.get()).value != 3:
            await asyncio.sleep(0)


async def test_who_asks_waits_only_so_long_and_gets_the_last_value() -> None:
    go_on = threading.Event()
    entered = []

    def look() -> int:
        entered.append(threading.current_thread())
        if len(entered) > 1:
            go_on.wait(20)
        return len(entered)

    refreshed = Refreshed(look, every=0, patience=0.01)
    async with asyncio.timeout(20):
        while (answer := await refreshed.get()).in_time:
            await asyncio.sleep(0)
        assert answer.value == 1
        # The one that hangs is not joined by others.
        for _ in range(5):
            assert not (await refreshed.get()).in_time
        assert len(entered) == 2
        assert entered[1].daemon
        go_on.set()
        while (await refreshed.get()).value != 2:
            await asyncio.sleep(0)


async def test_what_a_look_raises_is_raised_and_the_next_one_tries_again() -> None:
    looks = []

    def look() -> int:
        looks.append(1)
        if len(looks) == 1:
            raise OSError("disk")
        return len(looks)

    refreshed = Refreshed(look, every=3600, patience=20)
    with pytest.raises(OSError, match="disk"):
        await refreshed.get()
    assert (await refreshed.get()).value == 2
