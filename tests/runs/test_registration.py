import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import kfpn
from kfpn.weights.built_detector import built_settings
from tests.modeling import tiny

ROOT = Path(__file__).resolve().parents[2]


def python(code, *path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), str(ROOT)]), "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def stand_in(tmp_path):
    """Returns a folder with a package `keras` that says when it is imported."""
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "__init__.py").write_text("print('keras', __loader__.get_filename('keras') == __file__)\n")
    return tmp_path


WATCHED = "import sys, kfpn.runs.registration as r; r.register_layers = lambda: print('layers');"
CLEAN = "import keras; print(type(keras.__loader__).__name__, keras.__spec__.loader is keras.__loader__, len(sys.meta_path));"


def test_layers_are_registered_once_keras_is_imported_after_kfpn(stand_in):
    said = python(
        f"{WATCHED} n = len(sys.meta_path); import keras; import kfpn, keras; print(n); {CLEAN}", stand_in
    ).split()
    assert said[:3] == ["keras", "True", "layers"]
    assert said.count("layers") == 1
    assert said[4:6] == ["SourceFileLoader", "True"]
    assert int(said[6]) == int(said[3]) - 1  # the finder has gone


def test_an_import_of_keras_that_fails_can_be_tried_again(stand_in):
    (stand_in / "keras" / "__init__.py").write_text(
        "import sys\nif not hasattr(sys, 'second'): raise ImportError('jax')\n"
    )
    code = f"{WATCHED}\ntry:\n    import keras\nexcept ImportError as e:\n    print(e)\nsys.second = 1\nimport keras"
    assert python(code, stand_in).split() == ["jax", "layers"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "det.keras"
    model = kfpn.build_detector(backbone="resnet18", norm="gn", class_names=["猫", "dog"], **tiny.SETTINGS)
    model.input_config = kfpn.InputConfig(short_side=64, long_side=96, scale_jitter=(0.5, 1.0))
    model.save(path)
    kfpn.trainable(model, roi_batch=64).save(path.with_name("model.keras"))
    return path, model


def test_names_and_the_rule_of_resizing_travel_with_the_file(saved):
    path, model = saved
    loaded = keras.models.load_model(path)
    assert (loaded.class_names, loaded.category_ids) == (("猫", "dog"), (1, 2))
    assert loaded.input_config == model.input_config
    assert built_settings(loaded)["pixel_mean"] == built_settings(model)["pixel_mean"]
    image = tiny.image(50, 70)
    one, other = (kfpn.predict(detector, image, min_score=0)[0] for detector in (model, loaded))
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert set(one.names) <= {"猫", "dog"}


def test_a_file_names_classes_of_kfpn_alone(saved):
    with zipfile.ZipFile(saved[0]) as file:
        config = file.read("config.json").decode()
    assert '"kfpn>DetectorModel"' in config


@pytest.mark.parametrize("imports", ["import keras, kfpn", "import kfpn.ops.boxes, keras"])
def test_a_saved_detector_and_a_model_that_trains_it_load_in_a_new_process(saved, imports):
    code = (
        f"{imports}; m = keras.models.load_model({str(saved[0])!r}); print(m.class_names[1], m.input_config.short_side);"
        f"m = keras.models.load_model({str(saved[0].with_name('model.keras'))!r});"
        "print(m.detector.class_names[1], m.config.sampling.roi_batch)"
    )
    assert python(code).split()[-4:] == ["dog", "64", "dog", "64"]


def test_fresh_detectors_have_names_and_refuse_a_wrong_number_of_them():
    assert kfpn.build_detector(2, "resnet18", norm="gn", **tiny.SETTINGS).class_names == ("class 1", "class 2")
    with pytest.raises(ValueError, match="class_names must be 3, one a class, got 2"):
        kfpn.build_detector(3, "resnet18", norm="gn", class_names=["a", "b"], **tiny.SETTINGS)
