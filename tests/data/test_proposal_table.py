import dataclasses
import itertools

import numpy as np
import pytest

from kfpn.config.run import Config, InputConfig
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.pipeline import eval_batches, train_batches, with_proposals
from kfpn.data.proposal_table import collect_proposals, proposals_of, read_proposals, write_proposals
from kfpn.data.record import Record

PLAIN = InputConfig(short_side=40, long_side=80, flip=0.0, divisor=16)


def record(image_id, boxes, size=(40, 80)):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    pixels = np.random.default_rng(image_id).integers(0, 256, (*size, 3), np.uint8)
    count = len(boxes)
    labels, crowd, areas = np.zeros(count, np.int32), np.zeros(count, bool), np.ones(count, np.float32)
    return Record(pixels, image_id, *size, boxes, labels, crowd, areas, f"picture {image_id}")


def source(*records, name="some"):
    return IterableSource(records, ("cat",), name=name)


def proposed(image_id, boxes):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return {"image_id": image_id, "boxes": boxes, "scores": np.linspace(0.9, 0.1, len(boxes), dtype=np.float32)}


def ground_truth_as_proposals(data):
    return collect_proposals(data, [proposed(data[i].image_id, data[i].boxes) for i in range(len(data))])


def two_images():
    return source(record(3, [[4, 8, 20, 40]]), record(7, [[0, 0, 40, 80], [1, 2, 3, 4]]))


def equal_tables(one, other):
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))


def test_written_proposals_are_read_back_by_data_set_and_image(tmp_path):
    first, second = two_images(), source(record(3, []), name="other")
    tables = [
        collect_proposals(first, [proposed(7, [[0, 0, 9, 9], [1, 1, 5, 5]]), proposed(3, [[2, 2, 6, 7]])]),
        collect_proposals(second, [proposed(3, [])]),
    ]
    write_proposals(tmp_path / "kept", tables)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    read = read_proposals(tmp_path / "kept")
    assert list(read) == ["some", "other"]
    assert equal_tables(read["some"], tables[0])
    assert equal_tables(read["other"], tables[1])
    assert read["some"].boxes.dtype == read["some"].scores.dtype == np.float32
    table = proposals_of(tmp_path / "kept", first)
    np.testing.assert_array_equal(table.boxes[table.rows(0)], [[2, 2, 6, 7]])
    np.testing.assert_array_equal(table.scores[table.rows(1)], np.float32([0.9, 0.1]))


def test_proposals_follow_the_order_of_the_source(tmp_path):
    write_proposals(tmp_path / "kept", [ground_truth_as_proposals(two_images())])
    reordered = source(two_images()[1], two_images()[0])
    assert equal_tables(proposals_of(tmp_path / "kept", reordered), ground_truth_as_proposals(reordered))


def test_proposals_can_be_read_for_a_part_of_the_images(tmp_path):
    write_proposals(tmp_path / "kept", [ground_truth_as_proposals(two_images())])
    part = source(two_images()[1])
    assert equal_tables(proposals_of(tmp_path / "kept", part), ground_truth_as_proposals(part))


def test_proposals_of_other_data_are_refused(tmp_path):
    path = tmp_path / "kept"
    write_proposals(path, [ground_truth_as_proposals(two_images())])
    with pytest.raises(ValueError, match=r"proposals must be of other, got '.*kept' with those of some$"):
        proposals_of(path, source(record(3, []), name="other"))
    with pytest.raises(ValueError, match=r"every image of some, got none in .*kept for picture 5; write them again"):
        proposals_of(path, source(record(3, []), record(5, []), record(6, [])))
    with pytest.raises(ValueError, match=r"kept with 40 x 80 pixels for picture 7, which has 30 x 80"):
        proposals_of(path, source(record(7, [], size=(30, 80))))


def test_a_file_that_is_missing_damaged_or_another_one_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"a file of `kfpn proposals`, got '.*nowhere', which is not there"):
        read_proposals(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="which is not there"):
        read_proposals(tmp_path)
    whole = tmp_path / "whole"
    write_proposals(whole, [ground_truth_as_proposals(two_images())])
    content = whole.read_bytes()
    np.savez(tmp_path / "foreign.npz", boxes=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", format=np.array({"a": 1}, object))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("boxes")
    (tmp_path / "short").write_bytes(content[: len(content) // 2])
    middle = content.index(b"0/boxes.npy") + 150
    (tmp_path / "bent").write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    for name in ("foreign.npz", "pickled.npz", "array.npy", "empty", "text", "short", "bent"):
        with pytest.raises(ValueError, match=rf"got '.*{name}', which is damaged or another one"):
            read_proposals(tmp_path / name)


def test_tables_whose_arrays_do_not_fit_each_other_are_refused(tmp_path):
    table = ground_truth_as_proposals(two_images())
    for change in (
        {"starts": np.array([0, 2, 1])},
        {"starts": np.array([0, 1, 2])},
        {"sizes": table.sizes[:1]},
        {"boxes": table.boxes[:1]},
        {"boxes": np.full_like(table.boxes, np.nan)},
    ):
        with pytest.raises(ValueError, match="of some don't fit"):
            dataclasses.replace(table, **change)


def test_data_sets_of_one_name_are_refused(tmp_path):
    tables = [ground_truth_as_proposals(two_images())] * 2
    with pytest.raises(ValueError, match="different names, got some, some"):
        write_proposals(tmp_path / "kept", tables)
    assert not list(tmp_path.iterdir())


def test_evaluation_batches_hold_resized_proposals():
    # 20 x 40 pixels become 40 x 80, so boxes double. The third proposal is one too many. The second image has none.
    data = source(record(1, [], size=(20, 40)), record(2, []), record(4, []))
    boxes = [[1, 2, 11, 30], [0, 0, 20, 40], [5, 5, 6, 6]]
    table = collect_proposals(data, [proposed(1, boxes), proposed(2, []), proposed(4, [[1, 2, 3, 4]])])
    config = Config(input=PLAIN)
    first, last = with_proposals(eval_batches(data, config, 2), table, config, 2, augmented=False)
    np.testing.assert_array_equal(first["proposals"], [[[2, 4, 22, 60], [0, 0, 40, 80]], [[0, 0, 0, 0], [0, 0, 0, 0]]])
    # The last batch is filled up with an empty row, which stands for no image.
    np.testing.assert_array_equal(last["proposals"], [[[1, 2, 3, 4], [0, 0, 0, 0]], [[0, 0, 0, 0]] * 2])
    assert last["record_index"].numpy().tolist() == [2, -1]
    assert first["proposals"].dtype == np.float32


def test_training_batches_hold_resized_and_mirrored_proposals():
    data = source(record(1, [], size=(20, 40)))
    table = collect_proposals(data, [proposed(1, [[1, 2, 11, 30]])])
    config = Config(batch_size=1, input=dataclasses.replace(PLAIN, flip=1.0))
    batch = next(iter(with_proposals(train_batches(data, config), table, config, 2, augmented=True)))
    # The box doubles to [2, 4, 22, 60]. Mirrored in a width of 80 pixels, its x goes from 80 - 60 to 80 - 4.
    np.testing.assert_array_equal(batch["proposals"], [[[2, 20, 22, 76], [0, 0, 0, 0]]])


def test_every_augmentation_moves_proposals_as_it_moves_objects():
    sizes = ((40, 80), (80, 40), (33, 57))
    boxes = [[[4, 8, 20, 32]], [[0, 0, 40, 39], [10, 5, 30, 25]], [[3, 4, 33, 50], [1, 1, 9, 9], [0, 20, 30, 57]]]
    data = source(*(record(i, boxes[i % 3], sizes[i % 3]) for i in range(9)))
    config = Config(batch_size=2, seed=5, input=dataclasses.replace(PLAIN, flip=0.5, scale_jitter=(0.5, 1.5)))
    table = ground_truth_as_proposals(data)
    batches = with_proposals(train_batches(data, config, 7), table, config, data.max_boxes, augmented=True)
    assert batches.element_spec["proposals"].shape == (2, 3, 4)
    plain = train_batches(data, config, 7).as_numpy_iterator()
    for batch, without in itertools.islice(zip(batches.as_numpy_iterator(), plain, strict=True), 12):
        np.testing.assert_array_equal(batch["proposals"], batch["gt_boxes"])
        assert batch["proposals"].any()
        for name, value in without.items():
            np.testing.assert_array_equal(batch[name], value)
