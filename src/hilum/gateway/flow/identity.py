"""User identity: who a caller proves to be, with a passcode.

Standard: PS3.7 D.3.3.7 (user identity negotiation).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from hilum.gateway.store.entries import Account, Snapshot
from hilum.gateway.store.passcodes import is_passcode
from hilum.gateway.threads import in_thread
from hilum.wire.items import UserIdentityRQ, UserIdentityType

__all__ = ["PasscodeChecker", "is_checked"]

# A comparison takes 50 ms and 64 MB.
PARALLEL = 2
# Nobody mistypes so often; who guesses is not served for a while.
MAX_FAILURES, FORGOTTEN_AFTER = 10, 60.0
MAX_ADDRESSES = 10_000


def is_checked(identity: UserIdentityRQ | None) -> bool:
    """Whether an identity is one that we can check; others prove nothing, and are passed over."""
    return identity is not None and identity.identity_type == UserIdentityType.USERNAME_PASSCODE


class PasscodeChecker:
    """Compares passcodes, a few at a time, and not for addresses that guess."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(PARALLEL)
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    async def check(
        self, identity: UserIdentityRQ, snapshot: Snapshot, address: str
    ) -> Account | None:
        """The user who it is; None for a wrong name or passcode, or too many of them."""
        account = snapshot.account_named(identity.primary.decode("utf-8", "replace"))
        hashed = account.passcode if account is not None and not account.disabled else ""
        async with self._turns:
            # Not before: who guesses many at once would have no failures yet for any of them.
            if len(self._recent(address)) >= MAX_FAILURES:
                return None
            right = await in_thread(is_passcode, identity.secondary, hashed)
            if not right:
                self._failed(address)
                return None
        # Failures stay: nobody's own passcode lets him go on guessing another's.
        return account

    def _recent(self, address: str) -> list[float]:
        since = time.monotonic() - FORGOTTEN_AFTER
        return [at for at in self._failures.get(address, ()) if at > since]

    def _failed(self, address: str) -> None:
        self._failures[address] = [*self._recent(address), time.monotonic()]
        self._failures.move_to_end(address)
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
