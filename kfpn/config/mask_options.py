"""Checks that options which are only about masks are given to runs that learn masks."""

from collections.abc import Iterable

from kfpn.config.auto_draft import as_option
from kfpn.config.run import Config

OF_MASKS = (
    "model.mask_channels",
    "model.mask_classes",
    "model.pasting",
    "sampling.mask_batch",
    "sampling.mask_targets",
)
"""Options that have no effect without masks. (`input.copy_paste` is refused by `Config` itself.)"""


def require_masks_for(given: Iterable[str], config: Config) -> None:
    """Checks that no option about masks is given to a run without masks, where it would do nothing.

    A preset, weights and the config.json of a run may have these settings without masks: only what a person gave counts.

    Args:
        given: options by hand, as the fields of `Config` are called: "sampling.mask_batch".
        config: of the run.

    Raises:
        ValueError: naming the first such option.
    """
    if config.model.learns_masks:
        return
    for name in given:
        if name in OF_MASKS:
            section, _, field = name.partition(".")
            value = getattr(getattr(config, section), field)
            raise ValueError(
                f"{name} must be given with --mask, got {as_option(name, value)} without it: add --mask to learn masks, or leave it out"
            )
