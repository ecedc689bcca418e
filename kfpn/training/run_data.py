"""Opens the data of a run: images to train and to evaluate on, and fixed proposals."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfpn.config.run import Config
from kfpn.data.annotations import AnnotatedSource
from kfpn.data.augment import largest_training_input
from kfpn.data.class_names import relabelled, with_classes_of
from kfpn.data.dataset_checks import (
    check_training_set,
    check_validation_set,
    require_any_mask,
    rough_measure_line,
    warn_of_shared_images,
)
from kfpn.data.formats import open_source
from kfpn.data.numpy_batches import stacked_batches
from kfpn.data.own_augment import load_function
from kfpn.data.own_split import is_kept_back, open_run_sources, split_by_image
from kfpn.data.plan import WHOLE_BATCH, BatchShare, group_by_aspect
from kfpn.data.proposal_table import ProposalTable, proposals_of, rows_of_proposals
from kfpn.data.record import Source
from kfpn.data.sample_arrays import TrainingSamples
from kfpn.data.source_masks import boxes_alone
from kfpn.data.trained_records import trained_records
from kfpn.data.views import training_sizes
from kfpn.runs.workdir import Workdir

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class RunData:
    """Holds the data of a run.

    Attributes:
        source: images to train on.
        val_source: images to evaluate on; None: nothing is evaluated.
        proposals: fixed proposals of the training images, of `config.proposals`; None: the RPN is trained.
        val_proposals: those of the images to evaluate on; None without either.
        has_rpn: whether the network has an RPN that is trained.
    """

    source: Source
    val_source: Source | None = None
    proposals: ProposalTable | None = None
    val_proposals: ProposalTable | None = None
    has_rpn: bool = True

    @property
    def has_recall(self) -> bool:
        """Whether the run's detector makes proposals, whose recall is measured at its end."""
        return self.val_source is not None and self.has_rpn and self.proposals is None

    def rough_measure(self) -> str:
        """Returns one line that says that AP, or the recall of segments, is uncertain; "" where it is measured on enough images or not at all."""
        if self.val_source is None:
            return ""
        count = len(self.val_source)
        kept_of = len(self.source) + count if is_kept_back(self.val_source) else None
        return rough_measure_line(count, kept_of, "AP" if self.has_rpn else "AR")

    def canvases(self, config: Config) -> int:
        """Returns how many padded sizes the training batches have: each costs a compilation."""
        sizes = training_sizes(self.source.sizes[trained_records(self.source, config.input)], config.input)
        largest = largest_training_input(config.input)
        return len(group_by_aspect(sizes, largest, config.batch_size, config.input.scale_jitter[1]).canvases)

    def batches(self, config: Config, start: int, share: BatchShare = WHOLE_BATCH) -> "tf.data.Dataset":
        """Returns the data set of the global batches from step `start` on, or of a process's share of them."""
        from kfpn.data.pipeline import train_batches, with_proposals

        batches = train_batches(self.source, config, start, share)
        if self.proposals is None:
            return batches
        return with_proposals(batches, self.proposals, config, config.model.post_nms_train, augmented=True)

    def numpy_batches(
        self, config: Config, start: int, share: BatchShare = WHOLE_BATCH
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields the batches from step `start` on, or a process's share of them, the same as those of `batches`, made without TensorFlow.

        Raises:
            ValueError: naming an image that can't be read.
        """
        samples = TrainingSamples(self.source, config, share)
        rows_of = None
        if self.proposals is not None:
            rows_of = rows_of_proposals(self.proposals, config, config.model.post_nms_train, augmented=True)
        for batch in stacked_batches(samples, samples.planned(start)):
            yield batch if rows_of is None else {**batch, "proposals": rows_of(batch)}


def open_run_data(config: Config, source: Source | str | None, val_source: Source | str | None) -> RunData:
    """Opens the data of a run.

    Args:
        config: the run's.
        source: what to train on; None: `config.data`.
        val_source: what to evaluate on; None: `config.val_data` or, without `source` as well, the validation split of
            `config.data`, or the share of its images that `config.val_share` says.

    Raises:
        ValueError: if `config.augment` can't be imported, data can't be used or have no masks for a mask head, validation data has
            objects of other classes, or proposals are missing or of other images.
    """
    if config.augment:
        load_function(config.augment)  # What is wrong with it comes before the data are read.
    opened, validation = _opened_sources(config, source, val_source)
    opened = _with_classes_of_run(opened, config)
    check_training_set(opened)
    if config.model.learns_masks:
        require_any_mask(opened, config)
    if validation is None:
        warnings.warn(
            f"no validation data: {'AR' if config.model.task == 'segments' else 'AP'} is not measured, and the last weights are kept, not "
            f"the best (--val-share .1 keeps a tenth of the images to evaluate on){_without_effect(config)}",
            stacklevel=4,
        )
    else:
        validation = with_classes_of(opened, validation)
        check_validation_set(validation)
        if config.model.task == "segments":
            require_any_mask(validation, config)
        elif config.model.mask and (why := boxes_alone(validation)):
            warnings.warn(why, stacklevel=4)
        warn_of_shared_images(opened, validation)
    if not config.proposals:
        return RunData(opened, validation, has_rpn=config.model.task == "detections")
    val_proposals = None if validation is None else proposals_of(config.proposals, validation)
    return RunData(opened, validation, proposals_of(config.proposals, opened), val_proposals)


def _without_effect(config: Config) -> str:
    """Returns the end of a warning: which options do nothing without validation data."""
    names = [name for name in ("patience", "val_loss") if getattr(config, name)]
    return f"; {' and '.join(names)} do nothing" if names else ""


def _opened_sources(
    config: Config, source: Source | str | None, val_source: Source | str | None
) -> tuple[Source, Source | None]:
    if source is None and val_source is None:
        return open_run_sources(config)
    opened = open_source(
        config.data if source is None else source, "train", config.check_images, config.model.learns_masks
    )
    val_data: Any = val_source if val_source is not None else config.val_data
    if val_data is not None:
        return opened, open_source(val_data, "validation", config.check_images, config.model.learns_masks)
    return split_by_image(opened, config.val_share, config.seed) if config.val_share else (opened, None)


def _with_classes_of_run(source: Source, config: Config) -> Source:
    """Returns the data with the labels that the run has: versions before 0.2.0 gave one to categories that group others."""
    left_out = source.left_out_classes if isinstance(source, AnnotatedSource) else []
    folder = Workdir(config.workdir)
    if not left_out or not (folder.classes.exists() and folder.has_checkpoints()):
        return source
    names, ids = folder.read_classes()
    pairs, own = list(zip(names, ids, strict=False)), list(zip(source.class_names, source.category_ids, strict=True))
    same = [pair for pair in pairs if pair not in left_out] == own
    return relabelled(source, names, ids) if same and pairs != own else source
