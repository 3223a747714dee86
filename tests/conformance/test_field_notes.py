"""Every line of the field notes' part A has its test, and every test that is named exists.

The field notes list what real peers do (their numbers are theirs); a line that asks something of
peers or of the tests alone says so instead.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

WIRE = "unit/wire/test_field_notes.py"
ASSOCIATION, STORE, FILES = "net/test_association.py", "net/test_store.py", "net/test_files.py"
DEADLINES, ADMISSION = "net/test_deadlines.py", "net/test_admission.py"
TITLES, SERVICES, RETRIEVE = (
    "net/test_gateway_titles.py",
    "net/test_services.py",
    "net/test_retrieve.py",
)
MATRIX, TOOLS = "interop/test_matrix.py", "interop/test_tools.py"

LINES: dict[int, tuple[str, list[str]]] = {
    1: ("UIDs in A-ASSOCIATE with trailing NULs or spaces", [
        f"{WIRE}::test_01_uids_in_associate_are_stripped_when_read",
        f"{WIRE}::test_01_uids_in_associate_are_never_padded_when_written"]),
    2: ("UIDs outside the rules are accepted and not rewritten", [
        f"{WIRE}::test_02_uids_outside_the_rules_are_kept_as_they_are",
        f"{ADMISSION}::test_junk_transfer_syntaxes_are_answered"]),
    3: ("a padded Affected SOP Instance UID is echoed exactly", [
        f"{WIRE}::test_03_a_padded_instance_uid_is_echoed_exactly",
        f"{ASSOCIATION}::test_a_padded_instance_uid_is_echoed_exactly"]),
    4: ("implementation class UID and version name absent or empty", [
        f"{WIRE}::test_04_implementation_items_absent_or_empty"]),
    5: ("junk in reserved bytes and echoed titles", [
        f"{WIRE}::test_05_junk_in_reserved_bytes_and_echoed_titles_of_an_acceptance"]),
    6: ("AE titles outside ASCII", [
        f"{WIRE}::test_06_ae_titles_outside_ascii",
        f"{ADMISSION}::test_titles_are_logged_escaped"]),
    7: ("rejected contexts without transfer syntax", [
        f"{WIRE}::test_07_rejected_contexts_without_transfer_syntax_or_with_an_empty_one"]),
    8: ("rejections and aborts with unlisted values", [
        f"{WIRE}::test_08_rejections_and_aborts_with_values_the_standard_does_not_list"]),
    9: ("duplicate and even context ids, more than 128 contexts, a long request", [
        f"{WIRE}::test_09_duplicate_and_even_context_ids",
        f"{WIRE}::test_09_more_than_128_contexts_and_a_request_of_17_kb",
        f"{FILES}::test_more_contexts_than_an_association_can_have",
        f"{MATRIX}::test_we_are_asked"]),
    10: ("maximum length 0, tiny and odd; the sending limit is the peer's", [
        f"{WIRE}::test_10_maximum_length_zero_tiny_and_odd",
        f"{WIRE}::test_10_a_maximum_length_that_holds_no_fragment_ends_the_association",
        f"{WIRE}::test_10_the_sending_limit_is_the_peers_value_alone",
        f"{STORE}::test_a_tiny_maximum_length_does_not_queue_everything_at_once",
        f"{MATRIX}::test_we_send", f"{MATRIX}::test_we_receive"]),
    11: ("command and data set in one PDU", [
        f"{WIRE}::test_11_command_and_data_set_in_one_pdu_are_read_and_sent_apart"]),
    12: ("several PDVs in a PDU, split commands, empty PDUs and PDVs", [
        f"{WIRE}::test_12_a_command_over_several_pdus_empty_pdus_and_empty_pdvs",
        f"{STORE}::test_empty_fragments_do_not_fill_the_buffer"]),
    13: ("odd fragments: always pad", [
        f"{WIRE}::test_13_odd_data_sets_are_padded_and_odd_fragments_read",
        f"{FILES}::test_an_odd_data_set_is_padded_at_its_end"]),
    14: ("a context id that changes within a message", [
        f"{WIRE}::test_14_a_context_that_changes_within_a_message"]),
    15: ("any data set type but 0101H", [
        f"{WIRE}::test_15_any_data_set_type_but_0101_means_a_data_set"]),
    16: ("group length, Priority, affected UIDs missing", [
        f"{WIRE}::test_16_group_length_wrong_or_missing",
        f"{WIRE}::test_16_priority_missing_and_responses_without_sop_class_and_instance"]),
    17: ("a C-STORE half sent ends in an abort", [
        f"{WIRE}::test_17_a_message_half_sent_ends_in_an_abort",
        f"{STORE}::test_cancelling_a_store_half_sent_aborts"]),
    18: ("pending C-MOVE responses with a data set", [
        "net/test_hostile_provider.py::test_a_pending_move_response_with_a_data_set"]),
    19: ("final status, failed list and counters of C-GET and C-MOVE", [
        "unit/services/test_suboperations.py::test_the_final_status_follows_from_the_counters",
        "unit/services/test_suboperations.py::test_counters_stop_at_65535_in_responses_only",
        "unit/services/test_suboperations.py::test_a_uid_that_failed_twice_is_listed_once_and_counted_twice",
        f"{RETRIEVE}::test_what_the_requestor_does_not_take_fails_alone",
        f"{RETRIEVE}::test_move_of_nothing_opens_no_association"]),
    20: ("the Move Originator is who asked", [
        f"{WIRE}::test_20_the_move_originator_is_kept_as_it_came",
        f"{RETRIEVE}::test_move"]),
    21: ("C-GET needs the SCP role for each class, and 128 contexts are few", [
        f"{WIRE}::test_21_and_22_roles_are_answered_for_each_class",
        f"{RETRIEVE}::test_get_without_roles_fails_every_one",
        "unit/cli/test_storage_contexts.py::test_the_usual_contexts_fill_one_association",
        f"{MATRIX}::test_we_ask"]),
    22: ("N-EVENT-REPORT without role, crossing, on any association", [
        f"{SERVICES}::test_an_event_report_crosses_our_request",
        f"{ASSOCIATION}::test_the_acceptor_asks_too",
        "net/test_commitment.py::test_on_the_same_association",
        "net/test_commitment.py::test_on_a_new_association",
        "net/test_commitment.py::test_a_peer_that_takes_implicit_vr_only"]),
    23: ("the asynchronous operations item only where configured", [
        f"{WIRE}::test_23_the_asynchronous_window_is_not_sent_but_answered",
        "net/test_ae.py::test_windows_are_set_for_a_peer"]),
    24: ("release collision, release within a data set, P-DATA after release", [
        f"{WIRE}::test_24_release_collision",
        f"{WIRE}::test_24_release_in_the_middle_of_a_data_set",
        f"{WIRE}::test_24_pdata_after_release",
        f"{DEADLINES}::test_a_release_collision_at_the_acceptor",
        f"{DEADLINES}::test_a_release_collision_at_the_requestor"]),
    25: ("peers that never close, stop reading, or answer early", [
        f"{WIRE}::test_25_a_peer_that_never_closes_after_an_abort",
        f"{DEADLINES}::test_a_peer_that_never_closes",
        f"{DEADLINES}::test_a_peer_that_stops_reading_what_we_send"]),
    26: ("health checks, port scans and HTTP", [
        f"{ADMISSION}::test_what_is_no_dicom_hears_an_abort_and_nothing_else",
        f"{ADMISSION}::test_connections_that_close_at_once_are_quiet"]),
    27: ("the TLS handshake never holds up the listener", [
        "net/test_tls.py::test_silent_handshakes_hold_up_nobody_and_are_bounded"]),
    28: ("deflation, labels, group 0002 and UIDs that are not as declared", [
        "interop/test_gateway.py::test_deflation_that_is_not_as_declared_is_kept_and_flagged",
        f"{TITLES}::test_a_mislabelled_object_is_flagged",
        f"{TITLES}::test_what_does_not_fit_is_a900",
        "unit/gateway/store/test_examine.py::test_what_is_odd_is_flagged"]),
    29: ("the exact transfer syntax goes before a conversion", [
        f"{FILES}::test_an_exact_context_goes_before_a_conversion",
        f"{FILES}::test_each_pair_has_a_context_of_its_own"]),
    30: ("text without a character set, NUL padding, (0008,0005) in answers and queries", [
        f"{TITLES}::test_text_without_a_character_set_is_read_by_the_peers",
        f"{TITLES}::test_names_are_read_by_their_character_set",
        "unit/services/test_identifier.py::test_the_character_set_that_is_chosen",
        "unit/cli/test_keys.py::test_character_sets"]),
    31: ("the same SOP Instance UID with other content", [
        f"{TITLES}::test_duplicates_by_the_policy_of_each_title",
        "unit/gateway/store/test_pixels.py::test_a_lossless_copy_of_what_is_here_is_one_copy"]),
    32: ("objects over 4 GiB", [
        f"{WIRE}::test_32_a_data_set_over_4_gib_is_counted_right"]),
    33: ("wildcards in unique keys, relational queries, ranges, sequences, time zones", [
        "unit/services/test_matching.py::test_sequences_match_by_one_item",
        "unit/services/test_matching.py::test_dates_and_times_match_apart_or_together",
        "unit/services/test_matching.py::test_time_zones_move_dates_and_times_when_negotiated",
        "unit/services/test_matching.py::test_a_strict_model_wants_every_unique_key_above"]),
    34: ("user-information items over 65,535 bytes", [
        f"{WIRE}::test_34_a_user_identity_of_64_kb_and_more",
        f"{WIRE}::test_34_user_information_in_several_items",
        "net/test_ae.py::test_a_long_token"]),
    35: ("all storage classes and transfer syntaxes by default; contexts from the files", [
        f"{TOOLS}::test_every_transfer_syntax_is_taken",
        f"{TOOLS}::test_store_everything_into_storescp",
        f"{TITLES}::test_a_private_sop_class_is_kept",
        "unit/services/test_sop_classes.py::test_objects_of_no_patient_may_be_stored_too"]),
    36: ("few errors before a scanner gives up; very large studies", [
        f"{FILES}::test_a_broken_association_costs_one_data_set",
        f"{FILES}::test_a_rejection_for_now_is_tried_again",
        "net/test_commitment.py::test_thousands_of_instances"]),
    37: ("Nagle and delayed acknowledgement", [
        "net/test_quickness.py::test_a_response_is_one_write_with_nagle_off",
        "net/test_quickness.py::test_a_message_half_received_is_acknowledged_at_once"]),
    38: ("pynetdicom's client may lose a response; dcmqrscp fails under load: known to the tests, "
         "which give each peer one association at a time", []),
}  # fmt: skip


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.startswith("test_")
    )


def test_no_line_is_left_out() -> None:
    assert list(LINES) == list(range(1, 39))
    # Only 38 asks nothing of us.
    assert [number for number, (_, tests) in LINES.items() if not tests] == [38]


@pytest.mark.parametrize("number", LINES)
def test_every_test_of_a_line_is_there(number: int) -> None:
    for name in LINES[number][1]:
        file, _, function = name.partition("::")
        assert function in names_in(file), f"line {number}: {name} is no test"
