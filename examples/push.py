"""Push every DICOM file of a folder to one AE title.

    UPLOAD_DIR=study UPLOAD_AE_TITLE=RVU-alice UPLOAD_HOST=gateway UPLOAD_PORT=11112 python push.py

Ends with 1 if any file was answered with a failure, or did not get there.
"""

import asyncio
import os
import sys

from hilum.net.files import Outcome, SendResult, send_files
from hilum.net.sources import find_sources


def show(result: SendResult) -> None:
    if result.outcome not in (Outcome.SENT, Outcome.WARNING):
        print(f"{result.source.name}: {result.outcome}: {result.reason}", file=sys.stderr)


async def push(folder: str, called: str, host: str, port: int) -> bool:
    with find_sources([folder]) as found:
        for name, reason in found.failed:
            print(f"{name}: {reason}", file=sys.stderr)
        summary = await send_files(
            host, port, found.sources, called=called, calling="PUSH", on_result=show
        )
        sent = summary.counts[Outcome.SENT] + summary.counts[Outcome.WARNING]
        print(f"{sent} of {len(found.sources) + len(found.failed)} DICOM files sent to {called}")
        return summary.ok and not found.failed and bool(found.sources)


if __name__ == "__main__":
    try:
        folder, called = os.environ["UPLOAD_DIR"], os.environ["UPLOAD_AE_TITLE"]
    except KeyError as missing:
        sys.exit(f"set {missing.args[0]} in the environment")
    host = os.environ.get("UPLOAD_HOST", "localhost")
    port = int(os.environ.get("UPLOAD_PORT", "11112"))
    sys.exit(0 if asyncio.run(push(folder, called, host, port)) else 1)
