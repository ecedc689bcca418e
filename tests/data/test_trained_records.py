import numpy as np
import pytest

from kfpn.config.run import InputConfig
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.record import Record
from kfpn.data.trained_records import describe_left_out, trained_records

EMPTY_OUT = InputConfig(keep_empty=False)


def records(*crowds):
    """Returns one record a tuple: a box for each of its entries, which says whether it is crowd."""
    return [
        Record(
            image=np.zeros((20, 30, 3), np.uint8), image_id=index, height=20, width=30,
            boxes=np.tile(np.array([[1, 2, 9, 12]], np.float32), (len(crowd), 1)), labels=np.zeros(len(crowd), np.int32),
            crowd=np.array(crowd, bool), areas=np.ones(len(crowd), np.float32), name=f"picture {index}",
        )
        for index, crowd in enumerate(crowds)
    ]  # fmt: skip


class Own:
    """A source of one's own, without annotations at hand."""

    name, class_names, category_ids, max_boxes = "own", ("a",), (1,), 2

    def __init__(self, held):
        self.held, self.sizes = held, np.array([(r.height, r.width) for r in held], np.int32)

    def __len__(self):
        return len(self.held)

    def __getitem__(self, index):
        return self.held[index]


@pytest.fixture(params=[lambda held: IterableSource(held, ["a"]), Own], ids=["annotated", "own"])
def opened(request):
    return request.param


def test_records_without_a_box_that_is_no_crowd_are_left_out(opened):
    source = opened(records((False,), (), (True,), (True, False), (), (False, False)))
    assert trained_records(source, EMPTY_OUT).tolist() == [0, 3, 5]
    assert trained_records(source, InputConfig()).tolist() == [0, 1, 2, 3, 4, 5]
    assert trained_records(source, EMPTY_OUT).dtype == np.int64


def test_what_is_left_out_is_said_in_one_line_with_counts(opened):
    source = opened(records((False,), (), (True,)))
    line = f"{source.name}: trains on 1 of 3 images: 2 have no box to learn from (--input.keep-empty takes them too)"
    assert describe_left_out(source, EMPTY_OUT) == line
    assert describe_left_out(source, InputConfig()) is None
    assert describe_left_out(opened(records((False,))), EMPTY_OUT) is None


def test_data_without_any_box_are_refused():
    with pytest.raises(ValueError, match=r"input\.keep_empty must be True for own, got False: none of its 2 images"):
        trained_records(Own(records((), (True,))), EMPTY_OUT)
