"""Send one file over an association of one's own making.

To send many, see ``hilum.net.files.send_files`` and push.py.

python store_scu.py HOST PORT FILE
"""

import asyncio
import sys

from hilum.net.client import connect
from hilum.net.sources import FileSource
from hilum.services.status import describe


async def store(host: str, port: int, path: str) -> bool:
    source = await asyncio.to_thread(FileSource.open, path)
    head = source.head
    contexts = [(head.sop_class_uid, (head.transfer_syntax_uid,))]
    async with await connect(host, port, contexts=contexts) as association:
        # The data set goes out as it is in the file, 1 MiB at a time.
        response = await association.c_store(
            source.pieces(),
            sop_class_uid=head.sop_class_uid,
            sop_instance_uid=head.sop_instance_uid,
            transfer_syntax_uid=head.transfer_syntax_uid,
        )
    print(describe(response.status))
    return response.status == 0x0000


if __name__ == "__main__":
    _, host, port, path = sys.argv
    sys.exit(0 if asyncio.run(store(host, int(port), path)) else 1)
