import pytest

from hilum.services.bulk_data import is_bulk_data


@pytest.mark.parametrize(
    "tag",
    [
        0x7FE00010,
        0x7FE00008,
        0x7FE00009,
        0x00287FE0,
        0x00420011,
        0x54001010,
        0x56000020,
        0x60003000,
        0x60FE3000,
        0x5000200C,
        0x50023000,
    ],
)
def test_bulk_data_is_known_by_its_tag(tag):
    assert is_bulk_data(tag)


@pytest.mark.parametrize("tag", [0x00100010, 0x60013000, 0x60000010, 0x54000100, 0x7FE10010])
def test_everything_else_is_kept(tag):
    assert not is_bulk_data(tag)
