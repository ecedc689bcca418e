"""Pools RoIs from the levels of a pyramid: RoIAlign as a layer."""

import keras

from kfpn.ops.padding import sizes_with_padding
from kfpn.ops.roi_align import ROI_LEVELS, RoIAlignRule, level_cells, roi_align


@keras.saving.register_keras_serializable("kfpn")
class RoIAlign(keras.layers.Layer):
    """Pools each RoI from its level of the pyramid.

    Args:
        size, sampling_ratio, aligned, canonical_size, levels: see `RoIAlignRule`.
        padding: see `ModelConfig`: samples are clamped to the image ("zero") or to the canvas ("foreign").

    Call:
        features: {"P2": (B, H, W, C), ...}, of which `levels` are used.
        rois: (B, R, 4) float32 yxyx, pixels of the network input.
        image_sizes: (B, 2) int, height and width in pixels.

    Returns:
        (B, R, size, size, C) in the features' dtype.
    """

    def __init__(
        self, size=7, sampling_ratio=2, aligned=True, canonical_size=224.0, levels=ROI_LEVELS, padding="zero", **kwargs
    ):
        super().__init__(autocast=False, **kwargs)
        self.size = size
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.canonical_size = canonical_size
        self.levels = tuple(levels)
        self.padding = padding

    def call(self, features, rois, image_sizes):
        sizes = sizes_with_padding(features, image_sizes, self.padding)
        maps, cells = [features[level] for level in self.levels], level_cells(sizes, self.levels)
        rule = RoIAlignRule(self.size, self.sampling_ratio, self.aligned, self.canonical_size, self.levels)
        return roi_align(maps, rois, cells, rule)

    def compute_output_spec(self, features, rois, image_sizes):
        level = features[self.levels[0]]
        return keras.KerasTensor((*rois.shape[:2], self.size, self.size, level.shape[-1]), dtype=level.dtype)

    def get_config(self):
        own = ("size", "sampling_ratio", "aligned", "canonical_size", "levels", "padding")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
