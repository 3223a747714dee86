"""What programs negotiate with the blocking API, and what they see of it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from tests.net.certificates import Authority
from tests.net.sync_world import BOTH_ROLES, CT, Provider, associate, until, within

from hilum.net.tls import client_context, server_context
from hilum.sync import AE, _config, build_context, build_role, evt
from hilum.sync import pdu_primitives as primitives
from hilum.sync.sop_class import CTImageStorage, MRImageStorage, Verification


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.ae.shutdown()


@pytest.fixture
def setting() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def request(port: int, contexts=None, **arguments):
    ae = AE("USER")
    ae.acse_timeout = 10
    contexts = contexts or [build_context(Verification), build_context(CTImageStorage)]
    return ae.associate("127.0.0.1", port, contexts=contexts, **arguments)


def test_the_acceptors_order_of_transfer_syntaxes_decides(provider):
    order = [ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    server = provider.ae.start_server(
        ("127.0.0.1", 0), block=False, contexts=[build_context(CTImageStorage, order)]
    )
    offered = build_context(CTImageStorage, [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
    other = build_context(MRImageStorage)
    deflated = build_context(CTImageStorage, DeflatedExplicitVRLittleEndian)
    assoc = request(server.server_address[1], [offered, other, deflated])
    (accepted,) = assoc.accepted_contexts
    assert accepted.transfer_syntax == [ExplicitVRLittleEndian]
    assert (accepted.as_scu, accepted.as_scp) == (True, False)
    assert [context.result for context in assoc.rejected_contexts] == [3, 4]
    assert assoc.rejected_contexts[0].abstract_syntax == MRImageStorage
    assoc.release()


def test_an_association_without_contexts_is_aborted(provider):
    told = []
    assoc = request(
        provider.start(),
        [build_context(MRImageStorage)],
        evt_handlers=[(evt.EVT_ABORTED, told.append)],
    )
    assert assoc.is_aborted and not assoc.is_established and len(told) == 1


@pytest.mark.parametrize(
    ("allowed", "wanted", "ours"),
    [
        ((True, True), (True, True), (True, True)),
        ((True, True), (False, True), (False, True)),
        ((False, True), (True, True), (False, True)),
        ((None, None), (True, True), (True, False)),
    ],
)
def test_roles(provider, allowed, wanted, ours):
    provider.ae.add_supported_context(CTImageStorage, None, *allowed)
    role = build_role(CTImageStorage, *wanted)
    assoc = associate(provider.start(), ext_neg=[role])
    (context,) = [c for c in assoc.accepted_contexts if c.abstract_syntax == CTImageStorage]
    assert (context.as_scu, context.as_scp) == ours
    theirs = provider.ae.active_associations[0].accepted_contexts
    (context,) = [c for c in theirs if c.abstract_syntax == CTImageStorage]
    assert (context.as_scp, context.as_scu) == ours
    assoc.release()


def test_no_role_at_all_is_a_rejected_context(provider):
    provider.ae.add_supported_context(CTImageStorage, None, False, True)
    assoc = associate(provider.start(), ext_neg=[build_role(CTImageStorage, scu_role=True)])
    assert [c.result for c in assoc.rejected_contexts] == [1]
    assoc.release()


def test_titles_that_are_not_let_in(provider):
    provider.ae.require_called_aet = True
    port = provider.start()
    told = []
    assoc = request(port, ae_title="OTHER", evt_handlers=[(evt.EVT_REJECTED, told.append)])
    assert assoc.is_rejected and not assoc.is_established and not assoc.is_aborted
    answer = assoc.acceptor.primitive
    assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, 7)
    assert answer.reason_str == "Called AE title not recognised" and len(told) == 1
    provider.ae.require_called_aet = False
    provider.ae.require_calling_aet = ["ELSE"]
    assert request(port).acceptor.primitive.diagnostic == 3


def test_more_associations_than_the_maximum_are_rejected_for_now(provider):
    provider.ae.maximum_associations = 2
    port = provider.start()
    first, second = associate(port), associate(port)
    third = request(port)
    answer = third.acceptor.primitive
    assert third.is_rejected
    assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
    first.release()
    until(lambda: len(provider.ae.active_associations) == 1, "the place is not free")
    fourth = associate(port)
    for assoc in (second, fourth):
        assoc.release()


def identity(kind: int, primary: bytes, secondary: bytes | None = None):
    item = primitives.UserIdentityNegotiation()
    item.user_identity_type = kind
    item.primary_field = primary
    item.secondary_field = secondary
    item.positive_response_requested = True
    return item


def test_user_identity_is_asked_about(provider):
    asked = []

    def user(event):
        asked.append((event.user_id_type, event.primary_field, event.secondary_field))
        return event.primary_field == b"alice", b"ticket"

    port = provider.start((evt.EVT_USER_ID, user))
    assoc = request(port, ext_neg=[identity(3, b"alice")])
    assert assoc.is_established
    assert assoc.acceptor.user_identity.server_response == b"ticket"
    assoc.release()
    refused = request(port, ext_neg=[identity(2, b"mallory", b"secret")])
    assert refused.is_rejected
    assert asked == [(3, b"alice", None), (2, b"mallory", b"secret")]


def test_extended_negotiation(provider):
    seen = {}

    def extended(event):
        seen["extended"] = event.app_info
        return {CTImageStorage: b"\x01"}

    def common(event):
        seen["common"] = event.items
        return event.items

    def window(event):
        seen["window"] = (event.nr_invoked, event.nr_performed)
        return 4, 2

    port = provider.start(
        (evt.EVT_SOP_EXTENDED, extended),
        (evt.EVT_SOP_COMMON, common),
        (evt.EVT_ASYNC_OPS, window),
    )
    item = primitives.SOPClassExtendedNegotiation()
    item.sop_class_uid = CTImageStorage
    item.service_class_application_information = b"\x00\x01"
    related = primitives.SOPClassCommonExtendedNegotiation()
    related.sop_class_uid = CTImageStorage
    related.service_class_uid = "1.2.840.10008.4.2"
    related.related_general_sop_class_identification = [MRImageStorage]
    operations = primitives.AsynchronousOperationsWindowNegotiation()
    operations.maximum_number_operations_invoked = 3
    operations.maximum_number_operations_performed = 5
    assoc = request(port, ext_neg=[item, related, operations])
    assert seen["extended"] == {CTImageStorage: b"\x00\x01"}
    assert seen["common"] == {CTImageStorage: related}
    assert seen["window"] == (3, 5)
    assert assoc.acceptor.sop_class_extended == {CTImageStorage: b"\x01"}
    assert assoc.acceptor.asynchronous_operations == (3, 2)
    acceptor = provider.ae.active_associations[0].acceptor
    assert acceptor.accepted_common_extended == {
        CTImageStorage: ("1.2.840.10008.4.2", [MRImageStorage])
    }
    assoc.release()


def test_both_ends_know_each_other(provider):
    provider.ae.implementation_class_uid = "1.2.3.4"
    provider.ae.implementation_version_name = "PROVIDED"
    provider.ae.maximum_pdu_size = 32768
    port = provider.start()
    assoc = associate(port, max_pdu=12345, ae_title="CALLED")
    assert assoc.acceptor.implementation_class_uid == "1.2.3.4"
    assert assoc.acceptor.implementation_version_name == "PROVIDED"
    assert assoc.acceptor.maximum_length == 32768
    (theirs,) = provider.ae.active_associations
    assert theirs.requestor.ae_title == "USER" and theirs.requestor.address == "127.0.0.1"
    assert theirs.requestor.maximum_length == 12345
    assert theirs.requestor.primitive.called_ae_title == "CALLED"
    assert theirs.requestor.port == assoc.requestor.port
    assert theirs.remote["ae_title"] == "USER" and theirs.local["ae_title"] == "PROVIDER"
    assert assoc.remote["port"] == port
    assoc.release()


def test_a_handler_may_reject_or_abort_a_request(provider):
    port = provider.start((evt.EVT_REQUESTED, lambda event: event.assoc.acse.send_reject(2, 1, 1)))
    rejected = request(port)
    assert rejected.is_rejected and rejected.acceptor.primitive.result == 2
    port = provider.start((evt.EVT_REQUESTED, lambda event: event.assoc.abort()))
    assert request(port).is_aborted


def test_nobody_there(provider):
    assoc = request(1)
    assert assoc.is_aborted and not assoc.is_established and not assoc.is_alive()
    assoc.release()
    assoc.abort()
    assoc.join(1)


def test_arguments_that_are_wrong():
    ae = AE()
    for arguments in ((1, 104), ("127.0.0.1", "104"), (("::1", 0), 104)):
        with pytest.raises(TypeError):
            ae.associate(*arguments)
    with pytest.raises(RuntimeError, match="requested presentation context"):
        ae.associate("127.0.0.1", 104)
    with pytest.raises(ValueError, match="ae_title"):
        ae.associate("127.0.0.1", 104, [build_context(Verification)], ae_title="x" * 17)
    with pytest.raises(TypeError, match="bind_address"):
        ae.associate("127.0.0.1", 104, [build_context(Verification)], bind_address=("a",))
    with pytest.raises(ValueError, match="No supported"):
        ae.start_server(("127.0.0.1", 0), block=False)
    taken = AE()
    taken.add_supported_context(Verification)
    server = taken.start_server(("127.0.0.1", 0), block=False)
    with pytest.raises(OSError):
        taken.start_server(server.server_address, block=False)
    taken.shutdown()


@within(30)
def test_tls(provider, tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("tls"))
    certificate, key = authority.issue("server")
    server = provider.ae.start_server(
        ("127.0.0.1", 0), block=False, ssl_context=server_context(certificate, key)
    )
    port = server.server_address[1]
    assoc = request(port, tls_args=(client_context(ca=authority.ca), "127.0.0.1"))
    assert assoc.is_established and assoc.send_c_echo().Status == 0x0000
    assoc.release()
    stranger = ssl.create_default_context()
    assert request(port, tls_args=(stranger, "127.0.0.1")).is_aborted


def test_unrestricted_storage(provider, setting):
    setting.setattr(_config, "UNRESTRICTED_STORAGE_SERVICE", True)
    port = provider.start((evt.EVT_C_STORE, lambda event: 0x0000))
    private = build_context("1.2.3.4.5.6", "1.2.840.10008.1.2.4.50")
    assoc = request(port, [private, build_context(Verification)])
    assert len(assoc.accepted_contexts) == 2
    assoc.release()


@pytest.mark.parametrize("limit", [64 << 20, 1000])
def test_data_sets_are_kept_in_files_beyond_a_limit(provider, setting, limit):
    setting.setattr(_config, "STORE_MEMORY_LIMIT", limit)
    got = []

    def store(event):
        got.append((event.dataset, event.encoded_dataset(include_meta=False)))
        got.append(event._received.path)
        return 0x0000

    assoc = associate(provider.start((evt.EVT_C_STORE, store)))
    assert assoc.send_c_store(CT).Status == 0x0000
    assoc.release()
    (dataset, encoded), path = got
    assert dataset.PixelData == dcmread(CT).PixelData and len(encoded) > 38_000
    assert (path is None) == (limit > 100_000)
    assert path is None or not path.exists()


def test_data_sets_may_be_taken_as_files(provider, setting):
    setting.setattr(_config, "STORE_RECV_CHUNKED_DATASET", True)
    got = []

    def store(event):
        got.append((event.dataset_path, dcmread(event.dataset_path), event.dataset))
        assert event.request.DataSet is None
        return 0x0000

    assoc = associate(provider.start((evt.EVT_C_STORE, store)))
    assert assoc.send_c_store(CT).Status == 0x0000
    assoc.release()
    path, in_file, dataset = got[0]
    assert in_file.file_meta.MediaStorageSOPInstanceUID == dcmread(CT).SOPInstanceUID
    assert in_file.PixelData == dataset.PixelData == dcmread(CT).PixelData
    until(lambda: not path.exists(), "the file is left")


def test_an_interrupted_data_set_leaves_no_file(provider, setting, tmp_path):
    import tempfile

    setting.setattr(tempfile, "tempdir", str(tmp_path))
    setting.setattr(_config, "STORE_RECV_CHUNKED_DATASET", True)
    started = []
    port = provider.start((evt.EVT_C_STORE, started.append))
    assoc = associate(port)

    async def half() -> None:
        async def parts():
            yield bytes(1 << 20)
            assoc.core.abort()
            yield bytes(2)

        context = assoc.core.context_for(CTImageStorage)
        await assoc.core.c_store(
            parts(),
            sop_class_uid=CTImageStorage,
            sop_instance_uid="1.2.3",
            transfer_syntax_uid=context.transfer_syntax,
        )

    from hilum.errors import AssociationError

    with pytest.raises(AssociationError):
        assoc.loop.call(half())
    until(lambda: not list(Path(tmp_path).iterdir()), "a file is left")
    assert started == []


@within(20)
def test_everything_that_passes_can_be_seen(provider):
    names = ["DATA", "PDU", "ACSE", "DIMSE"]
    seen: list = []

    def note(event):
        for attribute in ("data", "pdu", "primitive", "message"):
            if hasattr(event, attribute):
                value = getattr(event, attribute)
                seen.append((event.event.name, type(value).__name__, value))

    events = [getattr(evt, f"EVT_{name}_{way}") for name in names for way in ("RECV", "SENT")]
    steps: list = []

    def step(event):
        steps.append((event.current_state, event.fsm_event, event.action, event.next_state))

    handlers = [*((event, note) for event in events), (evt.EVT_FSM_TRANSITION, step)]
    port = provider.start((evt.EVT_C_STORE, lambda event: 0x0000))
    assoc = associate(port, evt_handlers=handlers, ext_neg=BOTH_ROLES)
    assert assoc.send_c_store(CT, msg_id=9).Status == 0x0000
    assoc.release()
    kinds = [(event, kind) for event, kind, _ in seen]
    assert ("EVT_PDU_SENT", "A_ASSOCIATE_RQ") in kinds
    assert ("EVT_PDU_RECV", "A_ASSOCIATE_AC") in kinds
    assert ("EVT_ACSE_SENT", "A_ASSOCIATE") in kinds and ("EVT_ACSE_RECV", "A_RELEASE") in kinds
    assert ("EVT_DIMSE_SENT", "C_STORE_RQ") in kinds and ("EVT_DIMSE_RECV", "C_STORE_RSP") in kinds
    (stored,) = [value for _, kind, value in seen if kind == "C_STORE_RQ"]
    assert stored.command_set.MessageID == 9 and len(stored.data_set.getvalue()) > 38_000
    sent = [value for event, _, value in seen if event == "EVT_DATA_SENT"]
    assert sent[0][:1] == b"\x01" and sent[-1][:1] == b"\x05"
    assert ("Sta4", "Evt2", "AE-2", "Sta5") in steps and ("Sta5", "Evt3", "AE-3", "Sta6") in steps


@within(20)
def test_handlers_may_be_bound_later(provider):
    seen = []
    assoc = associate(provider.start((evt.EVT_C_STORE, lambda event: 0x0000)))
    assoc.send_c_store(CT)
    assoc.bind(evt.EVT_DIMSE_RECV, lambda event: seen.append(type(event.message).__name__))
    assoc.send_c_echo()
    assoc.release()
    assert seen == ["C_ECHO_RSP"]
