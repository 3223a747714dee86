"""Two receivers on pynetdicom, both without its limit of ten associations at a time.

``app`` is its storescp application, which decodes each data set and encodes it again; ``library``
is what a user of the library writes to be fast: the data set goes to a file as it came.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pynetdicom
from pynetdicom import evt
from pynetdicom.apps.storescp import storescp
from pynetdicom.dsutils import encode_file_meta

MAXIMUM_ASSOCIATIONS = 2000


class _AE(pynetdicom.AE):
    def __init__(self, ae_title: str) -> None:
        super().__init__(ae_title)
        self.maximum_associations = MAXIMUM_ASSOCIATIONS


def _app(arguments: list[str]) -> None:
    application: Any = storescp
    application.AE = _AE
    application.main(arguments)


def _store(event: Any, folder: Path) -> int:
    uid = str(event.request.AffectedSOPInstanceUID)
    with open(folder / f"{uid}.dcm", "wb") as file:
        file.write(bytes(128) + b"DICM")
        file.write(encode_file_meta(event.file_meta))
        file.write(event.request.DataSet.getbuffer())
    return 0x0000


def _library(host: str, port: int, folder: Path) -> None:
    ae = _AE("LIBRARY")
    ae.supported_contexts = [
        *pynetdicom.AllStoragePresentationContexts,
        *pynetdicom.VerificationPresentationContexts,
    ]
    ae.start_server((host, port), evt_handlers=[(evt.EVT_C_STORE, _store, [folder])])


if __name__ == "__main__":
    if sys.argv[1] == "app":
        _app(sys.argv[2:])
    else:
        _library(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
