"""Defines the options of the commands: a frozen dataclass each, whose field docstrings are the help texts."""

import dataclasses
import functools
import operator
from typing import Annotated, Any, Literal

import tyro

from kfpn.cli.exports import EXPORTS
from kfpn.config.checks import SHARE, check, whole
from kfpn.config.input_config import InputConfig, require_function_name
from kfpn.config.model import ModelConfig
from kfpn.config.preset_names import PresetName
from kfpn.config.run import CheckImages, UsedPrecision
from kfpn.config.test_scales import parse_scales
from kfpn.config.tile_options import asked_tiles
from kfpn.data.decode_limits import MOST_PIXELS, require_max_pixels


@dataclasses.dataclass(frozen=True)
class LookAtData:
    """Options of `kfpn data`."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """A folder, or data as for `kfpn train`."""
    output: str | None = None
    """The contact sheet to write, a .png or .jpg file outside of the data. None: NAME-contact.png in the current folder."""
    images: int = 24
    """Images on the sheet: some of each class, the rarest first, and others evenly spread."""
    augmented: bool = False
    """Show what training will see instead: its first images, resized and augmented, with their boxes. The options below say how it
    is trained, and go with this one."""
    workdir: str | None = None
    """The work directory of a run, whose options are taken."""
    preset: Annotated[
        PresetName | None, tyro.conf.arg(help="The preset whose options are taken, as by `kfpn train`.")
    ] = None
    augment: str | None = None
    """As for `kfpn train`."""
    seed: int = 0
    """As for `kfpn train`."""
    batch_size: int = 16
    """As for `kfpn train`; it decides which images come first."""
    input: InputConfig = InputConfig()

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("data must name a folder or a data set, got nothing")
        if not 1 <= self.images <= 1000:
            raise ValueError(f"images must be an integer from 1 to 1000, got {self.images}")
        require_function_name(self.augment)
        check(self, "", "batch_size", whole(1))


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
    """Images that are padded together, and at most at once where memory decides. None: that of the run."""
    eval_batch_size: int | None = None
    """Images at once; it changes no figure. None: that of the run or, by memory, at most `batch_size`."""
    json: str | None = None
    """File for the figures."""
    detections: str | None = None
    """File for the detections, in COCO's results form."""
    scales: str | None = None
    """Image pyramid: short sides in pixels, 480,640,800; the detections are merged. None: the run's own size only."""
    flip: bool = False
    """Look at the mirror image as well, at each size."""
    tiles: int | None = None
    """Look at each image in squares of so many of its pixels, and at the whole of it; the detections are merged (docs/tiles.md). None: as
    the run trained. 0: the whole only."""
    overlap: float | None = None
    """The share of a tile's side that its neighbour shows too: objects up to this size are whole in a tile. None: 0.2."""
    tiles_only: bool = False
    """Don't look at the whole image, in which objects larger than the overlap are found."""
    proposals: bool = False
    """Measure the recall of the RPN's proposals as well: AR@100, AR@1000, and at 1000 of small, medium and large objects."""
    check_images: CheckImages | None = None
    """How image files are checked, as for `kfpn train`. None: as the run did."""
    max_detections: int | None = None
    """Detections an image at most; above 100, AP@N and AR@N are given too. None: the run's model.max-detections."""
    best_thresholds: bool = False
    """Find each class's score threshold with the best F1 at IoU .5, print them and keep them for `kfpn predict` and exports."""
    precision: UsedPrecision = "auto"
    """Keras' dtype policy. auto: mixed_bfloat16 where the run was trained in it and the processor is fast in it, else float32."""

    def __post_init__(self) -> None:
        parse_scales(self.scales)
        asked_tiles(self.tiles, self.overlap, self.tiles_only)
        for name in ("eval_batch_size", "max_detections"):
            if getattr(self, name) is not None:
                check(self, "", name, whole(1))


@dataclasses.dataclass(frozen=True)
class Predict:
    """Options of `kfpn predict`."""

    images: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="IMAGE [IMAGE ...]")]
    """Image files, videos, folders, patterns ("photos/*.jpg"), http and https addresses of images, or - for a list on standard
    input. Of a folder the images are taken, or the videos where there are no images (docs/predict.md)."""
    workdir: str
    """The work directory of `kfpn train`."""
    output: str
    """Folder for the pictures, the videos and detections.json; made if it is not there."""
    min_score: float | None = None
    """Detections below this score are left out. None: each class has its own threshold where `kfpn evaluate
    --best-thresholds` has found them, else 0.5 counts for all. Of a run with --task segments none is left out."""
    scales: str | None = None
    """Image pyramid: short sides in pixels, 480,640,800; the detections are merged. None: the run's own size only."""
    flip: bool = False
    """Look at the mirror image as well, at each size."""
    tiles: int | None = None
    """Look at each image in squares of so many of its pixels, and at the whole of it; the detections are merged (docs/tiles.md). None: as
    the run trained. 0: the whole only."""
    overlap: float | None = None
    """The share of a tile's side that its neighbour shows too: objects up to this size are whole in a tile. None: 0.2."""
    tiles_only: bool = False
    """Don't look at the whole image, in which objects larger than the overlap are found."""
    max_detections: int | None = None
    """Detections an image at most. None: the run's model.max-detections. With --task segments: segments. None: 20."""
    max_pixels: int = MOST_PIXELS
    """Most pixels of an image. Larger ones are named and passed over, and so are JPEGs whose scans have more than a hundred times as many."""
    precision: UsedPrecision = "auto"
    """Keras' dtype policy. auto: mixed_bfloat16 where the run was trained in it and the processor is fast in it, else float32."""

    def __post_init__(self) -> None:
        parse_scales(self.scales)
        asked_tiles(self.tiles, self.overlap, self.tiles_only)
        require_max_pixels(self.max_pixels)
        if self.max_detections is not None:
            check(self, "", "max_detections", whole(1))
        _check_pictures(self)


@dataclasses.dataclass(frozen=True)
class Visualize:
    """Options of `kfpn visualize`."""

    images: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="IMAGE [IMAGE ...]")]
    """Image files, folders of images, or patterns ("photos/*.jpg")."""
    workdir: str
    """The work directory of `kfpn train`."""
    output: str = "."
    """Folder for the pages, IMAGE_pyramid.png each, made if it is not there; or, for one image, a .png or .jpg file."""
    min_score: float | None = None
    """Detections below this score are left out. None: 0.5; of a run with --task segments all segments count."""
    proposals: int | None = None
    """Proposals and RoIs that are drawn at most, the best ones. The legend counts all. None: 50. With --task segments: segments of a
    level. None: 5."""

    def __post_init__(self) -> None:
        _check_pictures(self)
        if self.proposals is not None:
            check(self, "", "proposals", whole(0))


def _check_pictures(command: Predict | Visualize) -> None:
    """Checks what both commands have: images, and the least score of a detection."""
    if not command.images:
        raise ValueError("images must name at least one file, got none")
    for name, value in (*(("images", image) for image in command.images), ("output", command.output)):
        if not value.strip():  # it would stand for the folder where the user is
            raise ValueError(
                f"{name} must be a name, got an empty one: is a variable of the shell empty? Write . for this folder"
            )
    if command.min_score is not None:
        check(command, "", "min_score", SHARE)


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
    """Images that are padded together, and at most at once where memory decides. None: that of the run."""

    def __post_init__(self) -> None:
        for name in ("count", "batch_size"):
            if getattr(self, name) is not None:
                check(self, "", name, whole(1))


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
    [
        Annotated[row.options, tyro.conf.subcommand(row.name, description=row.description.splitlines()[0])]
        for row in EXPORTS
    ],
)


@dataclasses.dataclass(frozen=True)
class Export:
    """Options of `kfpn export`."""

    options: ExportOptions  # type: ignore[valid-type]
    """The format, and its options."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Options of `kfpn benchmark`."""

    targets: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="TARGET [TARGET ...]", help_behavior_hint="(required)"),
    ]
    """Work directories, SavedModels and .onnx files; what was exported stands behind its work directory."""
    size: tuple[int, int] = (512, 512)
    """Height and width of the image in pixels. A SavedModel resizes it by the rule of its run."""
    image: str | None = None
    """A picture, resized to `size`. None: noise."""
    runs: int = 7
    """Runs of each, in turns, after two that warm up."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of work directories, and of .onnx files in OpenVINO. auto: float32, and a row in bfloat16 where the processor has instructions for it."""

    def __post_init__(self) -> None:
        if not self.targets:
            raise ValueError("targets must name at least one model, got none")
        if min(self.size) < 32:
            raise ValueError(f"size must be at least 32 32, got {self.size[0]} {self.size[1]}")
        check(self, "", "runs", whole(1))
