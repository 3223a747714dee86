"""Queries against the index, held to the matching engine and to a matcher written apart from both."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.filewriter import DicomIO, write_dataset
from tests.query_world import data_sets, one_query
from tests.reference_matcher import ATTRIBUTES, COUNTS, LEVELS, Reference
from tests.unit.gateway.store.index_world import make, put

from hilum.gateway.store import find
from hilum.gateway.store.find import Finder
from hilum.gateway.store.index import IndexWriter
from hilum.gateway.store.keys import INDEX_KEYS
from hilum.gateway.store.results import Viewer
from hilum.services.dictionary import tag_for_keyword
from hilum.services.header import HeaderScanner
from hilum.services.matching import Level, Matching, Query

EXPLICIT = "1.2.840.10008.1.2.1"
SCANNER = HeaderScanner(INDEX_KEYS)
EVERYONE = Viewer()


def encode(ds):
    buffer = io.BytesIO()
    file = DicomIO(buffer)
    file.is_implicit_VR, file.is_little_endian = False, True
    write_dataset(file, ds)
    return buffer.getvalue()


def incoming(ds, owner=0, **more):
    data = encode(ds)
    return make(
        str(ds.SOPInstanceUID),
        content=data,
        owner=owner,
        sop_class_uid=str(ds.SOPClassUID),
        **more,
    )


def store(writer, datasets, owner=0):
    items = []
    for ds in datasets:
        item = incoming(ds, owner)
        item.values = SCANNER.scan(encode(ds), EXPLICIT, final=True).values
        items.append(item)
    for start in range(0, len(items), 50):
        put(writer, *items[start : start + 50])


@pytest.fixture
def database(new_database):
    database = new_database()
    yield database
    database.close()


@pytest.fixture
def writer(database):
    writer = IndexWriter(database)
    yield writer
    writer.close()


class World:
    """A database and what is in it; Hypothesis prints arguments, so its name is short."""

    def __init__(self, database, datasets):
        self.database, self.datasets = database, datasets
        self.reference = Reference(datasets)
        self.entities = {}


@pytest.fixture(scope="module")
def world(new_database):
    database = new_database()
    writer = IndexWriter(database)
    datasets = data_sets(1, patients=14)
    store(writer, datasets)
    yield World(database, datasets)
    writer.close()
    database.close()


def pages(finder, limit=1000):
    found, after = [], None
    while True:
        page = finder.page(after, limit=limit)
        found += page.rows
        if page.next is None:
            return found
        after = page.next


def shown(finder, rows):
    keywords = [tag for tag, _ in finder.columns]
    return sorted(
        tuple((tag, "" if v is None else str(v)) for tag, v in zip(keywords, row, strict=True))
        for row in rows
    )


def ask(database, identifier, viewer=EVERYONE, matching=Matching(), limit=1000, **options):  # noqa: B008
    query = Query.parse(encode(identifier), matching=matching)
    finder = Finder(database, viewer, query, query.level, **options)
    return shown(finder, pages(finder, limit))


def expected(reference, identifier):
    return sorted(
        tuple(sorted((tag_for_keyword(keyword), "\\".join(v)) for keyword, v in answer.items()))
        for answer in reference.find(identifier)
    )


def identifier(level, **values):
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.QueryRetrieveLevel = level
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


# ── the three agree ───────────────────────────────────────────────────────────────────────────


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), limit=st.sampled_from([1, 7, 1000]))
def test_sql_the_engine_and_the_reference_agree(world, seed, limit):
    asked = one_query(random.Random(seed), world.datasets)
    answer = ask(world.database, asked, limit=limit)
    assert answer == expected(world.reference, asked)


def entities(world, level):
    """Every entity of a level with all its attributes, by the index itself."""
    if level not in world.entities:
        everything = identifier(level)
        for above in LEVELS[: LEVELS.index(level) + 1]:
            for keyword in ATTRIBUTES[above] + COUNTS[above]:
                setattr(everything, keyword, "")
        world.entities[level] = [dict(row) for row in ask(world.database, everything)]
    return world.entities[level]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**32),
    combined=st.booleans(),
    zone=st.sampled_from([None, "+0900", "-0330", "+0100"]),
)
def test_sql_and_the_engine_agree_on_what_is_negotiated(world, seed, combined, zone):
    asked = one_query(random.Random(seed), world.datasets)
    if zone is not None:
        asked.TimezoneOffsetFromUTC = zone
    matching = Matching(combined=combined, timezone=zone is not None)
    query = Query.parse(encode(asked), matching=matching)
    answer = ask(world.database, asked, matching=matching)
    # Patients belong to no time zone.
    expected = [query.matches(found) for found in entities(world, asked.QueryRetrieveLevel)]
    assert len(answer) == sum(expected)


@pytest.mark.parametrize("slow", [False, True])
def test_keys_of_files_are_given_up_when_reading_takes_too_long(
    database, writer, monkeypatch, slow
):
    datasets = data_sets(1)
    store(writer, datasets)
    if slow:
        monkeypatch.setattr(find, "FILES_SECONDS", 0.0)
    opened = []

    def read_header(path, wanted):
        opened.append(path)
        return {}

    wanted = Dataset()
    wanted.QueryRetrieveLevel = "IMAGE"
    wanted.SOPInstanceUID = ""
    wanted.ContrastBolusAgent = ""
    query = Query.parse(encode(wanted))
    finder = Finder(
        database, EVERYONE, query, Level.IMAGE, read_header=read_header, max_headers=100
    )
    found, after = [], None
    while True:
        page = finder.page(after)
        found += page.rows
        after = page.next
        if after is None:
            break
    assert len(found) == len(datasets)
    # Given up, the key is answered as not supported.
    assert (len(opened) < len(datasets), finder.unsupported != ()) == (slow, slow)
