import numpy as np
import pytest

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.formats import coco_objects
from kfpn.data.formats.coco_columns import have_distinct_ids, plain_columns
from kfpn.data.formats.coco_tables import Categories, IdTable

IMAGES = [{"id": 9, "file_name": "a"}, {"id": 4, "file_name": "b"}]
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def row(number=1, **more):
    return {"id": number, "image_id": 9, "category_id": 7, "bbox": [1, 2, 10, 5], "area": 50, "iscrowd": 0} | more


def columns(rows):
    return plain_columns(rows, {9: 0, 4: 1}, {3: 0, 7: 1}, ("ignore", "difficult"))


def read(rows, faults):
    table = IdTable(IMAGES, "images", faults)
    return coco_objects.CocoObjects(table, Categories(CATEGORIES, rows, faults), ["a", "b"], faults).read(rows)


def test_columns_hold_what_the_rows_say():
    plain = columns([row(1, iscrowd=1), row(2, image_id=4, category_id=3, bbox=[0.5, 0, 2.25, 1], area=2.5)])
    assert plain.image_index.tolist() == [0, 1]
    assert plain.labels.tolist() == [1, 0]
    assert plain.corners.tolist() == [[2, 1, 7, 11], [0, 0.5, 1, 2.75]]
    assert plain.crowd.tolist() == [True, False]
    assert plain.areas.tolist() == [50, 2.5]


@pytest.mark.parametrize(
    "more",
    [
        {"image_id": 5}, {"image_id": 9.0}, {"image_id": True}, {"image_id": [9]}, {"category_id": "7"},
        {"category_id": 8}, {"bbox": [1, 2, 3]}, {"bbox": "1 2 3 4"}, {"bbox": [1, 2, "3", 4]}, {"bbox": [1, 2, True, 4]},
        {"bbox": [1, 2, float("nan"), 4]}, {"bbox": [1, 2, 10**400, 4]}, {"bbox": [1, 2, 1e301, 4]}, {"area": None}, {"area": "9"},
        {"area": float("inf")}, {"iscrowd": "0"}, {"iscrowd": 2}, {"iscrowd": None}, {"iscrowd": []}, {"ignore": "0"}, {"ignore": 1}, {"difficult": True}, {"difficult": []},
    ],
)  # fmt: skip
def test_a_row_that_is_not_plain_is_left_to_a_closer_look(more):
    assert columns([row(1), row(2, **more)]) is None


def test_an_id_twice_or_a_field_that_is_missing_needs_a_closer_look():
    assert have_distinct_ids([row(1), row(2), {}])
    for wrong in (1, 1.0, "2", True):
        assert not have_distinct_ids([row(1), row(wrong)])
    for field in ("image_id", "category_id", "bbox"):
        assert columns([{key: value for key, value in row().items() if key != field}]) is None
    assert columns([row(ignore=0, difficult=None)]) is not None


def test_columns_and_rows_read_by_themselves_are_the_same(monkeypatch):
    chance = np.random.default_rng(0)
    rows = [
        {"image_id": int(chance.choice([9, 4])), "category_id": int(chance.choice([3, 7])), "bbox": chance.normal(9, 5, 4).tolist()}
        for _ in range(50)
    ]  # fmt: skip
    rows = [
        one | extra
        for one, extra in zip(rows, 10 * [{}, {"id": 7}, {"iscrowd": True}, {"area": -3}, {"area": 1e29}], strict=True)
    ]
    for number, one in enumerate(rows):
        one.update({"id": number} if "id" in one else {})
    faults = AnnotationFaults("x")
    quick = read(rows, faults)
    monkeypatch.setattr(coco_objects, "plain_columns", lambda *_: None)
    slow = read(rows, faults)
    for field in ("image_index", "boxes", "labels", "crowd", "areas"):
        np.testing.assert_array_equal(getattr(quick, field), getattr(slow, field), field)
    assert quick.where(3) == slow.where(3)
    assert not faults.counts


def test_one_odd_row_makes_its_part_slow_and_changes_nothing(monkeypatch):
    monkeypatch.setattr(coco_objects, "_PART", 3)
    looked_at, number = [], coco_objects._area
    monkeypatch.setattr(coco_objects, "_area", lambda row, *rest: looked_at.append(row["id"]) or number(row, *rest))
    rows = [row(i, bbox=[i, 0, 5, 5]) for i in range(8)]
    rows[4] |= {"iscrowd": "1"}
    rows[5] |= {"image_id": 77}
    faults = AnnotationFaults("x")
    read_rows = read(rows, faults)
    assert read_rows.boxes[:, 1].tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert read_rows.crowd.tolist() == [False] * 4 + [True] + [False] * 2
    assert looked_at == [3, 4]
    assert [count for count, _ in faults.counts.values()] == [1]
    assert read([], faults).boxes.shape == (0, 4)
