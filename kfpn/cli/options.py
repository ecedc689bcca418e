"""What the commands of the command line take, and what their `--help` says."""

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import tyro

from kfpn import __version__
from kfpn.config.model import ModelConfig
from kfpn.config.test_scales import parse_scales
from kfpn.data.formats import describe_formats
from kfpn.export.onnx import onnx_options
from kfpn.export.saved_model import saved_model_options
from kfpn.export.tf_trt import trt_options

DESCRIPTION = f"""\
kfpn {__version__}: Faster R-CNN with a Feature Pyramid Network, in Keras 3.

Train, measure and use:
  kfpn train --strategy mirrored
  kfpn evaluate --workdir runs/shapes
  kfpn predict --workdir runs/shapes photo.jpg --output detected

With weights that others trained (torchvision, detectron2, keras.applications):
  kfpn import-weights fasterrcnn_resnet50_fpn_coco-258fb6c6.pth --output runs/coco
  kfpn list-pretrained

Each command has a --help of its own."""


class ExportRow(NamedTuple):
    """One product that `kfpn export` makes.

    Attributes:
        name: of the subcommand.
        runs_in: the programs that run the product.
        options: the dataclass of its options.
        run: the function that makes the product of such options, and returns the exit code.
        description: what `--help` says.
        example: a command.
        translate: turns the words of an older version's command line into those of this one, and warns; None: nothing
            was renamed.
    """

    name: str
    runs_in: str
    options: type
    run: Callable[[Any], int]
    description: str
    example: str
    translate: Callable[[list[str]], list[str]] | None = None


EXPORTS = (
    ExportRow(
        "saved_model", "TensorFlow Serving", saved_model_options.SavedModelOptions, saved_model_options.run, saved_model_options.DESCRIPTION,
        "kfpn export saved_model runs/shapes served/shapes --verify",
    ),
    ExportRow(
        "onnx", "ONNX Runtime, OpenVINO, TensorRT", onnx_options.OnnxOptions, onnx_options.run, onnx_options.DESCRIPTION,
        "kfpn export onnx runs/shapes shapes.onnx",
    ),
    ExportRow(
        "tf_trt", "TensorRT inside TensorFlow", trt_options.TfTrtOptions, trt_options.run, trt_options.DESCRIPTION,
        "kfpn export tf_trt runs/shapes --report", trt_options.translate_old_options,
    ),
)  # fmt: skip
"""The products of `kfpn export`, a row each."""

# What `--help` says: the first line in the list of commands, all of it with the command itself.
HELP = {
    "train": """\
Train a detector, evaluate it and keep everything in a work directory.

Without options: the built-in shapes, minutes on a CPU. The same command again goes on where it stopped:
  kfpn train --strategy mirrored

Your own data, images beside the JSON or in a folder that follows a comma:
  kfpn train --data coco:train.json,images --val-data coco:val.json,images --steps 3000
  kfpn train --data voc:my_folder --steps 3000

From weights that are trained already (stem and conv2_x stay frozen, as in the paper; --preset finetune):
  kfpn train --init fasterrcnn_resnet50_fpn_coco-258fb6c6.pth --data coco:train.json,images --val-data coco:val.json,images

COCO as in the paper (the 1x recipe; detectron2's settings):
  kfpn train --preset coco --init R-50.pkl --data coco:annotations/instances_train2017.json,train2017

The forms of --data and --val-data:
"""
    + describe_formats(),
    "evaluate": """\
Measure a trained detector: COCO's twelve figures and the AP of each class.

Examples:
  kfpn evaluate --workdir runs/shapes --json figures.json
  kfpn evaluate --workdir runs/cars --data coco:test.json,images
  kfpn evaluate --workdir runs/cars --scales 480,640,800 --flip
  kfpn evaluate --workdir runs/shapes --proposals""",
    "predict": """\
Detect objects in images: an annotated PNG of each, and detections.json in COCO's results form.

Example:
  kfpn predict --workdir runs/shapes photos/ one.jpg --output detected --min-score 0.7
  kfpn predict --workdir runs/cars photos/ --output detected --scales 480,640,800 --flip""",
    "visualize": """\
Draw what happens inside a detector: one page an image, with the maps of C2-C5 and P2-P6, objectness, proposals and RoIs.

Example:
  kfpn visualize --workdir runs/shapes photo.jpg --output photo_pyramid.png""",
    "replay-nan": """\
Compute the step again at which a run met a loss that was not finite, and say which layer went first.

Example:
  kfpn replay-nan --workdir runs/shapes""",
    "proposals": """\
Write the proposals of a trained detector's RPN, for `kfpn train --proposals`: Fast R-CNN on fixed proposals.

Of the images the run was trained on and of those it was evaluated on. Example:
  kfpn proposals --workdir runs/shapes --output shapes.npz
  kfpn train --proposals shapes.npz --workdir runs/fast""",
    "import-weights": """\
Make a work directory of weights that torchvision, detectron2 or keras.applications trained.

The file says what it is, and the network's settings come with it. Examples:
  kfpn import-weights fasterrcnn_resnet50_fpn_coco-258fb6c6.pth --output runs/coco
  kfpn import-weights torchvision:fasterrcnn_resnet50_fpn_coco --output runs/coco
  kfpn import-weights model_final_280758.pkl --output runs/d2 --model.score-threshold 0.3""",
    "export": f"""\
Write a trained detector for servers: {", ".join(f"{export.name} ({export.runs_in})" for export in EXPORTS)}.

Examples:
  {(chr(10) + "  ").join(export.example for export in EXPORTS)}""",
    "benchmark": """\
Time models on the same image, in turns: work directories, SavedModels, ONNX files.

Example:
  kfpn benchmark runs/coco served/coco coco.onnx --size 512 512""",
    "list-pretrained": """\
List the checkpoints that are known to fit: name, what it is, box AP, size, licence, address.""",
}


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Options of `kfpn evaluate`."""

    workdir: str
    """The work directory of `kfpn train`."""
    data: str | None = None
    """What to evaluate on, as for `kfpn train`. None: the validation data of the run."""
    split: str = "validation"
    """Split of `data`, where its name does not say one."""
    batch_size: int | None = None
    """Images at once. None: that of the run."""
    json: str | None = None
    """File for the figures."""
    detections: str | None = None
    """File for the detections, in COCO's results form."""
    scales: str | None = None
    """Image pyramid: short sides in pixels, 480,640,800; the detections are merged. None: the run's own size only."""
    flip: bool = False
    """Look at the mirror image as well, at each size."""
    proposals: bool = False
    """Measure the recall of the RPN's proposals as well: AR@100, AR@1000, and at 1000 of small, medium and large objects."""

    def __post_init__(self) -> None:
        parse_scales(self.scales)


@dataclasses.dataclass(frozen=True)
class Predict:
    """Options of `kfpn predict`."""

    images: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="IMAGE [IMAGE ...]")]
    """Image files, folders of images, or patterns ("photos/*.jpg")."""
    workdir: str
    """The work directory of `kfpn train`."""
    output: str
    """Folder for the pictures and detections.json; made if it is not there."""
    min_score: float = 0.5
    """Detections below this score are left out."""
    scales: str | None = None
    """Image pyramid: short sides in pixels, 480,640,800; the detections are merged. None: the run's own size only."""
    flip: bool = False
    """Look at the mirror image as well, at each size."""

    def __post_init__(self) -> None:
        parse_scales(self.scales)
        if not self.images:
            raise ValueError("images must name at least one file, got none")
        if not 0.0 <= self.min_score <= 1.0:
            raise ValueError(f"min_score must lie in 0..1, got {self.min_score!r}")


@dataclasses.dataclass(frozen=True)
class Visualize:
    """Options of `kfpn visualize`."""

    images: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="IMAGE [IMAGE ...]")]
    """Image files, folders of images, or patterns ("photos/*.jpg")."""
    workdir: str
    """The work directory of `kfpn train`."""
    output: str = "."
    """Folder for the pages, IMAGE_pyramid.png each, made if it is not there; or, for one image, a .png or .jpg file."""
    min_score: float = 0.5
    """Detections below this score are left out."""
    proposals: int = 50
    """Proposals and RoIs that are drawn at most, the best ones. The legend counts all."""

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("images must name at least one file, got none")
        if not 0.0 <= self.min_score <= 1.0:
            raise ValueError(f"min_score must lie in 0..1, got {self.min_score!r}")
        if self.proposals < 0:
            raise ValueError(f"proposals must be an integer of at least 0, got {self.proposals}")


@dataclasses.dataclass(frozen=True)
class ReplayNan:
    """Options of `kfpn replay-nan`."""

    workdir: str
    """The work directory of `kfpn train`, with a folder nan in it."""


@dataclasses.dataclass(frozen=True)
class Propose:
    """Options of `kfpn proposals`."""

    workdir: str
    """The work directory of `kfpn train`."""
    output: str
    """The file to write."""
    data: str | None = None
    """Images to propose on, as for `kfpn train`. None: the training data of the run."""
    val_data: str | None = None
    """More images, to evaluate on. None: the validation data of the run, or of `data`, where there are any."""
    count: int | None = None
    """Proposals an image, at most. None: the larger of the run's model.post-nms-train and model.post-nms-test."""
    batch_size: int | None = None
    """Images at once. None: that of the run."""

    def __post_init__(self) -> None:
        for name in ("count", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value}")


@dataclasses.dataclass(frozen=True)
class ImportWeights:
    """Options of `kfpn import-weights`."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CHECKPOINT")]
    """A file (.pth, .safetensors, .pkl, .h5), or a name of `kfpn list-pretrained`, which is downloaded once."""
    output: str
    """The work directory to make."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes, in order. None: COCO's where the number of classes is COCO's, else "class 1" and so on."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    """The network, as the checkpoint has it where nothing else is said."""


@dataclasses.dataclass(frozen=True)
class ListPretrained:
    """Options of `kfpn list-pretrained`."""


ExportOptions: Any = functools.reduce(
    operator.or_,
    [Annotated[row.options, tyro.conf.subcommand(row.name, description=row.description)] for row in EXPORTS],
)


@dataclasses.dataclass(frozen=True)
class Export:
    """Options of `kfpn export`."""

    options: ExportOptions  # type: ignore[valid-type]
    """The format, and its options."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Options of `kfpn benchmark`."""

    targets: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="TARGET [TARGET ...]")]
    """Work directories, SavedModels and .onnx files; what was exported stands behind its work directory."""
    size: tuple[int, int] = (512, 512)
    """Height and width of the image in pixels. A SavedModel resizes it by the rule of its run."""
    image: str | None = None
    """A picture, resized to `size`. None: noise."""
    runs: int = 7
    """Runs of each, in turns, after two that warm up."""

    def __post_init__(self) -> None:
        if not self.targets:
            raise ValueError("targets must name at least one model, got none")
        if min(self.size) < 32:
            raise ValueError(f"size must be at least 32 32, got {self.size[0]} {self.size[1]}")
        if self.runs < 1:
            raise ValueError(f"runs must be an integer of at least 1, got {self.runs}")
