import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import ExifTags, Image

from kfpn.cli import command_line as cli
from kfpn.config.presets import preset
from kfpn.config.run import Config
from kfpn.inference import inspect_pyramid as pyramid_maps
from kfpn.inference.inspect_pyramid import model_with_intermediates, page_paths, view_image, visualize_images
from kfpn.modeling.backbones import frozen_layers
from kfpn.modeling.detector import inference_model
from kfpn.modeling.heads import box
from kfpn.modeling.layers import SharedLayers
from kfpn.modeling.rpn import rpn_head
from kfpn.modeling.submodels import Submodels, build_submodels
from kfpn.modeling.units import Units
from kfpn.runs.workdir import Workdir
from tests.modeling import tiny

NAMES = ("ant", "bee", "cat")


def run_config(short_side=96, long_side=160, **model) -> Config:
    config = preset("shapes")
    size = dataclasses.replace(config.input, short_side=short_side, long_side=long_side)
    return dataclasses.replace(config, model=tiny.config(**model), input=size)


def averaging(config) -> Submodels:
    """Returns submodels whose levels are the mean of the image in each cell, and whose RPN logits are its red channel."""
    layers = SharedLayers(frozen_layers(config))
    x = images = keras.Input((None, None, 3))
    stages = {}
    for number in (2, 3, 4, 5, 6):
        step = 4 if number == 2 else 2
        x = keras.layers.AveragePooling2D(step, name="P6" if number == 6 else f"C{number}")(x)
        stages[f"P{number}"] = x
    rpn = rpn_head(config, 3)
    for variable in rpn.variables:
        variable.assign(np.zeros(variable.shape))
    by_path = {variable.path: variable for variable in rpn.variables}
    kernel = np.zeros((3, 3, 3, 3))
    kernel[1, 1, 0, 0] = 1.0
    by_path["rpn_conv/kernel"].assign(kernel)
    to_logits = by_path["rpn_logits/kernel"]
    weights = np.zeros(to_logits.shape)
    weights[..., 0, :] = 1 / 255
    to_logits.assign(weights)
    features = keras.Model(images, stages)
    return Submodels(features, features, rpn, {"box": box.build(config, 3, layers, Units)}, rpn)


@pytest.fixture(scope="module")
def averaged():
    config = run_config(128, 192)
    return model_with_intermediates(averaging(config.model), config.model), config


def test_a_bright_spot_is_the_maximum_in_its_cell_of_every_level(averaged):
    model, config = averaged
    image = np.zeros((128, 192, 3), np.uint8)
    image[40:44, 100:104] = 255
    view = view_image(model, config, image, NAMES)
    assert view.image.shape == (128, 192, 3)
    assert [one.name for one in view.stages] == ["C2", "C3", "C4", "C5"]
    assert [one.name for one in view.levels] == ["P2", "P3", "P4", "P5", "P6"]
    for one in (*view.stages, *view.levels):
        assert one.strength.shape == (128 // one.stride, 192 // one.stride)
        assert np.unravel_index(one.strength.argmax(), one.strength.shape) == (40 // one.stride, 100 // one.stride)
        share = (4 / one.stride) ** 2  # the part of the cell's pixels that are white
        assert one.strength.max() == pytest.approx(255 * np.sqrt(3) * share, rel=1e-5)
    for one in view.objectness:
        at = (40 // one.stride, 100 // one.stride)
        assert np.unravel_index(one.probability.argmax(), one.probability.shape) == at
        assert one.probability[at] == pytest.approx(1 / (1 + np.exp(-((4 / one.stride) ** 2))), rel=1e-5)
        assert one.probability.min() == pytest.approx(0.5)


def test_the_anchor_sizes_of_a_single_level_have_a_map_each():
    config = run_config(pyramid="finest", anchor_sizes=(8.0, 16.0, 32.0))
    submodels = build_submodels(config.model)
    for variable in submodels.rpn.variables:
        variable.assign(np.zeros(variable.shape))
    (bias,) = [variable for variable in submodels.rpn.variables if variable.path == "rpn_logits/bias"]
    bias.assign([0, 1, 2, 5, 4, 3, -3, -2, -4])  # three ratios of the first size, then of the second, then of the third
    view = view_image(model_with_intermediates(submodels, config.model), config, tiny.image(96, 96), NAMES)
    assert [(one.level, one.size) for one in view.objectness] == [("P2", 8.0), ("P2", 16.0), ("P2", 32.0)]
    for one, best in zip(view.objectness, (2, 5, -2), strict=True):
        np.testing.assert_allclose(one.probability, np.full((24, 24), 1 / (1 + np.exp(-best))), rtol=1e-5)


CASES = {
    "fpn": (["C2", "C3", "C4", "C5"], ["P2", "P3", "P4", "P5", "P6"], ["P2", "P3", "P4", "P5"]),
    "bottom_up": (["C2", "C3", "C4", "C5"], ["P2", "P3", "P4", "P5", "P6"], ["P2", "P3", "P4", "P5"]),
    "top_down": (["C2", "C3", "C4", "C5"], ["P2", "P3", "P4", "P5", "P6"], ["P2", "P3", "P4", "P5"]),
    "finest": (["C2", "C3", "C4", "C5"], ["P2"], ["P2"]),
    "c4": (["C2", "C3", "C4"], [], ["C4"]),
    "c5": (["C2", "C3", "C4", "C5"], [], ["C5"]),
}


@pytest.mark.parametrize("pyramid", CASES)
def test_every_pyramid_has_a_page_with_its_stages_levels_and_rois(tmp_path, pyramid):
    config = run_config(pyramid=pyramid, canonical_size=12.0, score_threshold=0.05)
    keras.utils.set_random_seed(0)
    submodels = build_submodels(config.model)
    tiny.shake(submodels.weights_model)
    image = tiny.image(40, 33)
    view = view_image(model_with_intermediates(submodels, config.model), config, image, NAMES)
    stages, levels, pooled = CASES[pyramid]
    assert ([one.name for one in view.stages], [one.name for one in view.levels]) == (stages, levels)
    assert list(view.pooled) == pooled
    height, width = view.image.shape[:2]
    assert (height, width) == (116, 96)
    for one in (*view.stages, *view.levels):
        assert one.strength.shape == (-(-height // one.stride), -(-width // one.stride))
        assert np.isfinite(one.strength).all()
    assert [one.size for one in view.objectness] == [8.0, 16.0, 32.0, 64.0, 128.0]
    assert [one.level for one in view.objectness] == (levels if len(levels) > 1 else pooled * 5)

    assert 0 < len(view.rois) == len(view.roi_scores) == len(view.roi_levels)
    assert (np.diff(view.roi_scores) <= 0).all()
    if len(pooled) == 1:
        expected = np.full(len(view.rois), int(pooled[0][1:]))
    else:  # equation 1 of the paper
        area = (view.rois[:, 2] - view.rois[:, 0]) * (view.rois[:, 3] - view.rois[:, 1])
        expected = np.clip(np.floor(4 + np.log2(np.sqrt(area) / 12.0)), 2, 5)
        assert len(set(expected)) > 1
    np.testing.assert_array_equal(view.roi_levels, expected)

    detections = tiny.detect(inference_model(submodels, config.model), view.image[None].astype("float32"))
    count = int(detections["num_detections"][0])
    np.testing.assert_allclose(view.boxes, detections["boxes"][0, :count], atol=1e-3)
    np.testing.assert_array_equal(view.labels, detections["labels"][0, :count])

    pyramid_maps.draw_page(view, tmp_path / "page.png")
    assert Image.open(tmp_path / "page.png").size[0] == 2000


# ------------------------------------------------------------------------------------------------ files


@pytest.fixture
def pages_of(averaged, monkeypatch):
    """Returns the function (paths of image files) -> (views that the pages would show, paths that failed)."""
    model, config = averaged
    monkeypatch.setattr(pyramid_maps, "model_with_intermediates", lambda submodels, model_config: model)

    def run(paths):
        views = {}
        monkeypatch.setattr(pyramid_maps, "draw_page", lambda view, page, *options: views.update({page: view}))
        failed = visualize_images(None, config, NAMES, {path: path.with_suffix(".out") for path in paths})
        return [views.get(path.with_suffix(".out")) for path in paths], failed

    return run


def test_large_small_and_turned_images_are_shown_as_the_run_resizes_them(tmp_path, pages_of):
    paths = [tmp_path / name for name in ("large.png", "small.png", "turned.jpg")]
    Image.new("RGB", (3000, 2000), "white").save(paths[0])
    Image.new("L", (40, 33), "white").save(paths[1])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (300, 200), "white").save(paths[2], exif=exif)
    views, failed = pages_of(paths)
    assert failed == []
    assert [view.image.shape for view in views] == [(128, 192, 3), (128, 155, 3), (192, 128, 3)]


def test_images_that_cannot_be_read_are_named_and_the_others_are_shown(tmp_path, pages_of, capsys):
    paths = [tmp_path / name for name in ("missing.png", "text.png", "good.png")]
    paths[1].write_text("no image")
    Image.new("RGB", (64, 64)).save(paths[2])
    views, failed = pages_of(paths)
    assert [view is not None for view in views] == [False, False, True]
    assert failed == paths[:2]
    errors = capsys.readouterr().err
    assert f"kfpn: error: {paths[0]}: does not exist" in errors
    assert f"kfpn: error: {paths[1]}: is not an image" in errors


def test_pages_in_a_folder_overwrite_neither_each_other_nor_an_image(tmp_path):
    images = [tmp_path / name for name in ("a.jpg", "b/a.jpg", "a_pyramid.png")]
    pages = page_paths(images, str(tmp_path))
    names = ["a_pyramid-2.png", "a_pyramid-3.png", "a_pyramid_pyramid.png"]
    assert pages == dict(zip(images, [tmp_path / name for name in names], strict=True))
    assert page_paths(images[:1], str(tmp_path / "new" / "folder")) == {
        images[0]: tmp_path / "new" / "folder" / "a_pyramid.png"
    }
    assert (tmp_path / "new" / "folder").is_dir()


def test_the_page_of_one_image_can_be_named(tmp_path):
    image, page = tmp_path / "a.jpg", tmp_path / "page.JPG"
    assert page_paths([image], str(page)) == {image: page}


@pytest.mark.parametrize(
    ("count", "output", "message"),
    [
        (2, "page.png", r"output must be a folder for 2 images, got the file '.*page.png'"),
        (1, "0.png", r"output must not be the image itself, got"),
        (1, "nope/page.png", r"output must lie in a folder that is there, got"),
        (1, "page.gif", r"output must be a folder, or a file that ends with .png, .jpg, .jpeg, got"),
        (1, "file/pages", r"output must be a folder that can be written, got"),
        (1, "file", r"output must be a folder that can be written, got .*: it is a file"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(tmp_path, count, output, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=message):
        page_paths([tmp_path / f"{number}.png" for number in range(count)], str(tmp_path / output))


# ------------------------------------------------------------------------------------------------ command line


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    config = run_config()
    files = Workdir(tmp_path_factory.mktemp("run"))
    files.prepare(config, NAMES, (1, 2, 3), "by hand")
    files.save_weights(build_submodels(config.model).weights_model)
    return files.path


def test_the_command_writes_one_page_for_each_image(workdir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(tiny.image(40, 33)).save("photo.jpg")
    assert cli.main(["visualize", "--workdir", str(workdir), "photo.jpg", "missing.jpg"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "photo.jpg -> photo_pyramid.png\n"
    assert "kfpn: error: missing.jpg: does not exist" in printed.err
    with Image.open("photo_pyramid.png") as page:
        assert page.size[0] == 2000


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["x.png", "--workdir", "nope"], "workdir must be a folder, got 'nope', which does not exist"),
        (["--workdir", "RUN"], "images must name at least one file, got none"),
        (["x.png", "--workdir", "RUN", "--min-score", "2"], "min_score must lie in 0..1, got 2.0"),
        (["x.png", "--workdir", "RUN", "--proposals", "-1"], "proposals must be an integer of at least 0, got -1"),
        (["x.png", "--workdir", "RUN", "--output", "x.png"], "output must not be the image itself, got 'x.png'"),
    ],
)
def test_the_error_for_a_bad_option_is_one_line(workdir, tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("x.png")
    assert cli.main(["visualize", *(str(workdir) if word == "RUN" else word for word in args)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
