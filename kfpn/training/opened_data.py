"""Opens the data of `kfpn.dataset` and of the callbacks: a name's training or validation part, with the labels of a detector."""

import dataclasses
import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from kfpn.config.model import default_class_names
from kfpn.config.run import Config
from kfpn.data import formats
from kfpn.data.class_names import lacking_classes, listed, relabelled, spelling_hint, with_classes_of
from kfpn.data.dataset_checks import check_training_set, check_validation_set, require_any_mask
from kfpn.data.formats.place_and_split import SPLITS
from kfpn.data.own_split import open_run_sources, open_validation
from kfpn.data.record import Record, Source
from kfpn.weights.detector_parts import input_rule_of, settings_of

AnySource = str | os.PathLike | Source | Iterable[Record]
"""What `kfpn.open_source` takes."""


_SPLIT_TO_EVALUATE = re.compile(rf",({'|'.join((*SPLITS['validation'], *SPLITS['test']))})(\[[^]]*\])?$")
"""The end of a name that says a split to evaluate on: all of it is taken."""


class OpenedData(NamedTuple):
    """Holds a data set, and the configuration by which its batches are made.

    Attributes:
        source: with the labels of the detector.
        config: `model`, `input`, `sampling`, `seed` and `batch_size` count; `data` is the name of the data.
    """

    source: Source
    config: Config


def run_settings(settings: Any) -> Config:
    """Returns the configuration that a configuration, a detector or a trainable detector stands for.

    Args:
        settings: one of these.

    Raises:
        ValueError: if it is none of them, or a detector that does not say how images are resized.
    """
    if isinstance(settings, Config):
        if settings.proposals:
            raise ValueError(
                f"proposals must be None for batches of kfpn.dataset, got {settings.proposals!r}: kfpn train trains on fixed proposals"
            )
        return settings
    detector = getattr(settings, "detector", settings)
    sampling = settings.config.sampling if settings is not detector else Config().sampling
    return Config(model=settings_of(detector), input=input_rule_of(detector), sampling=sampling)


def open_data(
    source: AnySource,
    settings: Any,
    batch_size: int | None = None,
    train: bool = True,
    detector: Any = None,
    val_share: float | None = None,
) -> OpenedData:
    """Opens and checks a data set for a detector.

    Args:
        source: a name, a folder or a source, as `kfpn.open_source` takes it. Of a name the part that `kfpn train --data NAME` trains
            on, or evaluates on.
        settings: see `run_settings`.
        batch_size: images of a batch; None: that of a configuration, 1 for a detector.
        train: the training part; False: the validation part.
        detector: whose labels count beside a configuration; None: a configuration's data keep their own.
        val_share: of the images, which are kept to evaluate on; None: that of the configuration.

    Raises:
        ValueError: as `kfpn.open_source` and `run_settings`; if there is nothing to evaluate on; if the detector lacks a class of the
            data; if a mask head has no mask to learn from.
    """
    config = run_settings(settings)
    if config.model.task == "segments":
        raise ValueError(
            "settings must be those of a detector, got model.task segments: only kfpn train --task segments trains it (docs/segments.md)"
        )
    if detector is None and not isinstance(settings, Config):
        detector = getattr(settings, "detector", settings)
    size = batch_size if batch_size is not None else config.batch_size if isinstance(settings, Config) else 1
    config = dataclasses.replace(config, batch_size=size)
    if val_share is not None:
        config = dataclasses.replace(config, val_share=val_share)
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        config = dataclasses.replace(config, data=name, val_data=config.val_data if config.data == name else None)
        opened = _named_part(config, train, alone=detector is not None)
    else:
        if val_share is not None:
            raise ValueError(
                f"val_share must be left out for a source, got {val_share!r}: a source is taken as a whole, so open one for each part"
            )
        opened = formats.open_source(source)
        # All of it is taken, so a run of these settings keeps nothing of it to evaluate on.
        config = dataclasses.replace(config, data=opened.name, val_data=None, val_share=0.0)
    if detector is None:
        model = dataclasses.replace(config.model, num_classes=len(opened.class_names))
    else:
        opened, model = with_labels_of(detector, opened), settings_of(detector)
    config = dataclasses.replace(config, model=model)
    (check_training_set if train else check_validation_set)(opened)
    if train and config.model.mask:
        require_any_mask(opened, config)
    return OpenedData(opened, config)


def _named_part(config: Config, train: bool, alone: bool) -> Source:
    """Returns the part of named data to train on, or to evaluate on.

    Args:
        config: its `data` is the name.
        train: which part.
        alone: whether the part to evaluate on may keep its own labels: the detector's come later.
    """
    if not train and _SPLIT_TO_EVALUATE.search(config.data):
        return formats.open_source(config.data, "validation", config.check_images, config.model.mask)
    if not train and alone and (known := open_validation(config)) is not None:
        return known
    training, validation = open_run_sources(config)
    if train:
        return training
    if validation is None:
        if formats.splits_itself(config.data):
            why = "a val_share of 0" if config.val_share == 0 else "too few images for one"
            raise ValueError(
                f"source must have images to evaluate on, got {config.data!r}, which has no validation split and {why}: name other data"
            )
        return training  # A file or a split that is named alone.
    return validation if alone else with_classes_of(training, validation)


def with_labels_of(detector: Any, source: Source) -> Source:
    """Returns a source with the labels of a detector: classes are matched by name.

    A detector whose classes were never named, "class 1" and so on, takes those of the data in their order.

    Raises:
        ValueError: if the detector lacks a class of the data.
    """
    names, own = tuple(detector.class_names), tuple(source.class_names)
    if names == own:
        return source
    if names == default_class_names(len(names)):
        if len(names) != len(own):
            raise ValueError(
                f"{source.name}: classes must be as many as the detector's {len(names)}, got {len(own)} ({listed(own)}): build it with "
                f"class_names={list(own)!r}"
            )
        return source
    lacking, _ = lacking_classes(source, names)
    if lacking:
        raise ValueError(
            f"{source.name}: classes must be among those of the detector ({listed(names)}), got {listed(lacking)}: build it with the "
            f"class_names of the data{spelling_hint(lacking, names)}"
        )
    return relabelled(source, names, detector.category_ids)
