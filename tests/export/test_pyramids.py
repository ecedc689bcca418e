"""Checks every pyramid in SavedModel and ONNX: exports have the detections that Keras has, at even and odd sizes."""

import pytest

from kfpn.export.onnx.write_onnx import export_onnx
from kfpn.export.saved_model.verify_saved_model import verify_trained
from kfpn.export.saved_model.write_saved_model import write_signatures
from kfpn.export.trained import open_trained

OTHERS = {
    "unshared heads": {"shared_rpn": False},
    "top_down, unshared heads": {"pyramid": "top_down", "shared_rpn": False},
    "bilinear": {"upsampling": "bilinear", "smooth_p5": False, "p6": False, "anchor_sizes": (8.0, 16.0, 32.0, 64.0)},
}
PYRAMIDS = {name: {"pyramid": name} for name in ("bottom_up", "top_down", "finest", "c4", "c5")} | OTHERS


FEW = ("top_down, unshared heads", "c4")
"""Pyramids whose cases are not slow: one of each kind of graph, beside fpn. That is exported by the fixtures `exported` and
`onnx_file`, and with a size of its own, as a cascade, in tests/export/test_cascade_exports.py."""


def cases(models, quick=FEW):
    """Returns the parameters of a test for each pyramid, those that are not quick marked as slow."""
    return [
        pytest.param(model, id=name, marks=() if name in quick else pytest.mark.slow) for name, model in models.items()
    ]


@pytest.mark.parametrize("model", cases(PYRAMIDS))
def test_a_saved_model_has_the_detections_of_keras(model, make_workdir, tmp_path):
    trained = open_trained(make_workdir(tmp_path / "run", **model))
    write_signatures(trained, tmp_path / "served", ("image_tensor", "proposals"))
    verify_trained(trained, tmp_path / "served")


@pytest.mark.parametrize("model", cases(PYRAMIDS, (*FEW, "finest")))
def test_an_onnx_file_of_any_size_has_the_detections_of_keras(model, make_workdir, tmp_path):
    export_and_compare(model, None, make_workdir, tmp_path)


@pytest.mark.parametrize("model", cases({"fpn": {}, **PYRAMIDS}, ("c4",)))
def test_an_onnx_file_of_75x101_has_the_detections_of_keras(model, make_workdir, tmp_path):
    export_and_compare(model, (1, 75, 101, 3), make_workdir, tmp_path)


def export_and_compare(model, shape, make_workdir, tmp_path):
    for package in ("onnx", "tf2onnx", "onnxruntime"):
        pytest.importorskip(package)
    # The export itself compares the file with Keras in each installed runtime: with two image sizes and two batch sizes, or
    # with the one shape that it has.
    export_onnx(make_workdir(tmp_path / "run", **model), tmp_path / "model.onnx", input_shape=shape)
