"""Compares the network's outputs with the ground truth: matching, targets and losses, as pure functions.

The loss of a head stands in a module of the head's name. The module has

- `losses(outputs, targets, batch, config)`: the function, which returns name -> (B,) losses of the images;
- `LOOKS_AT = "positives"`, if in training the head reads only RoIs that can be positive, the first rows of the sample
  (`kfpn.losses.targets.mask_rows`). Without it the head reads the whole sample.
"""

import importlib
from types import ModuleType


def find_loss(head: str) -> ModuleType:
    """Returns the module with the losses of a head, one of `ModelConfig.heads`."""
    return importlib.import_module(f"{__name__}.{head}")
