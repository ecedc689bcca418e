"""Checks what a person's own function gets, and that each thing it may do wrong is one clear line."""

import sys

import numpy as np
import pytest

from kfpn.config.run import Config, InputConfig
from kfpn.data.object_masks import ObjectMasks
from kfpn.data.own_augment import OwnAugment, load_function
from kfpn.data.picture_changes import Picture
from kfpn.data.training_sample import training_sample
from tests.data.test_views import marked_source


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Returns the current folder, new and empty; modules that are imported from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


PICTURE = Picture(
    np.full((20, 40, 3), 7, np.uint8),
    np.array([[1, 2, 11, 22], [0, 0, 20, 40]], np.float32),
    np.array([1, 0], np.int32),
    np.array([False, True]),
)


def answered(function, picture=PICTURE):
    return OwnAugment("own:change", function, classes=2, most_boxes=3)(picture, np.random.default_rng(0), "photo 5")


def test_the_function_gets_x1_y1_x2_y2_labels_with_crowd_and_a_generator():
    seen = []
    answered(lambda *values: seen.append(values) or values[:4])
    ((image, boxes, labels, masks, generator),) = seen
    assert (image.dtype, image.shape) == (np.uint8, (20, 40, 3))
    assert boxes.tolist() == [[2, 1, 22, 11], [0, 0, 40, 20]]
    assert boxes.dtype == np.float32
    assert labels.tolist() == [1, -1]
    assert masks is None
    assert isinstance(generator, np.random.Generator)


def test_what_it_returns_is_the_picture_and_its_own_array_is_not_the_datas():
    def change(image, boxes, labels, masks, generator):
        image[:] = 9
        boxes += 1
        boxes[1] -= 1
        return image[:, ::-1], boxes.tolist(), list(labels), None

    picture = answered(change)
    assert picture.image.max() == 9
    assert PICTURE.image.max() == 7
    assert picture.boxes.tolist() == [[2, 3, 12, 23], [0, 0, 20, 40]]
    assert PICTURE.boxes[0].tolist() == [1, 2, 11, 22]
    assert picture.labels.tolist() == [1, 0]
    assert picture.crowd.tolist() == [False, True]
    assert (picture.boxes.dtype, picture.labels.dtype) == (np.float32, np.int32)


def test_all_boxes_may_be_dropped_and_some_added():
    none = answered(lambda image, *_: (image, [], [], None))
    assert none.boxes.shape == (0, 4)
    assert none.labels.shape == none.crowd.shape == (0,)
    more = answered(lambda image, *_: (image, np.tile([0.0, 0, 5, 5], (3, 1)), np.array([1, 1, 0]), None))
    assert more.boxes.shape == (3, 4)


def test_a_border_that_rounding_passes_is_cut():
    picture = answered(lambda image, *_: (image, [[-0.005, 0, 40.004, 20]], [0], None))
    assert picture.boxes.tolist() == [[0, 0, 20, 40]]


def returning(**changes):
    """Returns a function whose answer is what came, but for some of it."""

    def change(image, boxes, labels, masks, generator):
        return tuple({"image": image, "boxes": boxes, "labels": labels, "masks": masks, **changes}.values())

    return change


BOX = [2.0, 1.0, 22.0, 11.0]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda *_: None,
            "return image, boxes, labels and masks, got NoneType: end it with `return image, boxes, labels, masks`",
        ),
        (
            lambda image, boxes, labels, *_: (image, boxes, labels),
            "return image, boxes, labels and masks, got 3 values",
        ),
        (
            returning(image=np.zeros((20, 40, 3))),
            r"return an image \(H, W, 3\) of uint8, got float64 \(20, 40, 3\): values are 0\.\.255",
        ),
        (returning(image=np.zeros((20, 40), np.uint8)), r"return an image .*, got uint8 \(20, 40\)"),
        (returning(image=np.zeros((3, 20, 40), np.uint8)), r"return an image .*, got uint8 \(3, 20, 40\)"),
        (returning(image=[[1]]), "return an image .*, got list"),
        (returning(image=np.zeros((0, 40, 3), np.uint8)), "return an image with pixels"),
        (returning(boxes=None), r"return boxes \(N, 4\).*, got NoneType: a row is x1, y1, x2, y2"),
        (returning(boxes="abc"), r"return boxes \(N, 4\) of numbers, got str"),
        (returning(boxes=[[1, 2, 3]]), r"return boxes \(N, 4\), got list"),
        (returning(boxes=[[1, 2, 3, 4], [1, 2]]), r"return boxes \(N, 4\) of numbers, got list"),
        (returning(boxes=np.zeros((2, 5))), r"return boxes \(N, 4\), got float64 \(2, 5\)"),
        (returning(boxes=[BOX]), "return a label for each box, got 1 boxes and 2 labels: drop both together"),
        (returning(boxes=[BOX, [np.nan, 0, 5, 5]]), "return finite boxes, got x1 nan, y1 0, x2 5, y2 5"),
        (returning(boxes=[BOX, [0, 0, np.inf, 5]]), "return finite boxes, got x1 0, y1 0, x2 inf, y2 5"),
        (
            returning(boxes=[BOX, [-3, 0, 5, 5]]),
            "return boxes inside the image, got x1 -3, y1 0, x2 5, y2 5 in 40 x 20 pixels: cut them with numpy.clip",
        ),
        (returning(boxes=[BOX, [0, 0, 20, 40]]), "return boxes inside the image, .* a row is x1, y1, x2, y2"),
        (
            returning(boxes=[BOX, [5, 5, 5, 9]]),
            "return boxes with x1 < x2 and y1 < y2, got x1 5, y1 5, x2 5, y2 9: drop boxes without",
        ),
        (returning(boxes=[BOX, [9, 9, 5, 5]]), "return boxes with x1 < x2"),
        (returning(labels=[0, 2]), r"return labels in 0\.\.1, or -1 of crowd, got 2: labels are counted from 0"),
        (returning(labels=[0, -2]), r"return labels in 0\.\.1, or -1 of crowd, got -2"),
        (returning(labels=[0.0, 1.0]), r"return labels \(N,\) of integers, got list"),
        (returning(labels=np.array([True, False])), r"return labels \(N,\) of integers, got bool \(2,\)"),
        (returning(labels=np.zeros((2, 1), int)), r"return labels \(N,\) of integers, got int64 \(2, 1\)"),
        (returning(labels=3), r"return labels \(N,\) of integers, got int"),
        (returning(masks=np.zeros(3)), r"return None as masks, got float64 \(3,\): masks come only with --mask"),
        (
            returning(boxes=[BOX] * 4, labels=[0] * 4),
            r"return at most 3 boxes \(twice the most of one image in the data\), got 4",
        ),
    ],
)
def test_an_answer_that_cannot_be_used_names_the_function_the_image_and_what_to_do(function, message):
    with pytest.raises(ValueError, match=f"^own:change must {message}.*\\(image photo 5\\)$") as error:
        answered(function)
    assert "\n" not in str(error.value)


def test_a_function_that_fails_is_named_with_its_error_and_line(folder):
    (folder / "mine.py").write_text("def change(image, boxes, labels, masks, generator):\n    return boxes[5]\n")
    with pytest.raises(
        ValueError,
        match=r"^own:change must not fail, got IndexError: index 5 .* for photo 5 \(20 x 40 pixels, 2 boxes\): mend ",
    ) as error:
        answered(load_function("mine:change"))
    assert str(error.value).endswith(f"{folder / 'mine.py'}, line 2")
    assert "\n" not in str(error.value)


def test_a_module_is_found_in_the_current_folder_and_in_packages_below_it(folder):
    (folder / "helper_of_mine.py").write_text("VALUE = 3\n")
    (folder / "mine.py").write_text(
        "from helper_of_mine import VALUE\n\ndef change(image, boxes, labels, masks, generator):\n    return VALUE\n"
    )
    (folder / "parts").mkdir()
    (folder / "parts" / "more.py").write_text(
        "class Change:\n    def __call__(self, *args): return 4\nchange = Change()\n"
    )
    before = list(sys.path)
    assert load_function("mine:change")(0, 0, 0, 0, 0) == 3
    assert load_function("parts.more:change")(0, 0, 0, 0, 0) == 4
    assert sys.path == [*before, str(folder)]  # behind all others, once


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (None, "gone:change", r"augment must name a module that is there, got 'gone:change': there is no gone in .*; run the command in"),
        ("x = 1", "mine.inner:change", "augment must name a module that is there, .*there is no mine.inner in|augment must name a module that imports"),
        ("import not_there_at_all", "mine:change", "a module that imports, got 'mine:change': ModuleNotFoundError: No module named 'not_there_at_all' in .*mine.py, line 1"),
        ("x = 1\ndef f(:\n", "mine:change", "a module that imports, got 'mine:change': SyntaxError: .* in .*mine.py, line 2"),
        ("x = 1\ny = x / 0\n", "mine:change", "a module that imports, .*ZeroDivisionError: division by zero in .*mine.py, line 2"),
        ("raise SystemExit(3)", "mine:change", "a module that imports, .*SystemExit: 3 in .*mine.py, line 1"),
        ("def change_it(*args): pass", "mine:change", r"augment must name a function of mine \(.*mine.py\), got 'mine:change': its functions are change_it"),
        ("change = 3", "mine:change", "augment must name a function of mine .*: it has none"),
        ("def change(image, boxes): pass", "mine:change", r"mine:change must take \(image, boxes, labels, masks, generator\), got \(image, boxes\): write it with"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_module_is_said_in_one_line(folder, content, name, message):
    if content is not None:
        (folder / "mine.py").write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        load_function(name)
    assert "\n" not in str(error.value)


def test_the_function_works_in_training_with_numbers_of_seed_and_sample(folder):
    (folder / "mine.py").write_text(
        "import numpy as np\n"
        "def change(image, boxes, labels, masks, generator):\n"
        "    image[:] = generator.integers(0, 256)\n"
        "    return np.tile(image, (2, 2, 1)), boxes * 2, labels, masks\n"
    )
    config = Config(data="one", augment="mine:change", input=InputConfig(short_side=60, long_side=120, flip=0.0))
    load = training_sample(marked_source(), config)
    samples = [load(0, sample, False, 1.0, 60, np.array([64, 96])) for sample in (0, 1, 0)]
    image, size, boxes, labels, _ = samples[0]
    assert size.tolist() == [60, 96]  # twice as large does not fit, so it is made smaller again
    assert boxes.tolist() == [[8, 12, 28, 44], [36, 60, 56, 92], [0, 0, 0, 0], [0, 0, 0, 0]]  # room for twice the boxes
    assert labels.tolist() == [0, 1, -1, -1]
    assert image[0, 0, 0] != samples[1][0][0, 0, 0]
    assert np.array_equal(image, samples[2][0])


def test_a_mask_beside_its_box_is_refused():
    beside = np.zeros((2, 20, 40), np.uint8)
    beside[0, :, 30:] = 1
    with pytest.raises(ValueError, match=r"own:change must return masks that lie in their boxes, got mask 0 .*photo 5"):
        answered(lambda image, boxes, labels, masks, _: (image, boxes, labels, beside), masked_picture())


def masked_picture():
    return PICTURE._replace(masks=ObjectMasks.of([[[2.0, 1, 22, 1, 22, 11, 2, 11]], None], (20, 40)))


def test_the_function_gets_masks_as_bitmaps_and_returns_them_so():
    seen = []

    def mirror(image, boxes, labels, masks, generator):
        seen.append(masks)
        boxes = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [40, 0, 40, 0]
        return image[:, ::-1], boxes, labels, masks[:, :, ::-1]

    picture = answered(mirror, masked_picture())
    assert (seen[0].dtype, seen[0].shape) == (np.uint8, (2, 20, 40))
    assert seen[0][0, 1:11, 2:22].all()
    assert not seen[0][1].any()
    assert picture.masks.exists.tolist() == [True, False]
    assert picture.masks.bitmap(0)[1:11, 18:38].all()
    assert picture.masks.areas().tolist() == [200, 0]


def test_a_function_that_forgets_the_masks_is_refused():
    with pytest.raises(
        ValueError, match=r"must return masks \(N, H, W\), got None: return those that came, moved as the image"
    ):
        answered(lambda image, boxes, labels, masks, generator: (image, boxes, labels, None), masked_picture())
    none = answered(lambda image, *_: (image, [], [], None), masked_picture())
    assert len(none.masks) == 0


@pytest.mark.parametrize("masks", [np.zeros((1, 20, 40)), np.zeros((2, 20, 39), bool), np.zeros((2, 20, 40)), "masks"])
def test_masks_of_another_size_count_or_kind_are_refused(masks):
    with pytest.raises(
        ValueError, match=r"own:change must return masks \(N, H, W\) of 0 and 1, here \(2, 20, 40\), got .*photo 5"
    ):
        answered(lambda image, boxes, labels, _, generator: (image, boxes, labels, masks), masked_picture())
