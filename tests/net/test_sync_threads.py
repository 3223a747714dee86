"""Who waits for whom in the blocking API: handlers, iterators, the loop, and the end of things."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from tests.net.sync_world import (
    BOTH_ROLES,
    CT,
    FIND,
    GET,
    MPPS,
    Provider,
    associate,
    identifier,
    until,
    within,
)

from hilum.sync import AE, _config, evt
from hilum.sync.loop import current


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.ae.shutdown()


def threads() -> set[str]:
    """The threads of associations."""
    return {thread.name for thread in threading.enumerate() if "Thread@" in thread.name}


@within(60)
def test_hundreds_of_associations_leave_no_thread(provider):
    stored = []
    lock = threading.Lock()

    def store(event):
        with lock:
            stored.append(event.dataset.SOPInstanceUID)
        return 0x0000

    provider.ae.maximum_associations = 50
    port = provider.start((evt.EVT_C_STORE, store))
    dataset = dcmread(CT)
    told = []

    def user(_: int) -> None:
        for _ in range(10):
            assoc = associate(port, evt_handlers=[(evt.EVT_RELEASED, told.append)])
            assert assoc.send_c_store(dataset).Status == 0x0000
            assoc.release()

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(user, range(30)))
    assert len(stored) == len(told) == 300
    until(lambda: not threads(), "threads are left")
    until(lambda: not provider.ae.active_associations, "associations are left")


@within(30)
def test_many_associations_are_served_at_once(provider):
    meeting = threading.Barrier(12)

    def store(event):
        meeting.wait(20)  # passes only when every association's handler is here
        return 0x0000

    provider.ae.maximum_associations = 12
    port = provider.start((evt.EVT_C_STORE, store))
    assocs = [associate(port) for _ in range(12)]
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda assoc: assoc.send_c_store(CT).Status, assocs))
    assert statuses == [0x0000] * 12
    for assoc in assocs:
        assoc.release()


@within(20)
def test_a_busy_handler_holds_up_nobody_else(provider):
    release = threading.Event()

    def store(event):
        release.wait(15)
        return 0x0000

    port = provider.start((evt.EVT_C_STORE, store))
    busy, other = associate(port), associate(port)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(busy.send_c_store, CT)
        for _ in range(20):
            assert other.send_c_echo().Status == 0x0000
        assert not waiting.done()
        release.set()
        assert waiting.result(10).Status == 0x0000
    busy.release()
    other.release()


class Endless:
    """A C-FIND that goes on until it is told otherwise."""

    def __init__(self, count: int = 1_000_000, comments: str = "") -> None:
        self.count = count
        self.comments = comments
        self.yielded = 0
        self.cancelled = threading.Event()
        self.closed = threading.Event()

    def __call__(self, event):
        try:
            for number in range(self.count):
                if event.is_cancelled:
                    self.cancelled.set()
                    yield 0xFE00, None
                    return
                self.yielded += 1
                yield 0xFF00, identifier(PatientID=str(number), PatientComments=self.comments)
        finally:
            self.closed.set()


@pytest.mark.parametrize("how", ["close", "forget"])
@within(20)
def test_an_iterator_that_is_given_up_cancels(provider, how):
    find = Endless()
    assoc = associate(provider.start((evt.EVT_C_FIND, find)))
    responses: Any = assoc.send_c_find(identifier(), FIND)
    assert next(responses)[0].Status == 0xFF00
    if how == "close":
        responses.close()
        assert list(responses) == []
    del responses
    assert find.closed.wait(10)
    assert assoc.send_c_echo().Status == 0x0000, "the association goes on"
    assoc.release()
    assert assoc.is_released


@within(20)
def test_responses_that_nobody_takes_give_way_to_the_next_request(provider):
    find = Endless(comments="x" * 5000)
    ae = AE("USER")
    ae.dimse_timeout = 2
    assoc = associate(provider.start((evt.EVT_C_FIND, find)), ae)
    responses = assoc.send_c_find(identifier(), FIND)
    next(responses)
    assert assoc.send_c_echo().Status == 0x0000
    assert find.closed.wait(10)
    assert len(list(responses)) <= 2 * 256 + 64
    assoc.release()


@within(20)
def test_a_request_within_an_iteration_waits_for_its_end_only(provider):
    assoc = associate(provider.start((evt.EVT_C_FIND, Endless(20))))
    seen = 0
    last = None
    for status, _ in assoc.send_c_find(identifier(), FIND):
        seen, last = seen + 1, status.Status
        assert assoc.send_c_echo().Status == 0x0000
    assert (seen, last) == (21, 0x0000)
    assoc.release()


@within(20)
def test_a_slow_consumer_pauses_the_provider(provider):
    # Large enough that the kernel's buffers, some megabytes, hold few of them.
    find = Endless(100_000, "x" * 5000)
    assoc = associate(provider.start((evt.EVT_C_FIND, find)))
    responses = assoc.send_c_find(identifier(), FIND)
    next(responses)
    before = -1
    while before != find.yielded:
        before = find.yielded
        time.sleep(0.3)  # as long as it goes on, it is not yet held up
    assert find.yielded < 10_000
    assoc.release()
    assert assoc.is_released
    assert find.closed.wait(10)


@within(30)
def test_an_iterator_that_is_held_and_never_read_on_is_given_up(provider, monkeypatch, caplog):
    monkeypatch.setattr(_config, "UNTAKEN_RESPONSES_TIMEOUT", 0.5)
    find = Endless(100_000, "x" * 5000)
    assoc = associate(provider.start((evt.EVT_C_FIND, find)))
    responses = assoc.send_c_find(identifier(), FIND)
    assert next(responses)[0].Status == 0xFF00
    assert find.closed.wait(20), "the provider still waits"
    *taken, last = responses
    assert all(status.Status == 0xFF00 for status, _ in taken)
    assert last[0] == Dataset()
    assert last[1] is None
    assert "nobody has taken any" in caplog.text
    assert assoc.send_c_echo().Status == 0x0000, "the association goes on"
    assoc.release()


@within(20)
def test_a_slow_consumer_is_told_of_reports_and_of_the_end(provider):
    reported = threading.Event()
    release = threading.Event()

    def find(event):
        yield 0xFF00, identifier(PatientID="1")
        event.assoc.send_n_event_report(identifier(), 1, MPPS, "1.2.3")
        release.wait(10)
        event.assoc.abort()

    def report(event):
        reported.set()
        return 0x0000, None

    assoc = associate(
        provider.start((evt.EVT_C_FIND, find)), evt_handlers=[(evt.EVT_N_EVENT_REPORT, report)]
    )
    responses = assoc.send_c_find(identifier(), FIND)
    next(responses)
    assert reported.wait(10), "the program is not iterating, and is told all the same"
    release.set()
    until(lambda: assoc.is_aborted, "the abort was not noticed")
    assert [len(status) for status, _ in responses] == [0]


@within(20)
def test_a_report_crosses_a_request(provider):
    def store(event):
        status, _ = event.assoc.send_n_event_report(None, 1, MPPS, "1.2.3")
        return status.Status

    def report(event):
        return 0x0110, None

    assoc = associate(
        provider.start((evt.EVT_C_STORE, store)), evt_handlers=[(evt.EVT_N_EVENT_REPORT, report)]
    )
    assert assoc.send_c_store(CT).Status == 0x0110
    assoc.release()


@within(20)
def test_sub_operations_that_nobody_takes_end_the_get(provider):
    statuses = []

    def get(event):
        yield 5
        for _ in range(5):
            yield 0xFF00, dcmread(CT)

    def store(event):
        statuses.append(0x0000)
        return 0x0000

    ae = AE("USER")
    ae.network_timeout = 0.5
    port = provider.start((evt.EVT_C_GET, get))
    assoc = associate(port, ae, ext_neg=BOTH_ROLES, evt_handlers=[(evt.EVT_C_STORE, store)])
    responses = assoc.send_c_get(identifier(), GET)
    until(lambda: assoc._feeds[0].is_over, "the C-GET goes on")
    assert list(responses) == [] and statuses == []
    assert assoc.send_c_echo().Status == 0x0000
    assoc.release()


@within(20)
def test_abort_in_a_notification_does_not_wait(provider):
    returned = []

    def established(event):
        event.assoc.abort()
        # The connection is closed only after the handlers before it have returned.
        returned.append(event.assoc.is_alive())

    port = provider.start((evt.EVT_ESTABLISHED, established))
    ae = AE("USER")
    assoc = ae.associate("127.0.0.1", port, contexts=[*provider.ae.supported_contexts])
    until(lambda: assoc.is_aborted, "the peer's abort was not noticed")
    until(lambda: returned == [True], "the handler did not go on")
    assert not assoc.is_established


@within(20)
def test_abort_elsewhere_returns_when_its_handlers_have(provider):
    told = []
    assoc = associate(provider.start(), evt_handlers=[(evt.EVT_ABORTED, told.append)])
    assoc.abort()
    assert assoc.is_aborted and not assoc.is_established and len(told) == 1
    assert not assoc.is_alive()
    assoc.abort()
    assoc.release()
    assert len(told) == 1


@within(20)
def test_an_association_can_be_joined_and_has_a_name(provider):
    assoc = associate(provider.start())
    assert assoc.is_alive() and assoc.name.startswith("RequestorThread@")
    assert not isinstance(assoc, threading.Thread)
    assoc.join(0.05)
    assert assoc.is_alive()
    provider.ae.shutdown()
    assoc.join(10)
    assert not assoc.is_alive() and assoc.is_aborted


@within(20)
def test_a_blocking_call_on_the_loop_raises_at_once(provider):
    assoc = associate(provider.start())
    raised = []

    def call() -> None:
        for blocking in (
            assoc.send_c_echo,
            assoc.release,
            assoc.abort,
            assoc.join,
            lambda: assoc.send_c_find(identifier(), FIND),
            lambda: AE().associate("127.0.0.1", 1, contexts=assoc.accepted_contexts),
        ):
            try:
                blocking()
            except RuntimeError as error:
                raised.append(str(error))

    current().post(call)
    until(lambda: len(raised) == 6, f"{len(raised)} raised")
    assert all("event loop" in message for message in raised)
    assert assoc.send_c_echo().Status == 0x0000
    assoc.release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@within(20)
def test_a_forked_child_raises(provider):
    port = provider.start()
    assoc = associate(port)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for blocking in (
                assoc.send_c_echo,
                assoc.release,
                lambda: AE().associate("127.0.0.1", port, contexts=assoc.accepted_contexts),
            ):
                try:
                    blocking()
                except RuntimeError as error:
                    assert "forked" in str(error)
                else:
                    raise AssertionError("no error")
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert assoc.send_c_echo().Status == 0x0000
    assoc.release()


def fails(event):
    raise ValueError("a handler's own mistake")


@pytest.mark.parametrize(
    ("event", "status", "ask"),
    [
        (evt.EVT_C_ECHO, 0x0000, lambda assoc: assoc.send_c_echo()),
        (evt.EVT_C_STORE, 0xC211, lambda assoc: assoc.send_c_store(CT)),
        (evt.EVT_C_FIND, 0xC311, lambda assoc: next(assoc.send_c_find(identifier(), FIND))[0]),
        (evt.EVT_C_GET, 0xC411, lambda assoc: next(assoc.send_c_get(identifier(), GET))[0]),
        (evt.EVT_N_GET, 0x0110, lambda assoc: assoc.send_n_get([], MPPS, "1.2")[0]),
        (evt.EVT_N_SET, 0x0110, lambda assoc: assoc.send_n_set(identifier(), MPPS, "1.2")[0]),
        (evt.EVT_N_DELETE, 0x0110, lambda assoc: assoc.send_n_delete(MPPS, "1.2")),
    ],
)
def test_a_handler_that_fails_gives_a_status(provider, event, status, ask, caplog):
    with caplog.at_level(logging.ERROR, "hilum.sync"):
        assoc = associate(provider.start((event, fails)))
        assert ask(assoc).Status == status
        assoc.release()
    assert "a handler's own mistake" in caplog.text


def test_a_notification_that_fails_is_logged_and_no_more(provider, caplog):
    told = []
    with caplog.at_level(logging.ERROR, "hilum.sync"):
        handlers = ((evt.EVT_ESTABLISHED, fails), (evt.EVT_ESTABLISHED, told.append))
        assoc = associate(provider.start(), evt_handlers=list(handlers))
        assert assoc.send_c_echo().Status == 0x0000
        assoc.release()
    assert "a handler's own mistake" in caplog.text and len(told) == 1


@within(20)
def test_a_peer_that_goes_away_closes_the_generator(provider):
    find = Endless()
    assoc = associate(provider.start((evt.EVT_C_FIND, find)))
    next(assoc.send_c_find(identifier(), FIND))
    assoc.abort()
    assert find.closed.wait(10)
    until(lambda: not threads(), "threads are left")


@within(20)
def test_no_answer_in_time_gives_an_empty_status(provider):
    release = threading.Event()

    def store(event):
        release.wait(10)
        return 0x0000

    ae = AE("USER")
    ae.dimse_timeout = 0.3
    assoc = associate(provider.start((evt.EVT_C_STORE, store)), ae)
    assert len(assoc.send_c_store(CT)) == 0
    assert assoc.is_aborted and not assoc.is_established
    with pytest.raises(RuntimeError, match="must be established"):
        assoc.send_c_echo()
    release.set()


@within(30)
def test_threads_may_share_an_association(provider):
    def store(event):
        return 0x0000

    assoc = associate(provider.start((evt.EVT_C_STORE, store)))
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(assoc.send_c_store, CT, number + 1) for number in range(64)]
        assert [job.result(20).Status for job in jobs] == [0x0000] * 64
    assoc.release()


@within(60)
def test_ends_of_every_kind_leave_nothing(provider):
    """Users that release, abort, forget and are cut off, all at once, in a repeatable disorder."""

    def find(event):
        for number in range(50):
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield 0xFF00, identifier(PatientID=str(number))

    def get(event):
        yield 4
        for _ in range(4):
            yield 0xFF00, dcmread(CT)

    def report(event):
        return 0x0000, None

    def store(event):
        if event.message_id % 3 == 0:
            event.assoc.send_n_event_report(None, 1, MPPS, "1.2.3")
        return 0x0000

    provider.ae.maximum_associations = 64
    port = provider.start(
        (evt.EVT_C_FIND, find),
        (evt.EVT_C_GET, get),
        (evt.EVT_C_STORE, store),
        (evt.EVT_RELEASED, lambda event: None),
    )
    handlers = [(evt.EVT_N_EVENT_REPORT, report), (evt.EVT_C_STORE, lambda event: 0x0000)]

    def user(seed: int) -> None:
        disorder = random.Random(seed)
        for _ in range(6):
            assoc = associate(port, ext_neg=BOTH_ROLES, evt_handlers=handlers)
            for number in range(disorder.randrange(1, 4)):
                match disorder.randrange(5):
                    case 0:
                        assert len(list(assoc.send_c_find(identifier(), FIND))) == 51
                    case 1:
                        next(assoc.send_c_find(identifier(), FIND))
                    case 2:
                        responses = assoc.send_c_get(identifier(), GET)
                        next(responses)
                        responses.close()
                    case 3:
                        assert assoc.send_c_store(CT, msg_id=3 + number).Status == 0x0000
                    case 4:
                        assert assoc.send_c_echo().Status == 0x0000
            match disorder.randrange(3):
                case 0:
                    assoc.release()
                    assert assoc.is_released
                case 1:
                    assoc.abort()
                    assert assoc.is_aborted
                case 2:
                    assoc.loop.post(assoc.core.link.kill)  # in its thread only
                    until(lambda: assoc.is_aborted, "the end was not noticed")  # noqa: B023

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(user, range(24)))
    until(lambda: not threads(), "threads are left")
    until(lambda: not provider.ae.active_associations, "associations are left")

    async def tasks() -> list[str]:
        own = asyncio.current_task()
        return [
            task.get_name()
            for task in asyncio.all_tasks()
            if task is not own and not task.get_name().startswith("accept")
        ]

    until(lambda: not current().call(tasks()), "tasks are left")


PATIENT = contextvars.ContextVar("PATIENT", default="nobody")


@pytest.mark.parametrize("passed", [False, True])
@within(20)
def test_context_variables_go_to_handlers_where_that_is_wanted(provider, passed):
    seen = []

    def echo(event):
        seen.append(PATIENT.get())
        return 0x0000

    def released(event):
        seen.append(PATIENT.get())

    before, _config.PASS_CONTEXTVARS = _config.PASS_CONTEXTVARS, passed
    try:
        PATIENT.set("provider's")
        port = provider.start((evt.EVT_C_ECHO, echo))
        PATIENT.set("user's")
        assoc = associate(port, evt_handlers=[(evt.EVT_RELEASED, released)])
        assoc.send_c_echo()
        assoc.release()
    finally:
        _config.PASS_CONTEXTVARS = before
    assert seen == (["provider's", "user's"] if passed else ["nobody", "nobody"])


@within(20)
def test_a_blocking_server_waits_until_it_is_shut_down(provider):
    ae = provider.ae
    serving = threading.Thread(target=ae.start_server, args=(("127.0.0.1", 0),), daemon=True)
    serving.start()
    until(lambda: ae._servers, "it does not listen")
    (server,) = ae._servers
    assoc = associate(server.server_address[1])
    server.shutdown()
    serving.join(10)
    assert not serving.is_alive()
    assert assoc.send_c_echo().Status == 0x0000, "what is there goes on"
    assoc.release()


def test_the_log_can_be_kept_short(provider, caplog, monkeypatch):
    monkeypatch.setattr(_config, "LOG_HANDLER_LEVEL", "none")
    with caplog.at_level(logging.DEBUG, "hilum.sync"):
        associate(provider.start()).release()
    assert [record for record in caplog.records if record.name == "hilum.sync"] == []


def test_the_interpreter_ends_with_associations_open():
    program = """
from hilum.sync import AE
from hilum.sync.sop_class import Verification
ae = AE()
ae.add_supported_context(Verification)
ae.add_requested_context(Verification)
server = ae.start_server(("127.0.0.1", 0), block=False)
assoc = ae.associate("127.0.0.1", server.server_address[1])
assert assoc.is_established
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
