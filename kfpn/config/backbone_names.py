"""Lists the backbones by name: the table that options, help and errors are made of."""

import difflib
import os
import zipfile
from pathlib import Path

APPLICATIONS = {
    "convnext_tiny": "ConvNeXtTiny",
    "convnext_small": "ConvNeXtSmall",
    "convnext_base": "ConvNeXtBase",
    "convnext_large": "ConvNeXtLarge",
    "densenet121": "DenseNet121",
    "densenet169": "DenseNet169",
    "densenet201": "DenseNet201",
    "efficientnetv2-b0": "EfficientNetV2B0",
    "efficientnetv2-b1": "EfficientNetV2B1",
    "efficientnetv2-b2": "EfficientNetV2B2",
    "efficientnetv2-b3": "EfficientNetV2B3",
    "efficientnetv2-s": "EfficientNetV2S",
    "efficientnetv2-m": "EfficientNetV2M",
    "efficientnetv2-l": "EfficientNetV2L",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_small": "MobileNetV3Small",
    "mobilenet_v3_large": "MobileNetV3Large",
    "resnet50": "ResNet50",
    "resnet101": "ResNet101",
    "resnet152": "ResNet152",
}
"""Name behind `keras:` -> the function of `keras.applications` that builds the network."""

KERAS = "keras:"
"""What stands before the name of a network of `keras.applications`: `keras:resnet50` is Keras' own, `resnet50` is kfpn's."""
KERAS_FILE = ".keras"
"""The ending of a file that `model.save()` of Keras writes: such a path is a backbone too."""

BACKBONES: dict[str, tuple[str, ...]] = {
    "resnet": ("resnet18", "resnet26", "resnet34", "resnet50", "resnet101", "resnet152"),
    "keras_model": tuple(f"{KERAS}{name}" for name in APPLICATIONS),
}
"""Module in `kfpn.modeling.backbones` -> the names of the networks that it builds. `keras_model` builds files as well."""


def is_keras_file(name: str) -> bool:
    """Tells whether a backbone is a file that Keras wrote."""
    return name.endswith(KERAS_FILE)


def require_keras_file(path: str | os.PathLike) -> None:
    """Checks that a path is that of a file that Keras may have written.

    Raises:
        ValueError: naming the path, if nothing or a folder is there, or a file of another kind.
    """
    if not Path(path).exists():
        why = "which does not exist"
    elif not Path(path).is_file():
        why = "which is a folder"
    elif not zipfile.is_zipfile(path):
        why = "which is a file of another kind, or damaged"
    else:
        return
    raise ValueError(f"model.backbone must be a file that model.save() of Keras wrote, got {str(path)!r}, {why}")


def is_keras_model(name: str) -> bool:
    """Tells whether a backbone is a Keras model that kfpn did not write: a network of keras.applications, or a file."""
    return name.startswith(KERAS) or is_keras_file(name)


def brings_pixel_rule(name: str) -> bool:
    """Tells whether a backbone brings the rule by which its pixels are prepared: networks of keras.applications do."""
    return name.startswith(KERAS)


def backbone_module(name: str | os.PathLike) -> str:
    """Returns the module in `kfpn.modeling.backbones` that builds the backbone called `name`.

    Raises:
        ValueError: if there is no such backbone.
    """
    if isinstance(name, str) and is_keras_file(name):
        return "keras_model"
    for module, names in BACKBONES.items():
        if name in names:
            return module
    everything = [known for names in BACKBONES.values() for known in names]
    near = difflib.get_close_matches(str(name).lower(), everything, n=1, cutoff=0.7)
    hint = f": did you mean {near[0]}?" if near else ""
    raise ValueError(
        f"model.backbone must be one of {', '.join(BACKBONES['resnet'])}, or {KERAS}NAME with {', '.join(APPLICATIONS)}, or a file "
        f"FILE{KERAS_FILE}, got {name!r}{hint}"
    )
