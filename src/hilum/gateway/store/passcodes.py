"""Passcodes of users: kept as argon2 hashes, compared in some 50 ms.

Both functions block; they belong in a thread.
"""

from __future__ import annotations

from hilum.errors import ConfigurationError

__all__ = ["hash_passcode", "is_passcode"]

# PS3.7 gives the field 16 bits of length; longer ones are for nobody.
_LONGEST = 1024


def hash_passcode(passcode: str) -> str:
    """The hash to keep, with its salt and parameters.

    Raises:
        ConfigurationError: no passcode, or one too long.
    """
    from argon2 import PasswordHasher

    if not 1 <= len(passcode) <= _LONGEST:
        raise ConfigurationError(f"a passcode has 1 to {_LONGEST} characters")
    return PasswordHasher().hash(passcode)


def is_passcode(passcode: bytes, hashed: str) -> bool:
    """Whether the passcode is that of the hash; the time is the same where there is no hash.

    Otherwise the time of an answer would tell which users there are.
    """
    from argon2 import PasswordHasher
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return PasswordHasher().verify(hashed or _nobody(), passcode[:_LONGEST]) and bool(hashed)
    except (VerificationError, InvalidHashError):
        return False


def _nobody() -> str:
    global _of_nobody
    if not _of_nobody:
        _of_nobody = hash_passcode("nobody")
    return _of_nobody


_of_nobody = ""
