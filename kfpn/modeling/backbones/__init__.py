"""Finds backbones by name, and says what every backbone offers.

A backbone is a module here, and a row of the table in `kfpn.config.backbone_names`. The module has

- `STAGES`: the names of its stages, from below; a layer's name begins with that of its stage and an underscore;
- `prepare(units, images)`: pixels (B, H, W, 3) of 0..255 -> what `build` takes, with the mean colour at zero;
- `build(units, images, last)`: normalised images (B, H, W, 3) -> {"C2": (B, ceil(H / 4), ceil(W / 4), C), ...} up to
  C`last`; Cn has the stride 2 ** n, and the layer that gives it is called Cn. What stands in its padding may be anything: the pyramid
  clears it before each layer that looks at neighbours;
- `build_last_stage(units, x)`: the stage that makes C5 of C4, as a head for the pyramid c4;
- `settings_of_layers(layers)`: the fields of `ModelConfig` that its layers, by name, show; none if they are not its own;
- `unused_settings(name)`: the fields of `ModelConfig` that have no effect on the backbone called `name`.
"""

import importlib
from collections.abc import Callable
from types import ModuleType

from kfpn.config.backbone_names import backbone_module, is_keras_model
from kfpn.config.model import ModelConfig


def find_backbone(name: str) -> ModuleType:
    """Returns the module of the backbone called `name`.

    Raises:
        ValueError: if there is no such backbone.
    """
    return importlib.import_module(f"{__name__}.{backbone_module(name)}")


def frozen_layers(config: ModelConfig) -> Callable[[str], bool]:
    """Returns a function of a backbone layer's name: True if that layer does not train."""
    stages = find_backbone(config.backbone).STAGES[: config.freeze_stages]
    if is_keras_model(config.backbone):
        return lambda name: False  # Its layers are frozen when the model is taken over.

    def is_frozen(name: str) -> bool:
        if config.norm == "frozen_bn" and name.endswith("_norm"):
            return True
        return name.split("_")[0] in stages

    return is_frozen
