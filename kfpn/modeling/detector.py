"""Puts the parts of a detector together: image -> features -> proposals -> pooling -> heads -> detections."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kfpn.config.model import ModelConfig, default_class_names, named_classes
from kfpn.config.unused_options import OF_SEGMENTS
from kfpn.modeling.backbones import given_backbone
from kfpn.modeling.detector_model import DetectorModel
from kfpn.modeling.heads import find_head
from kfpn.modeling.pooling import RoIAlign
from kfpn.modeling.proposals import ProposalRule, Proposals
from kfpn.modeling.stages import Rois, Stages
from kfpn.modeling.submodels import Submodels, build_submodels, image_inputs
from kfpn.ops.pyramid_levels import pooled_levels


@keras.saving.register_keras_serializable("kfpn")
class ImageSizes(keras.layers.Layer):
    """Gives the sizes of images without padding: (B, H, W, 3) -> (B, 2) int32, height and width in pixels."""

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def call(self, images):
        batch, height, width, _ = ops.shape(images)
        ones = ops.ones((batch, 1), "int32")
        return ops.concatenate([ones * height, ones * width], axis=1)

    def compute_output_spec(self, images):
        return keras.KerasTensor((images.shape[0], 2), dtype="int32")


class Detector:
    """Puts the parts of a detector together: one method for each stage, and the chain of them.

    | stage        | gives                                            | in the papers                       |
    |--------------|--------------------------------------------------|-------------------------------------|
    | `features`   | the pyramid's levels P2 to P6                    | FPN, section 3                      |
    | `rpn`        | objectness and deltas of all anchors             | FPN, section 4.1                    |
    | `propose`    | proposals: decoded, clipped, the best after NMS  | Faster R-CNN, section 3.3           |
    | `pool`       | a map of fixed size for each proposal            | Mask R-CNN, section 3; FPN, eq. 1   |
    | `heads`      | class logits and box deltas of each proposal     | FPN, section 4.2                    |
    | `select`     | detections: the best of each class after NMS     | Fast R-CNN, section 3               |

    `__call__` runs them all. This is the only place where the chain is written. Code that needs another form of a stage
    (another NMS, given proposals, a sample of RoIs to train on, the operations of another runtime) derives a class and
    overrides that method. The methods take tensors of the backend or, to build a functional model, KerasTensors.

    Args:
        submodels: of `build_submodels`.
        config: the one that they were built with; its settings for inference are used here.
        padded: bool, whether images may be padded, below and right, and their true sizes count.
        nms: "rounds", "kernel" or "gpu_kernel", see `Proposals` and `SelectDetections`.
    """

    def __init__(self, submodels: Submodels, config: ModelConfig, padded: bool = True, nms: str = "rounds"):
        self.submodels = submodels
        self.config = config
        self.padded = padded
        rule = ProposalRule.of_inference(config)
        self.proposals = Proposals(
            config.anchor_sizes, config.aspect_ratios, rule.pre_nms, rule.post_nms, rule.iou_threshold, rule.min_size,
            config.round_anchors, config.anchor_strides, nms, config.padding, name="proposals", dtype="float32",
        )  # fmt: skip
        modules = {name: find_head(name) for name in submodels.heads}
        self.proposal_heads = [name for name, module in modules.items() if module.LOOKS_AT == "proposals"]
        self.detection_heads = [name for name, module in modules.items() if module.LOOKS_AT == "detections"]
        self.later_heads = {name: module.LOOKS_AT for name, module in modules.items() if module.LOOKS_AT in modules}
        self.moves = {name: modules[name].moves(config) for name in self.later_heads}
        self.join = modules[next(reversed(self.later_heads))].join(config) if self.later_heads else None
        answering = self.proposal_heads + self.detection_heads
        self.selections = {name: modules[name].select(config, nms) for name in answering}
        self.aligns = {name: self._make_align(name, head.input_shape[1]) for name, head in submodels.heads.items()}

    def _make_align(self, head: str, size: int) -> RoIAlign:
        config, name = self.config, "roi_align" if head == "box" else f"roi_align_{head}"
        layer = RoIAlign(
            size, config.sampling_ratio, config.aligned, config.canonical_size, pooled_levels(config), config.padding,
            name=name,
        )  # fmt: skip
        return self.submodels.forms.align(layer)

    # The stages

    def features(self, images, image_sizes, training: bool | None = None) -> dict:
        """Computes the pyramid: images (B, H, W, 3) of sizes (B, 2) int -> {"P2": (B, H / 4, W / 4, C), ...}."""
        inputs = {"images": images, "image_sizes": image_sizes} if self.padded else images
        model = self.submodels.padded_features if self.padded else self.submodels.features
        return model(inputs, **_mode(training))

    def rpn(self, levels: dict, training: bool | None = None) -> dict | None:
        """Computes objectness and deltas of all anchors, level by level: {"logits": [(B, N_l)], "deltas": [(B, N_l, 4)]}."""
        return self.submodels.rpn(levels, **_mode(training))

    def propose(self, levels: dict, rpn: dict | None, image_sizes) -> Rois:
        """Turns the RPN's outputs into boxes for the heads: boxes (B, R, 4) and scores (B, R), best first."""
        return Rois(*self.proposals(levels, rpn, image_sizes))

    def pool(self, levels: dict, boxes, image_sizes, head: str = "box"):
        """Pools boxes (B, R, 4) to the size that a head takes: (B R, size, size, C)."""
        align = self.aligns[head]
        pooled = align({name: levels[name] for name in align.levels}, boxes, image_sizes)
        return ops.reshape(pooled, (-1, *pooled.shape[2:]))

    def heads(self, pooled: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Applies each head to its pooled boxes: {"box": {"logits": (B R, K + 1), "deltas": (B R, K, 4)}, ...}."""
        return {name: self.submodels.heads[name](x, **_mode(training)) for name, x in pooled.items()}

    def select(self, outputs: dict[str, Any], rois: Rois, image_sizes) -> dict:
        """Makes detections of the outputs of the heads that look at proposals, see `build_detector`."""
        outputs, rois = self.joined(outputs, rois)
        detections: dict[str, Any] = {}
        for name in self.proposal_heads:
            detections |= self.selections[name](outputs[name], rois, image_sizes)
        return detections

    def joined(self, outputs: dict[str, Any], rois: Rois) -> tuple[dict[str, Any], Rois]:
        """Makes one answer, in the form of the first head's, of heads that follow one another; others stay as they are."""
        return (outputs, rois) if self.join is None else self.join(outputs, rois)

    # The chain of the stages

    def convolve(self, images, image_sizes, training: bool | None = None) -> tuple[dict, dict | None]:
        """Runs the fully convolutional stages: the levels, and the RPN's outputs on them."""
        levels = self.features(images, image_sizes, training)
        return levels, self.rpn(levels, training)

    def first_stage(self, images, image_sizes, training: bool | None = None) -> Stages:
        """Runs everything up to the proposals."""
        levels, rpn = self.convolve(images, image_sizes, training)
        return Stages(levels, rpn, self.propose(levels, rpn, image_sizes), {})

    def second_stage(
        self, levels: dict, boxes, image_sizes, training: bool | None = None, names: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Pools boxes (B, R, 4) and applies the heads `names`; None means those that look at proposals."""
        names = self.proposal_heads if names is None else names
        pooled = {name: self.pool(levels, boxes, image_sizes, name) for name in names}
        return self.heads(pooled, training)

    def run(self, images, image_sizes, training: bool | None = None) -> Stages:
        """Runs both stages up to the outputs of the heads that look at proposals, and of those that follow them."""
        stages = self.first_stage(images, image_sizes, training)
        levels, rois = stages.levels, stages.rois
        outputs = self.second_stage(levels, rois.boxes, image_sizes, training)
        for name, before in self.later_heads.items():
            boxes = self.moves[name](outputs[before], outputs[before].get("boxes", rois.boxes), image_sizes)
            own = self.second_stage(levels, boxes, image_sizes, training, [name])[name]
            outputs[name] = {**own, "boxes": boxes}
        return stages._replace(outputs=outputs)

    def finish(self, stages: Stages, image_sizes) -> dict:
        """Makes detections of what `run` gave, and applies the heads that look at detections to them."""
        detections = self.select(stages.outputs, stages.rois, image_sizes)
        if self.detection_heads:
            boxes, names = detections["boxes"], self.detection_heads
            outputs = self.second_stage(stages.levels, boxes, image_sizes, names=names)
            for name in names:
                detections |= self.selections[name](outputs[name], detections, image_sizes)
        return detections

    def __call__(self, images, image_sizes) -> dict:
        """Detects in images (B, H, W, 3) of sizes (B, 2) int; returns the outputs of `build_detector`."""
        return self.finish(self.run(images, image_sizes), image_sizes)


def _mode(training: bool | None) -> dict[str, bool]:
    # With None the argument is left out, so that Keras takes it from the call around this one.
    return {} if training is None else {"training": training}


def inference_model(
    submodels: Submodels, config: ModelConfig, padded: bool = False, nms: str = "rounds"
) -> keras.Model:
    """Builds the functional model of a detector, over the weights of its submodels.

    Args:
        submodels: of `build_submodels`.
        config: the one that they were built with; its settings for inference are used here.
        padded: bool, whether the model has the second input `image_sizes`.
        nms: "rounds", "kernel" or "gpu_kernel", see `Proposals` and `SelectDetections`.

    Returns:
        A functional model, see `build_detector`.
    """
    inputs = image_inputs(padded)
    images = inputs["images"]
    sizes = inputs["image_sizes"] if padded else ImageSizes(name="image_sizes")(images)
    detections = Detector(submodels, config, padded, nms)(images, sizes)
    model = DetectorModel(inputs if padded else images, detections, name="faster_rcnn_fpn")
    model.model_config = config
    if config.mask:
        model.pasting = config.pasting
    return model


def build_detector(
    num_classes: int | None = None,
    backbone: str | os.PathLike | keras.Model = "resnet50",
    *,
    pyramid: str = "fpn",
    padded: bool = False,
    class_names: Sequence[str] | None = None,
    weights: str | None = None,
    **settings: Any,
) -> keras.Model:
    """Builds a Faster R-CNN with a Feature Pyramid Network, with fresh weights but for those of a Keras model as backbone.

    Args:
        num_classes: int, object classes without the background. None: as many as `class_names`, or 80.
        backbone: resnet18, resnet26, resnet34, resnet50, resnet101 or resnet152; a network of keras.applications, such as
            "keras:efficientnetv2-b0"; a file that `model.save()` wrote, "my_backbone.keras"; or a functional `keras.Model` of images
            (B, H, W, 3), whose layers and weights the detector shares. See docs/backbones.md.
        pyramid: fpn, or one of those the paper compares it with (tables 1 to 3): bottom_up, top_down, finest, c4, c5.
        padded: bool. True adds the input `image_sizes`, for batches of images of different sizes.
        class_names: the name of each label, which the model keeps as an attribute, also in its file. None: "class 1" and so
            on.
        weights: "imagenet" for a backbone `keras:...`: Keras downloads its weights once. None: fresh weights.
        settings: any other field of `ModelConfig`. With a Keras model as backbone and without `weights`, `norm` is "bn" and
            `freeze_stages` 0 where they are not given: what trains in the model trains.

    Call:
        images: (B, H, W, 3) uint8 or float, RGB, 0..255, any size. With `padded` a dict: images, zero padded below and
            right, and image_sizes (B, 2) int32, the true heights and widths in pixels.

    Returns:
        A functional `keras.Model` with the attributes `class_names` and `category_ids`, tuples with one entry a label. Its
        output is a dict: boxes (B, D, 4) float32 yxyx in pixels of the input, scores (B, D) float32, labels (B, D) int32 in
        0..K-1, num_detections (B,) int32. Rows past num_detections have zero boxes, zero scores and the label -1. With `mask=True`
        also masks (B, D, 28, 28) float32 in 0..1, each within its box, zeros in empty rows; the attribute `pasting` is the rule by
        which `kfpn.paste_masks` puts them into the image. The model looks at images in the size that they have; `kfpn.predict`
        resizes them as its `input_config` says.

    Raises:
        ValueError: for a setting that does not exist or a value out of range, a model that has no maps at strides 4 to 32, or
            weights that can't be downloaded.
    """
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(
            f"build_detector settings must be fields of ModelConfig, got {unknown}; known: {sorted(known)}"
        )
    of_segments = {name for name in settings if f"model.{name}" in OF_SEGMENTS}
    if unused := sorted(name for name in of_segments if settings[name] != getattr(ModelConfig, name)):
        raise ValueError(
            f"build_detector settings must be those of a detector, got {unused}: kfpn.build_segmenter takes them"
        )
    names = None if class_names is None else named_classes(class_names)
    if num_classes is None:
        num_classes = 80 if names is None else len(names)
    name, model, settings = given_backbone.opened(backbone, weights, settings)
    config = ModelConfig(num_classes=num_classes, backbone=name, pyramid=pyramid, **settings)  # type: ignore[arg-type]
    names = names or default_class_names(num_classes)
    if len(names) != num_classes:
        raise ValueError(f"class_names must be {num_classes}, one a class, got {len(names)}")
    detector = inference_model(build_submodels(config, model), config, padded)
    detector.class_names, detector.category_ids = names, tuple(range(1, num_classes + 1))
    return detector
