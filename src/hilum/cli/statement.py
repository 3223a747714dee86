"""The conformance statement's text, from tables and from an acceptance that is asked questions.

What is accepted is found out by asking: every SOP class that the standard has, in every transfer
syntax, is put to the acceptance's own policy. So a service that is added to the gateway is in the
statement without being written there.

Standard: PS3.2 Annex A (structure), PS3.4, PS3.15.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version

from hilum.cli.keys import MODELS
from hilum.cli.storage_contexts import retrieve_contexts
from hilum.net.client import NATIVE
from hilum.net.conversion import CONVERTED_TO
from hilum.net.limits import Limits, Timeouts
from hilum.net.service import Accept
from hilum.net.tls import CIPHERS
from hilum.services.service_classes import META_SOP_CLASSES, SERVICES, Service, SopClass
from hilum.services.sop_classes import NON_PATIENT_STORAGE_SOP_CLASSES, STUDY_ROOT_GET
from hilum.services.status import GENERAL, Entry
from hilum.services.text import character_sets
from hilum.services.transfer_syntaxes import ALL_TRANSFER_SYNTAXES, TRANSFER_SYNTAXES, Compression
from hilum.wire.command import CommandField
from hilum.wire.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from hilum.wire.pdu import PresentationContext

__all__ = ["Offer", "statement"]

_PRIVATE = "1.3.6.1.4.1.99999.1"
"""Stands for SOP classes of vendors."""

_BY_DEFAULT = frozenset({CommandField.C_ECHO_RQ, CommandField.C_STORE_RQ})


@dataclass(frozen=True)
class Offer:
    """What an acceptor takes.

    Args:
        accepted: SOP Class UID → transfer syntaxes, in the order of the standard's tables.
        private: whether SOP classes of vendors are stored.
        handled: requests that are served besides C-ECHO and C-STORE.
        roles: SOP Class UID → (SCU, SCP) that the requestor may play by role selection.
        decoded: transfer syntaxes that retrieves are decoded from, with the codecs that are here.
    """

    accepted: Mapping[str, tuple[str, ...]]
    private: bool
    handled: frozenset[int]
    roles: Mapping[str, tuple[bool, bool]]
    decoded: frozenset[str] = frozenset()

    @classmethod
    def of(cls, accept: Accept, decoded: frozenset[str] = frozenset()) -> Offer:
        """Ask an acceptance about everything."""

        def takes(uid: str) -> tuple[str, ...]:
            return tuple(
                syntax
                for syntax in ALL_TRANSFER_SYNTAXES
                if accept.policy(PresentationContext(1, uid, (syntax,))) == syntax
            )

        known = [found.uid for service in SERVICES for found in service.sop_classes]
        accepted = {uid: takes(uid) for uid in dict.fromkeys((*known, *META_SOP_CLASSES))}
        return cls(
            {uid: syntaxes for uid, syntaxes in accepted.items() if syntaxes},
            bool(takes(_PRIVATE)),
            frozenset(accept.handlers),
            accept.roles,
            decoded,
        )

    def roles_of(self, found: SopClass) -> str:
        """The roles that we play: of a provider by default, of a user by role selection."""
        served = [
            field for field in found.operations if field in self.handled or field in _BY_DEFAULT
        ]
        provider = "SCP" if served else ""
        if self.roles.get(found.uid, (True, False))[1] and found.uid in self.roles:
            return "SCU, SCP" if provider else "SCU"
        return provider


def statement(offer: Offer | None, settings: Sequence[tuple[str, object, str, str]]) -> str:
    """The whole text.

    Args:
        offer: of the gateway; None where it is not installed.
        settings: its settings with their defaults: name, value, unit, explanation.
    """
    parts = [_overview(offer)]
    if offer is not None:
        parts += [_gateway(offer), _settings(settings)]
    parts += [_tools(offer), _library(), _transfer_syntaxes(offer), _statuses(offer), _character_sets(),
              _security()]  # fmt: skip
    if offer is None:
        parts.append(_limits())
    return "\n".join(parts)


# ── parts ───────────────────────────────────────────────────────────────────────────────────────


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _operation(field: int) -> str:
    return CommandField(field).name.removesuffix("_RQ").replace("_", "-")


def _overview(offer: Offer | None) -> str:
    rows = []
    for service in SERVICES:
        classes = service.sop_classes
        gateway = ""
        if offer is not None:
            taken = [found for found in classes if found.uid in offer.accepted]
            roles = sorted(
                {role for found in taken for role in offer.roles_of(found).split(", ")} - {""}
            )
            gateway = f"{', '.join(roles)} ({len(taken)})" if taken else "no"
        rows.append((service.name, f"PS3.4 {service.annex}", gateway, f"SCU, SCP ({len(classes)})"))
    return f"""# DICOM conformance statement

Made by `hilum conformance` from what the code registers; `make docs` brings it up to date. It follows
PS3.2 as far as a program without a user interface of its own can.

| | |
|---|---|
| product | Hilum: DICOM networking library, tools and gateway |
| Implementation Class UID | {IMPLEMENTATION_CLASS_UID} |
| Implementation Version Name | {IMPLEMENTATION_VERSION_NAME} |

## Network services

The gateway is `hilum serve`. The library carries every service in both roles; what an
operation means is up to the program that uses it. In parentheses: how many SOP classes, by the list
of PS3.6 that pydicom {version("pydicom")} has.

{_table(("service", "standard", "gateway", "library"), rows)}"""


def _gateway(offer: Offer) -> str:
    storage = [s for s in SERVICES if s.name in ("Storage", "Non-Patient Object Storage")]
    others = [s for s in SERVICES if s not in storage]
    text = """## Gateway

Titles decide: a called AE title says whose objects are kept, a calling one with its address and
certificate what a peer may ask for. Callers that are not known are rejected (1/1/3), called titles
that are not served too (1/1/7), associations over a limit for now (2/3/2). One transfer syntax is
accepted in each presentation context.

### Services other than storage

"""
    rows = [
        (
            found.name,
            found.uid,
            offer.roles_of(found),
            ", ".join(
                _operation(field)
                for field in found.operations
                if field in offer.handled or field in _BY_DEFAULT
            ),
            _syntaxes_said(offer.accepted[found.uid]),
        )
        for service in others
        for found in service.sop_classes
        if found.uid in offer.accepted and found.uid not in NON_PATIENT_STORAGE_SOP_CLASSES
    ]
    text += _table(("SOP class", "UID", "role", "operations", "transfer syntaxes"), rows)
    text += "\n### Storage\n\n"
    private = "SOP classes of vendors too" if offer.private else "No SOP classes of vendors"
    every = Counter(
        offer.accepted[found.uid]
        for service in storage
        for found in service.sop_classes
        if found.uid in offer.accepted
    )
    usual = every.most_common(1)[0][0] if every else ()
    text += f"""Role: SCP. {private}, and standard classes younger than this version. Level 2
(full): every element is kept as it came, the data set byte for byte. Success is answered when bytes,
directory entry and index row are on stable storage. Transfer syntaxes: {_syntaxes_said(usual)},
private and new ones.

"""
    rows_ = [
        (found.name, found.uid, "retired" if found.retired else "")
        for service in storage
        for found in service.sop_classes
        if found.uid in offer.accepted
    ]
    return text + _table(("SOP class", "UID", ""), rows_)


def _syntaxes_said(syntaxes: tuple[str, ...]) -> str:
    if syntaxes == ALL_TRANSFER_SYNTAXES:
        return "all of the table below"
    return ", ".join(TRANSFER_SYNTAXES[uid].name for uid in syntaxes)


def _settings(settings: Sequence[tuple[str, object, str, str]]) -> str:
    rows = [
        (f"`{name}`", _value(value), unit, text)
        for name, value, unit, text in settings
        if name.startswith(("access.", "commitment.", "limits.", "retrieve.", "timeouts."))
    ]
    return "## Configuration of the gateway\n\n" + _table(("setting", "default", "unit", ""), rows)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value) if value not in ("", None) else "none"


def _tools(offer: Offer | None) -> str:
    native = ", ".join(TRANSFER_SYNTAXES[uid].name for uid in NATIVE)
    names = {found.uid: found.name for service in SERVICES for found in service.sop_classes}
    rows = [("`hilum echo`", "Verification", "SCU", native)]
    rows.append(("`hilum store`", "those of the files", "SCU",
                 "those of the files, else one that they can be converted to"))  # fmt: skip
    for option, model in MODELS.items():
        for tool, uid in (("find", model.find), ("get", model.get), ("move", model.move)):
            if uid:
                name = "hilum mwl" if option == "worklist" else f"hilum {tool}"
                rows.append((f"`{name}`", names[uid], "SCU", native))
    contexts = retrieve_contexts(STUDY_ROOT_GET)[1:]
    classes = dict.fromkeys(uid for uid, _ in contexts)
    compressed = dict.fromkeys(s for _, syntaxes in contexts for s in syntaxes if s not in NATIVE)
    rows.append(("`hilum get`", f"{len(classes)} storage classes, or those named", "SCP by role selection",
                 f"{native}; images also {', '.join(TRANSFER_SYNTAXES[uid].name for uid in compressed)}"))  # fmt: skip
    if offer is not None:
        from hilum.gateway.flow.archive import FIND_CONTEXTS, GET_CONTEXTS, MOVE_CONTEXTS

        asked = (*FIND_CONTEXTS, *MOVE_CONTEXTS, *GET_CONTEXTS)
        rows += [("`hilum fetch`", names[uid], "SCU", native) for uid, _ in asked]
    rows.append(("`hilum scp store`", "as the gateway's storage", "SCP", "all of the table below"))
    rows.append(("`hilum scp qr`", "Query/Retrieve, storage", "SCP", "uncompressed; storage all"))
    rows.append(("`hilum scp mwl`", "Modality Worklist", "SCP", "uncompressed"))
    return "## Tools\n\n" + _table(("tool", "SOP classes", "role", "transfer syntaxes"), rows)


def _library() -> str:
    rows = [
        (
            service.name,
            found.name,
            found.uid,
            ", ".join(map(_operation, found.operations)),
        )
        for service in SERVICES
        if service.name not in ("Storage", "Non-Patient Object Storage")
        for found in service.sop_classes
    ]
    return (
        "## Library\n\nStorage classes are those of the gateway. Role selection, extended and "
        "common extended negotiation, asynchronous operations windows and user identities (name, "
        "passcode, Kerberos, SAML, JSON Web Token) are the program's to ask for and to answer.\n\n"
        + _table(("service", "SOP class", "UID", "operations"), rows)
    )


def _transfer_syntaxes(offer: Offer | None) -> str:
    decoded = offer.decoded if offer is not None else frozenset()
    said = {
        Compression.NONE: "uncompressed",
        Compression.LOSSLESS: "lossless",
        Compression.LOSSY: "lossy",
        Compression.UNKNOWN: "either",
    }
    rows = [
        (
            syntax.name,
            uid,
            "video" if syntax.video else said[syntax.compression],
            "converted where a peer accepts no exact match"
            if uid in CONVERTED_TO
            else "decoded in retrieves where a peer accepts it uncompressed only"
            if uid in decoded
            else "",
        )
        for uid, syntax in TRANSFER_SYNTAXES.items()
    ]
    return (
        "## Transfer syntaxes\n\nIn order of preference; compressed ones that are alike are equals, "
        "of which the one proposed first is taken. The gateway's C-GET and C-MOVE decode images, with the "
        "codecs of `hilum[codecs]`; nothing else is decompressed, and nothing is compressed.\n\n"
        + _table(("transfer syntax", "UID", "pixel data", ""), rows)
    )


def _statuses(offer: Offer | None) -> str:
    def rows_of(entries: Iterable[Entry]) -> list[tuple[str, str, str]]:
        return [
            (
                f"{e.first:04X}" + (f"-{e.last:04X}" if e.last > e.first else ""),
                str(e.category),
                e.meaning,
            )
            for e in sorted(set(entries))
        ]

    text = "## Status codes\n\n### Of every service\n\n"
    text += _table(("code", "category", "meaning"), rows_of(GENERAL))
    general = {entry.first for entry in GENERAL}
    for service in SERVICES:
        own = [
            (field, entry)
            for found in service.sop_classes
            for field, entries in found.operations.items()
            for entry in entries
            if entry.first not in general or entry not in GENERAL
        ]
        if not own or not _is_told(service, offer):
            continue
        text += f"\n### {service.name}\n\n"
        by_operation: dict[str, set[Entry]] = {}
        for field, entry in own:
            by_operation.setdefault(_operation(field), set()).add(entry)
        rows = [
            (operation, *row)
            for operation, entries in by_operation.items()
            for row in rows_of(entries)
        ]
        text += _table(("operation", "code", "category", "meaning"), rows)
    return text


def _is_told(service: Service, offer: Offer | None) -> bool:
    """The codes of what a program of ours serves or asks for."""
    tools = {uid for model in MODELS.values() for uid in model}
    accepted = offer.accepted if offer is not None else {}
    return any(found.uid in accepted or found.uid in tools for found in service.sop_classes)


def _character_sets() -> str:
    terms = ", ".join(f"`{term}`" for term in character_sets())
    return f"""## Character sets

Text is decoded by Specific Character Set (0008,0005), with code extensions, and by a fallback that
can be set for a peer or a title where it is missing: {terms}. Common other spellings are understood.
Answers are written in the requestor's character set where it has the characters, else in `ISO_IR 100`
or `ISO_IR 192`; data sets are never recoded.
"""


def _security() -> str:
    ciphers = ", ".join(f"`{name}`" for name in CIPHERS.split(":"))
    return f"""## Security

TLS by the BCP 195 RFC 9325 profile of PS3.15 B: TLS 1.3, and TLS 1.2 with {ciphers}. Certificates of
peers are verified; those of clients are asked for where authorities for them are set. Compression
and renegotiation are off. Preambles of files are zeroed. Passcodes, tokens and patient data are not
logged at INFO.
"""


def _limits() -> str:
    text = "## Limits and deadlines of an association\n\nDefaults of library and tools.\n\n"
    rows = [
        (f"`{field.name}`", _value(getattr(of, field.name)), unit)
        for of, unit in ((Timeouts(), "s"), (Limits(), ""))
        for field in fields(of)
    ]
    return text + _table(("limit", "default", "unit"), rows)
