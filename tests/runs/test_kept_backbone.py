"""Tests that a work directory can hold the Keras model that is a detector's backbone."""

import numpy as np

from kfpn.config.run import Config
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.kept_backbone import with_written_backbone
from tests.modeling import tiny
from tests.modeling.keras_models import convolutions


def test_the_model_of_a_detector_is_written_and_gives_the_same_when_it_is_read(tmp_path):
    config = Config(model=tiny.config(backbone="mine.keras", norm="bn"))
    built = build_submodels(config.model, convolutions(preparing=True))
    tiny.shake(built.weights_model)
    written = with_written_backbone(tmp_path, config, built.features)
    assert written.model.backbone == str(tmp_path / "backbone.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["backbone.keras"]
    again = build_submodels(written.model)
    own, read = (one.features.get_layer("backbone") for one in (built, again))
    for want, got in zip(own.get_weights(), read.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)
    again.weights_model.set_weights(built.weights_model.get_weights())
    image = tiny.image(64, 96)[None].astype("float32")
    for name, level in built.features(image, training=False).items():
        np.testing.assert_array_equal(again.features(image, training=False)[name], level)


def test_a_backbone_that_a_name_builds_needs_no_file(tmp_path):
    config = Config(model=tiny.config())
    assert with_written_backbone(tmp_path, config, None) is config
    assert not list(tmp_path.iterdir())
