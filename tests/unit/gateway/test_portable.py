"""The directory as TOML: out, in, out again the same; mistakes change nothing."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.gateway.store.archive_world import World

from hilum.errors import ConfigurationError
from hilum.gateway import portable
from hilum.gateway.flow.criteria import Criteria
from hilum.gateway.flow.request import Request
from hilum.gateway.flow.selection import Group
from hilum.gateway.portable import bring_in, export
from hilum.gateway.store.directory import CalledTitle, Directory, Listener, Peer
from hilum.gateway.store.fetches import FETCH
from hilum.gateway.store.schedules import Schedule, Schedules
from hilum.gateway.store.states import DuplicatePolicy, MissingUidPolicy, TitleKind
from hilum.gateway.work.schedule import checked


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    world = World(tmp_path / "one")
    yield world.storage.directory
    world.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Directory]:
    world = World(tmp_path / "two")
    # Ids are another's here.
    world.storage.directory.add_account("zoe")
    yield world.storage.directory
    world.close()


def schedules(directory: Directory) -> Schedules:
    return Schedules(directory._database)


def written(directory: Directory) -> str:
    return export(directory.snapshot(), schedules(directory).all())


def read(directory: Directory, text: str, *, prune: bool = False) -> list[str]:
    return bring_in(directory, schedules(directory), text, prune=prune)


NIGHTLY = Request(
    "ct", Criteria(groups=(Group.CT, Group.MG), since="yesterday", dose=True), title="RAIVEN"
)


def fill(directory: Directory) -> None:
    alice = directory.add_account("alice")
    directory.add_account("radiology-research", alias_title="RESEARCH")
    directory.add_account("bob")
    directory.disable_account("bob")
    directory.set_groups("bob", ["radiology"])
    directory.put_called_title(
        CalledTitle("TRIAL", TitleKind.ACCOUNT, alice.id, DuplicatePolicy.REPLACE,
                    MissingUidPolicy.QUARANTINE, ("1.2.840.10008.1.2.1",), (), "ISO_IR 100",
                    False))  # fmt: skip
    directory.put_called_title(CalledTitle("STOREOPENREM", peers=("ct",), max_associations=5))
    directory.put_listener(
        Listener("dose", 8104, "127.0.0.1", True, "STOREOPENREM", allowed=("10.0.0.0/8",))
    )
    directory.put_listener(Listener("secure", 2762, tls={"certificate": 'C:\\a "b".pem'}))
    directory.put_peer(Peer("ct", "CT1", "ct1.example", 104, services=("echo", "store")))
    directory.put_peer(Peer("ws", "WS", "10.0.0.7", belongs_to="@radiology", certificate="0a" * 32))
    for schedule in (
        Schedule(
            0, "nightly", FETCH, NIGHTLY.write(), "30 2 * * *", "Europe/Berlin", "20:00-06:00"
        ),
        Schedule(0, "off", FETCH, Request("ct").write(), "@daily", catch_up=False, enabled=False),
    ):
        schedules(directory).put(checked(schedule, time.time_ns() // 1000))
    directory.set_setting(
        "greeting", {"text": "Grüß\tGott\\", "n": [1, 2.5, True, None], "no": None}
    )


def test_out_and_in_and_out_again(directory: Directory, other: Directory) -> None:
    fill(directory)
    text = written(directory)
    done = read(other, text)
    assert "user alice" in done
    assert "listener dose" in done
    other.remove_account("zoe")
    assert written(other) == text
    assert read(other, text) == [], "it says so already"
    (trial,) = (t for t in other.snapshot().called_titles if t.title == "TRIAL")
    ids = {account.name: account.id for account in other.snapshot().accounts}
    assert trial.account_id == ids["alice"]
    assert other.setting("greeting") == {"text": "Grüß\tGott\\", "n": [1, 2.5, True]}
    (bob,) = (a for a in other.snapshot().accounts if a.name == "bob")
    assert bob.disabled
    assert bob.groups == ("radiology",)
    nightly, off = schedules(other).all()
    assert Request.read(nightly.payload) == NIGHTLY
    assert nightly.next_at is not None and nightly.time_window == "20:00-06:00"
    assert off.next_at is None and not off.catch_up


def test_what_is_missing_stays_unless_pruned(directory: Directory) -> None:
    fill(directory)
    text = '[[title]]\ntitle = "ONLY"\n[[listener]]\nname = "dicom"\nport = 11112\n'
    assert read(directory, text) == ["title ONLY"]
    assert len(directory.snapshot().called_titles) == 5
    done = read(directory, text, prune=True)
    assert {line for line in done if line.endswith("removed")} == {
        "listener dose: removed", "listener secure: removed", "title RAIVEN: removed",
        "title HILUM: removed", "title TRIAL: removed", "title STOREOPENREM: removed",
        "peer ct: removed", "peer ws: removed",
        "schedule nightly: removed", "schedule off: removed",
    }  # fmt: skip
    assert [t.title for t in directory.snapshot().called_titles] == ["ONLY"]
    assert len(directory.snapshot().accounts) == 3


CT = "payload = {peer = 'ct'}\n[[peer]]\nname = 'ct'\nae_title = 'CT'\nhost = 'h'\nport = 104"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("title = ", "no TOML"),
        ("[[titles]]\n", "is none of"),
        ("title = 3", "list of tables"),
        ("title = [1]", "list of tables"),
        ('settings = "a"', "is a table"),
        ('[settings]\n"store.id" = "x"', "one store owns"),
        ("[[user]]\nalias_title = 'A'", "has name"),
        ("[[user]]\nname = 'x'\npassword = 'y'", "has name"),
        ("[[title]]\ntitle = 'A'\nuser = 'nobody'", "no user"),
        ("[[title]]\ntitle = 'A'\naccount_id = 3", "has no 'account_id'"),
        ("[[title]]\ntitle = 'A'\npeers = ['ghost']", "'ghost', who is no peer"),
        ("[[title]]\ntitle = 'A'\nmax_associations = 'many'", "another type"),
        ("[[title]]\ntitle = 'A'\nduplicates = 'sometimes'", "duplicates"),
        ("[[title]]\ntitle = 'A'\nenabled = 'yes'", "another type"),
        ("[[title]]\ntitle = 3", "another type"),
        ("[[title]]\nenabled = true", "not whole"),
        ("[[listener]]\nname = 'a'\nport = 'x'", "another type"),
        ("[[peer]]\nname = 'a'\nae_title = 'A'", "not whole"),
        ("[[peer]]\nname = 'a'\nae_title = 'A'\nhost = 'h'\ncolour = 'red'", "has no 'colour'"),
        (f"[[schedule]]\nname = 's'\n{CT}", "not whole|cron"),
        (f"[[schedule]]\nname = 's'\ncron = '61 * * * *'\n{CT}", "schedule 's'"),
        (f"[[schedule]]\nname = 's'\ncron = '@daily'\ntime_zone = 'Mars'\n{CT}", "schedule 's'"),
        ("[[schedule]]\nname = 's'\ncron = '@daily'\n", "without a peer"),
        ("[[schedule]]\nname = 's'\ncron = '@daily'\npayload = {peer = 'x'}", "no peer"),
        (f"[[schedule]]\nname = 's'\ncron = '@daily'\nkind = 'rm'\n{CT}", "kind is 'rm'"),
        (f"[[schedule]]\nname = 's'\ncron = '@daily'\nlast_result = ''\n{CT}", "one store"),
        (
            "[[schedule]]\nname = 's'\ncron = '@daily'\n"
            "payload = {peer = 'ct', criteria = {since = 'never'}}",
            "schedule 's'",
        ),
    ],
)
def test_a_mistake_changes_nothing(directory: Directory, text: str, reason: str) -> None:
    before = directory.changes()
    with pytest.raises(ConfigurationError, match=reason):
        read(directory, "[[user]]\nname = 'first'\n" + text if "[[" in text else text)
    assert directory.changes() == before


def test_what_contradicts_the_directory_names_the_entry(directory: Directory) -> None:
    with pytest.raises(ConfigurationError, match="listener bad"):
        read(directory, "[[listener]]\nname = 'bad'\nport = 70000\n")
    with pytest.raises(ConfigurationError, match="user RVU x"):
        read(directory, "[[user]]\nname = 'RVU x'\n")


def test_users_change(directory: Directory) -> None:
    fill(directory)
    done = read(
        directory,
        "[[user]]\nname = 'bob'\nalias_title = 'BOBBY'\n[[user]]\nname = 'alice'\ndisabled = true\n",
    )
    assert done == ["user bob", "user bob: enabled", "user bob: groups", "user alice: disabled"]


def test_what_toml_cannot_say() -> None:
    with pytest.raises(ConfigurationError, match="a set cannot"):
        portable._value({"a": {1}})


_json = st.recursive(
    st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), _json, max_size=4))
def test_any_setting_is_read_back(values: dict[str, Any]) -> None:
    assert tomllib.loads(portable._lines(values)) == values
