"""Lists the backbones by name: the table that options, help and errors are made of."""

from typing import TYPE_CHECKING, Literal

BACKBONES: dict[str, tuple[str, ...]] = {
    "resnet": ("resnet18", "resnet26", "resnet34", "resnet50", "resnet101", "resnet152"),
}
"""Module in `kfpn.modeling.backbones` -> the names of the networks that it builds."""

_NAMES = tuple(name for names in BACKBONES.values() for name in names)

if TYPE_CHECKING:
    BackboneName = str
else:
    BackboneName = Literal[_NAMES]


def backbone_module(name: str) -> str:
    """Returns the module in `kfpn.modeling.backbones` that builds the backbone called `name`.

    Raises:
        ValueError: if there is no such backbone.
    """
    for module, names in BACKBONES.items():
        if name in names:
            return module
    raise ValueError(f"model.backbone must be one of {', '.join(_NAMES)}, got {name!r}")
