import numpy as np
import pytest

from kfpn.data.class_names import RelabelledSource, lacking_classes, spelling_hint, with_classes_of
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.record import Record, Source


def source(name, class_names, labels=()):
    boxes = np.tile([0.0, 0, 2, 2], (len(labels), 1))
    record = Record(
        np.zeros((4, 4, 3), np.uint8),
        0,
        4,
        4,
        boxes,
        np.array(labels, int),
        np.zeros(len(labels), bool),
        np.ones(len(labels)),
    )
    return IterableSource([record], class_names, name=name)


TRAIN = source("a", ["cat", "dog"], [0, 1])


def test_the_same_classes_are_left_as_they_are():
    val = source("b", ["cat", "dog"])
    assert with_classes_of(TRAIN, val) is val


def test_classes_in_another_order_are_matched_by_name(caplog):
    val = with_classes_of(TRAIN, source("b", ["dog", "cat"], [0, 0, 1]))
    assert isinstance(val, Source)
    assert val.class_names == ("cat", "dog")
    assert val.category_ids == TRAIN.category_ids
    assert val[0].labels.tolist() == [1, 1, 0]
    assert caplog.messages == []


def test_fewer_classes_are_matched_and_said(caplog):
    val = with_classes_of(TRAIN, source("b", ["dog"], [0]))
    assert val[0].labels.tolist() == [1]
    assert caplog.messages == ["b: classes of a that are not listed, so not measured: 'cat'"]


def test_a_class_without_boxes_is_left_out_and_said(caplog):
    val = with_classes_of(TRAIN, source("b", ["bird", "cat", "dog"], [1, 2]))
    assert val.class_names == ("cat", "dog")
    assert val[0].labels.tolist() == [0, 1]
    assert caplog.messages == ["b: classes that a lacks, without a box, left out: 'bird'"]


def test_a_class_with_boxes_is_refused():
    with pytest.raises(ValueError, match=r"got cat, dog, cow: b alone has 'cow'$"):
        with_classes_of(TRAIN, source("b", ["cat", "dog", "cow"], [2]))


def test_names_that_differ_in_case_or_spaces_are_refused_with_a_hint():
    with pytest.raises(
        ValueError, match=r"differ only in case, spaces, hyphens or accents' form: 'Cat' and 'cat', 'dog ' and 'dog'$"
    ):
        with_classes_of(TRAIN, source("b", ["Cat", "dog "], [0, 1]))
    assert spelling_hint(["traffic light"], ["traffic_light"]).endswith(": 'traffic light' and 'traffic_light'")
    assert spelling_hint(["cow"], ["cat"]) == ""


class Other:
    """A source of one's own."""

    name, class_names, category_ids, max_boxes = "mine", ("dog", "bird", "cat"), (7, 8, 9), 2
    sizes = np.array([[4, 4]], np.int32)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return source("x", ["a", "b", "c"], [0, 2])[index]


def test_sources_of_ones_own_are_matched_too():
    val = with_classes_of(TRAIN, Other())
    assert isinstance(val, RelabelledSource)
    assert isinstance(val, Source)
    assert len(val) == 1
    assert val[0].labels.tolist() == [1, 0]
    assert val.class_names == ("cat", "dog")


def test_lacking_classes_are_told_apart_by_their_boxes():
    assert lacking_classes(source("b", ["cat", "dog", "cow"], [0, 2]), ["cat"]) == (["cow"], ["dog"])
    assert lacking_classes(source("b", ["cat"], [0]), ["cat", "cat"]) == (["cat"], [])
