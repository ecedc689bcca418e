"""Compares the network's outputs with the ground truth: matching, targets and losses, as pure functions.

The loss of a head stands in a module of the head's name, with the function `losses(outputs, targets, batch, config)`.
"""

import importlib
from types import ModuleType


def find_loss(head: str) -> ModuleType:
    """Returns the module with the losses of a head, one of `ModelConfig.heads`."""
    return importlib.import_module(f"{__name__}.{head}")
