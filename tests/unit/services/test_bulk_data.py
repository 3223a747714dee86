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
        0x56000020,
        0x60003000,
        0x60FE3000,
        0x5000200C,
        0x50023000,
    ],
)
def test_bulk_data_is_known_by_its_tag(tag):
    assert is_bulk_data(tag)


@pytest.mark.parametrize(
    "tag", [0x00100010, 0x60013000, 0x60000010, 0x54000100, 0x54001010, 0x7FE10010]
)
def test_everything_else_is_kept(tag):
    assert not is_bulk_data(tag)


def test_what_is_inside_sequences_stays_but_for_waveforms():
    """PS3.4 Z.1.3: the pixel data of icons is kept."""
    assert not is_bulk_data(0x7FE00010, (0x00880200,))
    assert is_bulk_data(0x54001010, (0x54000100,))
    assert not is_bulk_data(0x54001010, (0x00880200, 0x54000100))
