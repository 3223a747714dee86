"""Ask a peer whether it answers: one C-ECHO.

python verification_scu.py HOST PORT [AE_TITLE]
"""

import asyncio
import sys

from hilum.errors import HilumError
from hilum.net.client import connect


async def verify(host: str, port: int, called: str) -> bool:
    try:
        async with await connect(host, port, called=called, calling="EXAMPLE") as association:
            response = await association.c_echo()
    except HilumError as error:
        print(error)
        return False
    print(f"{called} answered {response.status:04X}H")
    return response.status == 0x0000


if __name__ == "__main__":
    _, host, port, *called = sys.argv
    sys.exit(0 if asyncio.run(verify(host, int(port), *called or ["ANY-SCP"])) else 1)
