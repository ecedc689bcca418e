"""Checks that files that another version of Keras wrote, in an environment of its own, keep working."""

import json
import os
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

import kfpn
from kfpn.cli import main

OTHER = "KFPN_OTHER_PYTHON"
"""Variable of the environment: the interpreter of an environment with kfpn and another Keras; .ci/run has the oldest one."""
ROOT = Path(__file__).resolve().parents[2]
WRITE = """
import sys
import keras, numpy as np, kfpn
from kfpn.cli import main

model = kfpn.build_detector(3, "resnet18", backbone_width=4, norm="bn", pyramid_channels=8, head_width=16, padded=True, sampling_ratio=0)
image = np.random.default_rng(1).integers(0, 256, (1, 64, 96, 3)).astype("float32")
detections = model({"images": image, "image_sizes": np.array([[60, 90]], "int32")}, training=False)
np.savez("detections.npz", image=image, **{name: np.array(value) for name, value in detections.items()})
model.save("detector.keras")
open("keras.txt", "w").write(keras.__version__)
small = "--model.backbone-width 8 --model.pyramid-channels 16 --model.head-width 32 --samples 0 --no-jit-compile --no-report"
data = "--data shapes,test[:8] --val-data shapes,validation[:4] --steps 2 --batch-size 2 --strategy one_device"
sys.exit(main(["train", "--preset", "shapes", *small.split(), *data.split(), "--workdir", "run"]))
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Returns a folder in which the other Keras saved a detector, its detections, and a run."""
    if OTHER not in os.environ:
        pytest.skip(f"needs another Keras: {OTHER}=ENVIRONMENT/bin/python pytest tests/legacy")
    folder = tmp_path_factory.mktemp("other")
    done = subprocess.run(
        [os.environ[OTHER], "-c", WRITE],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "keras.txt").read_text() != keras.__version__
    return folder


def test_a_detector_that_another_keras_saved_has_the_same_detections(written):
    kfpn.build_detector  # noqa: B018 - imports the layers, which Keras then knows
    model = keras.models.load_model(written / "detector.keras")
    with np.load(written / "detections.npz") as expected:
        sizes = np.array([[60, 90]], "int32")
        detections = model({"images": expected["image"], "image_sizes": sizes}, training=False)
        assert set(detections) == set(expected.files) - {"image"}
        assert expected["num_detections"][0] > 0
        for name in detections:
            np.testing.assert_allclose(np.array(detections[name]), expected[name], atol=1e-4, err_msg=name)


def test_a_work_directory_of_another_keras_evaluates_to_its_figures_and_exports(written, tmp_path):
    figures = tmp_path / "figures.json"
    assert main(["evaluate", "--workdir", str(written / "run"), "--json", str(figures)]) == 0
    final = json.loads((written / "run" / "final.json").read_text())
    for name in ("AP", "AP50", "AR100"):
        assert json.loads(figures.read_text())[name] == pytest.approx(final[name], abs=1e-3)
    served = ["export", "saved_model", str(written / "run"), str(tmp_path / "served")]
    assert main([*served, "--signatures", "image_tensor", "--verify"]) == 0
