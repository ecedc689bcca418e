"""Holds the options of `kfpn export onnx`, and runs the export. TensorFlow is imported when it runs."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from kfpn.export.input_shape import parse_input_shape

DESCRIPTION = """\
Write a trained detector, or what proposes segments, as an ONNX file.

Examples:
  kfpn export onnx runs/shapes shapes.onnx
  kfpn export onnx runs/shapes shapes.onnx --input-shape 1x800x1344x3
  kfpn export onnx runs/shapes shapes_int8.onnx --int8"""


@dataclass(frozen=True)
class OnnxOptions:
    """Options of `kfpn export onnx`."""

    workdir: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WORKDIR")]
    """The work directory of `kfpn train` or `kfpn import-weights`."""
    output: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUTPUT")]
    """The .onnx file to write; it must not exist."""
    input_shape: str | None = None
    """Such as 1x800x1344x3: a file of this one shape, for TensorRT. None: all are dynamic."""
    raw: bool = False
    """Leave out the NMS of the detections: each RoI's boxes and scores, class by class."""
    best_thresholds: bool = False
    """Leave out detections below the threshold of their class, which `kfpn evaluate --best-thresholds` has found."""
    int8: bool = False
    """Compute convolutions and products in eight bits, for CPUs: calibrated on real images, compared by AP."""
    calibration_data: str | None = None
    """With --int8: a folder of images, or a data set as train takes it. None: the run's training data."""
    calibration_images: int = 64
    """With --int8: how many of them."""
    check_images: int = 100
    """With --int8: validation images on which AP is compared with float32's. 0: it is not compared."""
    max_drop: float = 0.01
    """With --int8: the loss of AP that is allowed, 0..1. A file that loses more does not appear."""

    def __post_init__(self) -> None:
        if self.input_shape is not None:
            parse_input_shape(self.input_shape)
        if self.raw and self.best_thresholds:
            raise ValueError(
                "best_thresholds must go without --raw, got both: a raw file has no detections to leave out"
            )
        if self.calibration_data is not None and not self.int8:
            raise ValueError(f"calibration_data must go with --int8, got {self.calibration_data!r} without it")


def run(options: OnnxOptions) -> int:
    """Exports, and prints how the file compares with Keras and where it is.

    Returns:
        0; 1 where the file differs from Keras. Then the difference is on stderr, and no file was made.

    Raises:
        ValueError: see `kfpn.export.onnx.write_onnx.export_onnx`.
    """
    from kfpn.export.onnx.int8 import Int8Options
    from kfpn.export.onnx.write_onnx import export_onnx
    from kfpn.export.verify import ExportMismatch, print_mismatch

    names = ("calibration_data", "calibration_images", "check_images", "max_drop")
    int8 = Int8Options(**{name: getattr(options, name) for name in names}) if options.int8 else None
    try:
        path = export_onnx(
            options.workdir, options.output, input_shape=options.input_shape, raw=options.raw, int8=int8,
            best_thresholds=options.best_thresholds,
        )  # fmt: skip
    except ExportMismatch as error:
        return print_mismatch(error)
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB")
    return 0
