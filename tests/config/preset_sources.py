"""Holds where each number of the presets for COCO comes from: field, kfpn's value, the other's key and value, file and commit."""

from typing import NamedTuple

D2 = "facebookresearch/detectron2"
D1 = "facebookresearch/Detectron"
TV = "pytorch/vision"
DEFAULTS = f"{D2} detectron2/config/defaults.py @084acd0f781f217e8d7b93a0099b08fce82cd88f"
BASE = f"{D2} configs/Base-RCNN-FPN.yaml @31696514cb92fab66e2c154be0d2c0ecd63ee823"
ONE = f"{D2} configs/COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml @989f52d67d05445ccd030d8f13d6cc53e297fb91"
THREE = f"{D2} configs/COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml @989f52d67d05445ccd030d8f13d6cc53e297fb91"
FLIP = f"{D2} detectron2/data/transforms/augmentation_impl.py @084acd0f781f217e8d7b93a0099b08fce82cd88f"
SOLVER = f"{D2} detectron2/solver/build.py @012c8986baac12c9e7c2f8877a51ff5e97e7fe96"
TV_TRAIN = f"{TV} references/detection/train.py @013d1322a1c4559ee6606afb92d54a8240e07994"
TV_ENGINE = f"{TV} references/detection/engine.py @08eb80315bc838623d908c6e81bd119d98057bd7"
TV_COCO = f"{TV} references/detection/coco_utils.py @0234daff17af60d3aa5068360413eb9697cb607b"
TV_AUGMENT = f"{TV} references/detection/presets.py @01fdb48883a534c746b1c60683a6eb4d70e72db6"
TV_MODEL = f"{TV} torchvision/models/detection/faster_rcnn.py @01fdb48883a534c746b1c60683a6eb4d70e72db6"
TV_RPN = f"{TV} torchvision/models/detection/rpn.py @01fdb48883a534c746b1c60683a6eb4d70e72db6"
TV_HEADS = f"{TV} torchvision/models/detection/roi_heads.py @00d6550aeadbaf7d4e65b65589f19c16d5402c7f"
TV_RESIZE = f"{TV} torchvision/models/detection/transform.py @01fdb48883a534c746b1c60683a6eb4d70e72db6"
TV_BACKBONE = f"{TV} torchvision/models/detection/backbone_utils.py @031e3638a53ac03512ef02b102293cfc01314011"
PAPER = "Lin et al. 2017, arXiv 1612.03144v2"
D1_FILE = f"{D1} configs/12_2017_baselines/e2e_faster_rcnn_R-50-FPN_1x.yaml @2f8161edc3092b0382cab535c977a180a8b3cc4d"
D1_CONFIG = f"{D1} detectron/core/config.py @0094bb6b438df78ff997c6bc5871a09895d4d94f"
D1_RESNET = f"{D1} detectron/modeling/ResNet.py @6867f296f5fe8aeaa5c1fbd70239d225dec74fee"
D1_RPN = f"{D1} detectron/modeling/rpn_heads.py @23cebbac7fab3e5089a39a761d67fdb5b3022b6b"
D1_HEADS = f"{D1} detectron/modeling/fast_rcnn_heads.py @23cebbac7fab3e5089a39a761d67fdb5b3022b6b"
D1_SGD = f"{D1} detectron/modeling/optimizer.py @23cebbac7fab3e5089a39a761d67fdb5b3022b6b"
D1_ROIDB = f"{D1} detectron/datasets/roidb.py @23cebbac7fab3e5089a39a761d67fdb5b3022b6b"
D2_AS_D1 = (
    f"{D2} configs/Detectron1-Comparisons/faster_rcnn_R_50_FPN_noaug_1x.yaml @989f52d67d05445ccd030d8f13d6cc53e297fb91"
)
STAGES = "docs/parity.md: the library's own outputs, stage by stage"
NOT_THERE = "kfpn's own option, off"
_CANVASES = "a choice of kfpn's, which compiles each padded size: the others pad each batch for itself"


class Row(NamedTuple):
    """One field of a preset.

    Attributes:
        field: as on the command line.
        ours: kfpn's value.
        key: the other's name for it, or what its text says.
        theirs: the other's value, as it writes it.
        source: repository, file and commit; or the paper.
    """

    field: str
    ours: object
    key: str
    theirs: object
    source: str


_SEGMENTS = f"{PAPER}, section 6 and appendix B"
SEGMENTS = (
    Row("model.task", "detections", "", None, NOT_THERE),
    Row("model.segment_windows", "both", "5x5 and 7x7 windows", None, _SEGMENTS),
    Row("model.segment_side", 14, "14x14 masks", 14, _SEGMENTS),
    Row("model.segment_width", 512, "a hidden layer of 512", 512, _SEGMENTS),
    Row("model.max_segments", 1000, "table 6: AR of 1k proposals", 1000, _SEGMENTS),
    Row("sampling.segment_batch", 128, "128 examples per image", 128, _SEGMENTS),
    Row("sampling.segment_positive_fraction", 0.25, "positives to negatives 1:3", 0.25, _SEGMENTS),
    Row("sampling.segment_mask_weight", 10.0, "mask to score 10:1", 10.0, _SEGMENTS),
)
AUGMENTATIONS = tuple(
    Row(f"input.{name}", value, "", None, NOT_THERE)
    for name, value in {
        "repeat_threshold": 0.0,
        "large_scale_jitter": (),
        "tile": 0,
        "crop": 0.0,
        "crop_area": (0.3, 1.0),
        "crop_keep": 0.3,
        "flip_vertical": 0.0,
        "turn": 0.0,
        "copy_paste": 0.0,
        "color_jitter": (),
    }.items()
)
"""What no recipe for COCO has."""


def detectron2_rows(steps, drops, source):
    """Returns the rows of `faster_rcnn_R_50_FPN_*x.yaml`, which differ only in their schedule."""
    first, second = drops
    return (
        Row("steps", steps, "SOLVER.MAX_ITER", steps, source),
        Row("optimizer.milestones", (first / steps, second / steps), "SOLVER.STEPS", drops, source),
        *_DETECTRON2,
    )


_SIDES = (32.0, 64.0, 128.0, 256.0, 512.0)
_DETECTRON2 = (
    Row("batch_size", 16, "SOLVER.IMS_PER_BATCH", 16, BASE),
    Row("model.backbone", "resnet50", "MODEL.RESNETS.DEPTH", 50, ONE),
    Row("model.backbone_width", 64, "MODEL.RESNETS.STEM_OUT_CHANNELS", 64, DEFAULTS),
    Row("model.backbone_layers", None, "", None, NOT_THERE),
    Row("model.stride_on", "1x1", "MODEL.RESNETS.STRIDE_IN_1X1", True, DEFAULTS),
    Row("model.norm", "frozen_bn", "MODEL.RESNETS.NORM", "FrozenBN", DEFAULTS),
    Row("model.norm_epsilon", 1e-5, "FrozenBatchNorm2d(eps)", 1e-5, STAGES),
    Row("model.freeze_stages", 2, "MODEL.BACKBONE.FREEZE_AT", 2, DEFAULTS),
    Row("model.pyramid", "fpn", "MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", BASE),
    Row("model.upsampling", "nearest", "FPN", "nearest", STAGES),
    Row("model.merge", "sum", "MODEL.FPN.FUSE_TYPE", "sum", DEFAULTS),
    Row("model.smooth_p5", True, "FPN output_convs", "one a level", STAGES),
    Row("model.p6", True, "MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4", "p5", "p6"], BASE),
    Row("model.pyramid_channels", 256, "MODEL.FPN.OUT_CHANNELS", 256, DEFAULTS),
    Row("model.shared_rpn", True, "MODEL.RPN.HEAD_NAME", "StandardRPNHead", DEFAULTS),
    Row("model.anchor_sizes", _SIDES, "MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64], [128], [256], [512]], BASE),
    Row("model.aspect_ratios", (0.5, 1.0, 2.0), "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.5, 1.0, 2.0]], BASE),
    Row("model.round_anchors", False, "DefaultAnchorGenerator", "not rounded", STAGES),
    Row("model.anchor_strides", "level", "DefaultAnchorGenerator", "the level's stride", STAGES),
    Row("model.padding", "foreign", "ImageList.from_tensors", "zeros, which no layer masks", STAGES),
    Row("model.pre_nms_train", 2000, "MODEL.RPN.PRE_NMS_TOPK_TRAIN", 2000, BASE),
    Row("model.pre_nms_test", 1000, "MODEL.RPN.PRE_NMS_TOPK_TEST", 1000, BASE),
    Row("model.post_nms_train", 1000, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 1000, BASE),
    Row("model.post_nms_test", 1000, "MODEL.RPN.POST_NMS_TOPK_TEST", 1000, BASE),
    Row("model.rpn_nms_iou", 0.7, "MODEL.RPN.NMS_THRESH", 0.7, DEFAULTS),
    Row("model.min_proposal_size", 0.0, "MODEL.PROPOSAL_GENERATOR.MIN_SIZE", 0, DEFAULTS),
    Row("model.roi_size", 7, "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7, BASE),
    Row("model.sampling_ratio", 0, "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 0, DEFAULTS),
    Row("model.aligned", True, "MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignV2", DEFAULTS),
    Row("model.canonical_size", 224.0, "ROIPooler(canonical_box_size)", 224, STAGES),
    Row("model.head_width", 1024, "MODEL.ROI_BOX_HEAD.FC_DIM", 1024, DEFAULTS),
    Row("model.norm_heads", False, "MODEL.FPN.NORM, MODEL.ROI_BOX_HEAD.NORM", "", DEFAULTS),
    Row("model.score_threshold", 0.05, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.05, DEFAULTS),
    Row("model.nms_iou", 0.5, "MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.5, DEFAULTS),
    Row("model.max_detections", 100, "TEST.DETECTIONS_PER_IMAGE", 100, DEFAULTS),
    Row("model.min_detection_size", 0.0, "fast_rcnn_inference", "none", STAGES),
    Row("model.pixel_mean", (123.675, 116.28, 103.53), "MODEL.PIXEL_MEAN (BGR)", [103.53, 116.28, 123.675], DEFAULTS),
    Row("model.pixel_std", (1.0, 1.0, 1.0), "MODEL.PIXEL_STD", [1.0, 1.0, 1.0], DEFAULTS),
    Row("input.short_side", 800, "INPUT.MIN_SIZE_TEST", 800, DEFAULTS),
    Row("input.long_side", 1333, "INPUT.MAX_SIZE_TRAIN, INPUT.MAX_SIZE_TEST", 1333, DEFAULTS),
    Row(
        "input.train_short_sides",
        (640, 672, 704, 736, 768, 800),
        "INPUT.MIN_SIZE_TRAIN",
        (640, 672, 704, 736, 768, 800),
        BASE,
    ),
    Row("input.keep_empty", False, "DATALOADER.FILTER_EMPTY_ANNOTATIONS", True, DEFAULTS),
    *AUGMENTATIONS,
    *SEGMENTS,
    Row("input.scale_jitter", (1.0, 1.0), "", None, NOT_THERE),
    Row("input.flip", 0.5, "RandomFlip(prob)", 0.5, FLIP),
    Row("input.divisor", 32, "FPN.size_divisibility", 32, STAGES),
    Row("input.max_canvases", 6, "", None, _CANVASES),
    Row("sampling.rpn_positive_iou", 0.7, "MODEL.RPN.IOU_THRESHOLDS", [0.3, 0.7], DEFAULTS),
    Row("sampling.rpn_negative_iou", 0.3, "MODEL.RPN.IOU_THRESHOLDS", [0.3, 0.7], DEFAULTS),
    Row("sampling.rpn_batch", 256, "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 256, DEFAULTS),
    Row("sampling.rpn_positive_fraction", 0.5, "MODEL.RPN.POSITIVE_FRACTION", 0.5, DEFAULTS),
    Row("sampling.roi_positive_iou", 0.5, "MODEL.ROI_HEADS.IOU_THRESHOLDS", [0.5], DEFAULTS),
    Row("sampling.roi_batch", 512, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 512, DEFAULTS),
    Row("sampling.roi_positive_fraction", 0.25, "MODEL.ROI_HEADS.POSITIVE_FRACTION", 0.25, DEFAULTS),
    Row("sampling.rpn_box_beta", 0.0, "MODEL.RPN.SMOOTH_L1_BETA", 0.0, DEFAULTS),
    Row("sampling.roi_box_beta", 0.0, "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", 0.0, DEFAULTS),
    Row("optimizer.learning_rate", 0.02, "SOLVER.BASE_LR", 0.02, BASE),
    Row("optimizer.reference_batch", 16, "SOLVER.IMS_PER_BATCH", 16, BASE),
    Row("optimizer.momentum", 0.9, "SOLVER.MOMENTUM", 0.9, DEFAULTS),
    Row("optimizer.weight_decay", 1e-4, "SOLVER.WEIGHT_DECAY", 0.0001, DEFAULTS),
    Row(
        "optimizer.decay_biases",
        True,
        "SOLVER.WEIGHT_DECAY_BIAS, SOLVER.WEIGHT_DECAY_NORM",
        ("as WEIGHT_DECAY", 0.0),
        DEFAULTS,
    ),
    Row("optimizer.warmup_steps", 1000, "SOLVER.WARMUP_ITERS", 1000, DEFAULTS),
    Row("optimizer.warmup_factor", 0.001, "SOLVER.WARMUP_FACTOR", 1.0 / 1000, DEFAULTS),
    Row("optimizer.schedule", "step", "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", DEFAULTS),
    Row("optimizer.decay_factor", 0.1, "SOLVER.GAMMA", 0.1, DEFAULTS),
    Row("optimizer.clip_norm", None, "SOLVER.CLIP_GRADIENTS.ENABLED", False, DEFAULTS),
    Row("optimizer.ema_decay", 0.0, "", None, NOT_THERE),
    Row("model.cascade", False, "MODEL.ROI_HEADS.NAME", "StandardROIHeads", BASE),
    Row("model.mask", False, "MODEL.MASK_ON", False, ONE),
    Row("model.mask_classes", "each", "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", False, DEFAULTS),
    Row("model.mask_channels", None, "MODEL.ROI_MASK_HEAD.CONV_DIM, as FPN.OUT_CHANNELS", 256, DEFAULTS),
    Row("model.pasting", "sampled", "paste_masks_in_image", "grid_sample", STAGES),
    Row("sampling.mask_batch", None, "select_foreground_proposals", "all positives", STAGES),
    Row("sampling.mask_targets", "polygons", "INPUT.MASK_FORMAT", "polygon", DEFAULTS),
    Row("optimizer.name", "sgd", "build_optimizer", "torch.optim.SGD", SOLVER),
)

_EPOCH = 7329  # GroupedBatchSampler of one of 8 GPUs: ceil(117,266 / 8) // 2
TORCHVISION = (
    Row("steps", 26 * _EPOCH, "--epochs", 26, TV_TRAIN),
    Row("batch_size", 16, "--batch-size x --world-size", (2, 8), TV_TRAIN),
    Row("model.backbone", "resnet50", "resnet_fpn_backbone(backbone_name)", "resnet50", TV_MODEL),
    Row("model.backbone_width", 64, "resnet50", 64, STAGES),
    Row("model.backbone_layers", None, "", None, NOT_THERE),
    Row("model.stride_on", "3x3", "resnet.Bottleneck", "stride on conv2", STAGES),
    Row("model.norm", "frozen_bn", "norm_layer", "FrozenBatchNorm2d", TV_BACKBONE),
    Row("model.norm_epsilon", 1e-5, "FrozenBatchNorm2d(eps)", 1e-5, STAGES),
    Row("model.freeze_stages", 2, "trainable_backbone_layers", "3 of 5", TV_MODEL),
    Row("model.pyramid", "fpn", "FeaturePyramidNetwork", "fpn", STAGES),
    Row("model.upsampling", "nearest", "FeaturePyramidNetwork", "nearest", STAGES),
    Row("model.merge", "sum", "FeaturePyramidNetwork", "sum", STAGES),
    Row("model.smooth_p5", True, "layer_blocks", "one a level", STAGES),
    Row("model.p6", True, "extra_blocks", "LastLevelMaxPool", TV_BACKBONE),
    Row("model.pyramid_channels", 256, "out_channels", 256, TV_BACKBONE),
    Row("model.shared_rpn", True, "RPNHead", "one for all levels", TV_RPN),
    Row("model.anchor_sizes", _SIDES, "anchor_sizes", ((32,), (64,), (128,), (256,), (512,)), TV_MODEL),
    Row("model.aspect_ratios", (0.5, 1.0, 2.0), "aspect_ratios", (0.5, 1.0, 2.0), TV_MODEL),
    Row("model.round_anchors", True, "AnchorGenerator", "rounded", STAGES),
    Row("model.anchor_strides", "image", "AnchorGenerator", "image size // cells", STAGES),
    Row("model.padding", "foreign", "batch_images", "zeros, which no layer masks", TV_RESIZE),
    Row("model.pre_nms_train", 2000, "rpn_pre_nms_top_n_train", 2000, TV_MODEL),
    Row("model.pre_nms_test", 1000, "rpn_pre_nms_top_n_test", 1000, TV_MODEL),
    Row("model.post_nms_train", 2000, "rpn_post_nms_top_n_train", 2000, TV_MODEL),
    Row("model.post_nms_test", 1000, "rpn_post_nms_top_n_test", 1000, TV_MODEL),
    Row("model.rpn_nms_iou", 0.7, "rpn_nms_thresh", 0.7, TV_MODEL),
    Row("model.min_proposal_size", 1e-3, "min_size", 1e-3, TV_RPN),
    Row("model.roi_size", 7, "box_roi_pool output_size", 7, TV_MODEL),
    Row("model.sampling_ratio", 2, "box_roi_pool sampling_ratio", 2, TV_MODEL),
    Row("model.aligned", False, "roi_align(aligned)", False, STAGES),
    Row("model.canonical_size", 224.0, "MultiScaleRoIAlign(canonical_scale)", 224, STAGES),
    Row("model.head_width", 1024, "representation_size", 1024, TV_MODEL),
    Row("model.norm_heads", False, "TwoMLPHead", "no norm", TV_MODEL),
    Row("model.score_threshold", 0.05, "box_score_thresh", 0.05, TV_MODEL),
    Row("model.nms_iou", 0.5, "box_nms_thresh", 0.5, TV_MODEL),
    Row("model.max_detections", 100, "box_detections_per_img", 100, TV_MODEL),
    Row("model.min_detection_size", 0.01, "remove_small_boxes", 1e-2, STAGES),
    Row("model.pixel_mean", (123.675, 116.28, 103.53), "image_mean x 255", [0.485, 0.456, 0.406], TV_MODEL),
    Row("model.pixel_std", (58.395, 57.12, 57.375), "image_std x 255", [0.229, 0.224, 0.225], TV_MODEL),
    Row("input.short_side", 800, "min_size", 800, TV_MODEL),
    Row("input.long_side", 1333, "max_size", 1333, TV_MODEL),
    Row("input.train_short_sides", (), "min_size", 800, TV_MODEL),
    Row("input.keep_empty", False, "_coco_remove_images_without_annotations", "in training", TV_COCO),
    *AUGMENTATIONS,
    *SEGMENTS,
    Row("input.scale_jitter", (1.0, 1.0), "", None, NOT_THERE),
    Row("input.flip", 0.5, "hflip_prob", 0.5, TV_AUGMENT),
    Row("input.divisor", 32, "size_divisible", 32, TV_RESIZE),
    Row("input.max_canvases", 6, "", None, _CANVASES),
    Row("sampling.rpn_positive_iou", 0.7, "rpn_fg_iou_thresh", 0.7, TV_MODEL),
    Row("sampling.rpn_negative_iou", 0.3, "rpn_bg_iou_thresh", 0.3, TV_MODEL),
    Row("sampling.rpn_batch", 256, "rpn_batch_size_per_image", 256, TV_MODEL),
    Row("sampling.rpn_positive_fraction", 0.5, "rpn_positive_fraction", 0.5, TV_MODEL),
    Row("sampling.roi_positive_iou", 0.5, "box_fg_iou_thresh, box_bg_iou_thresh", 0.5, TV_MODEL),
    Row("sampling.roi_batch", 512, "box_batch_size_per_image", 512, TV_MODEL),
    Row("sampling.roi_positive_fraction", 0.25, "box_positive_fraction", 0.25, TV_MODEL),
    Row("sampling.rpn_box_beta", 1 / 9, "smooth_l1_loss(beta)", 1 / 9, TV_RPN),
    Row("sampling.roi_box_beta", 1 / 9, "smooth_l1_loss(beta)", 1 / 9, TV_HEADS),
    Row("optimizer.learning_rate", 0.02, "--lr", 0.02, TV_TRAIN),
    Row("optimizer.reference_batch", 16, "--lr is for 8 GPUs x 2 images", 16, TV_TRAIN),
    Row("optimizer.momentum", 0.9, "--momentum", 0.9, TV_TRAIN),
    Row("optimizer.weight_decay", 1e-4, "--weight-decay", 1e-4, TV_TRAIN),
    Row("optimizer.decay_biases", True, "SGD(params)", "all that train; frozen norms are buffers", TV_TRAIN),
    Row("optimizer.warmup_steps", 1000, "warmup_iters", 1000, TV_ENGINE),
    Row("optimizer.warmup_factor", 0.001, "warmup_factor", 1.0 / 1000, TV_ENGINE),
    Row("optimizer.schedule", "step", "lr_scheduler", "MultiStepLR", TV_TRAIN),
    Row("optimizer.milestones", (16 / 26, 22 / 26), "--lr-steps", [16, 22], TV_TRAIN),
    Row("optimizer.decay_factor", 0.1, "--lr-gamma", 0.1, TV_TRAIN),
    Row("optimizer.clip_norm", None, "", None, NOT_THERE),
    Row("optimizer.ema_decay", 0.0, "", None, NOT_THERE),
    Row("model.cascade", False, "", None, NOT_THERE),
    Row("model.mask", False, "fasterrcnn_resnet50_fpn", "no mask head", TV_MODEL),
    Row("model.mask_classes", "each", "MaskRCNNPredictor(num_classes)", "a mask for each", STAGES),
    Row("model.mask_channels", None, "MaskRCNNHeads(layers), as out_channels", (256, 256, 256, 256), STAGES),
    Row("model.pasting", "resized", "paste_masks_in_image", "expand_masks, interpolate", STAGES),
    Row("sampling.mask_batch", None, "RoIHeads.forward", "all positives", STAGES),
    Row("sampling.mask_targets", "soft", "project_masks_on_boxes", "roi_align", TV_HEADS),
    Row("optimizer.name", "sgd", "optimizer", "torch.optim.SGD", TV_TRAIN),
)

_TEXT = f"{PAPER}, section 5.2"
_CHOICE = "a choice of kfpn's: neither the text nor Detectron decides"
PAPER_ROWS = (
    Row("steps", 80_000, "for the first 60k mini-batches ... for the next 20k", 60_000 + 20_000, _TEXT),
    Row("batch_size", 16, "on 8 GPUs. Each mini-batch involves 2 image per GPU", 8 * 2, _TEXT),
    Row("model.backbone", "resnet50", "tables 1 to 3", "ResNet-50", f"{PAPER}, section 5"),
    Row("model.backbone_width", 64, "ResNet-50", 64, "He et al. 2016, table 1"),
    Row("model.backbone_layers", None, "", None, NOT_THERE),
    Row("model.stride_on", "1x1", "RESNETS.STRIDE_1X1", True, D1_CONFIG),
    Row("model.norm", "frozen_bn", "AffineChannel", "constant", D1_RESNET),
    Row("model.norm_epsilon", 1e-5, "of the ResNet-50 that it starts from", 1e-5, _CHOICE),
    Row("model.freeze_stages", 2, "freeze_at", 2, D1_RESNET),
    Row("model.pyramid", "fpn", "figure 3", "fpn", f"{PAPER}, section 3"),
    Row("model.upsampling", "nearest", "nearest neighbor upsampling", "nearest", f"{PAPER}, section 3"),
    Row("model.merge", "sum", "element-wise addition", "sum", f"{PAPER}, section 3"),
    Row("model.smooth_p5", True, "a 3x3 convolution on each merged map", True, f"{PAPER}, section 3"),
    Row("model.p6", True, "P6 is a stride two subsampling of P5", True, f"{PAPER}, section 4.1, footnote"),
    Row("model.pyramid_channels", 256, "d", 256, f"{PAPER}, section 3"),
    Row("model.shared_rpn", True, "the parameters of the heads are shared", True, f"{PAPER}, section 4.1"),
    Row("model.anchor_sizes", _SIDES, "areas", "{32^2, 64^2, 128^2, 256^2, 512^2}", f"{PAPER}, section 4.1"),
    Row("model.aspect_ratios", (0.5, 1.0, 2.0), "aspect ratios", "{1:2, 1:1, 2:1}", f"{PAPER}, section 4.1"),
    Row("model.round_anchors", False, "", None, _CHOICE),
    Row("model.anchor_strides", "level", "", None, _CHOICE),
    Row("model.padding", "zero", "", None, _CHOICE),
    Row("model.pre_nms_train", 2000, "TRAIN.RPN_PRE_NMS_TOP_N", 2000, D1_FILE),
    Row("model.pre_nms_test", 1000, "TEST.RPN_PRE_NMS_TOP_N", 1000, D1_FILE),
    Row("model.post_nms_train", 2000, "2000 RoIs per image for training", 2000, _TEXT),
    Row("model.post_nms_test", 1000, "and 1000 for testing", 1000, _TEXT),
    Row("model.rpn_nms_iou", 0.7, "TRAIN.RPN_NMS_THRESH, TEST.RPN_NMS_THRESH", 0.7, D1_CONFIG),
    Row("model.min_proposal_size", 0.0, "RPN_MIN_SIZE", 0, D1_CONFIG),
    Row("model.roi_size", 7, "extract 7x7 features", 7, f"{PAPER}, section 4.2"),
    Row("model.sampling_ratio", 2, "FAST_RCNN.ROI_XFORM_SAMPLING_RATIO", 2, D1_FILE),
    Row("model.aligned", False, "POOLER_TYPE ROIAlign, as Detectron1 has it", "not V2", D2_AS_D1),
    Row("model.canonical_size", 224.0, "equation 1", 224, f"{PAPER}, section 4.2"),
    Row("model.head_width", 1024, "two hidden 1,024-d fully-connected layers", 1024, f"{PAPER}, section 4.2"),
    Row("model.norm_heads", False, "FPN.USE_GN", False, D1_CONFIG),
    Row("model.score_threshold", 0.05, "TEST.SCORE_THRESH", 0.05, D1_CONFIG),
    Row("model.nms_iou", 0.5, "TEST.NMS", 0.5, D1_FILE),
    Row("model.max_detections", 100, "TEST.DETECTIONS_PER_IM", 100, D1_CONFIG),
    Row("model.min_detection_size", 0.0, "", None, _CHOICE),
    Row("model.pixel_mean", (123.675, 116.28, 103.53), "comes with --init", None, _CHOICE),
    Row("model.pixel_std", (58.395, 57.12, 57.375), "comes with --init", None, _CHOICE),
    Row("input.short_side", 800, "its shorter side has 800 pixels", 800, _TEXT),
    Row("input.long_side", 1333, "TRAIN.MAX_SIZE, TEST.MAX_SIZE", 1333, D1_FILE),
    Row("input.train_short_sides", (), "TRAIN.SCALES", (800,), D1_FILE),
    Row("input.keep_empty", False, "filter_for_training", "drops entries without a box", D1_ROIDB),
    *AUGMENTATIONS,
    *SEGMENTS,
    Row("input.scale_jitter", (1.0, 1.0), "TRAIN.SCALES", (800,), D1_FILE),
    Row("input.flip", 0.5, "TRAIN.USE_FLIPPED", True, D1_CONFIG),
    Row("input.divisor", 32, "FPN.COARSEST_STRIDE", 32, D1_CONFIG),
    Row("input.max_canvases", 6, "", None, _CANVASES),
    Row("sampling.rpn_positive_iou", 0.7, "positive: an IoU over", 0.7, f"{PAPER}, section 4.1"),
    Row("sampling.rpn_negative_iou", 0.3, "negative: IoU lower than", 0.3, f"{PAPER}, section 4.1"),
    Row("sampling.rpn_batch", 256, "256 anchors per image", 256, f"{PAPER}, section 5.1"),
    Row("sampling.rpn_positive_fraction", 0.5, "TRAIN.RPN_FG_FRACTION", 0.5, D1_CONFIG),
    Row("sampling.roi_positive_iou", 0.5, "TRAIN.FG_THRESH", 0.5, D1_CONFIG),
    Row("sampling.roi_batch", 512, "512 RoIs per image", 512, _TEXT),
    Row("sampling.roi_positive_fraction", 0.25, "TRAIN.FG_FRACTION", 0.25, D1_CONFIG),
    Row("sampling.rpn_box_beta", 1 / 9, "SmoothL1Loss(beta)", 1 / 9, D1_RPN),
    Row("sampling.roi_box_beta", 1.0, "SmoothL1Loss without beta, in D2_AS_D1 1.0", 1.0, D1_HEADS),
    Row("optimizer.learning_rate", 0.02, "The learning rate", 0.02, _TEXT),
    Row("optimizer.reference_batch", 16, "8 GPUs x 2 images", 16, _TEXT),
    Row("optimizer.momentum", 0.9, "a momentum of", 0.9, _TEXT),
    Row("optimizer.weight_decay", 1e-4, "a weight decay of", 0.0001, _TEXT),
    Row("optimizer.decay_biases", False, "biases", "Do not apply weight decay", D1_SGD),
    Row("optimizer.warmup_steps", 500, "SOLVER.WARM_UP_ITERS", 500, D1_CONFIG),
    Row("optimizer.warmup_factor", 1 / 3, "SOLVER.WARM_UP_FACTOR", 1 / 3, D1_CONFIG),
    Row("optimizer.schedule", "step", "SOLVER.LR_POLICY", "steps_with_decay", D1_FILE),
    Row("optimizer.milestones", (0.75,), "for the first 60k mini-batches", 60_000, _TEXT),
    Row("optimizer.decay_factor", 0.1, "0.02 ... 0.002", 0.002 / 0.02, _TEXT),
    Row("optimizer.clip_norm", None, "", None, NOT_THERE),
    Row("optimizer.ema_decay", 0.0, "", None, NOT_THERE),
    Row("model.cascade", False, "", None, NOT_THERE),
    Row("model.mask", False, "", None, NOT_THERE),
    Row("model.mask_classes", "each", "", None, _CHOICE),
    Row("model.mask_channels", None, "", None, _CHOICE),
    Row("model.pasting", "sampled", "", None, _CHOICE),
    Row("sampling.mask_batch", None, "", None, _CHOICE),
    Row("sampling.mask_targets", "grid", "", None, _CHOICE),
    Row("optimizer.name", "sgd", "Synchronized SGD", "SGD", _TEXT),
)

TABLES = {
    "paper": PAPER_ROWS,
    "detectron2_1x": detectron2_rows(90_000, (60_000, 80_000), BASE),
    "detectron2_3x": detectron2_rows(270_000, (210_000, 250_000), THREE),
    "torchvision": TORCHVISION,
}
"""Preset -> its rows: each field once."""
