"""Holds the limits that a served model keeps, whatever a client sends."""

import dataclasses
from dataclasses import dataclass

from kfpn.data.decode_limits import MOST_PIXELS


@dataclass(frozen=True)
class RequestLimits:
    """What a served model takes at most. The limit of masks is kept before the network runs, all others before any pixel is made.

    Attributes:
        max_pixels: int, pixels of an image as the client sends it.
        max_images: int, images of a request.
        max_batch_pixels: int, pixels of all images of a request, after resizing and padding.
        strict: bool, whether one bad file fails its whole request rather than itself alone.
        max_request_pixels: int, pixels of all images of a request as they are decoded; at least `max_pixels` count.
        max_mask_pixels: int, pixels of all full masks of an answer, a byte each; only exports with full masks have them.
    """

    max_pixels: int = MOST_PIXELS
    max_images: int = 32
    max_batch_pixels: int = 20_000_000
    strict: bool = False
    max_request_pixels: int = 400_000_000
    max_mask_pixels: int = 1_000_000_000

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "strict" and not 1 <= value < 2**31:
                raise ValueError(f"{field.name} must lie in 1..2147483647, got {value}")

    @property
    def request_pixels(self) -> int:
        """Returns the limit that counts: `max_request_pixels`, or `max_pixels` if that is more, so that one image is taken."""
        return max(self.max_request_pixels, self.max_pixels)


USUAL_LIMITS = RequestLimits()
"""The limits of an export that sets none."""
