"""A provider and users of the blocking API for the tests of its threads."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from pydicom import Dataset
from pydicom.data import get_testdata_file

from hilum.sync import AE, build_context, build_role
from hilum.sync.association import Association
from hilum.sync.sop_class import (
    CTImageStorage,
    ModalityPerformedProcedureStep,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

CT = get_testdata_file("CT_small.dcm")
FIND = StudyRootQueryRetrieveInformationModelFind
GET = StudyRootQueryRetrieveInformationModelGet
MOVE = StudyRootQueryRetrieveInformationModelMove
MPPS = ModalityPerformedProcedureStep
CLASSES = (Verification, CTImageStorage, FIND, GET, MOVE, MPPS)
CONTEXTS = [build_context(uid) for uid in CLASSES]
BOTH_ROLES = [build_role(CTImageStorage, scu_role=True, scp_role=True)]


def within(seconds: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test that hangs fails, and the others still run."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            raised: list[BaseException] = []

            def body() -> None:
                try:
                    test(*args, **kwargs)
                except BaseException as error:
                    raised.append(error)

            thread = threading.Thread(target=body, name="test", daemon=True)
            thread.start()
            thread.join(seconds)
            assert not thread.is_alive(), f"still running after {seconds} s"
            if raised:
                raise raised[0]

        return run

    return decorate


def until(true: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Poll until something is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


class Provider:
    """An AE whose servers end with the test."""

    def __init__(self) -> None:
        self.ae = AE("PROVIDER")
        self.ae.supported_contexts = CONTEXTS
        self.ae.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
        self.ae.requested_contexts = [build_context(CTImageStorage)]

    def start(self, *handlers: Any) -> int:
        """Serve on a free port."""
        server = self.ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=list(handlers))
        assert server is not None
        return server.server_address[1]


def associate(port: int, ae: AE | None = None, **arguments: Any) -> Association:
    """An established association of ``USER``."""
    if ae is None:
        ae = AE("USER")
        ae.acse_timeout = ae.dimse_timeout = 10
    assoc = ae.associate("127.0.0.1", port, contexts=CONTEXTS, **arguments)
    assert assoc.is_established
    return assoc


def identifier(**elements: str) -> Dataset:
    """A data set at study level."""
    made = Dataset()
    made.QueryRetrieveLevel = "STUDY"
    for name, value in elements.items():
        setattr(made, name, value)
    return made
