import kfpn
from kfpn.weights.assign import model_config
from kfpn.weights.built_detector import SETTINGS_THAT_MAY_DIFFER, SETTINGS_THAT_MUST_MATCH, built_settings
from kfpn.weights.identify import read_trained_weights
from tests.weights.foreign import detectron2, heads, torchvision, trunk, write

UNITS = trunk()


def test_a_built_detector_shows_every_setting_that_matters_for_weights(tmp_path):
    units = trunk("resnet50")
    for content in (torchvision(units, heads(units)), detectron2(units, heads(units, background_first=False))):
        config = model_config(read_trained_weights(write(tmp_path / "m.safetensors", content)))
        settings = built_settings(kfpn.build_detector(**vars(config)))
        assert settings == {
            name: getattr(config, name) for name in (*SETTINGS_THAT_MUST_MATCH, *SETTINGS_THAT_MAY_DIFFER)
        }


def test_the_weights_of_a_detector_come_with_every_setting_that_matters(tmp_path):
    for content in (torchvision(UNITS, heads(UNITS)), detectron2(UNITS, heads(UNITS, background_first=False))):
        settings = read_trained_weights(write(tmp_path / "m.safetensors", content)).model
        assert {
            *SETTINGS_THAT_MUST_MATCH,
            *SETTINGS_THAT_MAY_DIFFER,
            "canonical_size",
            "norm_heads",
        } - settings.keys() == set()
