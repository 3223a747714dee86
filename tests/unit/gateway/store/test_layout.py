"""Names of files: never outside their folder, never shared by different values."""

from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hilum.gateway.store.layout import (
    PATH_MAXIMUM,
    another_name,
    bucket_name,
    is_bucket,
    object_directory,
    object_name,
    owner_folder,
    parse_path,
)

BUCKET = "2026/11/21-003"
HOSTILE = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\Windows\\win.ini",
    "a/b",
    "a\\b",
    "1.2.3\0",
    "1.2.3\n",
    "1.2.3 ",
    "1.2.3.",
    ".1.2.3",
    "1..2",
    "1.2.3/",
    "CON",
    "nul.dcm",
    "\u0661.\u0662",
    "1.2.é",
    "\ud800",
    "_",
    "~",
    "1.2.3~00000000",
    "1." * 32 + "1",
    "x" * 70_000,
]
valid_uids = st.lists(st.integers(0, 10**12), min_size=1, max_size=5).map(
    lambda parts: ".".join(map(str, parts))[:64].rstrip(".")
)
any_text = st.one_of(st.text(max_size=80), st.sampled_from(HOSTILE), valid_uids)
owners = st.one_of(st.none(), st.text(min_size=1, max_size=70), st.sampled_from(HOSTILE[1:]))


def path_of(owner: str | None, study: str, series: str, instance: str, quarantined: bool) -> str:
    folder = owner_folder(owner, quarantined=quarantined)
    names = object_directory(folder, study, series)
    return "/".join(("objects", BUCKET, *names, object_name(folder, instance)))


@given(owners, any_text, any_text, any_text, st.booleans())
@example("q" * 33, "9" * 64, "9" * 64, "9" * 64, True)
@example("q" * 32, "9" * 64, "9" * 64, "9" * 64, True)
@example("Q" * 64, "x" * 99, "y" * 99, "z" * 99, True)
@example(None, "9" * 64, "9" * 64, "9" * 64, False)
def test_any_names_give_a_path_inside_the_bucket(
    owner: str | None, study: str, series: str, instance: str, quarantined: bool
) -> None:
    path = path_of(owner, study, series, instance, quarantined)
    parts = PurePosixPath(path).parts
    assert len(parts) == 8
    assert "/".join(parts) == path
    assert parts[:4] == ("objects", "2026", "11", "21-003")
    for part in parts:
        assert part not in (".", "..")
        assert part.isascii() and part.isprintable()
        assert part == part.strip(" .")
        assert part == part.lower()
        assert not set(part) & set('<>:"/\\|?*')
        assert part.split(".")[0] not in ("con", "prn", "aux", "nul", "com1", "lpt1")
    assert len(another_name(path)) <= PATH_MAXIMUM
    assert parse_path(path).bucket == BUCKET
    assert parse_path(another_name(path)) == parse_path(path)


@given(any_text, any_text, st.sampled_from([None, "alice", "ALICE", "x" * 40]))
def test_different_uids_have_different_names(one: str, other: str, owner: str | None) -> None:
    folder = owner_folder(owner)
    same = object_name(folder, one) == object_name(folder, other)
    assert same == (one == other)
    same = object_directory(folder, one, "1")[1] == object_directory(folder, other, "1")[1]
    assert same == (one == other)


@given(st.text(max_size=40), st.text(max_size=40), st.booleans())
@example("alice", "Alice", False)
@example("", "global", False)
def test_different_owners_have_different_folders(one: str, other: str, quarantined: bool) -> None:
    same = owner_folder(one, quarantined=quarantined) == owner_folder(
        other, quarantined=quarantined
    )
    assert same == (one == other)
    assert owner_folder(one, quarantined=quarantined) not in ("global", "quarantine")


@given(valid_uids, valid_uids, valid_uids)
def test_valid_uids_come_back(study: str, series: str, instance: str) -> None:
    found = parse_path(path_of(None, study, series, instance, False))
    assert (found.study, found.series, found.instance) == (study, series, instance)
    assert found.owner_folder == "global"


def test_names_a_person_can_follow() -> None:
    assert path_of("alice", "1.2", "1.2.3", "1.2.3.4", False) == (
        "objects/2026/11/21-003/user.alice/1.2/1.2.3/1.2.3.4.dcm"
    )
    assert path_of(None, "", "", "1.02.3", True) == (
        "objects/2026/11/21-003/quarantine/_/_/1.02.3.dcm"
    )
    assert owner_folder("alice", quarantined=True) == "quarantine.alice"
    assert object_name("global", "Study of/Müller").startswith("_study_of_m_ller-")
    assert object_name("global", "9" * 64) == "9" * 64 + ".dcm"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "objects",
        "/objects/2026/11/21-003/global/1/2/3.dcm",
        "objects/2026/11/21-003/global/1/2/3.dcm\n",
        "objects/2026/11/21-003/global/../2/3.dcm",
        "objects/2026/11/21-003/global/./2/3.dcm",
        "objects/2026/11/21-003/global/1/2/...dcm",
        "objects/2026/11/21-003/../1/2/3.dcm",
        "objects/2026/13/21-003/global/1/2/3.dcm",
        "objects/2026/11/21-003/global/1/2/3",
        "objects/2026/11/21-003/global/1\\2/2/3.dcm",
        "objects/2026/11/21-003/everyone/1/2/3.dcm",
        "hilum.db",
    ],
)
def test_what_we_did_not_name_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not the path of a stored object"):
        parse_path(path)


def test_bucket_names() -> None:
    assert bucket_name(0, 1) == "1970/01/01-001"
    assert bucket_name(86_399.9, 1234) == "1970/01/01-1234"
    assert is_bucket("2026/11/21-003")
    assert not is_bucket("2026/11/21-003/global")
    assert not is_bucket("../../etc/21-003")
    with pytest.raises(ValueError, match="not between 1 and 9999"):
        bucket_name(0, 10_000)
