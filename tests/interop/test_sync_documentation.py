"""The examples in pynetdicom's documentation strings, run with their imports changed.

Read from the installed package when the test runs; what they print is not compared, as it is in
their words.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pynetdicom
import pytest
from tests.interop.programs import moved_over

# Of its inside: how it encodes PDUs, and how it negotiates.
_INSIDE = {"pynetdicom.apps", "pynetdicom.benchmarks", "pynetdicom.tests", "pynetdicom.__main__"}
_INSIDE |= {"pynetdicom.pdu", "pynetdicom.pdu_items", "pynetdicom.fsm", "pynetdicom.dul"}


def modules() -> Iterator[ModuleType]:
    yield pynetdicom
    for found in pkgutil.iter_modules(pynetdicom.__path__, "pynetdicom."):
        if found.name not in _INSIDE:
            yield importlib.import_module(found.name)


def documented(module: ModuleType) -> Iterator[tuple[str, str]]:
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        members = [(name, value)]
        if inspect.isclass(value):
            members += [(f"{name}.{part}", each) for part, each in vars(value).items()]
        for where, member in members:
            text = inspect.getdoc(member)
            if text and ">>>" in text:
                yield f"{module.__name__}.{where}", text


EXAMPLES = sorted({pair for module in modules() for pair in documented(module)})


def test_there_are_examples():
    assert len(EXAMPLES) > 15


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("where", "text"), EXAMPLES, ids=[where for where, _ in EXAMPLES])
def test_an_example_runs(where, text):
    names: dict[str, object] = {}
    for example in doctest.DocTestParser().get_examples(text):
        source = moved_over(example.source)
        if any(word in source for word in ("associate(", "start_server(", "event.", "ds.")):
            continue  # nobody listens there, and no event is at hand
        exec(compile(source, where, "single"), names)
