"""An AE in both roles: titles, known peers, user identities, windows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from tests.net.sinks import Store
from tests.net.test_association import image
from tests.unit.wire.playbook import CT_IMAGE, EXPLICIT, VERIFICATION

from hilum.errors import AssociationRejected, ConfigurationError
from hilum.net import AE, Remote, Server, Timeouts
from hilum.wire.items import (
    AsynchronousOperationsWindow,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    UserIdentityResponse,
    UserIdentityRQ,
    UserIdentityType,
)

CONTEXTS = ((VERIFICATION, (EXPLICIT,)), (CT_IMAGE, (EXPLICIT,)))
NAME = UserIdentityRQ(UserIdentityType.USERNAME_PASSCODE, b"anne", b"secret", True)


@pytest_asyncio.fixture
async def serving(nothing_is_left: None) -> AsyncIterator[Any]:
    servers: list[Server] = []

    async def start(ae: AE) -> Remote:
        server = await ae.serve("127.0.0.1", 0)
        servers.append(server)
        return Remote(ae.title, "127.0.0.1", server.port, contexts=CONTEXTS)

    yield start
    for server in servers:
        await server.close(0)


def with_(remote: Remote, **changes: Any) -> Remote:
    from dataclasses import replace

    return replace(remote, **changes)


async def test_two_aes_talk(serving: Any) -> None:
    store = Store()
    pacs = await serving(AE("PACS", open_store=store))
    modality = AE("CT1", peers=(pacs,))
    async with await modality.connect("PACS") as association:
        assert association.rq.calling_ae_title == "CT1"
        assert association.rq.called_ae_title == "PACS"
        assert (await association.c_echo()).status == 0
        assert (await association.c_store([b"ab"], **image())).status == 0
    assert len(store.sinks) == 1


async def test_titles(serving: Any) -> None:
    pacs = await serving(AE("PACS", only_known=True, peers=(Remote("CT1"),)))
    async with await AE("CT1").connect(pacs) as association:
        assert (await association.c_echo()).status == 0
    with pytest.raises(AssociationRejected) as caught:
        await AE("CT2").connect(pacs)
    assert caught.value.reason == 3
    with pytest.raises(AssociationRejected) as caught:
        await AE("CT1").connect(with_(pacs, title="OTHER"))
    assert caught.value.reason == 7
    anyone = await serving(AE("X", any_title=True))
    async with await AE("CT1").connect(with_(anyone, title="WHATEVER")):
        pass


async def test_peers_that_cannot_be_called() -> None:
    ae = AE("HILUM", peers=(Remote("CALLS"),))
    with pytest.raises(ConfigurationError, match="'NOBODY' is not known"):
        await ae.connect("NOBODY")
    with pytest.raises(ConfigurationError, match="'CALLS' has no address"):
        await ae.connect("CALLS")


@pytest.mark.parametrize("later", [False, True])
async def test_user_identities(serving: Any, later: bool) -> None:
    seen: list[UserIdentityRQ] = []

    def verify(identity: UserIdentityRQ, rq: Any, peer: Any) -> Any:
        seen.append(identity)
        verdict = b"welcome" if identity.secondary == b"secret" else None

        async def slowly() -> bytes | None:
            await asyncio.sleep(0)
            return verdict

        return slowly() if later else verdict

    pacs = await serving(AE("PACS", verify_identity=verify, require_identity=True))
    ae = AE("WS")
    async with await ae.connect(with_(pacs, user_identity=NAME)) as association:
        assert association.ac.item(UserIdentityResponse) == UserIdentityResponse(b"welcome")
    assert seen == [NAME]
    quiet = UserIdentityRQ(UserIdentityType.USERNAME_PASSCODE, b"anne", b"secret")
    async with await ae.connect(with_(pacs, user_identity=quiet)) as association:
        assert association.ac.item(UserIdentityResponse) is None
    wrong = UserIdentityRQ(UserIdentityType.USERNAME_PASSCODE, b"anne", b"guess")
    for identity in (wrong, None):
        with pytest.raises(AssociationRejected):
            await ae.connect(with_(pacs, user_identity=identity))


@pytest.mark.parametrize("required", [True, False])
async def test_without_a_verifier(serving: Any, required: bool) -> None:
    pacs = await serving(AE("PACS", require_identity=required))
    connecting = AE("WS").connect(with_(pacs, user_identity=NAME))
    if required:
        with pytest.raises(AssociationRejected):
            await connecting
    else:
        async with await connecting as association:
            assert association.ac.item(UserIdentityResponse) is None


async def test_a_long_token(serving: Any) -> None:
    """Field notes A 34: as long as an item can be; what is longer is refused before it is sent."""
    tokens: list[bytes] = []

    def verify(identity: UserIdentityRQ, rq: Any, peer: Any) -> bytes:
        tokens.append(identity.primary)
        return b""

    pacs = await serving(AE("PACS", verify_identity=verify))
    token = b"t" * 60_000
    identity = UserIdentityRQ(UserIdentityType.JWT, token)
    async with await AE("WS").connect(with_(pacs, user_identity=identity)):
        assert tokens == [token]
    with pytest.raises(Exception, match="at most 65535"):
        await AE("WS").connect(
            with_(pacs, user_identity=UserIdentityRQ(UserIdentityType.JWT, b"t" * 70_000))
        )


@pytest.mark.parametrize(
    ("asked", "granted", "window"),
    [
        (None, (4, 4), None),
        ((8, 2), None, (1, 1)),
        ((8, 2), (5, 3), (3, 2)),
        ((0, 0), (5, 3), (3, 5)),
    ],
)
async def test_windows_are_set_for_a_peer(
    serving: Any, asked: Any, granted: Any, window: tuple[int, int] | None
) -> None:
    """A window is only negotiated with whom it is configured for (field notes A 23)."""
    pacs = await serving(AE("PACS", peers=(Remote("CT1", window=granted),)))
    async with await AE("CT1").connect(with_(pacs, window=asked)) as association:
        item = association.ac.item(AsynchronousOperationsWindow)
        assert item == (AsynchronousOperationsWindow(*window) if window else None)
        assert association.requests.window == (window or (1, 1))[0]


async def test_negotiation_items_pass_through(serving: Any) -> None:
    """Extended and common extended negotiation are the services' own business."""
    ours = ExtendedNegotiation("1.2.840.10008.5.1.4.1.2.2.1", b"\1\1\1")
    common = CommonExtendedNegotiation(CT_IMAGE, "1.2.840.10008.4.2", ("1.2.3",))
    answered = ExtendedNegotiation("1.2.840.10008.5.1.4.1.2.2.1", b"\1\0\0")
    pacs = await serving(AE("PACS", items=(answered,)))
    async with await AE("CT1").connect(pacs, items=(ours, common)) as association:
        assert association.rq.item(ExtendedNegotiation) == ours
        assert association.rq.item(CommonExtendedNegotiation) == common
        assert association.ac.item(ExtendedNegotiation) == answered


async def test_settings_of_a_peer_go_before_the_aes(serving: Any) -> None:
    pacs = await serving(AE("PACS"))
    ae = AE("CT1", timeouts=Timeouts(dimse=1), contexts=CONTEXTS[:1])
    async with await ae.connect(with_(pacs, contexts=None)) as association:
        assert association.timeouts.dimse == 1
        assert len(association.contexts) == 1
    async with await ae.connect(with_(pacs, timeouts=Timeouts(dimse=2))) as association:
        assert association.timeouts.dimse == 2
        assert len(association.contexts) == 2
