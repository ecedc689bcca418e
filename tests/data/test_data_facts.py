"""The facts of a data set: counts by hand, of a source with a table of its boxes and of one without."""

import numpy as np

from kfpn.data import data_facts
from kfpn.data.data_facts import count_facts
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.own_split import part_of
from kfpn.data.record import Record


def record(index, boxes, crowd=None, size=(40, 60)):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.arange(len(boxes), dtype=np.int32) % 2
    crowd = np.zeros(len(boxes), bool) if crowd is None else np.array(crowd)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return Record(np.zeros((*size, 3), np.uint8), index, *size, boxes, labels, crowd, areas)


RECORDS = [
    record(1, [[0, 0, 10, 20], [5, 5, 15, 9], [1, 1, 2, 30]], [False, False, True]),
    record(2, [], size=(20, 30)),
    record(3, [[2, 3, 12, 13]]),
]


class OwnSource:
    """A source that keeps no table of its boxes."""

    name, class_names, category_ids, max_boxes = "own", ("a", "b"), (1, 2), 3
    sizes = np.array([(r.height, r.width) for r in RECORDS], np.int32)

    def __len__(self):
        return len(RECORDS)

    def __getitem__(self, index):
        return RECORDS[index]


def test_the_facts_are_counted_without_crowd():
    facts = count_facts(IterableSource(RECORDS, ("a", "b")))
    assert facts.images == 3
    np.testing.assert_array_equal(facts.image_sizes, [[40, 60], [20, 30], [40, 60]])
    np.testing.assert_array_equal(facts.boxes, [[0, 0, 10, 20], [5, 5, 15, 9], [2, 3, 12, 13]])
    np.testing.assert_array_equal(facts.box_image_sizes, [[40, 60]] * 3)
    np.testing.assert_array_equal(facts.objects_of_image, [2, 0, 1])
    np.testing.assert_array_equal(facts.class_shares, [2 / 3, 1 / 3])


def test_a_source_without_a_table_gives_the_same_facts_and_its_largest_count():
    own, table = count_facts(OwnSource()), count_facts(IterableSource(RECORDS, ("a", "b")))
    for name in ("image_sizes", "boxes", "box_image_sizes", "class_shares"):
        np.testing.assert_array_equal(getattr(own, name), getattr(table, name))
    np.testing.assert_array_equal(own.objects_of_image, [2, 0, 1, 3])


def test_the_facts_of_a_part_are_those_of_its_images():
    for source in (OwnSource(), IterableSource(RECORDS, ("a", "b"))):
        facts = count_facts(part_of(source, np.array([0, 1]), "part"))
        assert facts.images == 2
        np.testing.assert_array_equal(facts.class_shares, [1 / 2, 1 / 2])


def test_of_many_boxes_some_that_are_evenly_spread_are_looked_at(monkeypatch):
    monkeypatch.setattr(data_facts, "MOST_LOOKED_AT", 5)
    many = [record(index, [[0, 0, 1 + index, 2]], size=(200, 60)) for index in range(100)]
    facts = count_facts(IterableSource(many, ("a", "b")))
    np.testing.assert_array_equal(facts.boxes[:, 2], [1, 25, 50, 75, 100])
    assert (facts.images, len(facts.objects_of_image)) == (100, 100)


def test_data_without_a_box_have_facts():
    for source in (OwnSource(), IterableSource(RECORDS, ("a", "b"))):
        facts = count_facts(part_of(source, np.array([1]), "part"))
        assert facts.boxes.shape == (0, 4)
        assert facts.box_image_sizes.shape == (0, 2)
