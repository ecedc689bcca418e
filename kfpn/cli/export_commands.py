"""The options of `kfpn export saved_model` and `kfpn export onnx`, and what they print. TensorFlow is imported when they run."""

import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from kfpn.export.input_shape import input_shape as checked_shape

SAVED_MODEL_HELP = """\
Write a trained detector as a SavedModel for TensorFlow Serving, as the next version in a model's folder.

Examples:
  kfpn export saved_model runs/shapes served/shapes --verify
  kfpn export saved_model runs/shapes served/shapes --warmup photo.jpg --warmup-batch-sizes 1 8 --batching"""


@dataclass(frozen=True)
class SavedModelOptions:
    """Options of `kfpn export saved_model`."""

    workdir: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WORKDIR")]
    """The work directory of `kfpn train` or `kfpn import-weights`."""
    directory: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIR")]
    """The model's folder, made if it is not there; the export becomes its subfolder 1, or the next free number."""
    signatures: tuple[Literal["image_bytes", "image_tensor", "proposals"], ...] = (
        "image_bytes",
        "image_tensor",
        "proposals",
    )
    """image_bytes (files; to servers serving_default), image_tensor (pixels), proposals (pixels; of the RPN)."""
    warmup: tuple[str, ...] = ()
    """Image files that a server answers requests with before it opens, in every signature."""
    warmup_batch_sizes: tuple[int, ...] = (1,)
    """Images in these requests."""
    batching: bool = False
    """Also write DIR/batching.config for --batching_parameters_file, unless it is there."""
    xla: bool = False
    """Compile the network with XLA where it runs, anew for each padded size and batch size: seconds to minutes each."""
    verify: bool = False
    """Compare with the Keras model on images of two sizes and in two batch sizes before the version appears."""


def run_saved_model(options: SavedModelOptions) -> int:
    """Exports, and prints where to and which signatures there are.

    Returns:
        0; 1 where --verify found a difference, which then is on stderr, and no version was made.

    Raises:
        ValueError: see `kfpn.export.saved_model.write_saved_model.export_saved_model`.
    """
    from kfpn.export.saved_model.serving_files import BATCHING, WARMUP
    from kfpn.export.saved_model.write_saved_model import SIGNATURES, export_saved_model
    from kfpn.export.verify import Different

    try:
        path = export_saved_model(
            options.workdir,
            options.directory,
            signatures=options.signatures,
            warmup=options.warmup,
            warmup_batch_sizes=options.warmup_batch_sizes,
            batching=options.batching,
            xla=options.xla,
            verify=options.verify,
        )
    except Different as error:
        print(f"kfpn: error: {error}", file=sys.stderr)
        return 1
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"{path}: {size / 1e6:.0f} MB; signatures {', '.join(SIGNATURES[name] for name in options.signatures)}")
    if options.warmup:
        print(f"{path / WARMUP}: {len(options.warmup)} images in batches of {options.warmup_batch_sizes}")
    if options.batching:
        print(f"{path.parent / BATCHING}: for tensorflow_model_server --enable_batching --batching_parameters_file")
    return 0


@dataclass(frozen=True)
class OnnxOptions:
    """Options of `kfpn export onnx`."""

    workdir: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WORKDIR")]
    """The trained detector's work directory."""
    target: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE.onnx")]
    """The file to write."""
    input_shape: str | None = None
    """Such as 1x800x1344x3: a file of this one shape, for TensorRT. None: all are dynamic."""
    raw: bool = False
    """Leave out the NMS of the detections: each RoI's boxes and scores, class by class."""
    int8: bool = False
    """Compute convolutions and products in eight bits, for CPUs: calibrated on real images, compared by AP."""
    calibration_data: str | None = None
    """With --int8: a folder of images, or a data set as train takes it. None: the run's training data."""
    calibration_images: int = 64
    """With --int8: how many of them."""
    check_images: int = 100
    """With --int8: validation images on which AP is compared with float32's. 0: it isn't."""
    max_drop: float = 0.01
    """With --int8: what AP may lose, 0..1; a file that loses more doesn't appear."""

    def __post_init__(self) -> None:
        if self.input_shape is not None:
            checked_shape(self.input_shape)
        if self.calibration_data is not None and not self.int8:
            raise ValueError(f"calibration_data must go with --int8, got {self.calibration_data!r} without it")


def run_onnx(options: OnnxOptions) -> int:
    """Exports, and prints how the file compares with Keras and where it is.

    Returns:
        0; 1 where the file differs from Keras, which then is on stderr, and no file was made.

    Raises:
        ValueError: see `kfpn.export.onnx.write_onnx.export_onnx`.
    """
    from kfpn.export.onnx.int8 import Int8Options
    from kfpn.export.onnx.write_onnx import export_onnx
    from kfpn.export.verify import Different

    names = ("calibration_data", "calibration_images", "check_images", "max_drop")
    int8 = Int8Options(**{name: getattr(options, name) for name in names}) if options.int8 else None
    try:
        path = export_onnx(options.workdir, options.target, input_shape=options.input_shape, raw=options.raw, int8=int8)
    except Different as error:
        print(f"kfpn: error: {error}", file=sys.stderr)
        return 1
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB")
    return 0
