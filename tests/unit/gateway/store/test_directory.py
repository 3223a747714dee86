from __future__ import annotations

import threading

import pytest
from tests.unit.gateway.store.index_world import make_database, rows

from hilum.errors import ConfigurationError, NotFound
from hilum.gateway.store.database import open_database
from hilum.gateway.store.directory import CalledTitle, Directory, Listener, Peer
from hilum.gateway.store.states import DuplicatePolicy, MissingUidPolicy, TitleKind


@pytest.fixture
def database(tmp_path):
    database = make_database(tmp_path)
    yield database
    database.close()


@pytest.fixture
def directory(database):
    return Directory(database, actor="admin")


def test_the_first_start_makes_defaults_and_the_next_ones_respect_changes(directory):
    directory.create_defaults()
    first = directory.snapshot()
    assert {t.title: t.kind for t in first.called_titles} == {
        "RAIVEN": TitleKind.GLOBAL,
        "HILUM": TitleKind.GLOBAL,
    }
    assert [(listener.name, listener.port) for listener in first.listeners] == [("dicom", 11112)]
    directory.remove_called_title("HILUM")
    changes = directory.changes()
    directory.create_defaults()
    assert directory.changes() == changes
    assert [t.title for t in directory.snapshot().called_titles] == ["RAIVEN"]


def test_every_change_raises_the_counter_and_leaves_an_event(database, directory):
    peer = Peer("ct", "CT1", "10.0.0.1", 104)
    steps = [
        lambda: directory.add_account("alice"),
        lambda: directory.set_alias_title("alice", "ALICE"),
        lambda: directory.disable_account("alice"),
        lambda: directory.remove_account("alice"),
        lambda: directory.put_called_title(CalledTitle("PACS")),
        lambda: directory.remove_called_title("PACS"),
        lambda: directory.put_listener(Listener("dose", 8104)),
        lambda: directory.remove_listener("dose"),
        lambda: directory.put_peer(peer),
        lambda: directory.remove_peer("ct"),
        lambda: directory.set_setting("key", 1),
        lambda: directory.set_setting("key", None),
    ]
    for count, step in enumerate(steps, 1):
        step()
        assert directory.changes() == count
    assert rows(database, "SELECT count(*), min(actor) FROM event") == [(len(steps), "admin")]


def test_another_process_sees_a_change(tmp_path, directory):
    other = Directory(open_database(tmp_path / "hilum.db", role="web"))
    before = directory.changes()
    other.add_account("alice")
    assert directory.changes() == before + 1


def test_a_refused_change_leaves_nothing(database, directory):
    directory.add_account("alice")
    changes = directory.changes()
    with pytest.raises(ConfigurationError):
        directory.add_account("alice")
    with pytest.raises(NotFound):
        directory.remove_peer("none")
    assert directory.changes() == changes
    assert rows(database, "SELECT count(*) FROM event") == [(1,)]


# ── accounts ──────────────────────────────────────────────────────────────────────────────────


def test_a_user_has_titles(directory):
    alice = directory.add_account("alice")
    carol = directory.add_account("carol", alias_title="CAROL")
    long = directory.add_account("maximiliane.mustermann", alias_title="MAXI")
    snapshot = directory.snapshot()
    assert alice.titles == ("RVU-alice",)
    assert carol.titles == ("RVU-carol", "CAROL")
    assert long.titles == ("MAXI",)
    for title, account in [
        ("RVU-alice", alice), ("RVU-carol", carol), ("CAROL", carol), ("MAXI", long),
    ]:  # fmt: skip
        found = snapshot.resolve(title)
        assert found is not None
        assert (found.kind, found.account_id) == (TitleKind.ACCOUNT, account.id)
        assert snapshot.account(account.id) == account
    for title in ("RVU-ALICE", "rvu-alice", "RVU-", "RVU-maximiliane.", "maxi", "RVP-x", ""):
        assert snapshot.resolve(title) is None
    assert min(alice.id, carol.id, long.id) > 0


@pytest.mark.parametrize(
    ("name", "alias", "message"),
    [
        ("", None, "1 to 64"),
        ("a b", None, "space"),
        ("a/b", None, "slash"),
        ("a\\b", None, "backslash"),
        ("jörg", None, "ASCII"),
        ("a\tb", None, "printable"),
        ("x" * 65, "X", "1 to 64"),
        ("x" * 13, None, "alias title"),
        ("alice", "A" * 17, "1 to 16"),
        ("alice", "", "1 to 16"),
        ("alice", "A\\B", "backslash"),
        ("alice", " A", "space"),
        ("alice", "RVU-bob", "choose another"),
        ("alice", "RVP-run", "choose another"),
    ],
)
def test_names_that_cannot_be(directory, name, alias, message):
    with pytest.raises(ConfigurationError, match=message):
        directory.add_account(name, alias_title=alias)
    assert directory.snapshot().accounts == ()


def test_the_longest_name_without_alias(directory):
    directory.add_account("x" * 12)
    assert directory.snapshot().resolve("RVU-" + "x" * 12) is not None


def test_a_disabled_user_is_not_served(directory):
    account = directory.add_account("alice")
    directory.put_called_title(CalledTitle("HERS", TitleKind.ACCOUNT, account.id))
    directory.disable_account("alice")
    snapshot = directory.snapshot()
    assert snapshot.resolve("RVU-alice") is None
    assert snapshot.resolve("HERS") is None
    directory.disable_account("alice", disabled=False)
    assert directory.snapshot().resolve("HERS") is not None


def test_a_name_is_never_given_again(directory):
    first = directory.add_account("alice", alias_title="ALICE")
    directory.remove_account("alice")
    assert directory.snapshot().accounts == ()
    assert directory.snapshot().resolve("RVU-alice") is None
    with pytest.raises(ConfigurationError, match="used before"):
        directory.add_account("alice")
    with pytest.raises(NotFound):
        directory.disable_account("alice")
    # The alias may go to someone else; the id may not.
    assert directory.add_account("bob", alias_title="ALICE").id > first.id


def test_a_user_with_a_title_of_his_own_is_not_removed(directory):
    account = directory.add_account("alice")
    directory.put_called_title(CalledTitle("HERS", TitleKind.ACCOUNT, account.id))
    with pytest.raises(ConfigurationError, match="remove it first"):
        directory.remove_account("alice")


def test_two_at_once_cannot_have_one_name(tmp_path, directory):
    results = []

    def add():
        other = Directory(open_database(tmp_path / "hilum.db", role="command"))
        try:
            results.append(other.add_account("alice").name)
        except ConfigurationError as error:
            results.append(error)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert results.count("alice") == 1


# ── titles ────────────────────────────────────────────────────────────────────────────────────


def test_titles_and_aliases_do_not_meet(directory):
    directory.put_called_title(CalledTitle("PACS"))
    directory.add_account("alice", alias_title="ALICE")
    directory.add_account("bob")
    for change in (
        lambda: directory.add_account("carol", alias_title="PACS"),
        lambda: directory.add_account("carol", alias_title="ALICE"),
        lambda: directory.set_alias_title("bob", "ALICE"),
        lambda: directory.put_called_title(CalledTitle("ALICE")),
    ):
        with pytest.raises(ConfigurationError, match="choose another"):
            change()
    directory.set_alias_title("alice", "ALICE")
    directory.set_alias_title("alice", None)
    directory.put_called_title(CalledTitle("ALICE"))


@pytest.mark.parametrize(
    "title",
    [
        CalledTitle(""),
        CalledTitle("X" * 17),
        CalledTitle("Ä"),
        CalledTitle("RVU-alice"),
        CalledTitle("RVP-run"),
        CalledTitle("HERS", TitleKind.ACCOUNT),
        CalledTitle("HERS", TitleKind.ACCOUNT, 99),
        CalledTitle("ALL", TitleKind.GLOBAL, 1),
    ],
    ids=repr,
)
def test_titles_that_cannot_be(directory, title):
    with pytest.raises(ConfigurationError):
        directory.put_called_title(title)
    assert directory.snapshot().called_titles == ()


def test_a_title_comes_back_as_it_was_put(directory):
    title = CalledTitle(
        "DOSE", TitleKind.QUARANTINE, None, DuplicatePolicy.REPLACE, MissingUidPolicy.QUARANTINE,
        ("1.2.840.10008.1.2.1",), ("1.2.840.10008.5.1.4.1.1.88.67",), "ISO_IR 144", True,
    )  # fmt: skip
    directory.put_called_title(CalledTitle("DOSE"))
    directory.put_called_title(title)
    assert directory.snapshot().called_titles == (title,)
    assert directory.snapshot().resolve("DOSE") == title
    directory.put_called_title(CalledTitle("DOSE", enabled=False))
    assert directory.snapshot().resolve("DOSE") is None


# ── listeners, peers, settings ────────────────────────────────────────────────────────────────


def test_a_listener_comes_back_as_it_was_put(directory):
    listener = Listener(
        "dose", 8104, "127.0.0.1", True, "RAIVEN", False, {"certificate": "a.pem"},
        ("10.1.0.0/16", "::1"),
    )  # fmt: skip
    directory.put_listener(Listener("dose", 8105))
    directory.put_listener(listener)
    assert directory.snapshot().listeners == (listener,)


@pytest.mark.parametrize(
    ("listener", "message"),
    [
        (Listener("", 104), "1 to 64"),
        (Listener("a", 65536), "port"),
        (Listener("a", -1), "port"),
        (Listener("a", 104, any_title=True), "default title"),
        (Listener("a", 104, allowed=("10.1.0.1/16",)), "10.1.0.0/16"),
        (Listener("a", 104, allowed=("everyone",)), "everyone"),
    ],
    ids=repr,
)
def test_listeners_that_cannot_be(directory, listener, message):
    with pytest.raises(ConfigurationError, match=message):
        directory.put_listener(listener)


def test_two_listeners_cannot_have_one_port(directory):
    directory.put_listener(Listener("a", 104))
    with pytest.raises(ConfigurationError, match="another port"):
        directory.put_listener(Listener("b", 104))
    directory.put_listener(Listener("b", 104, host="127.0.0.2"))
    directory.put_listener(Listener("a", 104, enabled=False))


def test_a_peer_comes_back_as_it_was_put(directory):
    peer = Peer("ct", "CT1", "ct1.example", 104, "US", ("store",), "GB18030", {"verify": True})
    scanners = Peer("scanners", "ANY", "10.2.0.0/24")
    directory.put_peer(Peer("ct", "OLD", "old.example"))
    directory.put_peer(peer)
    directory.put_peer(scanners)
    assert directory.snapshot().peers == (peer, scanners)


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        (Peer(" ", "CT", "h"), "1 to 64"),
        (Peer("a", "", "h"), "AE title"),
        (Peer("a", "CT", ""), "no name or address"),
        (Peer("a", "CT", "h h"), "no name or address"),
        (Peer("a", "CT", "h", 0), "port"),
        (Peer("a", "CT", "10.0.0.0/8", 104), "range"),
        (Peer("a", "CT", "10.0.0.1/8"), "cannot be read"),
        (Peer("a", "CT", "h", calling_ae="x" * 17), "1 to 16"),
        (Peer("a", "CT", "h", services=("print",)), "echo, store"),
    ],
    ids=repr,
)
def test_peers_that_cannot_be(directory, peer, message):
    with pytest.raises(ConfigurationError, match=message):
        directory.put_peer(peer)


def test_settings_hold_json(database, directory):
    value = {"reserve": 1 << 30, "names": ["ä", None], "on": True}
    directory.set_setting("store", value)
    directory.set_setting("other", False)
    assert directory.setting("store") == value
    assert directory.snapshot().settings == {"store": value, "other": False}
    directory.set_setting("store", None)
    assert directory.setting("store") is None
    with pytest.raises(ConfigurationError, match="JSON"):
        directory.set_setting("bad", object())
    assert "reserve" not in str(rows(database, "SELECT detail FROM event"))
