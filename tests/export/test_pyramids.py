"""Checks every pyramid in SavedModel and ONNX: exports have the detections that Keras has, at even and odd sizes."""

import pytest

from kfpn.export.onnx.write_onnx import export_onnx
from kfpn.export.saved_model.verify_saved_model import verify_trained
from kfpn.export.saved_model.write_saved_model import write_signatures
from kfpn.export.trained import open_trained

OTHERS = {
    "unshared heads": {"shared_rpn": False},
    "bilinear": {"upsampling": "bilinear", "smooth_p5": False, "p6": False, "anchor_sizes": (8.0, 16.0, 32.0, 64.0)},
}
PYRAMIDS = {name: {"pyramid": name} for name in ("bottom_up", "top_down", "finest", "c4", "c5")} | OTHERS


@pytest.mark.parametrize("model", PYRAMIDS.values(), ids=PYRAMIDS)
def test_a_saved_model_has_the_detections_of_keras(model, make_workdir, tmp_path):
    trained = open_trained(make_workdir(tmp_path / "run", **model))
    write_signatures(trained, tmp_path / "served", ("image_tensor", "proposals"))
    verify_trained(trained, tmp_path / "served")


@pytest.mark.parametrize("model", [{}, *PYRAMIDS.values()], ids=["fpn", *PYRAMIDS])
@pytest.mark.parametrize("shape", [None, (1, 75, 101, 3)], ids=["any size", "75x101"])
def test_an_onnx_file_has_the_detections_of_keras(model, shape, make_workdir, tmp_path):
    for package in ("onnx", "tf2onnx", "onnxruntime"):
        pytest.importorskip(package)
    # The export itself compares the file with Keras in each installed runtime: with two image sizes and two batch sizes, or
    # with the one shape that it has.
    export_onnx(make_workdir(tmp_path / "run", **model), tmp_path / "model.onnx", input_shape=shape)
