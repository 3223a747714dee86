"""Settings: a file, the environment, options; what cannot work is refused with the setting's name."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from hilum.errors import ConfigurationError
from hilum.gateway.config import Config, load, parse_address, rows


def write(folder: Path, text: str) -> Path:
    file = folder / "site.toml"
    file.write_text(text)
    return file


def names() -> list[str]:
    return [name for name, *_ in rows(Config())]


def test_defaults_are_good() -> None:
    Config().check()
    assert load(environ={}) == Config()


@pytest.mark.parametrize("name", names())
def test_every_setting_says_what_it_means(name: str) -> None:
    (found,) = (row for row in rows(Config()) if row[0] == name)
    _, value, unit, meaning = found
    assert len(meaning) > 10
    if isinstance(value, int | float) and not isinstance(value, bool):
        assert unit or "bytes" in meaning or name.startswith("limits."), "numbers have a unit"


@pytest.mark.parametrize("name", names())
def test_every_setting_can_be_set_in_a_file_and_in_the_environment(
    name: str, tmp_path: Path
) -> None:
    (value,) = (value for found, value, *_ in rows(Config()) if found == name)
    other, written = {
        "web": ("off", '"off"'),
        "dicom": ("127.0.0.1:104", '"127.0.0.1:104"'),
        "log_level": ("DEBUG", '"DEBUG"'),
        "store.strategy": ("fsync", '"fsync"'),
        "commitment.verify": ("file", '"file"'),
        "commitment.delivery": ("new,next", '"new,next"'),
    }.get(name) or _another(value)
    *table, key = name.split(".")
    header = f"[{table[0]}]\n" if table else ""
    file = write(tmp_path, f"{header}{key} = {written}\n")
    assert {row[0]: row[1] for row in rows(load(file, {}))}[name] == other
    text = ",".join(other) if isinstance(other, tuple) else str(other)
    variable = "HILUM_" + name.replace(".", "_").upper()
    assert {row[0]: row[1] for row in rows(load(environ={variable: text}))}[name] == other


def _another(value: object) -> tuple[object, str]:
    if isinstance(value, bool):
        return not value, str(not value).lower()
    if isinstance(value, int | float):
        return value + 1, str(value + 1)
    if isinstance(value, tuple):
        return ("10.0.0.0/8", "::1/128"), '["10.0.0.0/8", "::1/128"]'
    return "other", '"other"'


def test_variables_have_names_of_their_own() -> None:
    variables = [name.replace(".", "_") for name in names()]
    assert len(set(variables)) == len(variables)


def test_the_environment_goes_before_the_file_and_options_before_both(tmp_path: Path) -> None:
    file = write(
        tmp_path, '[store]\nreserve = 5\nmax_batch = 7\n[access]\nallow = ["10.0.0.0/8"]\n'
    )
    config = load(file, {"HILUM_STORE_RESERVE": "0x10", "UNRELATED": "1"})
    assert (config.store.reserve, config.store.max_batch) == (16, 7)
    assert str(config.access.allowed_networks[0]) == "10.0.0.0/8"
    changed = config.with_options(data="elsewhere", store__reserve=3, web=None)
    assert (changed.data, changed.store.reserve, changed.web) == ("elsewhere", 3, config.web)
    assert changed.store.max_batch == 7


def test_the_file_is_found_where_it_is_named_or_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, 'data = "from-the-variable"\n')
    monkeypatch.chdir(tmp_path)
    assert load(environ={}).data == "hilum-data"
    assert load(environ={"HILUM_CONFIG": str(file)}).data == "from-the-variable"
    (tmp_path / "hilum.toml").write_text('data = "from-here"\n')
    assert load(environ={}).data == "from-here"
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml"):
        load(environ={"HILUM_CONFIG": "nowhere.toml"})


def test_none_and_empty_lists_can_be_said() -> None:
    config = load(environ={"HILUM_TIMEOUTS_IDLE": "none", "HILUM_ACCESS_ALLOW": " , "})
    assert config.timeouts.idle is None
    assert config.access.allow == ()
    assert load(environ={"HILUM_TIMEOUTS_IDLE": "5"}).timeouts.idle == 5.0


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("colour = 1", "unknown setting 'colour'"),
        ("[store]\nreserv = 1", "unknown setting 'store.reserv'"),
        ("[stores]\nreserve = 1", "unknown setting 'stores'"),
        ("store = 5", "'store' is a table"),
        ("data = 5", "data is 5; expected a text"),
        ('data = ""', "data is empty"),
        ("log_json = 1", "log_json is 1; expected true or false"),
        ("[store]\nmax_batch = 2.5", "store.max_batch is 2.5; expected a whole number"),
        ("[store]\nmax_batch = true", "store.max_batch is True; expected a whole number"),
        ("[store]\nmax_batch = [1]", "store.max_batch is"),
        ("[store]\nmax_batch = 0", "store.max_batch is 0; expected at least 1 instances"),
        ("[store]\nio_threads = -4", "store.io_threads is -4"),
        ("[store]\nreserve = -1", "store.reserve is -1; expected at least 0 bytes"),
        ("[store]\nanswer_within = 0", "store.answer_within is 0.0"),
        ("[store]\nanswer_within = nan", "store.answer_within is nan"),
        ("[timeouts]\nartim = inf", "timeouts.artim is inf"),
        ('[store]\nstrategy = "hope"', "expected auto, fsync or syncfs"),
        ('log_level = "LOUD"', "expected DEBUG, INFO"),
        ('web = "nonsense"', "web: 'nonsense' is not HOST:PORT"),
        ('dicom = "host:70000"', "dicom: 'host:70000'"),
        ('[access]\nallow = ["10.0.0.0/40"]', "access.allow"),
        ("[access]\nallow = [1]", "access.allow is"),
        ("[access]\nproxies = ['balancer']", "access.proxies"),
        ("data = ", "site.toml"),
    ],
)
def test_what_cannot_work_is_refused_with_its_name(text: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(write(tmp_path, text), {})
    assert word in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HILUM_STORE_RESERVE", "1 GiB"),
        ("HILUM_LOG_JSON", "perhaps"),
        ("HILUM_STOP_WITHIN", "soon"),
        ("HILUM_TIMEOUTS_IDLE", "x"),
    ],
)
def test_so_is_what_the_environment_says(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"environment: .* expected"):
        load(environ={variable: value})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:11112", ("127.0.0.1", 11112)),
        ("11112", (None, 11112)),
        (":11112", (None, 11112)),
        ("[::1]:104", ("::1", 104)),
        ("::1:104", ("::1", 104)),
        ("pacs.example:0", ("pacs.example", 0)),
    ],
)
def test_addresses(text: str, expected: tuple[str | None, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", "host", "host:", "host:x", "host:-1", "host:65536", "host:²"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not HOST:PORT"):
        parse_address(text)


def test_limits_allow_zero_only_where_it_means_something() -> None:
    zero = {
        "HILUM_STORE_RESERVE": "0",
        "HILUM_STOP_WITHIN": "0",
        "HILUM_LIMITS_MAX_FREE_BUFFERS": "0",
    }
    config = load(environ=zero)
    assert (config.store.reserve, config.stop_within) == (0, 0.0)
    assert not math.isnan(config.stop_within)
