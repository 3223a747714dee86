"""Associations over TCP between our two roles: echo, store, release, abort, and what goes wrong."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.net.conftest import Listen
from tests.net.peer import RawPeer, until
from tests.net.sinks import HeldCommit, Sink, Store
from tests.unit.wire.playbook import (
    CT_IMAGE,
    EXPLICIT,
    IMPLICIT,
    PDV,
    VERIFICATION,
    an_rq,
    command_pdv,
    echo_rq,
    pdata,
    store_rq,
)

from hilum.errors import (
    AssociationAborted,
    AssociationError,
    AssociationRejected,
    AssociationReleased,
    AssociationTimeout,
    ConfigurationError,
    ConnectFailed,
    ConnectionLost,
    LocalProtocolError,
    NoPresentationContext,
)
from hilum.net.association import Association
from hilum.net.client import connect
from hilum.net.limits import Limits, Timeouts
from hilum.net.server import Server, serve
from hilum.net.service import Accept, Outcome, Reject
from hilum.wire.command import Command, CommandField
from hilum.wire.items import AsynchronousOperationsWindow, MaximumLength, RoleSelection
from hilum.wire.pdu import Abort, AssociateRQ, ReleaseRP, ReleaseRQ

BOTH_ROLES = RoleSelection(CT_IMAGE, True, True)
CONTEXTS = ((VERIFICATION, (EXPLICIT, IMPLICIT)), (CT_IMAGE, (EXPLICIT,)))


def rq_with_roles(max_length: int = 16384) -> AssociateRQ:
    """An A-ASSOCIATE-RQ that lets its acceptor store too."""
    return an_rq(items=(MaximumLength(max_length), BOTH_ROLES))


async def dial(server: Server, **arguments: Any) -> Association:
    return await connect("127.0.0.1", server.port, **{"contexts": CONTEXTS} | arguments)


def image(uid: str = "1.2.3") -> dict[str, str]:
    return {"sop_class_uid": CT_IMAGE, "sop_instance_uid": uid, "transfer_syntax_uid": EXPLICIT}


async def test_echo_and_release(listen: Listen) -> None:
    ends: list[Exception | None] = []
    server = await listen(lambda rq, peer: Accept(ended=lambda a, error: ends.append(error)))
    association = await dial(server, called="PACS", calling="CT01")
    assert association.is_established
    assert association.rq.called_ae_title == association.ac.called_ae_title == "PACS"
    assert association.peer.port == server.port
    (accepted,) = server.associations
    assert str(accepted.peer).startswith("127.0.0.1:")
    assert accepted.peer.certificate is None
    response = await association.c_echo()
    assert response.status == 0
    assert response.command.name == "C-ECHO-RSP"
    await association.release()
    assert association.is_over
    assert not association.is_established
    assert association.error is None
    await association.release()
    association.abort()
    assert association.error is None
    await until(lambda: ends, "the acceptor's end")
    assert ends == [None]
    assert not server.associations


async def test_many_echoes_at_once_find_their_own_answers(listen: Listen) -> None:
    async with await dial(await listen()) as association:
        responses = await asyncio.gather(*(association.c_echo() for _ in range(200)))
        numbers = [response.command.message_id_being_responded_to for response in responses]
    assert numbers == list(range(1, 201))


async def sometimes(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(0)
        yield part


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b""],
        [b"odd"],
        [b"ab", b"", b"cd", b""],
        [bytes(range(256)) * 400],
        [b"x" * 70_000, b"y" * 70_000, b"z"],
        [bytes(1_000_001)],
    ],
    ids=lambda parts: "+".join(str(len(part)) for part in parts) or "none",
)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
async def test_a_data_set_arrives_as_it_was_sent(
    listen: Listen, parts: list[bytes], asynchronous: bool
) -> None:
    store = Store()
    server = await listen(store.authorise)
    async with await dial(server) as association:
        data: Any = sometimes(parts) if asynchronous else parts
        response = await association.c_store(data, **image())
        assert response.status == 0
        assert (await association.c_echo()).status == 0
    (sink,) = store.sinks
    content = b"".join(parts)
    assert sink.content == content + b"\0" * (len(content) % 2)
    assert (sink.commits, sink.aborts) == (1, [])
    assert store.contexts[0].transfer_syntax == EXPLICIT
    assert store.contexts[0].abstract_syntax == CT_IMAGE


async def test_a_store_says_who_moved_it(listen: Listen) -> None:
    store = Store()
    async with await dial(await listen(store.authorise)) as association:
        await association.c_store([b"ab"], move_originator=("WS", 7), priority=1, **image())
    (command,) = store.commands
    assert command.move_originator_application_entity_title == "WS"
    assert command.move_originator_message_id == 7
    assert command.priority == 1


async def test_the_acceptor_asks_too(listen: Listen) -> None:
    """Requests go both ways on one association (field notes A 22)."""
    server = await listen(Store().authorise)
    store = Store()
    async with await dial(server, roles=(BOTH_ROLES,), open_store=store) as association:
        (other,) = server.associations
        assert (await other.c_echo()).status == 0
        assert (await other.c_store([b"abcd"], **image())).status == 0
        answers = await asyncio.gather(
            *(each.c_echo() for each in (association, other) for _ in range(10))
        )
        assert {answer.status for answer in answers} == {0}
    assert store.sinks[0].content == b"abcd"


async def test_what_a_sink_answers_is_what_the_peer_hears(listen: Listen) -> None:
    store = Store(lambda: Outcome(0xA900, "wrong " * 20, (0x00100010, 0x00100020)))
    async with await dial(await listen(store.authorise)) as association:
        response = await association.c_store([bytes(200_000)], **image())
        assert response.status == 0xA900
        assert len(response.command.error_comment) <= 64
        assert response.command.offending_element == (0x00100010, 0x00100020)
        assert (await association.c_echo()).status == 0


def fail() -> Any:
    raise ValueError("a bug")


@pytest.mark.parametrize(
    ("accept", "status"),
    [(Accept(), 0x0122), (Accept(open_store=Store(fail)), 0xA700)],
    ids=["no storage", "raising"],
)
async def test_storage_that_is_not_there(listen: Listen, accept: Accept, status: int) -> None:
    async with await dial(await listen(lambda rq, peer: accept)) as association:
        assert (await association.c_store([bytes(100_000)], **image())).status == status
        assert (await association.c_echo()).status == 0


async def test_another_sop_class_than_the_contexts(listen: Listen) -> None:
    server = await listen(Store().authorise)
    async with await RawPeer.associate(server.port) as peer:
        mr = store_rq()
        mr.raw[0x0002] = b"1.2.840.10008.5.1.4.1.1.4\0"
        peer.send(pdata(command_pdv(3, mr), PDV(3, b"ab")))
        assert await status(peer) == 0x0122


async def status(peer: RawPeer) -> int:
    heard = await peer.hear()
    assert heard is not None
    (pdv,) = heard.pdvs  # type: ignore[union-attr]
    return Command.decode(pdv.data).status


async def test_operations_that_are_not_served(listen: Listen) -> None:
    server = await listen(Store().authorise)
    n_get = Command(
        CommandField.N_GET_RQ,
        message_id=1,
        requested_sop_class_uid=CT_IMAGE,
        requested_sop_instance_uid="1.2",
    )
    find = Command(
        CommandField.C_FIND_RQ, has_data_set=True, message_id=2, affected_sop_class_uid=CT_IMAGE
    )
    store = Command(
        CommandField.C_STORE_RQ,
        message_id=3,
        affected_sop_class_uid=CT_IMAGE,
        affected_sop_instance_uid="1.2",
    )
    echo = Command(CommandField.C_ECHO_RQ, has_data_set=True, message_id=4)
    cancel = Command(CommandField.C_CANCEL_RQ, message_id_being_responded_to=2)
    async with await RawPeer.associate(server.port) as peer:
        peer.send(pdata(command_pdv(3, n_get)))
        assert await status(peer) == 0x0211
        peer.send(pdata(command_pdv(3, find), PDV(3, b"identifier")))
        assert await status(peer) == 0x0211
        peer.send(pdata(command_pdv(3, store)))
        assert await status(peer) == 0xC000
        peer.send(pdata(command_pdv(1, cancel)))
        peer.send(pdata(command_pdv(1, echo), PDV(1, b"never mind")))
        assert await status(peer) == 0


async def test_a_padded_instance_uid_is_echoed_exactly(listen: Listen) -> None:
    """Field notes A 3."""
    server = await listen(Store().authorise)
    command = store_rq()
    command.raw[0x1000] = b"1.2.3.4 "
    async with await RawPeer.associate(server.port) as peer:
        peer.send(pdata(command_pdv(3, command), PDV(3, b"ab")))
        heard = await peer.hear()
        (pdv,) = heard.pdvs  # type: ignore[union-attr]
        assert Command.decode(pdv.data).raw[0x1000] == b"1.2.3.4 "


async def test_no_context_leaves_the_association_usable(listen: Listen) -> None:
    async with await dial(await listen()) as association:
        with pytest.raises(NoPresentationContext, match="accepted nothing"):
            await association.c_store([b""], **image() | {"sop_class_uid": "1.2.3"})
        with pytest.raises(NoPresentationContext, match=f"accepted {EXPLICIT}"):
            await association.c_store([b""], **image() | {"transfer_syntax_uid": IMPLICIT})
        assert (await association.c_echo()).status == 0


async def test_a_rejection(listen: Listen) -> None:
    server = await listen(lambda rq, peer: Reject.unknown_called_title("not ours"))
    with pytest.raises(AssociationRejected, match="called AE title not recognised") as caught:
        await dial(server)
    error = caught.value
    assert (error.result, error.source, error.reason) == (1, 1, 7)
    assert (server.accepted, server.rejected) == (0, 1)


async def test_nobody_listens(unused_tcp_port: int) -> None:
    with pytest.raises(ConnectFailed, match="no connection to 127"):
        await connect("127.0.0.1", unused_tcp_port)
    with pytest.raises(ConnectFailed):
        await connect("a" * 70 + ".invalid", 104)
    with pytest.raises(ConnectFailed):
        await connect("127.0.0.1", unused_tcp_port, bind="192.0.2.1")
    with pytest.raises(ConfigurationError, match="not a TCP port"):
        await connect("127.0.0.1", 0)


async def test_what_cannot_be_sent_opens_nothing(listen: Listen) -> None:
    server = await listen()
    for wrong in ({"called": "X" * 17}, {"calling": ""}, {"contexts": ()}):
        with pytest.raises(LocalProtocolError):
            await dial(server, **wrong)
    assert server.accepted == 0


async def deaf(handle: Any = None) -> tuple[asyncio.Server, int]:
    """A listener that does with a connection what it is told, which may be nothing."""

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(handle or nothing, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def test_a_peer_that_never_answers_the_request() -> None:
    server, port = await deaf()
    with pytest.raises(AssociationTimeout, match="ANY-SCP@127"):
        await connect("127.0.0.1", port, timeouts=Timeouts(associate=0.05))
    server.close()


async def test_a_peer_that_closes_at_once() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server, port = await deaf(close)
    with pytest.raises(ConnectionLost):
        await connect("127.0.0.1", port)
    server.close()


async def test_a_peer_that_aborts_the_attempt() -> None:
    async def abort(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(Abort(2, 1).encode())
        await reader.read(-1)
        writer.close()

    server, port = await deaf(abort)
    with pytest.raises(AssociationAborted, match="reason 1"):
        await connect("127.0.0.1", port)
    server.close()


async def test_cancelling_the_attempt_closes_the_connection() -> None:
    seen = asyncio.Event()
    ended = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        seen.set()
        await reader.read(-1)
        writer.close()
        ended.set()

    server, port = await deaf(wait)
    attempt = asyncio.create_task(connect("127.0.0.1", port))
    await seen.wait()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    async with asyncio.timeout(5):
        await ended.wait()
    server.close()


async def test_an_error_in_the_block_aborts(listen: Listen) -> None:
    ends: list[Exception | None] = []
    server = await listen(lambda rq, peer: Accept(ended=lambda a, error: ends.append(error)))
    with pytest.raises(ZeroDivisionError):
        async with await dial(server):
            raise ZeroDivisionError
    await until(lambda: ends, "the acceptor's end")
    assert isinstance(ends[0], AssociationAborted)


async def test_the_peers_abort_reaches_whoever_waits(listen: Listen) -> None:
    store = Store(HeldCommit)
    server = await listen(store.authorise)
    association = await dial(server)
    asking = asyncio.create_task(association.c_store([b"ab"], **image()))
    await until(lambda: store.sinks and store.sinks[0].commits, "the commit")
    (other,) = server.associations
    other.abort(2, 0)
    with pytest.raises(AssociationAborted):
        await asking
    with pytest.raises(AssociationAborted):
        await association.c_echo()
    assert isinstance(association.error, AssociationAborted)
    await association.wait_closed()
    assert len(store.sinks[0].aborts) == 1


async def test_the_peers_release_reaches_whoever_waits(listen: Listen) -> None:
    store = Store(HeldCommit)
    server = await listen(store.authorise)
    association = await dial(server)
    asking = asyncio.create_task(association.c_store([b"ab"], **image()))
    await until(lambda: store.sinks and store.sinks[0].commits, "the commit")
    (other,) = server.associations
    await other.release()
    with pytest.raises(AssociationReleased):
        await asking
    assert association.error is None
    with pytest.raises(AssociationReleased):
        await association.c_echo()


async def test_releasing_twice_at_once(listen: Listen) -> None:
    association = await dial(await listen())
    first = asyncio.create_task(association.release())
    await asyncio.sleep(0)
    with pytest.raises(LocalProtocolError):
        await association.release()
    await first


async def test_a_response_that_never_comes(listen: Listen) -> None:
    store = Store(HeldCommit)
    server = await listen(store.authorise)
    association = await dial(server)
    with pytest.raises(AssociationTimeout, match="no response to C-STORE-RQ"):
        await association.c_store([b"ab"], timeout=0.5, **image())
    assert association.is_over
    await association.wait_closed()
    with pytest.raises(AssociationTimeout):
        await association.c_echo()
    await until(lambda: store.sinks[0].aborts, "the acceptor's end")
    # The answer that comes now has nobody to go to.
    sink = store.sinks[0]
    assert isinstance(sink, HeldCommit)
    sink.outcome.set_result(Outcome(0))


async def test_a_response_to_no_request_of_ours_is_passed_over(
    listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    server = await listen()
    caplog.set_level("INFO", "hilum.net")
    async with await RawPeer.associate(server.port) as peer:
        with_data = echo_rq(9).response(0, has_data_set=True)
        peer.send(pdata(command_pdv(1, echo_rq(9).response(0))))
        peer.send(pdata(command_pdv(1, with_data), PDV(1, b"some data")))
        peer.send(pdata(command_pdv(1, echo_rq())))
        assert await status(peer) == 0
    assert "response to no request of ours" in caplog.text


async def test_a_response_with_a_data_set(listen: Listen) -> None:
    server = await listen()
    async with await RawPeer.associate(server.port) as peer:
        (association,) = server.associations
        asking = asyncio.create_task(association.c_echo())
        request = await peer.hear()
        command = Command.decode(request.pdvs[0].data)  # type: ignore[union-attr]
        answer = command.response(0, has_data_set=True)
        peer.send(pdata(command_pdv(1, answer), PDV(1, bytes(9000), last=False)))
        peer.send(pdata(PDV(1, bytes(9000), last=False)), pdata(PDV(1, b"end")))
        assert (await asking).data == bytes(18_000) + b"end"


async def test_a_response_with_too_large_a_data_set(
    listen: Listen,
) -> None:
    server = await listen(limits=Limits(max_data_set_in_memory=1000))
    async with await RawPeer.associate(server.port) as peer:
        (association,) = server.associations
        asking = asyncio.create_task(association.c_echo())
        await peer.hear()
        answer = echo_rq(1).response(0, has_data_set=True)
        peer.send(pdata(command_pdv(1, answer), PDV(1, bytes(1001), last=False)))
        peer.send(pdata(PDV(1, bytes(1001))), pdata(command_pdv(1, echo_rq())))
        with pytest.raises(Exception, match="data set over 1000 bytes"):
            await asking
        assert await peer.hear() == Abort(2, 6)


async def test_the_window_is_answered_and_requests_still_served_in_turn(listen: Listen) -> None:
    server = await listen(lambda rq, peer: Accept(window=(4, 4)))
    window = AsynchronousOperationsWindow(0, 0)
    async with await dial(server, items=(window,)) as association:
        assert association.ac.item(AsynchronousOperationsWindow) == AsynchronousOperationsWindow(
            4, 4
        )
        await asyncio.gather(*(association.c_echo() for _ in range(8)))


async def test_what_follows_a_release_request_in_one_segment(
    listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    """Field notes A 24: the association is over either way, and nothing is served any more."""
    ends: list[Exception | None] = []
    server = await listen(lambda rq, peer: Accept(ended=lambda a, error: ends.append(error)))
    behind = [pdata(command_pdv(1, echo_rq())), Abort(), b"GET / HTTP/1.1\r\n", ReleaseRQ()]
    for number, after in enumerate(behind, 1):
        async with await RawPeer.associate(server.port) as peer:
            peer.send(ReleaseRQ(), after)
            await until(lambda n=number: len(ends) == n, "the end")  # type: ignore[misc]
            assert isinstance(await peer.hear(), Abort | None)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_what_follows_an_association_request_in_one_segment(
    listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    server = await listen()
    for after in (an_rq(), Abort(), b"GET / HTTP/1.1\r\n", pdata(), ReleaseRP()):
        async with await RawPeer.connect(server.port) as peer:
            peer.send(an_rq(), after)
            assert isinstance(await peer.hear(), Abort | None)
    assert not server.associations
    assert server.accepted == 0
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_half_closing_peer_is_a_peer_that_has_gone(listen: Listen) -> None:
    """PS3.8 knows no half-closed connection: what is being stored is dropped."""
    store = Store()
    server = await listen(store.authorise)
    async with await RawPeer.associate(server.port) as peer:
        peer.send(pdata(command_pdv(3, store_rq()), PDV(3, bytes(100), last=False)))
        peer.end_sending()
        assert await peer.hear() is None
    await until(lambda: not server.associations, "the end")
    (sink,) = store.sinks
    assert (sink.commits, [type(cause) for cause in sink.aborts]) == (0, [ConnectionLost])


async def test_a_half_close_behind_the_last_words(listen: Listen) -> None:
    """What was said before is answered."""
    server = await listen()
    async with await RawPeer.associate(server.port) as peer:
        peer.send(pdata(command_pdv(1, echo_rq())), ReleaseRQ())
        peer.end_sending()
        assert await status(peer) == 0
        assert await peer.hear() == ReleaseRP()
        assert await peer.hear() is None


async def test_a_server_that_stops_lets_a_message_finish(listen: Listen) -> None:
    store = Store(HeldCommit)
    server = await listen(store.authorise)
    busy, idle = await dial(server), await dial(server)
    storing = asyncio.create_task(busy.c_store([b"ab"], **image()))
    await until(lambda: store.sinks and store.sinks[0].commits, "the commit")
    closing = asyncio.create_task(server.close(5))
    await idle.wait_closed()
    assert isinstance(idle.error, AssociationAborted)
    with pytest.raises(AssociationError):
        await dial(server)
    sink = store.sinks[0]
    assert isinstance(sink, HeldCommit)
    sink.outcome.set_result(Outcome(0))
    assert (await storing).status == 0
    await closing
    with pytest.raises(AssociationError):
        await busy.c_echo()


async def test_a_server_that_stops_does_not_wait_longer_than_it_was_told(listen: Listen) -> None:
    store = Store(HeldCommit)
    server = await listen(store.authorise)
    association = await dial(server)
    storing = asyncio.create_task(association.c_store([b"ab"], **image()))
    await until(lambda: store.sinks and store.sinks[0].commits, "the commit")
    async with asyncio.timeout(5):
        await server.close(0.02)
    with pytest.raises(AssociationError):
        await storing
    assert isinstance(store.sinks[0].aborts[0], AssociationTimeout)


async def test_a_port_that_is_taken(listen: Listen) -> None:
    server = await listen()
    with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{server.port}"):
        await serve("127.0.0.1", server.port, lambda rq, peer: Accept())
    with pytest.raises(ConfigurationError, match="cannot listen"):
        await serve("host.invalid", 0, lambda rq, peer: Accept())


async def test_ipv6(listen: Listen) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        server = await serve("::1", 0, lambda rq, peer: Accept())
    except ConfigurationError:
        pytest.skip("no IPv6 loopback here")
    async with server, await connect("::1", server.port) as association:
        assert (await association.c_echo()).status == 0
        (other,) = server.associations
        assert str(other.peer).startswith("[::1]:")


async def test_a_sink_of_the_default_policy_refuses_other_classes(listen: Listen) -> None:
    contexts = (*CONTEXTS, ("1.2.840.10008.5.1.1.9", (EXPLICIT,)), (CT_IMAGE, ("1.2.3",)))
    async with await dial(await listen(Store(Sink).authorise), contexts=contexts) as association:
        assert [c.result for c in association.ac.contexts][:3] == [0, 0, 3]
        assert association.context_for(CT_IMAGE, EXPLICIT).context_id == 3
