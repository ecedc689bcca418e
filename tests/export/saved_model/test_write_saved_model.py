import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.tools import saved_model_cli

from kfpn.evaluation.detect import detect_image
from kfpn.export.saved_model import write_saved_model as saved_model
from kfpn.export.saved_model.file_headers import READABLE
from kfpn.export.saved_model.saved_model_options import SavedModelOptions
from kfpn.export.saved_model.saved_model_options import run as run_saved_model
from kfpn.export.saved_model.serving_files import BATCHING, WARMUP, prediction_log, read_images, write_warmup
from kfpn.export.saved_model.write_saved_model import export_saved_model
from kfpn.export.trained import open_trained
from kfpn.export.verify import ExportMismatch

BARE = Path(__file__).with_name("bare.py")


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(str(exported)).signatures


def arrays(outputs):
    return {name: value.numpy() for name, value in outputs.items()}


# What a server gets from an export.


def test_every_signature_takes_any_batch_and_any_size_and_gives_float32_batch_first(signatures):
    assert set(signatures) == {"serving_default", "image_tensor", "proposals"}
    for name, signature in signatures.items():
        ((_, spec),) = signature.structured_input_signature[1].items()
        assert list(spec.shape) == ([None] if name == "serving_default" else [None, None, None, 3])
        for key, output in signature.structured_outputs.items():
            assert output.dtype == (tf.string if key == "errors" else tf.float32)
            assert output.shape.rank >= 1
            assert output.shape[0] is None


def test_outputs_are_those_of_the_object_detection_api(signatures):
    wanted = {"detection_boxes", "detection_scores", "detection_classes", "num_detections", "detection_boxes_pixels"}
    assert set(signatures["serving_default"].structured_outputs) == wanted | {"errors"}
    assert set(signatures["image_tensor"].structured_outputs) == wanted
    proposals = {"proposal_boxes", "proposal_boxes_pixels", "proposal_scores"}
    assert set(signatures["proposals"].structured_outputs) == proposals


def test_files_of_all_sizes_in_one_batch_have_the_detections_that_predict_has_for_each(
    signatures, trained, reference, photo, encoded
):
    # The first two images are not resized. The third becomes half as large, and is rounded as Pillow rounds.
    images = [photo(96, 128), photo(128, 96, seed=1), photo(192, 256, seed=2)]
    outputs = arrays(signatures["serving_default"](image_bytes=tf.constant([encoded(image) for image in images])))

    def model(inputs):
        return reference.run({**inputs, "images": tf.cast(inputs["images"], tf.float32)})[0]

    for i, image in enumerate(images):
        expected = detect_image(model, image, trained.config.input)
        count = len(expected["scores"])
        assert outputs["num_detections"][i] == count > 0
        np.testing.assert_allclose(outputs["detection_scores"][i, :count], expected["scores"], atol=1e-4)
        np.testing.assert_allclose(outputs["detection_boxes_pixels"][i, :count], expected["boxes"], atol=0.01)
        normalised = expected["boxes"] / np.tile(image.shape[:2], 2)
        np.testing.assert_allclose(outputs["detection_boxes"][i, :count], normalised, atol=1e-4)
        ids = np.array(trained.category_ids)[expected["labels"]]
        np.testing.assert_array_equal(outputs["detection_classes"][i, :count], ids)


def test_pixels_have_the_outputs_of_their_files_with_any_batch_size(signatures, photo, encoded):
    images = [photo(120, 100, seed) for seed in range(3)]
    files = arrays(signatures["serving_default"](image_bytes=tf.constant([encoded(image) for image in images])))
    for batch in (images, images[:1]):
        pixels = arrays(signatures["image_tensor"](images=tf.constant(np.stack(batch))))
        for name, value in pixels.items():
            np.testing.assert_allclose(value, files[name][: len(batch)], atol=1e-3, err_msg=name)


def test_proposals_lie_in_the_given_image_best_first(signatures, photo):
    outputs = arrays(signatures["proposals"](images=tf.constant(photo(150, 128)[None])))
    boxes, scores = outputs["proposal_boxes"], outputs["proposal_scores"]
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    np.testing.assert_allclose(outputs["proposal_boxes_pixels"], boxes * [150, 128, 150, 128], atol=1e-3)
    assert (np.diff(scores[0]) <= 0).all()
    assert 0 < scores[0, 0] < 1


@pytest.mark.parametrize("bad", [b"", b"no image", "cut", "cut png"])
def test_a_damaged_image_has_an_empty_row_and_the_others_are_answered(signatures, photo, encoded, bad):
    good = encoded(photo(96, 128), "JPEG")
    bad = {"cut": good[: len(good) // 2], "cut png": encoded(photo(96, 128))[:300]}.get(bad, bad)
    detect = signatures["serving_default"]
    mixed, alone = detect(image_bytes=tf.constant([bad, good, bad])), detect(image_bytes=tf.constant([good]))
    errors = [error.decode() for error in mixed.pop("errors").numpy()]
    assert [error.split(", got ")[0] for error in errors] == [
        f"image_bytes must be {READABLE}",
        "",
        f"image_bytes must be {READABLE}",
    ]
    assert [error[-8:] for error in errors] == [" index 0", "", " index 2"]
    for name, value in arrays(mixed).items():
        assert not value[[0, 2]].any(), name
        np.testing.assert_array_equal(value[1], alone[name][0], err_msg=name)
    assert mixed["num_detections"][1] > 0


def test_a_request_of_bad_images_alone_is_answered(signatures):
    outputs = arrays(signatures["serving_default"](image_bytes=tf.constant([b"", b"RIFF....WEBP"])))
    assert [error.decode().split(", got ")[1] for error in outputs.pop("errors")] == [
        "an empty file at index 0",
        "a WebP file at index 1",
    ]
    for name, value in outputs.items():
        assert len(value) == 2, name
        assert not value.any(), name


@pytest.mark.parametrize("count", [0, 33])
def test_an_empty_request_and_one_of_too_many_images_are_refused(signatures, encoded, photo, count):
    message = f"must hold at least one image and at most 32, got {count}"
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"image_bytes {message}"):
        signatures["serving_default"](image_bytes=tf.constant([encoded(photo(9, 9))] * count, tf.string))
    for name in ("image_tensor", "proposals"):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"images {message}"):
            signatures[name](images=tf.zeros((count, 9, 9, 3), tf.uint8))


def test_saved_model_cli_runs_it_without_kfpn_and_keras(signatures, exported, photo, encoded, tmp_path):
    files = np.array([encoded(photo(96, 128)), encoded(photo(70, 50), "JPEG")], object)
    np.save(tmp_path / "files.npy", files)
    command = [sys.executable, "-I", str(BARE), saved_model_cli.__file__, "run", "--dir", str(exported)]
    command += ["--tag_set", "serve", "--signature_def", "serving_default", "--outdir", str(tmp_path)]
    command += ["--inputs", f"image_bytes={tmp_path / 'files.npy'}"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    outputs = signatures["serving_default"](image_bytes=tf.constant(list(files)))
    errors = np.load(tmp_path / "errors.npy", allow_pickle=True)
    assert errors.tolist() == outputs.pop("errors").numpy().tolist()
    for name, value in outputs.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), value, atol=1e-3, err_msg=name)


def test_the_assets_hold_the_class_names(exported):
    classes = json.loads((exported / "assets" / "classes.json").read_text())
    assert classes == {"class_names": ["ant", "bee", "cat"], "category_ids": [3, 7, 18]}


# How an export is written.


def test_an_export_that_fails_half_way_leaves_nothing(tiny_workdir, tmp_path, monkeypatch):
    def half(_trained, path, *_):
        path.mkdir(parents=True)
        (path / "saved_model.pb").write_text("half")
        raise RuntimeError("disk full")

    monkeypatch.setattr(saved_model, "write_signatures", half)
    with pytest.raises(RuntimeError, match="disk full"):
        export_saved_model(tiny_workdir, tmp_path / "served")
    assert os.listdir(tmp_path / "served") == []


def test_a_full_disk_is_an_error_that_leaves_nothing(tiny_workdir, tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise tf.errors.ResourceExhaustedError(None, None, "variables; No space left on device")

    # Not tf.saved_model.save: Keras' first export in a process imports that module anew.
    monkeypatch.setattr(type(keras.export.ExportArchive()), "write_out", full)
    with pytest.raises(ValueError, match="must have room for a SavedModel, got No space left on device"):
        export_saved_model(tiny_workdir, tmp_path / "served", signatures=("proposals",))
    assert os.listdir(tmp_path / "served") == []


def test_every_variable_is_stored_once_and_none_is_missing(exported, trained):
    stored = tf.train.list_variables(str(exported / "variables" / "variables"))
    shapes = sorted(tuple(shape) for name, shape in stored if name != "_CHECKPOINTABLE_OBJECT_GRAPH")
    assert shapes == sorted(tuple(variable.shape) for variable in trained.submodels.weights_model.variables)


def test_without_xla_nothing_is_compiled_and_with_it_the_network_is(trained):
    pixels = tf.TensorSpec((None, None, None, 3), tf.uint8)

    def compiled(xla):
        function = tf.function(saved_model.ServedDetector(trained, xla).detect_pixels, autograph=False)
        library = function.get_concrete_function(pixels).graph.as_graph_def().library.function
        kinds = {node.op for inner in library for node in inner.node_def}
        return sum(inner.attr["_XlaMustCompile"].b for inner in library), "SparseMatrixMatMul" in kinds

    assert compiled(False) == (0, True)
    assert compiled(True) == (2, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"signatures": ("image_bytes", "masks")}, "signatures must be some of image_bytes, .*, got masks"),
        ({"signatures": ()}, "signatures must be some of .*, got none"),
        ({"warmup_batch_sizes": (1, 0)}, r"warmup_batch_sizes must be integers of at least 1, got \(1, 0\)"),
        ({"warmup": ("absent.jpg",)}, "absent.jpg must be an image file that can be read, got No such file"),
        (
            {"warmup": (__file__,)},
            "test_write_saved_model.py must be one of JPEG, PNG, GIF .* got bytes that begin with 69 6d",
        ),
        ({"warmup_batch_sizes": (1, 33)}, "warmup_batch_sizes must be at most max_images, 32, got 33"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(tiny_workdir, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export_saved_model(tiny_workdir, tmp_path / "served", **options)
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_and_a_missing_run_are_refused(tiny_workdir, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file must be a folder, got a file"):
        export_saved_model(tiny_workdir, tmp_path / "file")
    with pytest.raises(ValueError, match="must lie in a folder that can be written"):
        export_saved_model(tiny_workdir, tmp_path / "file" / "served")
    with pytest.raises(ValueError, match=r"workdir must be a folder, .* does not exist"):
        export_saved_model(tmp_path / "absent", tmp_path / "served")
    assert os.listdir(tmp_path) == ["file"]


def test_the_command_makes_the_next_version_with_warm_up_and_batching(
    tiny_workdir, tmp_path, photo, encoded, monkeypatch, capsys
):
    monkeypatch.setattr(saved_model, "write_signatures", lambda _trained, path, *_: path.mkdir(parents=True))
    served = tmp_path / "served"
    (served / "4").mkdir(parents=True)
    (tmp_path / "photo.png").write_bytes(encoded(photo(50, 40)))
    options = {"signatures": ("image_bytes", "proposals"), "warmup": (str(tmp_path / "photo.png"),), "batching": True}
    assert run_saved_model(SavedModelOptions(str(tiny_workdir), str(served), warmup_batch_sizes=(1, 2), **options)) == 0
    assert "signatures serving_default, proposals\n" in capsys.readouterr().out
    assert sorted(os.listdir(served)) == ["4", "5", BATCHING]
    assert len(list(tf.data.TFRecordDataset(str(served / "5" / WARMUP)))) == 4


def test_outputs_are_float32_in_mixed_precision_too(tiny_workdir):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        detector = saved_model.ServedDetector(open_trained(tiny_workdir))
        pixels = tf.TensorSpec((None, None, None, 3), tf.uint8)
        for function in (detector.detect_pixels, detector.propose_in_pixels):
            traced = tf.function(function, autograph=False).get_concrete_function(pixels)
            assert {output.dtype for output in traced.structured_outputs.values()} == {tf.float32}
        assert detector.submodels.features.compute_dtype == "bfloat16"
    finally:
        keras.config.set_dtype_policy(before)


def test_a_version_that_fails_the_check_is_not_kept_and_the_command_ends_with_1(
    tiny_workdir, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(saved_model, "write_signatures", lambda _trained, path, *_: path.mkdir(parents=True))

    def differs(*_):
        raise ExportMismatch("proposals must give")

    monkeypatch.setattr(saved_model, "verify_trained", differs)
    assert run_saved_model(SavedModelOptions(str(tiny_workdir), str(tmp_path / "served"), verify=True)) == 1
    assert capsys.readouterr().err == "kfpn: error: proposals must give\n"
    assert os.listdir(tmp_path / "served") == []


# The files that stand beside the model.


def test_warm_up_requests_are_prediction_logs(photo, encoded, tmp_path):
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", reason="needs tensorflow-serving-api")
    (tmp_path / "photo.jpg").write_bytes(encoded(photo(30, 40), "JPEG"))
    images = read_images([tmp_path / "photo.jpg"])
    write_warmup(tmp_path / "1", images, ("serving_default", "proposals"), (1, 3), "cars")
    requests = []
    for record in tf.data.TFRecordDataset(str(tmp_path / "1" / WARMUP)):
        request = logs.PredictionLog.FromString(record.numpy()).predict_log.request
        assert request.model_spec.name == "cars"
        ((name, tensor),) = request.inputs.items()
        requests.append((request.model_spec.signature_name, name, tf.make_ndarray(tensor)))
    assert [(signature, name, value.shape) for signature, name, value in requests] == [
        ("serving_default", "image_bytes", (1,)),
        ("serving_default", "image_bytes", (3,)),
        ("proposals", "images", (1, 30, 40, 3)),
        ("proposals", "images", (3, 30, 40, 3)),
    ]
    assert set(requests[1][2]) == {images[0][0]}
    np.testing.assert_array_equal(requests[3][2][2], images[0][1])


def test_a_warm_up_longer_than_a_server_reads_is_refused(tmp_path):
    with pytest.raises(ValueError, match="warmup must make at most 1000 requests, got 1002"):
        write_warmup(tmp_path, [(b"", np.zeros((1, 1, 3), np.uint8))] * 334, ("proposals",), (1, 2, 4), "m")
    assert os.listdir(tmp_path) == []


def test_a_prediction_log_has_the_bytes_of_its_protocol_buffer():
    log = prediction_log("m", "s", "x", np.array([7], np.uint8))
    tensor = tf.make_tensor_proto(np.array([7], np.uint8)).SerializeToString()
    inputs = b"\x0a\x01x\x12" + bytes([len(tensor)]) + tensor
    request = b"\x0a\x06\x0a\x01m\x1a\x01s\x12" + bytes([len(inputs)]) + inputs
    assert log == b"\x32" + bytes([len(request) + 2]) + b"\x0a" + bytes([len(request)]) + request
