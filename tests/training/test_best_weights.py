import math

import pytest

from kfpn.training.best_weights import is_better

NAN = math.nan


@pytest.mark.parametrize(
    ("new", "best", "better"),
    [
        ({"AP": 0.5}, {"AP": 0.4}, True),
        ({"AP": 0.3}, {"AP": 0.4}, False),
        ({"AP": 0.3, "AP@500": 0.6, "best_by": "AP@500"}, {"AP": 0.4, "AP@500": 0.5, "best_by": "AP@500"}, True),
        ({"AP": 0.4, "AP@500": 0.5, "best_by": "AP@500"}, {"AP": 0.3, "AP@500": 0.6, "best_by": "AP@500"}, False),
        ({"AP": 0.3, "AP@500": 0.6, "best_by": "AP@500"}, {"AP": 0.4}, False),  # of before the limit was raised
        ({"AP": 0.3, "AP@500": 0.6}, {"AP": 0.4, "AP@500": 0.5}, False),  # no image has more than 100 objects
        ({"AP": 0.4}, {"AP": 0.4}, True),  # the later of equals
        ({"AP": 0.0}, {"AP": 0.0}, True),
        ({"AP": None}, {"AP": None}, True),  # no measure: the last
        ({"AP": NAN}, {"AP": NAN}, True),
        ({"AP": NAN}, {"AP": None}, True),
        ({"AP": 0.0}, {"AP": None}, True),  # any measure is more than none
        ({"AP": None}, {"AP": 0.0}, False),
        ({"AP": NAN}, {"AP": 0.1}, False),
        ({}, {}, True),  # no validation data: the last
        ({"AP": 0.1}, {}, True),  # weights that were kept without an evaluation
        ({}, {"AP": 0.1}, True),  # a run that goes on without validation data, which warns of that
    ],
)
def test_the_higher_ap_is_better_then_the_later_and_without_any_the_last(new, best, better):
    assert is_better(new, best) is better
