from dataclasses import replace

import numpy as np
import pytest

from kfpn.config.run import Config, InputConfig
from kfpn.data.eval_order import eval_order

CONFIG = Config(input=InputConfig(64, 128, divisor=16))
SIZES = np.array([(64, 64 + 8 * (i % 5)) if i % 3 else (96, 64) for i in range(23)], np.int32)


def own(padding):
    return replace(CONFIG, model=replace(CONFIG.model, padding=padding))


@pytest.mark.parametrize("padding", ["zero", "foreign"])
def test_neither_the_rows_of_a_batch_nor_a_new_start_change_the_order_or_a_canvas(padding):
    order = eval_order(SIZES, own(padding), 4)
    assert sorted(order.records) == list(range(23))
    expected = [(int(r), tuple(c)) for r, c in zip(order.records, order.canvases, strict=True)]
    for rows, start in ((1, 0), (3, 0), (4, 7), (64, 22)):
        batches = list(order.batches(rows, start))
        assert {len(records) for records, _ in batches} == {rows}
        assert [(int(r), tuple(canvas)) for records, canvas in batches for r in records if r >= 0] == expected[start:]


def test_batches_of_two_replicas_are_those_of_one_side_by_side():
    order = eval_order(SIZES, CONFIG, 4)
    ones, twos = list(order.batches(3)), list(order.batches(6))
    side_by_side = [(tuple(canvas), *half) for records, canvas in twos for half in np.split(records, 2)]
    filled = [row for row in side_by_side if max(row[2:]) >= 0 or row[1] >= 0]
    assert filled == [(tuple(canvas), *records) for records, canvas in ones]


def test_images_of_one_canvas_follow_each_other():
    for padding in ("zero", "foreign"):
        order = eval_order(SIZES, own(padding), 2)
        changes = (order.canvases[1:] != order.canvases[:-1]).any(axis=1).sum()
        assert changes + 1 == order.distinct
        assert order.canvases.prod(axis=1).max() == np.prod(order.largest)
