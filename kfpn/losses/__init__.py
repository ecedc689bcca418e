"""Compares the network's outputs with the ground truth: matching, targets and losses, as pure functions.

The losses of a head stand in a module of the head's name. Those of a cascade's later stages are objects of the module `cascade`, which
have what such a module has:

- `losses(outputs, targets, batch, config)`: the function, which returns name -> (B,) losses of the images;
- `NAMES`: the names of these losses, in their order;
- `LOOKS_AT = "positives"`, if in training the head reads only RoIs that can be positive, the first rows of the sample
  (`kfpn.losses.targets.mask_rows`). Without it the head reads the whole sample;
- `gradient_share(config)`, if not all of the head's gradient goes on to the pyramid: which share of it does.
"""

import importlib
from typing import Any

from kfpn.config.model import CASCADE


def find_loss(head: str) -> Any:
    """Returns the losses of a head, one of `ModelConfig.heads`."""
    if head in CASCADE[1:]:
        return importlib.import_module(f"{__name__}.cascade").LATER_LOSSES[head]
    return importlib.import_module(f"{__name__}.{head}")
