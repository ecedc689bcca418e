"""Puts the parts of a network that proposes segments together: image -> pyramid -> windows -> scores -> masks of the best."""

import dataclasses
from typing import Any

import keras
from keras import ops

from kfpn.config.model import ModelConfig
from kfpn.config.segment_settings import SEGMENT_CHANNELS
from kfpn.config.unused_options import OF_DETECTORS
from kfpn.modeling.backbones import given_backbone
from kfpn.modeling.detector import ImageSizes
from kfpn.modeling.detector_model import DetectorModel
from kfpn.modeling.proposals import best_rows
from kfpn.modeling.segment_submodels import SegmentSubmodels, build_segment_submodels
from kfpn.modeling.submodels import image_inputs
from kfpn.ops.boxes import gather_rows
from kfpn.ops.padding import valid_mask
from kfpn.ops.segment_windows import CELLS, cell_counts, window_boxes, window_grids, window_patches

FIXED = {"task", "num_classes", "mask", "cascade", "segment_windows", "segment_side"}
"""Fields of `ModelConfig` that are no settings of `build_segmenter`: they have one value, or an argument of another name. Neither are those
of detectors alone."""


@keras.saving.register_keras_serializable("kfpn")
class BestWindows(keras.layers.Layer):
    """Takes the windows of the best scores of all levels, without NMS.

    Args:
        levels, anchor_sizes, segment_windows: see `ModelConfig`.
        count: int, N, windows an image.

    Call:
        hidden: list of (B, H, W, width), of each grid of `window_grids`.
        scores: list of (B, H, W, 1) logits, of the same.
        image_sizes: (B, 2) int, height and width in pixels.

    Returns:
        dict: hidden (B, N, 1, width); scores (B, N) float32 logits, from high to low, -inf in empty rows; boxes (B, N, 4) float32
        yxyx pixels, which may reach beyond the image, zeros in empty rows; levels and windows (B, N) int32, 2 to 6 and 5 or 7, 0
        in empty rows.
    """

    def __init__(self, levels, anchor_sizes, segment_windows, count, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.levels = tuple(levels)
        self.anchor_sizes = tuple(anchor_sizes)
        self.segment_windows = segment_windows
        self.count = count

    def call(self, hidden, scores, image_sizes):
        grids, parts, before = window_grids(self), [], 0
        counts = [ops.shape(score)[1:3] for score in scores[: len(self.levels)]]
        for number, (grid, cells, score) in enumerate(zip(grids, hidden, scores, strict=True)):
            _, height, width, _ = ops.shape(score)
            usable = valid_mask(image_sizes, grid.stride, height, width)
            logits = ops.reshape(ops.where(usable, score[..., 0], -float("inf")), (ops.shape(score)[0], -1))
            most = self.count if logits.shape[1] is None else min(self.count, logits.shape[1])
            top, index, _ = best_rows(logits, most)
            rows = gather_rows(ops.reshape(cells, (ops.shape(cells)[0], -1, cells.shape[-1])), index)
            parts.append((top, index + before, ops.zeros_like(index) + number, rows))
            before = before + height * width
        top, index, number, rows = (ops.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        top, place, exists = best_rows(top, self.count)
        index, number = gather_rows(index, place), gather_rows(number, place)
        boxes = ops.take(window_boxes(counts, self), index, axis=0)
        of_grids = ops.convert_to_tensor([(int(grid.level[1:]), CELLS[grid.kind]) for grid in grids], "int32")
        levels, windows = ops.split(ops.where(exists[..., None], ops.take(of_grids, number, axis=0), 0), 2, axis=-1)
        return {
            "hidden": gather_rows(rows, place)[:, :, None],
            "scores": top,
            "boxes": ops.where(exists[..., None], boxes, 0.0),
            "levels": levels[..., 0],
            "windows": windows[..., 0],
        }

    def compute_output_spec(self, hidden, scores, image_sizes):
        batch, count = image_sizes.shape[0], self.count
        return {
            "hidden": keras.KerasTensor((batch, count, 1, hidden[0].shape[-1]), dtype=hidden[0].dtype),
            "scores": keras.KerasTensor((batch, count), dtype="float32"),
            "boxes": keras.KerasTensor((batch, count, 4), dtype="float32"),
            "levels": keras.KerasTensor((batch, count), dtype="int32"),
            "windows": keras.KerasTensor((batch, count), dtype="int32"),
        }

    def get_config(self):
        own = ("levels", "anchor_sizes", "segment_windows", "count")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


@keras.saving.register_keras_serializable("kfpn")
class WindowMasks(keras.layers.Layer):
    """Gives each window the mask of its own kind.

    Args:
        kinds: "5x5", "7x7" or both.
        side: int, M.

    Call:
        logits: list of (B, N, 1, M M), of each kind.
        windows: (B, N) int32, cells of the window, 0 in empty rows.

    Returns:
        (B, N, M, M) float32 in 0..1, zeros in empty rows.
    """

    def __init__(self, kinds, side, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.kinds = tuple(kinds)
        self.side = side

    def call(self, logits, windows):
        masks = ops.zeros_like(logits[0])
        for kind, own in zip(self.kinds, logits, strict=True):
            masks = ops.where((windows == CELLS[kind])[..., None, None], ops.sigmoid(own), masks)
        return ops.reshape(masks, (-1, windows.shape[1], self.side, self.side))

    def compute_output_spec(self, logits, windows):
        return keras.KerasTensor((*windows.shape, self.side, self.side), dtype="float32")

    def get_config(self):
        return {**super().get_config(), "kinds": self.kinds, "side": self.side}


class Segmenter:
    """Computes segments over the weights of submodels.

    At inference scores are computed at all windows, and masks at the best alone. Training computes both at a sample of the windows
    alone, from their own cells, which gives the same numbers.

    Args:
        submodels: of `build_segment_submodels`.
        config: the one that they were built with.
        padded: bool, whether images may be padded, below and right, and their true sizes count.
    """

    def __init__(self, submodels: SegmentSubmodels, config: ModelConfig, padded: bool = True):
        self.submodels = submodels
        self.config = config
        self.padded = padded

    def pyramid(self, images, image_sizes, training: bool | None = None) -> dict:
        """Computes the levels: images (B, H, W, 3) of sizes (B, 2) int -> {"P2": (B, H / 4, W / 4, C), ...}."""
        mode = {} if training is None else {"training": training}
        if self.padded:
            return self.submodels.padded_features({"images": images, "image_sizes": image_sizes}, **mode)
        return self.submodels.features(images, **mode)

    def all_windows(self, levels: dict) -> tuple[list, list]:
        """Computes the hidden layer and the scores at all windows, in the order of `window_grids`: lists of (B, H, W, ...)."""
        hidden, scores = [], []
        for grid in window_grids(self.config):
            head = self.submodels.windows[grid.kind]
            margin = keras.layers.ZeroPadding2D(CELLS[grid.kind] // 2)
            hidden.append(head.hidden(margin(levels[grid.level])))
            scores.append(head.score(hidden[-1]))
        return hidden, scores

    def at_windows(self, levels: dict, index, masks: int) -> tuple[Any, Any]:
        """Computes the scores of some windows, and the masks of the first of them.

        Args:
            levels: of `pyramid`.
            index: (B, S) int32, S static, the windows, counted as in `window_grids`.
            masks: int, P, of the first P windows of each image.

        Returns:
            Logits of scores (B, S), and of masks (B, P, M, M), float32.
        """
        count, side = index.shape[1], self.config.segment_side
        of_kind = sum(height * width for height, width in cell_counts(levels, self.config))
        of_scores, of_masks = [], []
        for kind, head in self.submodels.windows.items():
            hidden = head.hidden(window_patches(levels, index, kind, self.config))
            hidden = ops.reshape(hidden, (-1, count, 1, hidden.shape[-1]))
            of_scores.append(head.score(hidden)[..., 0, 0])
            of_masks.append(ops.reshape(head.mask(hidden[:, :masks]), (-1, masks, side, side)))
        is_second = index >= of_kind  # With one kind there is none.
        if len(of_scores) == 1:
            return of_scores[0], of_masks[0]
        own_masks = ops.where(is_second[:, :masks, None, None], of_masks[1], of_masks[0])
        return ops.where(is_second, of_scores[1], of_scores[0]), own_masks

    def __call__(self, images, image_sizes) -> dict:
        """Proposes segments in images (B, H, W, 3) of sizes (B, 2) int; returns the outputs of `build_segmenter`."""
        config, heads = self.config, self.submodels.windows
        hidden, scores = self.all_windows(self.pyramid(images, image_sizes))
        best = BestWindows(
            config.levels, config.anchor_sizes, config.segment_windows, config.max_segments,
            name="best_windows", dtype="float32",
        )(hidden, scores, image_sizes)  # fmt: skip
        hidden = best.pop("hidden")
        logits = [head.mask(hidden) for head in heads.values()]
        masks = WindowMasks(heads, config.segment_side, name="masks", dtype="float32")(logits, best["windows"])
        scores = keras.layers.Activation("sigmoid", name="scores", dtype="float32")(best["scores"])
        return {**best, "scores": scores, "masks": masks}


def segments_model(submodels: SegmentSubmodels, config: ModelConfig, padded: bool = False) -> keras.Model:
    """Builds the functional model that proposes segments, over the weights of its submodels.

    Args:
        submodels: of `build_segment_submodels`.
        config: the one that they were built with.
        padded: bool, whether the model has the second input `image_sizes`.

    Returns:
        A functional model, see `build_segmenter`.
    """
    inputs = image_inputs(padded)
    images = inputs["images"]
    sizes = inputs["image_sizes"] if padded else ImageSizes(name="image_sizes")(images)
    segments = Segmenter(submodels, config, padded)(images, sizes)
    model = DetectorModel(inputs if padded else images, segments, name="segmenter_fpn")
    model.model_config, model.pasting = config, config.pasting
    return model


def build_segmenter(
    backbone: str | keras.Model = "resnet50",
    *,
    windows: str = "both",
    mask_side: int = 14,
    padded: bool = False,
    weights: str | None = None,
    **settings: Any,
) -> keras.Model:
    """Builds a network that proposes segments on a feature pyramid, with fresh weights but for those of a Keras model as backbone.

    A segment is the mask of whatever looks like an object, without a class (Lin et al. 2017, section 6; docs/segments.md).

    Args:
        backbone, padded, weights: as `kfpn.build_detector` takes them.
        windows: "5x5" or "7x7", the cells of a level that the network looks at; or "both", the latter for objects larger by the root of 2.
        mask_side: int, M, cells of a mask, a side: 14, or 28 for the doubled resolution of table 6.
        settings: other fields of `ModelConfig`, such as `max_segments`, N, 1000 unless said otherwise. `pyramid_channels` is 128.

    Call:
        As the models of `kfpn.build_detector`.

    Returns:
        A functional `keras.Model` whose output is a dict: masks (B, N, M, M) float32 in 0..1, each within its box; boxes (B, N, 4)
        float32 yxyx in pixels of the input: the windows, which are a quarter larger than the objects that they are meant for, and
        may reach beyond the image; scores (B, N) float32 in 0..1, from high to low; levels and windows (B, N) int32: where a
        segment comes from, 2 to 6 for P2 to P6 (4 for C4), and 5 or 7. An image with fewer windows than N has empty rows at the end: zeros.
        `kfpn.paste_masks` puts the masks into the image, by the rule that the attribute `pasting` names.

    Raises:
        ValueError: for a setting that does not exist or a value out of range, or a model that has no maps at strides 4 to 32.
    """
    names = {field.name for field in dataclasses.fields(ModelConfig)} - FIXED
    known = {name for name in names if f"model.{name}" not in OF_DETECTORS}
    if unknown := sorted(set(settings) - known):
        raise ValueError(
            f"build_segmenter settings must be fields of ModelConfig that segments have, got {unknown}; known: {sorted(known)}"
        )
    name, model, settings = given_backbone.opened(backbone, weights, {"pyramid_channels": SEGMENT_CHANNELS, **settings})
    config = ModelConfig(
        num_classes=1, backbone=name, task="segments", segment_windows=windows, segment_side=mask_side, **settings  # type: ignore[arg-type]
    )  # fmt: skip
    return segments_model(build_segment_submodels(config, model), config, padded)
