"""Defines the whole configuration: frozen dataclasses, checked when made.

Every field is an option of the command line (`--model.backbone resnet18`). Its meaning is written once, under the field;
`--help` prints that text.
"""

import dataclasses
import difflib
from typing import Annotated, Any, Literal

import tyro.conf

from kfpn.config.checks import WHOLE_OR_NONE, check, is_int, one_of, positive, whole
from kfpn.config.field_types import require_types
from kfpn.config.input_config import InputConfig, require_function_name
from kfpn.config.model import STAGE_IOUS, ModelConfig
from kfpn.config.optimizer_config import OptimizerConfig
from kfpn.config.preset_names import PRESET_HELP, PresetName
from kfpn.config.profile_range import parse_profile
from kfpn.config.sampling_config import SamplingConfig
from kfpn.config.segment_settings import check_segment_run

Strategy = Literal["one_device", "mirrored", "multi_worker", "tpu", "parameter_server"]
CrossDevice = Literal["auto", "nccl", "hierarchical", "reduction_to_one"]
REFUSED = {
    "tpu": "the network's canvases, NMS and crops were never compiled for one, so no result can be promised there; use "
    "GPUs with mirrored, or several machines with multi_worker",
    "parameter_server": "Keras 3 knows nothing of it, and its asynchronous updates would make the result depend on how many "
    "workers there are; use multi_worker",
}
"""Strategies that TensorFlow has and kfpn refuses -> the reason."""
Precision = Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"]
UsedPrecision = Literal["auto", "float32", "mixed_bfloat16"]
"""The precision in which a trained network is used, see `kfpn.runs.used_precision.used_precision`."""
Compile = Literal["auto", "whole", "islands", "off", "measure"]
OnNan = Literal["stop", "skip"]
CheckImages = Literal["full", "once", "none"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a Faster R-CNN with a Feature Pyramid Network."""

    data: str = "coco:annotations/instances_train2017.json,train2017"
    """Training data, in one of the forms that `kfpn train --help` lists: shapes, coco:FILE.json,IMAGES and so on."""
    val_data: str | None = None
    """Data to evaluate on. None: the validation split of `data`, where it has one; else see `val_share`."""
    val_share: float | None = None
    """Where `data` has no validation split: the share of its images that is kept to evaluate on, drawn by `seed`. 0: none. None: 0.1
    of a folder, yolo:, csv: and labelme:, and 0 of the other forms."""
    check_images: CheckImages = "once"
    """How image files are checked at the start. once: each file that is new or changed must be whole; what was found is kept beside
    the data. full: all are decoded, each time. none: only their sizes are read."""
    workdir: str = "runs/coco"
    """The folder for everything that the run makes; the same command again resumes the run from there. With `data` of your own, and
    without this option, it has their name: runs/my_folder."""
    init: str | None = None
    """Weights to start from: a checkpoint of torchvision, detectron2 or keras.applications, a work directory, or a name of
    `kfpn list-pretrained`. The network's settings come with them. auto: the best COCO checkpoint of that list
    with the backbone (resnet50) that lies on this machine or can be downloaded, else random weights. None: random weights."""
    proposals: str | None = None
    """Fast R-CNN: a file of `kfpn proposals`, on which the box head is trained and evaluated, without an RPN. None: Faster
    R-CNN, whose RPN makes its proposals."""
    augment: str | None = None
    """A function of your own that changes the training images, as module:function; the module may lie in the current folder.
    docs/augmentation.md says what it gets and returns. None: none."""
    preset: Annotated[PresetName, tyro.conf.arg(help=PRESET_HELP)] = "coco"
    strategy: Strategy = "mirrored"
    """How devices share the work: one_device, mirrored (all GPUs of this machine that can share a batch equally; one CPU if none), or
    multi_worker (those of several machines, named by TF_CONFIG or Slurm; docs/distributed.md). tpu and parameter_server are
    refused, with the reason."""
    cross_device: CrossDevice = "auto"
    """How replicas sum gradients: auto is NCCL where there are GPUs. hierarchical and reduction_to_one are for mirrored."""
    cpu_devices: int | None = None
    """Splits the CPU into this many devices, and mirrored takes them and no GPU: to try several replicas without GPUs, not for
    speed. None: one CPU, where there is no GPU."""
    accumulate: int = 1
    """Each replica computes its share of a batch in this many parts, one after the other: less memory, the same step. The
    statistics of bn and sync_bn are then those of a part."""
    steps: int = 90_000
    """Optimizer steps in all; with `minutes`, what was planned."""
    minutes: float | None = None
    """Train for this long instead of `steps`, from the command's start to its exit: the run measures its speed and plans its steps.
    Time between a stop and a restart does not count. None: `steps` count."""
    batch_size: int = 16
    """Images a step, over all replicas."""
    seed: int = 0
    """Seed of weights, data order, augmentation and samplers."""
    precision: Precision = "auto"
    """Keras' dtype policy. auto: mixed_bfloat16 where the device that trains is fast in it (processors with AMX or AVX512_BF16, GPUs from
    Ampere on), else float32; the run keeps what was chosen. mixed_float16 scales the loss."""
    compile: Compile = "auto"
    """What XLA compiles of a step, once for each padded image size. whole: forward and backward. islands: what stands between the
    convolutions, which TensorFlow's own kernels compute. off: nothing. auto: islands on processors with AMX, and in bfloat16 with
    AVX512_BF16, and whole elsewhere (docs/speed.md). measure: whole or islands, by the time of some steps at the first start; the run keeps the choice."""
    jit_compile: bool = True
    """The old form of `compile`: --no-jit-compile is --compile off."""
    deterministic: bool = False
    """The same bits each time on one kind of GPU: TensorFlow takes slower ops that add in a fixed order, and nothing is compiled
    there. On CPUs a run has the same bits anyway."""
    eval_every: int | None = 5000
    """Steps between evaluations; there is always one at the end. None, with `minutes`: evaluations take at most a tenth of the time."""
    patience: int | None = None
    """Stop after this many evaluations in a row without a better AP: for long runs. A schedule plans for all steps: the end of a cosine,
    where AP rises most, is lost. None: never."""
    val_loss: bool = False
    """Measure the losses on the validation data at each evaluation as well. AP alone chooses the best weights."""
    eval_batch_size: int | None = None
    """Images that each device evaluates at once. None: as many as its memory takes, at most `batch_size`; fewer once memory was
    used up."""
    checkpoint_every: int | None = 1000
    """Steps between checkpoints. None, with `minutes`: they take a fiftieth of the time."""
    keep_checkpoints: int = 3
    """Newest checkpoints that are kept; the best one is kept too."""
    log_every: int = 20
    """Steps between rows of metrics.jsonl."""
    on_nan: OnNan = "stop"
    """A step whose loss or gradients are not finite changes no weight. Its batch and the state before it are kept in
    nan/ of the work directory; then the run stops, or skips that step (and stops after 20 in a row)."""
    samples: int = 8
    """Validation images drawn with their ground truth and detections after each evaluation."""
    report: bool = True
    """At the end write report.html into the work directory: what the best weights get right and wrong on the validation data, as
    `kfpn report` does. It is made of detections.json, the detections that were measured."""
    profile: str | None = None
    """Write a TensorBoard profile of N steps (5), or of the steps FIRST-LAST (100-104), to WORKDIR/profile. None: none."""
    model: ModelConfig = ModelConfig()
    input: InputConfig = InputConfig()
    sampling: SamplingConfig = SamplingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()

    def __post_init__(self) -> None:
        require_types(self, "")
        check(self, "", "steps batch_size accumulate keep_checkpoints log_every", whole(1))
        check(self, "", "minutes", ("be a positive number, or None", lambda v: v is None or positive(v)))
        check(self, "", "eval_every checkpoint_every", whole(1) if self.minutes is None else WHOLE_OR_NONE)
        check(self, "", "eval_batch_size patience", WHOLE_OR_NONE)
        check(self, "", "samples", whole(0))
        share = ("be a share from 0 to .9, or None", lambda v: v is None or 0.0 <= v <= 0.9)
        check(self, "", "val_share", share)
        if self.val_data and self.val_share:
            raise ValueError(f"val_share must be left out, got {self.val_share:g}: val_data is {self.val_data}")
        check(self, "", "seed", ("be an integer in 0..2^31-1", lambda v: is_int(v) and 0 <= v < 2**31))
        check(self, "", "strategy", one_of(Strategy))
        if self.strategy in REFUSED:
            raise ValueError(
                f"strategy must be one_device, mirrored or multi_worker, got {self.strategy!r}: {REFUSED[self.strategy]}"
            )
        check(self, "", "cross_device", one_of(CrossDevice))
        if self.cpu_devices is not None:
            check(self, "", "cpu_devices", ("be an integer in 1..64", lambda v: is_int(v) and 1 <= v <= 64))
            if self.strategy != "mirrored":
                raise ValueError(
                    f"cpu_devices must go with strategy mirrored, got {self.strategy}: leave one of them out"
                )
        check(self, "", "precision", one_of(Precision))
        check(self, "", "compile", one_of(Compile))
        if not self.jit_compile and self.compile not in ("auto", "off"):
            raise ValueError(
                f"compile must be left out with jit_compile False, got {self.compile!r}: they contradict each other"
            )
        check(self, "", "on_nan", one_of(OnNan))
        check(self, "", "check_images", one_of(CheckImages))
        check(self, "", "data workdir", ("not be empty", bool))
        require_function_name(self.augment)
        self._check_heads()
        if self.proposals and (moving := self.input.moves_boxes() or (self.augment and "augment")):
            raise ValueError(
                f"{moving} must be off with fixed proposals, got {self.proposals}: they go with input.flip and input.scale_jitter alone"
            )
        check_segment_run(self)
        parse_profile(self.profile)

    def _check_heads(self) -> None:
        if self.input.copy_paste and not self.model.learns_masks:
            raise ValueError(
                f"input.copy_paste must be 0 without masks, got {self.input.copy_paste:g}: it cuts objects out by their masks, add --mask"
            )
        first, second = self.sampling.roi_positive_iou, STAGE_IOUS[2]
        if self.model.cascade and first > second:
            raise ValueError(
                f"sampling.roi_positive_iou must be at most {second:g} with model.cascade, got {first:g}: it is that of the first "
                f"stage, and the second has {second:g}"
            )

    @property
    def masks_on_host(self) -> bool:
        """Whether what the mask head learns is made by an exact rule, which needs the compressed masks and the host."""
        return self.model.mask and self.sampling.mask_targets != "grid"


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a config as nested dicts of JSON values (tuples become lists)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value

    return plain(dataclasses.asdict(config))


def from_dict(cls: type, values: dict[str, Any], where: str = "") -> Any:
    """Builds a config from what `to_dict` gave; missing keys take their defaults.

    Args:
        cls: class of the config.
        values: nested dicts of JSON values.
        where: the section in messages, with a dot at its end.

    Raises:
        ValueError: for a section that is not a dict, an unknown key (the nearest known one is named) or a bad value.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    known = {}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
            hint = f"did you mean {where}{near[0]!r}?" if near else f"known are {', '.join(fields)}"
            raise ValueError(f"unknown option {where}{key!r}; {hint}")
        kind = fields[key].type
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, dict):
                raise ValueError(f"{where}{key} must be a section of options, got {value!r}")
            value = from_dict(kind, value, f"{where}{key}.")  # type: ignore[arg-type]
        known[key] = tuple(value) if isinstance(value, list) else value
    return cls(**known)
