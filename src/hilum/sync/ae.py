"""An application entity: settings, and the two ways into an association."""

from __future__ import annotations

import logging
import ssl
import warnings
from collections.abc import Sequence
from copy import deepcopy
from typing import Any
from weakref import WeakSet

from pydicom.uid import UID

from hilum.sync import _config, requestor
from hilum.sync._globals import DEFAULT_MAX_LENGTH
from hilum.sync.association import Association
from hilum.sync.events import EventHandlerType
from hilum.sync.loop import current
from hilum.sync.pdu_primitives import ServiceParameter
from hilum.sync.presentation import PresentationContext, build_context, syntaxes
from hilum.sync.transport import Address, AssociationServer
from hilum.sync.utils import decode_bytes, set_ae, set_uid
from hilum.wire.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

__all__ = ["ApplicationEntity"]

log = logging.getLogger("hilum.sync")

MAX_CONTEXTS = 128

TransferSyntaxes = str | UID | Sequence[str | UID] | None


class ApplicationEntity:
    """A DICOM application entity, which requests associations, accepts them, or both.

    Args:
        ae_title: its title, 1 to 16 ASCII characters.
    """

    def __init__(self, ae_title: str = "PYNETDICOM") -> None:
        self.ae_title = ae_title
        self._implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        self._implementation_version_name: str | None = IMPLEMENTATION_VERSION_NAME
        self._requested_contexts: list[PresentationContext] = []
        self._supported_contexts: dict[UID, PresentationContext] = {}
        self._maximum_associations = 10
        self._maximum_pdu_size = DEFAULT_MAX_LENGTH
        self._acse_timeout: float | None = 30
        self._dimse_timeout: float | None = 30
        self._network_timeout: float | None = 60
        self._connection_timeout: float | None = None
        self._require_calling_aet: list[str] = []
        #: Whether associations that call another title than ours are rejected.
        self.require_called_aet = False
        self._servers: list[AssociationServer] = []
        self._associations: WeakSet[Association] = WeakSet()

    # ── who it is ───────────────────────────────────────────────────────────────────────────

    @property
    def ae_title(self) -> str:
        """Get or set the AE title."""
        return self._ae_title

    @ae_title.setter
    def ae_title(self, value: str) -> None:
        self._ae_title = _title(value, "ae_title")

    @property
    def implementation_class_uid(self) -> UID:
        """Get or set the implementation class UID (PS3.7 D.3.3.2)."""
        return self._implementation_class_uid

    @implementation_class_uid.setter
    def implementation_class_uid(self, value: str) -> None:
        uid = set_uid(value, "implementation_class_uid", False, False)
        if uid is None or not uid.is_valid:
            raise ValueError(f"Invalid 'implementation_class_uid' value '{value}'")
        self._implementation_class_uid = uid

    @property
    def implementation_version_name(self) -> str | None:
        """Get or set the implementation version name; None sends none."""
        return self._implementation_version_name

    @implementation_version_name.setter
    def implementation_version_name(self, value: str | None) -> None:
        if value == "":
            raise ValueError("Invalid 'implementation_version_name' value - must not be empty")
        self._implementation_version_name = set_ae(value, "implementation_version_name")

    # ── limits and time-outs ────────────────────────────────────────────────────────────────

    @property
    def maximum_associations(self) -> int:
        """Get or set how many associations are accepted at once."""
        return self._maximum_associations

    @maximum_associations.setter
    def maximum_associations(self, value: int) -> None:
        if not isinstance(value, int) or value < 1:
            log.warning("maximum_associations set to 1")
            value = 1
        self._maximum_associations = value

    @property
    def maximum_pdu_size(self) -> int:
        """Get or set our maximum length for P-DATA-TF bodies, bytes; 0 is no limit.

        A server takes it when it is started.
        """
        return self._maximum_pdu_size

    @maximum_pdu_size.setter
    def maximum_pdu_size(self, value: int) -> None:
        if value >= 0:
            self._maximum_pdu_size = value
        else:
            log.warning("maximum_pdu_size may not be negative; it stays %d", self._maximum_pdu_size)

    def _seconds(self, name: str, value: float | None, otherwise: float | None) -> None:
        number = isinstance(value, int | float)
        if value is not None and (not number or value < 0 or (value == 0 and otherwise is None)):
            log.warning("%s set to %s", name, otherwise)
            value = otherwise
        setattr(self, f"_{name}", value)
        for assoc in self.active_associations:
            setattr(assoc, name, value)

    @property
    def acse_timeout(self) -> float | None:
        """Get or set the seconds for association messages; None waits for ever."""
        return self._acse_timeout

    @acse_timeout.setter
    def acse_timeout(self, value: float | None) -> None:
        self._seconds("acse_timeout", value, 30)

    @property
    def dimse_timeout(self) -> float | None:
        """Get or set the seconds to wait for a response; None waits for ever."""
        return self._dimse_timeout

    @dimse_timeout.setter
    def dimse_timeout(self, value: float | None) -> None:
        self._seconds("dimse_timeout", value, 30)

    @property
    def network_timeout(self) -> float | None:
        """Get or set the seconds that an association may be idle; None lets it."""
        return self._network_timeout

    @network_timeout.setter
    def network_timeout(self, value: float | None) -> None:
        self._seconds("network_timeout", value, 60)

    @property
    def connection_timeout(self) -> float | None:
        """Get or set the seconds for the TCP connection; None is 30."""
        return self._connection_timeout

    @connection_timeout.setter
    def connection_timeout(self, value: float | None) -> None:
        self._seconds("connection_timeout", value, None)

    # ── presentation contexts ───────────────────────────────────────────────────────────────

    @property
    def requested_contexts(self) -> list[PresentationContext]:
        """Get or set the contexts that ``associate`` proposes, at most 128."""
        return self._requested_contexts

    @requested_contexts.setter
    def requested_contexts(self, contexts: list[PresentationContext]) -> None:
        self._validate_requested_contexts(contexts or [])
        self._requested_contexts = []
        for context in contexts or ():
            assert context.abstract_syntax is not None
            self.add_requested_context(context.abstract_syntax, context.transfer_syntax)

    def add_requested_context(
        self, abstract_syntax: str | UID, transfer_syntax: TransferSyntaxes = None
    ) -> None:
        """Propose one more context; the same abstract syntax may be proposed several times.

        Args:
            abstract_syntax: a SOP class UID.
            transfer_syntax: one or several; None takes ``DEFAULT_TRANSFER_SYNTAXES``.

        Raises:
            ValueError: there are 128 already.
        """
        if len(self._requested_contexts) >= MAX_CONTEXTS:
            raise ValueError("there are 128 requested contexts, which is all an association has")
        self._requested_contexts.append(build_context(abstract_syntax, transfer_syntax))

    def remove_requested_context(
        self, abstract_syntax: str | UID, transfer_syntax: TransferSyntaxes = None
    ) -> None:
        """Propose an abstract syntax no more, or not with some transfer syntaxes.

        Args:
            abstract_syntax: whose contexts.
            transfer_syntax: which to take out of them; None removes the contexts.
        """
        kept = []
        for context in self._requested_contexts:
            if context.abstract_syntax != abstract_syntax or _remains(context, transfer_syntax):
                kept.append(context)
        self._requested_contexts = kept

    @property
    def supported_contexts(self) -> list[PresentationContext]:
        """Get or set the contexts that servers accept, ordered by abstract syntax."""
        return sorted(
            self._supported_contexts.values(), key=lambda context: str(context.abstract_syntax)
        )

    @supported_contexts.setter
    def supported_contexts(self, contexts: list[PresentationContext]) -> None:
        if not contexts:
            self._supported_contexts = {}
        for context in contexts or ():
            if not isinstance(context, PresentationContext):
                raise ValueError("'contexts' must be a list of PresentationContext items")
            assert context.abstract_syntax is not None
            self.add_supported_context(context.abstract_syntax, context.transfer_syntax)

    def add_supported_context(
        self,
        abstract_syntax: str | UID,
        transfer_syntax: TransferSyntaxes = None,
        scu_role: bool | None = None,
        scp_role: bool | None = None,
    ) -> None:
        """Accept a context; further transfer syntaxes are added to those that are there.

        Args:
            abstract_syntax: a SOP class UID.
            transfer_syntax: one or several, in order of preference; None takes
                ``DEFAULT_TRANSFER_SYNTAXES``.
            scu_role: whether the requestor may be SCU where it proposes roles; None, as with
                ``scp_role``, leaves the default roles.
            scp_role: whether it may be SCP.
        """
        for name, role in (("scu_role", scu_role), ("scp_role", scp_role)):
            if not isinstance(role, bool | None):
                raise TypeError(f"`{name}` must be None or bool")
        uid = UID(abstract_syntax)
        context = self._supported_contexts.get(uid)
        if context is None:
            context = self._supported_contexts[uid] = build_context(uid, transfer_syntax)
        else:
            for syntax in syntaxes(transfer_syntax):
                context.add_transfer_syntax(syntax)
        context.scu_role, context.scp_role = scu_role, scp_role

    def remove_supported_context(
        self, abstract_syntax: str | UID, transfer_syntax: TransferSyntaxes = None
    ) -> None:
        """Accept an abstract syntax no more, or not with some transfer syntaxes."""
        uid = UID(abstract_syntax)
        context = self._supported_contexts.get(uid)
        if context is not None and not _remains(context, transfer_syntax):
            del self._supported_contexts[uid]

    @staticmethod
    def _validate_requested_contexts(contexts: Sequence[PresentationContext]) -> None:
        if len(contexts) > MAX_CONTEXTS:
            raise ValueError("an association has at most 128 presentation contexts")
        if not all(isinstance(context, PresentationContext) for context in contexts):
            raise ValueError("'contexts' must be a list of PresentationContext items")

    # ── who may come in ─────────────────────────────────────────────────────────────────────

    @property
    def require_calling_aet(self) -> list[str]:
        """Get or set the calling AE titles that are let in; empty lets in all."""
        return self._require_calling_aet

    @require_calling_aet.setter
    def require_calling_aet(self, ae_titles: list[str]) -> None:
        self._require_calling_aet = [_title(title, "require_calling_aet") for title in ae_titles]

    # ── associations ────────────────────────────────────────────────────────────────────────

    @property
    def active_associations(self) -> list[Association]:
        """Its associations that have a connection, in both roles."""
        own = [each for each in self._associations.copy() if each.is_alive()]
        return own + [each for server in self._servers for each in server.active_associations]

    @property
    def accepted_associations(self) -> int:
        """How many associations its servers have accepted, and still have."""
        return sum(server.established for server in self._servers)

    def associate(
        self,
        addr: str | tuple[str, int, int],
        port: int,
        contexts: list[PresentationContext] | None = None,
        ae_title: str = "ANY-SCP",
        max_pdu: int = DEFAULT_MAX_LENGTH,
        ext_neg: Sequence[ServiceParameter] | None = None,
        bind_address: Address | None = None,
        tls_args: tuple[ssl.SSLContext, str] | None = None,
        evt_handlers: Sequence[EventHandlerType] | None = None,
    ) -> Association:
        """Request an association and wait for the answer.

        Args:
            addr: host name or address; for IPv6 also (address, flow information, scope id).
            port: TCP port.
            contexts: to propose; None takes ``requested_contexts``.
            ae_title: called AE title.
            max_pdu: our maximum length for P-DATA-TF bodies, bytes; 0 is no limit.
            ext_neg: role selection, extended negotiation, user identity, window.
            bind_address: local (address, port) to connect from.
            tls_args: a TLS context, and the name that the peer's certificate must show.
            evt_handlers: (event, handler) or (event, handler, arguments).

        Returns:
            The association, established or not: see ``is_established``, ``is_rejected`` and
            ``is_aborted``.

        Raises:
            TypeError, ValueError: an argument is wrong.
            RuntimeError: there is no context to propose; or the caller is on the event loop's
                thread, or in a forked child.
        """
        requestor.check_address(addr, port, bind_address)
        title = _title(ae_title, "ae_title")
        proposed = deepcopy(contexts or self.requested_contexts)
        self._validate_requested_contexts(proposed)
        if not proposed:
            raise RuntimeError("an association needs at least one requested presentation context")
        return requestor.associate(
            self,
            current(),
            addr=addr,
            port=port,
            contexts=proposed,
            called=title,
            max_pdu=max_pdu,
            items=ext_neg or (),
            bind=bind_address,
            tls=tls_args,
            handlers=evt_handlers or (),
        )

    def make_server(
        self,
        address: Address,
        ae_title: str | None = None,
        contexts: list[PresentationContext] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        evt_handlers: Sequence[EventHandlerType] | None = None,
        server_class: type[AssociationServer] | None = None,
        **kwargs: Any,
    ) -> AssociationServer:
        """Listen, and leave the waiting to the caller; see ``start_server``.

        Args:
            server_class: a subclass of ``AssociationServer``.
            kwargs: further arguments for it.
        """
        supported = contexts or self.supported_contexts
        if not supported and not _config.UNRESTRICTED_STORAGE_SERVICE:
            raise ValueError("No supported Presentation Contexts have been defined")
        half = [
            str(context)
            for context in supported
            if (context.scu_role is None) != (context.scp_role is None)
        ]
        if half:
            raise ValueError(
                "scu_role and scp_role must both be None, or neither, of:\n" + "\n".join(half)
            )
        made = (server_class or AssociationServer)(
            self,
            address,
            _title(ae_title or self.ae_title, "ae_title"),
            supported,
            ssl_context,
            evt_handlers=evt_handlers or [],
            loop=current(),
            **kwargs,
        )
        self._servers.append(made)
        return made

    def start_server(
        self,
        address: Address,
        block: bool = True,
        ssl_context: ssl.SSLContext | None = None,
        evt_handlers: Sequence[EventHandlerType] | None = None,
        ae_title: str | None = None,
        contexts: list[PresentationContext] | None = None,
    ) -> AssociationServer | None:
        """Accept associations.

        Args:
            address: (address, port) to listen on; an empty address is every IPv4 address, port 0
                a free one, which ``server_address`` tells.
            block: whether to wait until the server is shut down, or the program interrupted.
            ssl_context: for TLS.
            evt_handlers: (event, handler) or (event, handler, arguments).
            ae_title: our title; None is the AE's.
            contexts: to accept; None takes ``supported_contexts``.

        Returns:
            The server, or None with ``block``.

        Raises:
            OSError: the address cannot be listened on.
            ValueError: there is no context to accept.
        """
        server = self.make_server(address, ae_title, contexts, ssl_context, evt_handlers)
        if not block:
            return server
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            log.info("interrupted")
        finally:
            server.shutdown()
        return None

    def shutdown(self) -> None:
        """Stop all servers and abort all associations, in both roles."""
        for server in tuple(self._servers):
            active = server.active_associations
            server.shutdown()
            for assoc in active:
                assoc.abort()
        for assoc in self.active_associations:
            assoc.abort()

    def __str__(self) -> str:
        lines = [
            "",
            f"Application Entity {self.ae_title}",
            "",
            "  Requested Presentation Contexts:",
        ]
        lines += _shown(self.requested_contexts)
        lines += ["", "  Supported Presentation Contexts:", *_shown(self.supported_contexts), ""]
        for name in ("acse", "dimse", "network", "connection"):
            lines.append(f"  {name} timeout: {getattr(self, f'{name}_timeout')} s")
        lines.append("")
        if self.require_calling_aet:
            lines.append(f"  Required calling AE titles: {', '.join(self.require_calling_aet)}")
        lines.append(f"  Require called AE title: {self.require_called_aet}")
        active = self.active_associations
        lines += ["", f"  Associations: {len(active)}/{self.maximum_associations}"]
        for assoc in active:
            peer = assoc.remote
            lines.append(f"\tPeer: {peer['ae_title']} on {peer['address']}:{peer['port']}")
        return "\n".join(lines)


def _title(value: Any, name: str) -> str:
    if isinstance(value, bytes):
        warnings.warn(f"'{name}' as bytes is deprecated, use str", DeprecationWarning, stacklevel=3)
        value = decode_bytes(value)
    checked = set_ae(value, name, False, False)
    assert checked is not None
    return checked


def _remains(context: PresentationContext, removed: TransferSyntaxes) -> bool:
    """Whether a context still has transfer syntaxes without those."""
    if removed is None:
        return False
    for syntax in syntaxes(removed):
        if syntax in context.transfer_syntax:
            context.transfer_syntax.remove(UID(syntax))
    return bool(context.transfer_syntax)


def _shown(contexts: list[PresentationContext]) -> list[str]:
    lines = []
    for context in contexts:
        lines.append(f"\t{context!r}")
        lines += [f"\t\t{syntax.name}" for syntax in context.transfer_syntax]
    return lines or ["\tNone"]
