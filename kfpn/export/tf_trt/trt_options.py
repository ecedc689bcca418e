"""Holds the options of `kfpn export tf_trt`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from kfpn.export.input_shape import parse_input_shape

PRECISIONS = ("FP32", "FP16", "INT8")
# With a smaller number, R50-FPN gets engines for the few nodes between two NMS loops, which only cost copies.
MINIMUM_SEGMENT_SIZE = 80

DESCRIPTION = """\
Convert a trained detector with TF-TRT: a SavedModel whose convolutions run in TensorRT engines.

Examples:
  kfpn export tf_trt runs/shapes --report
  kfpn export tf_trt runs/shapes served/trt/1 --precision FP16 --input-shape 1x800x1344x3 --build --verify"""


@dataclass(frozen=True)
class TfTrtOptions:
    """Options of `kfpn export tf_trt`."""

    workdir: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WORKDIR")]
    """The work directory of `kfpn train` or `kfpn import-weights`."""
    output: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="OUTPUT")] = None
    """The SavedModel to write; it must not exist. It is not needed with --report."""
    precision: str = "FP16"
    """FP32, FP16 or INT8."""
    input_shape: str = "1x800x1344x3"
    """BxHxWx3 of the network's input; smaller images are padded below and right."""
    dynamic: bool = False
    """Build engines for batches of 1 to B, and for sides from half the shorter to the longer one."""
    calibration_data: str | None = None
    """For INT8: coco:..., voc:..., tfds:..., shapes, or a folder of images."""
    calibration_images: int = 100
    """For INT8: how many of them."""
    build: bool = False
    """Build the engines now and save them. Otherwise they are built at the first request."""
    workspace: int = 4096
    """MB of GPU memory that TensorRT may use to try out formulations."""
    minimum_segment_size: int = MINIMUM_SEGMENT_SIZE
    """Nodes that an engine must hold at least."""
    verify: bool = False
    """Compare with Keras and time both, before the SavedModel appears."""
    report: bool = False
    """Only print what would convert: this needs TensorFlow 2.17, but neither TensorRT nor a GPU."""
    require_flops: float | None = None
    """With --report: fail where a smaller share of the FLOPs converts, 0..1."""
    require_segments: int | None = None
    """With --report: fail where there are more segments."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, got {self.precision!r}"
            )
        for name in ("calibration_images", "workspace", "minimum_segment_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.require_flops is not None and not 0 <= self.require_flops <= 1:
            raise ValueError(f"require_flops must be within 0 and 1, got {self.require_flops}")
        parse_input_shape(self.input_shape)
        if self.report:
            return
        if self.output is None:
            raise ValueError("output must be the folder to write, got none; or ask for the report")
        if self.precision == "INT8" and self.calibration_data is None:
            raise ValueError("calibration_data must be images for INT8 (coco:..., voc:..., or a folder), got none")
        if self.precision != "INT8" and self.calibration_data is not None:
            raise ValueError(f"calibration_data must go with precision INT8, got {self.precision}")
