"""Pools RoIs from the levels of a pyramid: RoIAlign as a layer."""

import keras

from kfpn.ops.roi_align import ROI_LEVELS, level_cells, roi_align


@keras.saving.register_keras_serializable("kfpn")
class RoIAlign(keras.layers.Layer):
    """`roi_align` as a layer.

    Args:
        size, sampling_ratio, aligned, canonical_size, levels: see `roi_align`.
    Call:
        features: {"P2": (B, H, W, C), ...}; those of `levels` are pooled from. rois: (B, R, 4) float32 yxyx. image_sizes: (B, 2) int, pixels.
    Returns:
        (B, R, size, size, C) in the features' dtype.
    """

    def __init__(self, size=7, sampling_ratio=2, aligned=True, canonical_size=224.0, levels=ROI_LEVELS, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.size = size
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.canonical_size = canonical_size
        self.levels = tuple(levels)

    def call(self, features, rois, image_sizes):
        maps, cells = [features[level] for level in self.levels], level_cells(image_sizes, self.levels)
        return roi_align(
            maps, rois, cells, self.size, self.sampling_ratio, self.aligned, self.canonical_size, self.levels
        )

    def compute_output_spec(self, features, rois, image_sizes):
        level = features[self.levels[0]]
        return keras.KerasTensor((*rois.shape[:2], self.size, self.size, level.shape[-1]), dtype=level.dtype)

    def get_config(self):
        own = ("size", "sampling_ratio", "aligned", "canonical_size", "levels")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
