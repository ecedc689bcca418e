"""Holds the options of `kfpn export saved_model`, and runs the export. TensorFlow is imported when it runs."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from kfpn.export.saved_model.request_limits import MOST_PIXELS, RequestLimits

DESCRIPTION = """\
Write a trained detector, or what proposes segments, as a SavedModel for TensorFlow Serving, as the next version in a model's folder.

Examples:
  kfpn export saved_model runs/shapes served/shapes --verify
  kfpn export saved_model runs/shapes served/shapes --warmup photo.jpg --warmup-batch-sizes 1 8 --batching
  kfpn export saved_model runs/shapes served/shapes --precision bfloat16 --verify"""


@dataclass(frozen=True)
class SavedModelOptions:
    """Options of `kfpn export saved_model`."""

    workdir: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WORKDIR")]
    """The work directory of `kfpn train` or `kfpn import-weights`."""
    output: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUTPUT")]
    """The model's folder, made if it is not there; the export becomes its subfolder 1, or the next free number."""
    signatures: tuple[Literal["image_bytes", "image_tensor", "proposals"], ...] = (
        "image_bytes",
        "image_tensor",
        "proposals",
    )
    """image_bytes (files; to servers serving_default), image_tensor (pixels), proposals (pixels; of the RPN, segments have none)."""
    warmup: tuple[str, ...] = ()
    """Image files, of which a server answers requests in every signature before it opens."""
    warmup_batch_sizes: tuple[int, ...] = (1,)
    """Images in these requests."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: compute convolutions and matrix products in 16 bits, for CPUs that have instructions for it (docs/bfloat16.md)."""
    batching: bool = False
    """Also write OUTPUT/batching.config for --batching_parameters_file, unless it is there."""
    xla: bool = False
    """Compile the network with XLA where it runs, anew for each padded size and batch size: seconds to minutes each."""
    nms_on: Literal["cpu", "gpu"] = "cpu"
    """gpu: select detections with operations that have kernels for GPUs. They are the same detections, later on a CPU (docs/gpu.md)."""
    devices: bool = False
    """Print which operations of the export have no kernel for GPUs, part by part."""
    full_masks: bool = False
    """Also give detection_masks_reframed (B, D, H, W) uint8: each mask in an image of the size that was sent. Answers grow large."""
    best_thresholds: bool = False
    """Leave out detections below the threshold of their class, which `kfpn evaluate --best-thresholds` has found."""
    verify: bool = False
    """Compare with the Keras model on images of two sizes and in two batch sizes before the version appears."""
    max_pixels: int = MOST_PIXELS
    """Most pixels of an image as it is sent; the default is the limit of `kfpn predict`. Decoding takes 3 to 6 bytes each."""
    max_images: int = RequestLimits.max_images
    """Most images of a request."""
    max_batch_pixels: int = RequestLimits.max_batch_pixels
    """Most pixels of a request after resizing and padding; the network's memory grows with them."""
    max_request_pixels: int = RequestLimits.max_request_pixels
    """Most pixels of a request as they are decoded, before resizing: 32 photos of 12 megapixels. At least max_pixels count."""
    max_mask_pixels: int = RequestLimits.max_mask_pixels
    """With --full-masks: most pixels of all masks of an answer, a byte each."""
    strict: bool = False
    """Refuse a request with a bad file, rather than leave that file's row empty and name the fault in `errors`."""


def run(options: SavedModelOptions) -> int:
    """Exports, and prints the version's folder and its signatures.

    Returns:
        0; 1 where --verify found a difference. Then the difference is on stderr, and no version was made.

    Raises:
        ValueError: see `kfpn.export.saved_model.write_saved_model.export_saved_model`.
    """
    from kfpn.export.saved_model.serving_files import BATCHING, WARMUP
    from kfpn.export.saved_model.write_saved_model import SIGNATURES, export_saved_model, signatures_of
    from kfpn.export.verify import ExportMismatch, print_mismatch

    try:
        path = export_saved_model(
            options.workdir,
            options.output,
            signatures=options.signatures,
            warmup=options.warmup,
            warmup_batch_sizes=options.warmup_batch_sizes,
            batching=options.batching,
            xla=options.xla,
            nms_on=options.nms_on,
            best_thresholds=options.best_thresholds,
            verify=options.verify,
            full_masks=options.full_masks,
            precision=options.precision,
            limits=RequestLimits(
                max_pixels=options.max_pixels,
                max_images=options.max_images,
                max_batch_pixels=options.max_batch_pixels,
                max_request_pixels=options.max_request_pixels,
                max_mask_pixels=options.max_mask_pixels,
                strict=options.strict,
            ),
        )
    except ExportMismatch as error:
        return print_mismatch(error)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    names = signatures_of(options.workdir, options.signatures)
    print(f"{path}: {size / 1e6:.0f} MB; signatures {', '.join(SIGNATURES[name] for name in names)}")
    if options.devices:
        from kfpn.export.saved_model.op_devices import device_table

        print(device_table(path))
    if options.warmup:
        print(f"{path / WARMUP}: {len(options.warmup)} images in batches of {options.warmup_batch_sizes}")
    if options.batching:
        print(f"{path.parent / BATCHING}: for tensorflow_model_server --enable_batching --batching_parameters_file")
    return 0
