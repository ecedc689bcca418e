"""The options of `kfpn export tf_trt`, apart from what imports TensorFlow."""

from dataclasses import dataclass

from kfpn.export.input_shape import input_shape

PRECISIONS = ("FP32", "FP16", "INT8")
# Below it R50-FPN gets engines for the few nodes between two NMS loops, which only cost copies.
MINIMUM_SEGMENT_SIZE = 80


@dataclass(frozen=True)
class TfTrtOptions:
    """The options of `kfpn export tf_trt` and export/to_tf_trt.py.

    Attributes:
        workdir: of a trained detector.
        output: the SavedModel to write; must not exist. Not needed with `report`.
        precision: FP32, FP16 or INT8.
        input_shape: BxHxWx3 of the network's input; smaller images are padded below and right.
        dynamic: engines for batches of 1 to B and for sides from half the shorter to the longer one.
        calibration_data: for INT8: coco:..., voc:..., tfds:..., shapes, or a folder of images.
        calibration_images: how many of them.
        build: build the engines now and save them; else they are built at the first request.
        workspace: MB of GPU memory that TensorRT may try out formulations in.
        minimum_segment_size: nodes an engine must hold.
        verify: compare with Keras and time both, before the SavedModel appears.
        report: say what would convert, and stop: needs TensorFlow 2.17, but neither TensorRT nor a GPU.
        require_flops: with `report`, fail below this share of the FLOPs, 0..1.
        require_segments: with `report`, fail above this number of segments.
    """

    workdir: str
    output: str | None = None
    precision: str = "FP16"
    input_shape: str = "1x800x1344x3"
    dynamic: bool = False
    calibration_data: str | None = None
    calibration_images: int = 100
    build: bool = False
    workspace: int = 4096
    minimum_segment_size: int = MINIMUM_SEGMENT_SIZE
    verify: bool = False
    report: bool = False
    require_flops: float | None = None
    require_segments: int | None = None

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, got {self.precision!r}"
            )
        for name in ("calibration_images", "workspace", "minimum_segment_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.require_flops is not None and not 0 <= self.require_flops <= 1:
            raise ValueError(f"require_flops must be within 0 and 1, got {self.require_flops}")
        input_shape(self.input_shape)
        if self.report:
            return
        if self.output is None:
            raise ValueError("output must be the folder to write, got none; or ask for the report")
        if self.precision == "INT8" and self.calibration_data is None:
            raise ValueError("calibration_data must be images for INT8 (coco:..., voc:..., or a folder), got none")
        if self.precision != "INT8" and self.calibration_data is not None:
            raise ValueError(f"calibration_data must go with precision INT8, got {self.precision}")
