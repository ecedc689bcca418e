"""Computes the losses of a training step on segments from images, ground truth and noise: one value an image (FPN, appendix B)."""

from keras import ops

from kfpn.config.run import Config
from kfpn.config.sampling_config import SamplingConfig
from kfpn.losses import terms
from kfpn.losses.mask_targets import grid_targets
from kfpn.losses.matching import sample
from kfpn.losses.segment_targets import assign_windows
from kfpn.modeling.segment_submodels import SegmentSubmodels
from kfpn.modeling.segmenter import Segmenter
from kfpn.ops.boxes import gather_rows
from kfpn.ops.segment_windows import cell_counts, window_boxes, window_count

NOISE = "segments"


def positive_windows(sampling: SamplingConfig) -> int:
    """Returns P: in the first P rows of a sample of windows stand all positives. It is at least 1, see `SamplingConfig`."""
    return int(sampling.segment_batch * sampling.segment_positive_fraction)


def segment_noise_shapes(config: Config, height: int, width: int, max_boxes: int) -> dict[str, tuple[int]]:
    """Returns the shape, for one image, of the noise in 0..1 that the sampler needs: {"segments": (N,)}, one value a window.

    Args:
        config, height, width, max_boxes: see `kfpn.losses.training_losses.noise_shapes`.
    """
    return {NOISE: (window_count(config.model, height, width),)}


def segment_losses(
    submodels: SegmentSubmodels, config: Config, batch: dict, noise: dict, training: bool = True
) -> dict:
    """Computes the losses of a batch: a pure function of weights, batch and noise.

    The loss of scores is the binary cross-entropy of the sampled windows, summed and divided by `sampling.segment_batch`, as that of the
    RPN is: an image with fewer windows counts less. That of masks is the mean over the cells of the positives whose object has a mask,
    times `sampling.segment_mask_weight`. Windows are no part of what trains: which are positive follows from the ground truth alone.

    Args:
        submodels: of `build_segment_submodels`; batch-norm statistics are updated in place.
        config: the whole configuration.
        batch: as `kfpn.losses.training_losses.training_losses` takes it with a mask head: with gt_masks (B, G, S, S) uint8 and
            gt_has_mask (B, G) bool.
        noise: dict of segments (B, N) float32, uniform in 0..1, see `segment_noise_shapes`.
        training: False: batch norms use their statistics and change none.

    Returns:
        {"segment_score", "segment_mask"}: (B,) float32 each, one loss an image.
    """
    model, sampling, positives = config.model, config.sampling, positive_windows(config.sampling)
    segmenter = Segmenter(submodels, model)
    levels = segmenter.pyramid(batch["images"], batch["image_sizes"], training)
    counts = cell_counts(levels, model)
    matched, objects = assign_windows(counts, batch, batch["image_sizes"], model)
    drawn = sample(matched, noise[NOISE], sampling.segment_batch, sampling.segment_positive_fraction)
    scores, masks = segmenter.at_windows(levels, drawn.index, positives)
    index = drawn.index[:, :positives]
    objects, windows = gather_rows(objects, index), ops.take(window_boxes(counts, model), index, axis=0)
    counted = ops.logical_and(drawn.positive[:, :positives], gather_rows(batch["gt_has_mask"], objects))
    wanted = grid_targets(batch["gt_masks"], batch["gt_boxes"], windows, objects, model.segment_side)
    size = float(sampling.segment_batch)
    return {
        "segment_score": terms.rpn_class_loss(scores, drawn.positive, drawn.valid, size),
        "segment_mask": sampling.segment_mask_weight * terms.mask_loss(masks, ops.stop_gradient(wanted), counted),
    }
