"""Defines how an image is looked at in tiles, and checks it."""

import dataclasses

from kfpn.config.checks import check, is_int
from kfpn.config.field_types import require_types
from kfpn.config.input_config import InputConfig

OVERLAP = 0.2
"""The share of a tile's side that its neighbour shows too, where nothing else is said."""


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Says how an image is looked at in tiles: squares of its own pixels, each resized as a whole image would be.

    Attributes:
        side: pixels of the image. 0: no tiles. None: as the run trained.
        overlap: share of a tile's side that its neighbour shows as well. Objects up to this size are whole in some tile.
        whole: look at the whole image as well, at the run's own size, for objects that are larger than the overlap.

    Raises:
        ValueError: if a value is out of range.
    """

    side: int | None = None
    overlap: float = OVERLAP
    whole: bool = True

    def __post_init__(self) -> None:
        side = (
            "be an integer of at least 32, or 0 for none",
            lambda v: v is None or (is_int(v) and (v == 0 or v >= 32)),
        )
        require_types(self, "tiles.")
        check(self, "tiles.", "side", side)
        check(self, "tiles.", "overlap", ("be a share from 0 to 0.9", lambda v: 0.0 <= v <= 0.9))


def tiles_in_force(asked: "Tiles | int | None", trained: InputConfig) -> Tiles | None:
    """Returns the tiles that an image is looked at in; None: it is looked at as a whole.

    Args:
        asked: the tiles, or a side in pixels. None: those of the training.
        trained: `input` of the run.

    Raises:
        ValueError: if the side is to be that of the training, which had none, or a value is out of range.
    """
    if asked is None:
        return Tiles(trained.tile) if trained.tile else None
    tiles = asked if isinstance(asked, Tiles) else Tiles(asked)
    if tiles.side is None and not trained.tile:
        raise ValueError(
            "tiles must have a side in pixels, got none, and the run trained on whole images: add --tiles SIDE"
        )
    if tiles.side is None:
        return dataclasses.replace(tiles, side=trained.tile)
    return tiles if tiles.side else None


def asked_tiles(side: int | None, overlap: float | None, tiles_only: bool) -> Tiles | None:
    """Returns the tiles that the options of a command ask for, whose side may be that of the run; None: they say nothing.

    Args:
        side, overlap, tiles_only: the options.

    Raises:
        ValueError: if a value is out of range, or other options of tiles stand beside --tiles 0.
    """
    if side == 0 and (overlap is not None or tiles_only):
        name = "tiles-only" if overlap is None else "overlap"
        raise ValueError(f"{name} must be left out with --tiles 0, got both: leave one of them out")
    if side is None and overlap is None and not tiles_only:
        return None
    return Tiles(side, OVERLAP if overlap is None else overlap, not tiles_only)
