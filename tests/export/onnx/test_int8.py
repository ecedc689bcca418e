import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kfpn.config.run import Config, InputConfig
from kfpn.data.formats import open_source
from kfpn.export.calibration import calibration_pictures
from kfpn.export.onnx import write_onnx
from kfpn.export.onnx.int8 import FEWEST_IMAGES, Int8Options, calibration_inputs, evaluate_onnx, require_accuracy
from kfpn.export.onnx.onnx_runtimes import in_onnxruntime, in_openvino
from kfpn.export.onnx.verify_onnx import pictures
from kfpn.export.onnx.write_onnx import export_onnx
from kfpn.export.trained import open_trained
from kfpn.export.verify import ExportMismatch


@pytest.fixture(scope="module")
def packages():
    for package in ("onnx", "tf2onnx", "onnxruntime"):
        pytest.importorskip(package)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i, image in enumerate(pictures((FEWEST_IMAGES, 96, 128, 3), 3)):
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def files(onnx_file, tiny_workdir, photos, tmp_path_factory):
    """Returns the float32 file and the INT8 file. The float32 file that the second export begins with is the same, so it is copied."""
    options = Int8Options(str(photos), FEWEST_IMAGES, check_images=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write_onnx, "_write_verified", lambda trained, path, shape, raw: shutil.copy(onnx_file, path))
        quantized = export_onnx(tiny_workdir, tmp_path_factory.mktemp("int8") / "i8.onnx", int8=options)
    return onnx_file, quantized


def test_all_convolutions_and_products_but_the_last_ones_are_in_eight_bits(files):
    import onnx

    full, quantized = (onnx.load(str(file)).graph for file in files)
    maker_of = {output: node for node in quantized.node for output in node.output}

    def in_eight_bits(node):
        makers = [maker_of.get(name) for name in node.input[:2]]
        return all(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers)

    layers = [node for node in quantized.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    wide = [node for node in layers if not in_eight_bits(node)]
    assert not any(node.op_type == "QuantizeLinear" for node in full.node)
    assert len(wide) < len(layers) / 3
    for name in ("rpn_logits", "rpn_deltas", "head_logits", "head_deltas"):
        assert any(name in node.name for node in wide)
        assert not any(name in node.name for node in layers if node not in wide)


def test_validation_data_that_cannot_be_opened_is_named_before_any_work(packages, photos, tiny_workdir, tmp_path):
    workdir = shutil.copytree(tiny_workdir, tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps({**config, "val_data": "voc:nowhere"}))
    with pytest.raises(ValueError, match=r"validation data of the work directory must open.*--check-images 0"):
        export_onnx(workdir, tmp_path / "i8.onnx", int8=Int8Options(str(photos), FEWEST_IMAGES))
    assert not (tmp_path / "i8.onnx").exists()


def test_the_int8_file_has_the_inputs_and_outputs_of_the_full_one(files):
    import onnxruntime

    sessions = [onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]) for file in files]
    for what in ("get_inputs", "get_outputs"):
        full, quantized = ([(v.name, v.type, v.shape) for v in getattr(s, what)()] for s in sessions)
        assert full == quantized
    data = sessions[1].get_modelmeta().custom_metadata_map
    assert json.loads(data["class_names"]) == ["ant", "bee", "cat"]
    assert data["precision"] == "int8"


def score_limit():
    """Returns how much scores may differ. A CPU without VNNI adds pairs of products in 16 bits, where they saturate."""
    cpu = Path("/proc/cpuinfo")
    return 0.1 if not cpu.exists() or "vnni" in cpu.read_text() else 0.15


@pytest.mark.parametrize("load", [in_onnxruntime, in_openvino])
def test_the_int8_file_gives_nearly_the_same_scores_in_both_runtimes(files, load):
    if load is in_openvino:
        pytest.importorskip("openvino")
    images = pictures((2, 96, 128, 3), 3)
    full, quantized = (load(file)(images) for file in files)
    assert full["num_detections"].min() > 0
    np.testing.assert_allclose(quantized["scores"][:, :5], full["scores"][:, :5], atol=score_limit())
    assert not np.array_equal(quantized["scores"], full["scores"])


def test_a_file_is_measured_with_the_figures_of_coco(files, tiny_workdir):
    trained = open_trained(tiny_workdir)
    source = open_source("shapes", "validation")
    names = (*trained.class_names, *source.class_names)
    figures = evaluate_onnx(files[0], source, range(3), trained.config, names)
    assert set(figures["per_class"]) == set(source.class_names)
    assert 0.0 <= figures["AP"] <= 1.0


@pytest.mark.parametrize(("before", "after", "fails"), [(0.5, 0.4901, False), (0.5, 0.4899, True), (0.5, 0.6, False)])
def test_a_file_that_loses_more_accuracy_than_allowed_is_refused(
    files, tiny_workdir, monkeypatch, capsys, before, after, fails
):
    from kfpn.export.onnx import int8

    full, quantized = files
    monkeypatch.setattr(int8, "evaluate_onnx", lambda path, *_: {"AP": before if path == full else after})
    source = open_source("shapes", "validation")
    arguments = open_trained(tiny_workdir), source, full, quantized, Int8Options(check_images=3)
    if fails:
        with pytest.raises(ExportMismatch, match=r"at most 0\.01 AP, got 0\.5000 to 0\.4899"):
            require_accuracy(*arguments)
    else:
        require_accuracy(*arguments)
    assert f"AP {after:.4f}, float32 {before:.4f}, on 3 images" in capsys.readouterr().out


def test_a_file_whose_masks_lose_more_accuracy_than_allowed_is_refused(monkeypatch, capsys):
    from kfpn.export.onnx import int8

    figures = {"full": {"AP": 0.5, "mask_AP": 0.5}, "quantized": {"AP": 0.5, "mask_AP": 0.4}}
    monkeypatch.setattr(int8, "evaluate_onnx", lambda path, *_: figures[path])
    nine_images = type("Nine", (list,), {"name": "nine"})(range(9))
    arguments = SimpleNamespace(config=None, class_names=()), nine_images, "full", "quantized"
    with pytest.raises(ExportMismatch, match=r"at most 0\.01 mask_AP, got 0\.5000 to 0\.4000"):
        require_accuracy(*arguments, Int8Options(check_images=3))
    require_accuracy(*arguments, Int8Options(check_images=3, max_drop=0.2))
    assert "verify INT8: mask_AP 0.4000, float32 0.5000, on 3 images of nine" in capsys.readouterr().out
    figures["full"]["mask_AP"] = figures["quantized"]["mask_AP"] = None  # no object has a mask
    require_accuracy(*arguments, Int8Options(check_images=3))
    assert "mask_AP" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"calibration_images": 3}, "calibration_images must be 8 or more, got 3"),
        ({"check_images": -1}, "check_images must be 0 or more, got -1"),
        ({"max_drop": 1.5}, "max_drop must be within 0 and 1, got 1.5"),
    ],
)
def test_a_wrong_option_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        Int8Options(**options)


def test_too_few_images_are_refused(photos, tmp_path):
    for name in ("0.png", "1.png"):
        (tmp_path / name).write_bytes((photos / name).read_bytes())
    with pytest.raises(ValueError, match="at least 8 images, got 2"):
        list(calibration_inputs(_config(), Int8Options(str(tmp_path))))


def test_calibration_data_that_cannot_be_opened_is_named():
    with pytest.raises(
        ValueError, match="calibration_data must be a folder of images or a data set, got 'voc:nowhere'"
    ):
        list(calibration_inputs(_config(), Int8Options("voc:nowhere")))


def test_data_of_a_run_that_are_elsewhere_now_are_said_to_be_those_of_the_run():
    with pytest.raises(
        ValueError, match=r"'voc:nowhere'.*the run's training data; --calibration-data names other images"
    ):
        list(calibration_inputs(dataclasses.replace(_config(), data="voc:nowhere"), Int8Options()))


def test_calibration_images_are_taken_from_the_whole_folder(photos):
    first, last = calibration_pictures(str(photos), 2)
    for picture, name in ((first, "0.png"), (last, f"{FEWEST_IMAGES - 1}.png")):
        np.testing.assert_array_equal(picture, np.asarray(Image.open(photos / name)))


def test_int8_with_a_fixed_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match="int8 must go without input_shape and raw"):
        export_onnx(tmp_path, tmp_path / "x.onnx", input_shape="1x96x128x3", int8=Int8Options())


def _config():
    return Config(input=InputConfig(short_side=96, long_side=128))
