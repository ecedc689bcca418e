import math

import numpy as np
import pytest

from kfpn.data.field_values import comma_hint, number_column, read_flag, read_number, whole_number


@pytest.mark.parametrize("value", [None, 0, 0.0, False, "0", " 0 ", "0.0", "false", "False", "FALSE"])
def test_flags_that_are_not_set(value):
    assert read_flag(value, "iscrowd") is False


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "1.0", "true", "True", " TRUE\n"])
def test_flags_that_are_set(value):
    assert read_flag(value, "iscrowd") is True


@pytest.mark.parametrize("value", [2, -1, 0.5, math.nan, "", "yes", "maybe", "2", [], [0], {}, "00", 10**400])
def test_anything_else_is_no_flag(value):
    with pytest.raises(ValueError, match=r"^a\.json: annotation 7: iscrowd must be 0, 1, true or false, got "):
        read_flag(value, "a.json: annotation 7: iscrowd")


def test_a_format_may_have_more_words_for_flags():
    assert read_flag("Yes", "difficult", yes=("yes",), no=("no", ""))
    assert not read_flag("", "difficult", yes=("yes",), no=("no", ""))
    with pytest.raises(ValueError, match="got 'perhaps'"):
        read_flag("perhaps", "difficult", yes=("yes",), no=("no", ""))


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3.0), (2.5, 2.5), ("12.5", 12.5), (" 7 ", 7.0), ("-3", -3.0), ("1e2", 100.0), (".5", 0.5), (10**400, math.inf), (-(10**400), -math.inf)],
)  # fmt: skip
def test_numbers_in_numbers_and_text(value, number):
    assert read_number(value) == number


def test_what_is_not_finite_is_still_a_number():
    assert math.isnan(read_number(math.nan))
    assert math.isnan(read_number("NaN"))
    assert read_number("-inf") == -math.inf


@pytest.mark.parametrize(
    "value", [None, True, False, "", "x", "12,5", "1_0", "0x9", "٣", [], [1], {}, "1 2", "1.234,5"]
)
def test_what_is_no_number(value):
    assert read_number(value) is None


def test_a_decimal_comma_gets_a_hint():
    assert comma_hint(1, "12,5", None) == ": write a point for the decimal comma in '12,5'"
    assert comma_hint(1, "1,2,5", "x") == ""


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1), (1.0, 1), ("1", 1), ("1.0", 1), ("000139", 139), (" 7 ", 7), (-3, -3), (1.5, None), ("1.5", None), (True, None),
     (None, None), ("a1", None), ("", None), (math.nan, None), (math.inf, None), ([1], None), ("9" * 50, None)],
)  # fmt: skip
def test_ids_in_numbers_and_text(value, number):
    assert whole_number(value) == number


def test_columns_hold_numbers():
    assert number_column(np.array([[1, 2]], np.uint8), "x").tolist() == [1.0, 2.0]
    assert number_column([True, False], "x", flags=True).tolist() == [1.0, 0.0]
    assert number_column([], "x", flags=True).tolist() == []
    with pytest.raises(ValueError, match=r"is_crowd must be 0 or 1, got \[0, 2\]"):
        number_column([0, 2], "is_crowd", flags=True)
    with pytest.raises(ValueError, match=r"area must be numbers, got \[b'0'\]"):
        number_column(np.array([b"0"], object), "area")
