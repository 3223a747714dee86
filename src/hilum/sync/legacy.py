"""The first generation's interface, for scripts that were never rewritten.

::

    ae = AE(ae_title="STORE", port=11112, scp_sop_class=StorageSOPClassList)
    ae.on_c_store = lambda dataset: 0x0000
    ae.start()

An adapter: callbacks become handlers of the present interface, and everything that is said of
those, their threads and their statuses, holds. Callbacks get as many of their arguments as they
take, since the versions of the time differed in that.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydicom.uid import UID

from hilum.sync import events as evt
from hilum.sync import sop_class as sop_classes
from hilum.sync._globals import DEFAULT_TRANSFER_SYNTAXES
from hilum.sync.ae import ApplicationEntity
from hilum.sync.association import Association
from hilum.sync.events import Event
from hilum.sync.sop_class import SOPClass, uid_to_sop_class
from hilum.sync.transport import Address, AssociationServer

__all__ = [
    "AE",
    "ModalityWorklistServiceSOPClassList",
    "QueryRetrieveSOPClassList",
    "StorageSOPClassList",
    "VerificationSOPClass",
]

StorageSOPClassList: list[SOPClass] = [uid_to_sop_class(uid) for uid in sop_classes.STORAGE]
QueryRetrieveSOPClassList: list[SOPClass] = [
    uid_to_sop_class(uid) for uid in sop_classes.group("QueryRetrieve")
]
ModalityWorklistServiceSOPClassList: list[SOPClass] = [
    uid_to_sop_class(uid) for uid in sop_classes.group("BasicWorklistManagement")
]
VerificationSOPClass: SOPClass = uid_to_sop_class("1.2.840.10008.1.1")

_MODEL = "1.2.840.10008.5.1.4.1.2"
# Query models by the letters of the time, with the last part of each operation's UID.
_MODELS = {"P": f"{_MODEL}.1", "S": f"{_MODEL}.2", "O": f"{_MODEL}.3"}
_OPERATIONS = {"send_c_find": 1, "send_c_move": 2, "send_c_get": 3}
_WORKLIST = "1.2.840.10008.5.1.4.31"

_TOLD = {
    evt.EVT_REQUESTED: "on_association_requested",
    evt.EVT_ACCEPTED: "on_association_accepted",
    evt.EVT_REJECTED: "on_association_rejected",
    evt.EVT_RELEASED: "on_association_released",
    evt.EVT_ABORTED: "on_association_aborted",
}


class AE:
    """An application entity of the first generation.

    Args:
        ae_title: its title.
        port: that ``start`` listens on; 0 takes a free one.
        scu_sop_class: SOP classes to propose: UIDs, or objects of ``sop_class``.
        scp_sop_class: SOP classes to serve.
        transfer_syntax: for both; None takes the four uncompressed ones.
        bind_addr: that ``start`` listens on; empty is every address.

    Callbacks are assigned, or methods of a subclass: ``on_c_echo()``, ``on_c_store(dataset)``,
    ``on_c_find(dataset)``, ``on_c_get(dataset)`` and ``on_c_move(dataset, move_aet)``. The first
    two return a status. ``on_c_find`` yields pairs of status and identifier; ``on_c_get`` a number
    of sub-operations, then pairs of status and data set; ``on_c_move`` the destination's address
    and port too, before or behind that number. Behind these arguments they may take ``context``
    and ``info``.
    """

    def __init__(
        self,
        ae_title: str = "PYNETDICOM",
        port: int = 0,
        scu_sop_class: Sequence[Any] | None = None,
        scp_sop_class: Sequence[Any] | None = None,
        transfer_syntax: Sequence[Any] | None = None,
        bind_addr: str = "",
    ) -> None:
        self.ae = ApplicationEntity(ae_title)
        self.port = port
        self.bind_addr = bind_addr
        syntaxes = [_uid(each) for each in transfer_syntax or DEFAULT_TRANSFER_SYNTAXES]
        for each in _listed(scu_sop_class):
            self.ae.add_requested_context(_uid(each), syntaxes)
        for each in _listed(scp_sop_class):
            self.ae.add_supported_context(_uid(each), syntaxes)
        self._server: AssociationServer | None = None
        self._stopped = threading.Event()

    def __getattr__(self, name: str) -> Any:
        # Time-outs, limits and titles are those of the present interface.
        if name.startswith(("on_", "_")) or name == "ae":
            raise AttributeError(name)
        return getattr(self.ae, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SETTINGS:
            setattr(self.ae, name, value)
        else:
            object.__setattr__(self, name, value)

    # ── serving ─────────────────────────────────────────────────────────────────────────────

    def start(self, block: bool = True) -> None:
        """Listen on ``port``.

        Args:
            block: whether to wait until ``stop`` is called, or the program is interrupted.

        Raises:
            ValueError: there is no SOP class to serve.
            OSError: the port cannot be listened on.
        """
        self._stopped.clear()
        server = self.start_server((self.bind_addr, self.port), block=False)
        assert server is not None
        self._server = server
        self.port = server.server_address[1]
        if block:
            try:
                self._stopped.wait()
            except KeyboardInterrupt:
                self.stop()

    def start_server(
        self, address: Address, block: bool = True, **arguments: Any
    ) -> AssociationServer | None:
        """Listen, with the callbacks as handlers; see ``hilum.sync.AE.start_server``."""
        arguments.setdefault("evt_handlers", self._handlers())
        return self.ae.start_server(address, block, **arguments)

    def stop(self) -> None:
        """Stop listening, and abort the associations that are there; ``start`` returns."""
        self._server = None
        self.ae.shutdown()
        self._stopped.set()

    quit = stop

    # ── requesting ──────────────────────────────────────────────────────────────────────────

    def associate(
        self, addr: str, port: int, ae_title: Any = "ANY-SCP", **arguments: Any
    ) -> Association:
        """Request an association; see ``hilum.sync.AE.associate``.

        ``send_c_find``, ``send_c_get`` and ``send_c_move`` also take the query models by their
        letters, ``P``, ``S``, ``O`` and ``W``.
        """
        if isinstance(ae_title, bytes):
            ae_title = ae_title.decode("ascii").strip()
        arguments.setdefault("evt_handlers", self._handlers())
        assoc = self.ae.associate(addr, port, ae_title=ae_title, **arguments)
        for name, number in _OPERATIONS.items():
            setattr(assoc, name, _with_letters(getattr(assoc, name), number))
        return assoc

    # ── callbacks ───────────────────────────────────────────────────────────────────────────

    def _handlers(self) -> list[Any]:
        handlers: list[Any] = [
            (event, self._told, [name]) for event, name in _TOLD.items() if hasattr(self, name)
        ]
        serves = {
            "on_c_echo": (evt.EVT_C_ECHO, self._echo),
            "on_c_store": (evt.EVT_C_STORE, self._store),
            "on_c_find": (evt.EVT_C_FIND, self._find),
            "on_c_get": (evt.EVT_C_GET, self._get),
            "on_c_move": (evt.EVT_C_MOVE, self._move),
        }
        return handlers + [bound for name, bound in serves.items() if hasattr(self, name)]

    def _call(self, name: str, event: Event, *arguments: Any) -> Any:
        callback: Callable[..., Any] = getattr(self, name)
        request = event.request
        info = {
            "requestor": event.assoc.requestor.info,
            "acceptor": event.assoc.acceptor.info,
            "parameters": {"message_id": request.MessageID},
        }
        return callback(*_taken(callback, (*arguments, event.context, info)))

    def _told(self, event: Event, name: str) -> None:
        callback: Callable[..., Any] = getattr(self, name)
        callback(*_taken(callback, (event.assoc,)))

    def _echo(self, event: Event) -> Any:
        status = self._call("on_c_echo", event)
        return 0x0000 if status is None else status

    def _store(self, event: Event) -> Any:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        return self._call("on_c_store", event, dataset)

    def _find(self, event: Event) -> Iterator[Any]:
        for each in self._call("on_c_find", event, event.identifier) or ():
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield each

    def _get(self, event: Event) -> Iterator[Any]:
        yield from self._call("on_c_get", event, event.identifier)

    def _move(self, event: Event) -> Iterator[Any]:
        yields = iter(self._call("on_c_move", event, event.identifier, event.move_destination))
        first = next(yields)
        if isinstance(first, int):
            # The older order: the number of sub-operations, then where they go.
            yield next(yields)
        yield first
        yield from yields


_SETTINGS = frozenset(
    {
        "ae_title",
        "acse_timeout",
        "dimse_timeout",
        "network_timeout",
        "maximum_associations",
        "maximum_pdu_size",
        "require_called_aet",
        "require_calling_aet",
        "requested_contexts",
        "supported_contexts",
    }
)


def _taken(callback: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """As many of the arguments as the callback takes."""
    parameters = inspect.signature(callback).parameters.values()
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return arguments
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return arguments[: sum(each.kind in positional for each in parameters)]


def _listed(classes: Any) -> Sequence[Any]:
    if classes is None:
        return ()
    return (classes,) if isinstance(classes, str) else tuple(classes)


def _uid(named: Any) -> UID:
    """A UID by itself, as bytes, or as the ``UID`` of a class of the time."""
    if isinstance(named, bytes):
        named = named.decode("ascii")
    return UID(named if isinstance(named, str) else str(named.UID))


def _with_letters(send: Callable[..., Any], number: int) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        def model(value: Any) -> Any:
            if value == "W":
                return _WORKLIST
            return f"{_MODELS[value]}.{number}" if value in _MODELS else value

        position = 2 if number == 2 else 1
        if "query_model" in named:
            named["query_model"] = model(named["query_model"])
        elif len(arguments) > position:
            changed = [*arguments]
            changed[position] = model(changed[position])
            arguments = tuple(changed)
        else:
            named["query_model"] = model("W" if number == 1 else "P")
        return send(*arguments, **named)

    return wrapped
