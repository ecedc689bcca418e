import subprocess
import sys

import numpy as np
import pytest

from kfpn.export.benchmark import model_precision
from kfpn.export.benchmark.race import Contestant, benchmark, benchmark_table, contestants, gigaflops_of, race
from kfpn.export.measure import gigaflops


def test_the_files_of_a_target_decide_its_runtimes(tmp_path, tiny_workdir):
    for version in ("2", "10"):
        (tmp_path / "served" / version).mkdir(parents=True)
        (tmp_path / "served" / version / "saved_model.pb").touch()
    (tmp_path / "m.onnx").touch()
    models = contestants([str(tiny_workdir), str(tmp_path / "served"), str(tmp_path / "m.onnx")])
    assert [(model.runtime, model.path.name) for model in models] == [
        ("Keras (XLA)", "run"),
        ("SavedModel", "10"),
        ("ONNX Runtime", "m.onnx"),
        ("OpenVINO", "m.onnx"),
    ]


def test_work_directories_and_openvino_have_a_row_for_each_precision_and_a_file_of_eight_bits_says_so(
    tmp_path, tiny_workdir, monkeypatch
):
    (tmp_path / "m.onnx").touch()
    entry = b"\x72\x11" + b"\x0a\x09precision" + b"\x12\x04int8"  # as protobuf writes metadata_props
    (tmp_path / "int8.onnx").write_bytes(entry)
    targets = [str(tiny_workdir), str(tmp_path / "m.onnx"), str(tmp_path / "int8.onnx")]
    rows = [(model.runtime, model.precision) for model in contestants(targets, ("float32", "bfloat16"))]
    assert rows == [
        ("Keras (XLA)", "float32"),
        ("Keras (no XLA)", "bfloat16"),
        ("ONNX Runtime", "float32"),
        ("OpenVINO", "float32"),
        ("OpenVINO", "bfloat16"),
        ("ONNX Runtime", "int8"),
        ("OpenVINO", "int8"),
    ]
    for fast, precisions in ((True, ("float32", "bfloat16")), (False, ("float32",))):
        monkeypatch.setattr(model_precision, "has_fast_bfloat16", lambda fast=fast: fast)
        assert model_precision.precisions_of("auto") == precisions
        assert model_precision.precisions_of("bfloat16") == ("bfloat16",)


@pytest.mark.parametrize("name", ["nothing", "empty", "m.txt"])
def test_a_target_that_is_no_model_is_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "m.txt").touch()
    with pytest.raises(ValueError, match=rf"{name} must be a work directory, a SavedModel's folder or an \.onnx file"):
        contestants([str(tmp_path / name)])


def test_a_detector_is_timed_as_often_as_asked_and_the_table_says_why_a_broken_one_failed(tmp_path, tiny_workdir):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"no graph")
    result = benchmark([str(tiny_workdir), str(broken)], (64, 96), 3, precision="float32")
    good, bad = result["contestants"]
    assert len(good.seconds) == 3
    assert min(good.seconds) > 0.0
    assert good.memory > 1e8
    assert good.gflop > 0.0
    assert bad.seconds == []
    assert bad.fault
    text = benchmark_table(result["contestants"], result["peak"])
    assert f"| {broken} | SavedModel | float32 | could not run: " in text
    assert text.splitlines()[2].startswith(f"| {tiny_workdir} | Keras (XLA) | float32 | ")


def test_a_work_directory_is_timed_in_bfloat16_by_kernels_of_tensorflow(tiny_workdir):
    result = benchmark([str(tiny_workdir)], (64, 96), 1, precision="bfloat16")
    (model,) = result["contestants"]
    assert model.fault == ""
    assert len(model.seconds) == 1
    assert model.gflop > 0.0
    assert " | Keras (no XLA) | bfloat16 | " in benchmark_table([model], result["peak"])


def test_the_table_names_a_missing_package_and_no_process_is_started(tmp_path):
    model = Contestant("m", "OpenVINO", tmp_path / "m.onnx", fault="openvino is not installed: pip install openvino")
    race([model], np.zeros((32, 32, 3), np.uint8), 1, progress=False)
    assert benchmark_table([model], 1.0).endswith(
        "could not run: openvino is not installed: pip install openvino | | | | |"
    )


def test_each_multiplication_and_each_addition_is_an_operation():
    tf = pytest.importorskip("tensorflow")
    x, kernel, matrix = tf.ones((1, 8, 8, 3)), tf.ones((3, 3, 3, 5)), tf.ones((5, 7))

    @tf.function
    def function():
        return tf.reshape(tf.nn.conv2d(x, kernel, 2, "SAME"), (-1, 5)) @ matrix

    assert gigaflops(function.get_concrete_function()) == pytest.approx(2e-9 * (4 * 4 * 5 * 3 * 3 * 3 + 4 * 4 * 5 * 7))


def test_the_memory_of_a_model_does_not_include_that_of_the_process_that_starts_it():
    held = np.ones(300_000_000, np.int8)
    script = "from kfpn.export.benchmark.runners import peak_memory; print(peak_memory())"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert 1_000_000 < int(printed) < held.nbytes


def test_the_operations_of_the_mask_head_count(tiny_workdir, mask_workdir):
    # Six detections; 32 channels become 8. The deconvolution gives each of 14 x 14 cells four cells.
    convolutions = 14 * 14 * 9 * (32 * 8 + 3 * 8 * 8)
    of_masks = 2e-9 * 6 * (convolutions + 14 * 14 * 4 * 8 * 8 + 28 * 28 * 8 * 3)
    without, with_masks = (gigaflops_of(workdir, (96, 128)) for workdir in (tiny_workdir, mask_workdir))
    assert with_masks - without == pytest.approx(of_masks, rel=1e-6)
