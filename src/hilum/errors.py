"""Every exception that Hilum raises.

::

    HilumError
    ├── ConfigurationError           a setting or argument is wrong; nothing was started
    ├── LocalProtocolError           our caller broke the protocol; nothing was sent
    ├── RemoteProtocolError          the peer broke it; carries the A-ABORT reason to answer with
    │   └── LimitExceeded            a length, count or depth over a named limit
    ├── AssociationError             an association ended or could not begin
    │   ├── ConnectFailed            no TCP (or TLS) connection
    │   ├── AssociationRejected      A-ASSOCIATE-RJ: result, source, reason
    │   ├── AssociationAborted       A-ABORT from the peer: source, reason
    │   ├── AssociationReleased      the peer released it before an answer came
    │   ├── ConnectionLost           the transport closed without A-RELEASE or A-ABORT
    │   └── AssociationTimeout       a deadline passed; the association was aborted
    ├── NoPresentationContext        no accepted context fits; the association is still usable
    ├── Refused                      a handler's answer to a request: status, comment, elements
    ├── InvalidDicom                 a file or data set cannot be read as DICOM
    └── StoreError                   the gateway's storage
        ├── StorageFailed            bytes, names or rows could not be made durable
        ├── StoreUnavailable         the store may not be opened (marker, lock, version)
        └── NotFound                 what was named is not here
"""

from __future__ import annotations

__all__ = [
    "AssociationAborted",
    "AssociationError",
    "AssociationRejected",
    "AssociationReleased",
    "AssociationTimeout",
    "ConfigurationError",
    "ConnectFailed",
    "ConnectionLost",
    "HilumError",
    "InvalidDicom",
    "LimitExceeded",
    "LocalProtocolError",
    "NoPresentationContext",
    "NotFound",
    "Refused",
    "RemoteProtocolError",
    "StorageFailed",
    "StoreError",
    "StoreUnavailable",
]


class HilumError(Exception):
    """Root of the tree: everything Hilum raises on purpose."""


class ConfigurationError(HilumError):
    """A setting or argument is wrong; nothing was started."""


class LocalProtocolError(HilumError):
    """Our own caller broke the protocol; nothing was sent, the association is unchanged."""


class RemoteProtocolError(HilumError):
    """The peer broke the protocol.

    Standard: PS3.8 9.3.8, Table 9-26.

    Args:
        message: what came and what was expected.
        reason: the A-ABORT reason (0 not specified, 1 unrecognised PDU, 2 unexpected PDU,
            4 unrecognised parameter, 5 unexpected parameter, 6 invalid parameter value).
    """

    def __init__(self, message: str, reason: int = 0) -> None:
        super().__init__(message)
        self.reason = reason


class LimitExceeded(RemoteProtocolError):
    """A length, count or depth that the peer declared is over a named limit."""


class AssociationError(HilumError):
    """An association ended or could not begin."""


class ConnectFailed(AssociationError):
    """No TCP or TLS connection could be made."""


class AssociationRejected(AssociationError):
    """The peer answered A-ASSOCIATE-RJ.

    Standard: PS3.8 9.3.4, Table 9-21.
    """

    _SOURCES = {
        1: "service user",
        2: "service provider (ACSE)",
        3: "service provider (presentation)",
    }
    _REASONS = {
        (1, 1): "no reason given",
        (1, 2): "application context name not supported",
        (1, 3): "calling AE title not recognised",
        (1, 7): "called AE title not recognised",
        (2, 1): "no reason given",
        (2, 2): "protocol version not supported",
        (3, 1): "temporary congestion",
        (3, 2): "local limit exceeded",
    }

    def __init__(self, result: int, source: int, reason: int) -> None:
        self.result, self.source, self.reason = result, source, reason
        lasting = {1: "permanently", 2: "for now"}.get(result, f"with result {result}")
        by = self._SOURCES.get(source, f"source {source}")
        why = self._REASONS.get((source, reason), f"reason {reason}")
        super().__init__(f"association rejected {lasting} by the {by}: {why}")


class AssociationAborted(AssociationError):
    """The peer sent A-ABORT.

    Standard: PS3.8 9.3.8.
    """

    def __init__(self, source: int, reason: int) -> None:
        self.source, self.reason = source, reason
        by = {0: "user", 2: "provider"}.get(source, f"source {source}")
        super().__init__(f"association aborted by the peer's service {by}, reason {reason}")


class AssociationReleased(AssociationError):
    """The peer released the association while something was still expected from it."""


class ConnectionLost(AssociationError):
    """The transport closed without A-RELEASE or A-ABORT."""


class AssociationTimeout(AssociationError):
    """A deadline passed; the association was aborted."""


class NoPresentationContext(HilumError):
    """No accepted presentation context fits; the association is still usable."""


class Refused(HilumError):
    """Raised by the handler of a request: what it answers instead.

    Standard: PS3.7 annex C.

    Args:
        status: (0000,0900).
        error_comment: (0000,0902), at most 64 characters; never with a patient's data.
        offending_element: tags as 32-bit numbers, (0000,0901).
        data: a data set of the response, in its context's transfer syntax.
    """

    def __init__(
        self,
        status: int,
        error_comment: str | None = None,
        offending_element: tuple[int, ...] | None = None,
        data: bytes | None = None,
    ) -> None:
        self.status, self.error_comment = status, error_comment
        self.offending_element, self.data = offending_element, data
        super().__init__(f"status {status:04X}H" + (f": {error_comment}" if error_comment else ""))


class InvalidDicom(HilumError):
    """A file or data set cannot be read as DICOM."""


class StoreError(HilumError):
    """The gateway's storage could not do what was asked."""


class StorageFailed(StoreError):
    """Bytes, names or rows could not be made durable; nothing of them is visible."""


class StoreUnavailable(StoreError):
    """The store may not be opened: marker missing, locked by another process, newer format."""


class NotFound(StoreError):
    """What was named is not here, or not for this viewer."""
