import inspect

import keras
import pytest

from kfpn.config.backbone_names import BACKBONES, backbone_module
from kfpn.config.model import ModelConfig
from kfpn.modeling.backbones import find_backbone
from kfpn.modeling.backbones.resnet import RESNETS, find_resnet
from kfpn.modeling.layers import SharedLayers
from kfpn.modeling.units import Units
from tests.modeling import tiny

NAMES = [name for names in BACKBONES.values() for name in names]


def test_the_table_of_names_lists_the_resnets_that_their_module_builds():
    assert tuple(RESNETS) == BACKBONES["resnet"]


@pytest.mark.parametrize("name", NAMES)
def test_every_backbone_module_offers_the_functions_that_callers_need(name):
    module = find_backbone(name)
    signatures = {
        "prepare": ["units", "images"], "build": ["units", "images", "last"], "build_last_stage": ["units", "x"], "unused_settings": ["name"],
        "settings_of_layers": ["layers"],
    }  # fmt: skip
    for function, parameters in signatures.items():
        assert list(inspect.signature(getattr(module, function)).parameters) == parameters
    fields = ModelConfig.__dataclass_fields__
    assert set(module.unused_settings(name)) <= set(fields)
    assert module.settings_of_layers({}) == {}
    assert all("_" not in stage for stage in module.STAGES)


@pytest.mark.parametrize("name", ["resnet18", "resnet26", "resnet34", "resnet50"])
def test_a_backbone_has_maps_of_the_right_strides_and_layers_that_tell_its_stages_and_settings(name):
    module, config = find_backbone(name), tiny.config(backbone=name)
    images = keras.Input((96, 75, 3))
    stages = module.build(Units(config, SharedLayers()), images)
    assert {key: tuple(x.shape[1:3]) for key, x in stages.items()} == {
        f"C{n}": (-(-96 // 2**n), -(-75 // 2**n)) for n in (2, 3, 4, 5)
    }
    model = keras.Model(images, stages)
    assert all(model.get_layer(key).output is x for key, x in stages.items())
    with_weights = {layer.name for layer in model.layers if layer.weights}
    assert {layer.split("_")[0] for layer in with_weights} == set(module.STAGES)
    settings = module.settings_of_layers({layer.name: layer for layer in model.layers})
    assert {key: getattr(config, key) for key in settings} == settings
    assert settings["backbone"] == name
    assert list(module.build(Units(config, SharedLayers()), images, last=4)) == ["C2", "C3", "C4"]


def test_the_error_for_an_unknown_backbone_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"model\.backbone must be one of resnet18, .*, got 'resnet19'"):
        backbone_module("resnet19")
    assert find_resnet((3, 4, 6, 3), is_basic=True) == "resnet34"
    with pytest.raises(
        ValueError, match=r"the backbone must be one of resnet18, .*, got blocks \(1, 1, 1, 1\) a stage"
    ):
        find_resnet((1, 1, 1, 1), is_basic=True)
