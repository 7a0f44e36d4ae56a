"""Numbers as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdlaws.quantities import parse_number


@pytest.mark.parametrize(
    ("text", "number"),
    [("2.8B", 2.8e9), ("1e9", 1e9), ("400k", 4e5), ("0.1M", 1e5), ("1T", 1e12), (" 7b ", 7e9)],
)
def test_numbers_as_people_write_them(text: str, number: float) -> None:
    assert parse_number(text) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_itself(number: float) -> None:
    assert parse_number(repr(number)) == number


@pytest.mark.parametrize("text", ["", "B", "1,5", "1e", "2.8BB", "--1", "1 2", "abc", "0x10"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a number"):
        parse_number(text)
