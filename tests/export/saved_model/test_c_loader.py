"""Runs an export in a C program on TensorFlow's own library: with the loader that TF Serving has, and without Python."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

SOURCE = Path(__file__).with_name("c_loader.c")
CORRUPT = b"\xff\xd8\xff\xe0 not a JPEG after all"


@pytest.fixture(scope="module")
def c_loader(tmp_path_factory):
    """Returns the compiled program, or skips the test."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc")
    home = Path(tf.__file__).parent
    libraries = [name for name in ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2") if (home / name).exists()]
    if len(libraries) < 2 or not (home / "include/tensorflow/c/c_api.h").exists():
        pytest.skip(f"needs the headers and libtensorflow_cc.so.2 of TensorFlow's wheel, which are not in {home}")
    program = tmp_path_factory.mktemp("c") / "c_loader"
    command = [compiler, "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", str(SOURCE), "-o", str(program)]
    command += [
        "-isystem",
        str(home / "include"),
        f"-L{home}",
        f"-Wl,-rpath,{home}",
        *(f"-l:{name}" for name in libraries),
    ]
    if shutil.which("ld.gold"):
        command.append("-fuse-ld=gold")  # the usual linker takes five times as long for a library of this size
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return program


def run(program, *arguments):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def files(photo, encoded, tmp_path_factory):
    """Returns a folder with two JPEGs of different sizes, the pixels of the first one, and a corrupt JPEG."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "wide.jpg").write_bytes(encoded(photo(90, 120), "JPEG", quality=95))
    (folder / "high.jpg").write_bytes(encoded(photo(100, 70, seed=1), "JPEG", quality=95))
    Image.open(folder / "wide.jpg").save(folder / "wide.ppm")
    (folder / "corrupt.jpg").write_bytes(CORRUPT)
    return folder


@pytest.fixture(scope="module")
def answers(c_loader, exported, files):
    """Returns what the program prints for five requests, one after another in one session."""
    wide, high, corrupt, pixels = (files / name for name in ("wide.jpg", "high.jpg", "corrupt.jpg", "wide.ppm"))
    requests = [["serving_default", wide, high], ["serving_default", high, corrupt], ["image_tensor", pixels]]
    requests += [["serving_default", *[wide] * 33], ["serving_default", wide]]
    arguments = [argument for request in requests for argument in ("--", *request)][1:]
    result = run(c_loader, exported, *arguments)
    assert result.returncode == 0, result.stderr[-2000:]
    return [json.loads(line) for line in result.stdout.splitlines()]


def arrays(answer):
    return {
        name: np.array(output["values"], np.float32).reshape(output["shape"])
        for name, output in answer["outputs"].items()
        if name != "errors"
    }


def test_the_c_program_has_the_outputs_that_python_has(exported, files, answers):
    pixels = tf.constant(np.asarray(Image.open(files / "wide.ppm"))[None])
    expected = tf.saved_model.load(str(exported)).signatures["image_tensor"](images=pixels)
    got = arrays(answers[2])
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name].shape == value.shape, name
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-4, err_msg=name)
    assert got["num_detections"] > 0


def test_the_c_program_has_the_same_outputs_for_a_file_in_a_batch_and_for_its_pixels(answers):
    of_files, of_pixels = arrays(answers[0]), arrays(answers[2])
    for name, value in of_pixels.items():
        assert of_files[name].shape == (2, *value.shape[1:]), name
        np.testing.assert_allclose(of_files[name][0], value[0], rtol=1e-3, atol=1e-2, err_msg=name)


def test_a_corrupt_image_fails_alone(answers):
    good, corrupt = answers[1]["outputs"]["errors"]["values"]
    assert good == ""
    assert corrupt.endswith("got a JPEG file whose header is damaged at index 1")
    got, alone = arrays(answers[1]), arrays(answers[0])
    assert got["num_detections"][1] == 0
    for name, value in got.items():
        assert not value[1].any(), name
        np.testing.assert_allclose(value[0], alone[name][1], rtol=1e-3, atol=1e-2, err_msg=name)


def test_too_many_images_are_an_invalid_argument_and_the_session_goes_on(answers):
    assert answers[3]["code"] == 3
    assert "at most 32, got 33" in answers[3]["message"][:1024]  # TF Serving cuts messages there
    assert "outputs" in answers[4]


def test_variables_that_a_server_could_not_find_are_noticed(c_loader, exported, files, tmp_path):
    shutil.copytree(exported, tmp_path / "1", ignore=shutil.ignore_patterns("variables"))
    answer = json.loads(run(c_loader, tmp_path / "1", "serving_default", files / "wide.jpg").stdout)
    assert answer["code"] == 9
    assert "Could not find variable" in answer["message"]
