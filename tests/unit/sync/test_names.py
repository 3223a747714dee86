"""Every public name of pynetdicom is here, with the values and parameters that programs count on."""

from __future__ import annotations

import inspect
import types

import pynetdicom
import pynetdicom._config
import pynetdicom._globals
import pynetdicom.ae
import pynetdicom.association
import pynetdicom.events
import pynetdicom.pdu_primitives
import pynetdicom.presentation
import pynetdicom.sop_class
import pynetdicom.status
import pytest

import hilum.sync
from hilum.sync import _config, _globals, ae, association, events, presentation, sop_class, status
from hilum.sync import pdu_primitives as primitives


def public(module: types.ModuleType) -> set[str]:
    """The classes and functions that a module defines."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }


def test_every_name_of_the_package_is_here():
    assert set(pynetdicom.__all__) - set(hilum.sync.__all__) == set()
    assert all(hasattr(hilum.sync, name) for name in hilum.sync.__all__)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (pynetdicom.events, events),
        (pynetdicom.presentation, presentation),
        (pynetdicom.sop_class, sop_class),
        (pynetdicom.status, status),
        (pynetdicom.pdu_primitives, primitives),
    ],
)
def test_every_name_of_a_module_is_here(theirs, ours):
    # How pynetdicom negotiates and triggers within itself is no program's business.
    within = {
        "trigger",
        "negotiate_as_acceptor",
        "negotiate_as_requestor",
        "negotiate_unrestricted",
        "P_DATA",
    }
    assert {name for name in public(theirs) if not hasattr(ours, name)} - within == set()


def test_sop_classes_have_the_same_uids():
    for name, value in vars(pynetdicom.sop_class).items():
        if isinstance(value, str) and not name.startswith("_"):
            assert getattr(sop_class, name) == value, name


def test_sop_classes_have_the_same_services():
    for name, value in vars(pynetdicom.sop_class).items():
        if isinstance(value, pynetdicom.sop_class.SOPClass):
            ours = getattr(sop_class, name).service_class.__name__
            theirs = value.service_class.__name__
            assert ours == theirs or name == "MediaStorageDirectoryStorage", name


@pytest.mark.parametrize(
    "name", [name for name in pynetdicom.__all__ if name.endswith("PresentationContexts")]
)
def test_context_lists_hold_the_same(name):
    def listed(contexts):
        return [(context.abstract_syntax, context.transfer_syntax) for context in contexts]

    assert listed(getattr(hilum.sync, name)) == listed(getattr(pynetdicom, name))


def test_transfer_syntaxes_are_the_same():
    assert pynetdicom.ALL_TRANSFER_SYNTAXES == _globals.ALL_TRANSFER_SYNTAXES
    assert pynetdicom.DEFAULT_TRANSFER_SYNTAXES == _globals.DEFAULT_TRANSFER_SYNTAXES
    assert pynetdicom._globals.DEFAULT_MAX_LENGTH == _globals.DEFAULT_MAX_LENGTH


def test_events_are_the_same():
    for name, value in vars(pynetdicom.events).items():
        if name.startswith("EVT_"):
            ours = getattr(events, name)
            assert (ours.name, ours.is_intervention, ours.is_notification) == (
                value.name,
                value.is_intervention,
                value.is_notification,
            )


def test_categories_are_the_same():
    different = [
        code
        for code in range(0x10000)
        if status.code_to_category(code) != pynetdicom.status.code_to_category(code)
    ]
    assert different == []


@pytest.mark.parametrize(
    "name", [name for name in vars(pynetdicom.status) if name.endswith("STATUS")]
)
def test_status_tables_know_the_same_codes(name):
    theirs, ours = getattr(pynetdicom.status, name), getattr(status, name)
    assert sorted(hex(code) for code in theirs.keys() - ours.keys()) == []
    different = {hex(code) for code, (category, _) in theirs.items() if ours[code][0] != category}
    assert different == set()


def test_settings_are_there():
    for name in vars(pynetdicom._config):
        if name.isupper():
            assert hasattr(_config, name), name


def methods(kind: type) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(kind).items()
        if not name.startswith("_") and (callable(value) or isinstance(value, property))
    }


@pytest.mark.parametrize(
    ("theirs", "ours", "within"),
    [
        (pynetdicom.AE, ae.ApplicationEntity, set()),
        # What its own threads call.
        (
            pynetdicom.Association,
            association.Association,
            {"request", "run_reactor", "set_socket", "lock"},
        ),
        (pynetdicom.events.Event, events.Event, set()),
        (pynetdicom.presentation.PresentationContext, presentation.PresentationContext, set()),
    ],
)
def test_methods_take_the_same_parameters(theirs, ours, within):
    for name, value in methods(theirs).items():
        if name in within:
            continue
        assert hasattr(ours, name) or name in ("require_called_aet", "mode"), name
        if not callable(value):
            continue
        wanted = list(inspect.signature(value).parameters)
        taken = list(inspect.signature(getattr(ours, name)).parameters)
        assert taken[: len(wanted)] == wanted, name


@pytest.mark.parametrize(
    "name", [name for name in vars(pynetdicom.pdu_primitives) if name.endswith("Negotiation")]
)
def test_negotiation_items_have_the_same_attributes(name):
    theirs, ours = getattr(pynetdicom.pdu_primitives, name), getattr(primitives, name)
    for attribute, value in vars(theirs).items():
        if isinstance(value, property):
            assert hasattr(ours(), attribute), attribute
