"""Reads TensorFlow Datasets by random access: `tfds:NAME[,SPLIT]`, any set with objects/bbox and objects/label."""

import difflib
import functools
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from kfpn.data.annotation_checks import LOGGER, AnnotationFaults, upright_boxes
from kfpn.data.annotations import AnnotatedSource, Annotations, ImageTable, RawObjects, collect
from kfpn.data.field_values import number_column
from kfpn.data.formats.place_and_split import place_and_split
from kfpn.data.formats.tfds_cache import cache_file, read_cache, write_cache
from kfpn.data.formats.tfds_examples import EncodedImages, ExampleNames, as_bytes, data_source
from kfpn.data.formats.tfds_masks import OF_OBJECT, features_with_masks, masks_of_example
from kfpn.data.image import read_header
from kfpn.data.image_checks import progress
from kfpn.data.record import Source

_FLAGS = {"is_crowd", "is_difficult"}
_FORMAT = "array_record"  # TFDS's format with random access


class TfdsSource(AnnotatedSource):
    """Reads one split of a TFDS data set; images stay encoded until a record is used.

    The first opening reads everything once, checks it and keeps sizes and boxes in a file beside the data. TFDS decodes
    without EXIF rotation, so its boxes are taken to be of the stored pixels, and rotated with the image. Objects that are
    `is_crowd` or `is_difficult` are crowd; `area` counts where there is one.

    Args:
        builder: prepared, in the array_record format.
        split: a split of it, or a part as in "train[:80%]".
        name: what messages call the data set; None: "tfds:NAME,SPLIT".
        masks: whether the masks of the objects are kept, where the data set has them, see `features_with_masks`.

    Raises:
        ValueError: when the split or the features needed are not there, or an image or label is unusable.
    """

    def __init__(
        self, builder: tfds.core.DatasetBuilder, split: str = "train", name: str | None = None, *, masks: bool = False
    ) -> None:
        name = name or f"tfds:{builder.info.full_name},{split}"
        features = _require_features(builder, name)
        inner = {field: features["objects"].feature[field] for field in _object_fields(features)}
        wanted = {"image": features["image"], "objects": tfds.features.Sequence(inner)}
        if "image/id" in features and np.issubdtype(features["image/id"].np_dtype, np.integer):
            wanted["image/id"] = features["image/id"]
        self._where = f"{name} in {builder.data_dir}"
        self._features = tfds.features.FeaturesDict(wanted)  # nothing else (masks, captions) is parsed
        self._scanned = features_with_masks(features, wanted) if masks else self._features
        self._examples = data_source(builder, split, name)
        faults = AnnotationFaults(name)
        cache = cache_file(builder, split, masks=masks)
        loaded = read_cache(cache, len(self._examples))
        if loaded is None:
            sizes, image_ids, annotations = self._scan(name, features["objects"]["label"].num_classes, faults)
            write_cache(cache, sizes, image_ids, annotations, faults)
        else:
            sizes, image_ids, annotations, faults.counts = loaded
        class_names = features["objects"]["label"].names
        names = ExampleNames(name, image_ids)
        images = EncodedImages(self._example, len(self._examples))
        table = ImageTable(images, names, image_ids, sizes)
        super().__init__(name, class_names, range(len(class_names)), table, annotations)
        self.report(faults)

    def _example(self, index: int, features: tfds.features.FeaturesDict | None = None) -> dict[str, Any]:
        try:
            return (features or self._features).deserialize_example_np(
                self._examples[index], decoders={"image": tfds.decode.SkipDecoding()}
            )
        except Exception as error:  # reader and parser raise many kinds, depending on the byte that is damaged
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(
                f"{self._where}: example {index} can't be read ({reason}): a file there is damaged; remove the folder, and it "
                "is prepared again"
            ) from error

    def _scan(
        self, name: str, num_classes: int, faults: AnnotationFaults
    ) -> tuple[np.ndarray, np.ndarray, Annotations]:
        count = len(self._examples)
        headers, image_ids, objects, masks = [], [], [], []
        for index in progress(range(count), count, f"checking {name} (once)"):
            example = self._example(index, self._scanned)
            image_ids.append(int(example.get("image/id", index)))
            try:
                headers.append(read_header(as_bytes(example["image"]), whole=True))
            except ValueError as error:
                raise ValueError(f"{name}: the image of example {index} {error}") from error
            fields = {
                key: number_column(value, f"{name}: objects/{key}", flags=key in _FLAGS)
                for key, value in example["objects"].items()
                if key not in OF_OBJECT
            }
            labels = fields["label"]
            if len(labels) and (labels.min() < 0 or labels.max() >= num_classes):
                raise ValueError(f"{name}: labels must lie in 0..{num_classes - 1}, got {labels} in example {index}")
            objects.append(fields)
            if self._scanned is not self._features:
                masks += masks_of_example(example, headers[-1], f"example {index}", faults)
        table = np.asarray(headers, np.int32).reshape(-1, 3)
        sizes, orientations = table[:, :2], table[:, 2]
        if len(set(image_ids)) != count or max(image_ids, default=0) >= 2**63:
            image_ids = list(range(count))

        of_image = np.repeat(np.arange(count), [len(item["label"]) for item in objects])
        stored = np.where(orientations[:, None] >= 5, sizes[:, ::-1], sizes)[of_image]
        with np.errstate(over="ignore"):  # a box that overflows is not finite, and is left out with the others
            boxes = _column(objects, "bbox").reshape(-1, 4) * np.concatenate([stored, stored], axis=1)
        raw = RawObjects(
            of_image,
            upright_boxes(boxes, sizes[of_image], orientations[of_image]),
            _column(objects, "label"),
            (_column(objects, "is_crowd") > 0) | (_column(objects, "is_difficult") > 0),
            _column(objects, "area"),
            where=lambda m: f"example {of_image[m]}",
            masks=masks if self._scanned is not self._features else None,
        )
        return sizes, np.asarray(image_ids, np.int64), collect(raw, sizes, faults)


@functools.lru_cache(maxsize=8)
def prepared(name: str, data_dir: str | None = None) -> tfds.core.DatasetBuilder:
    """Returns the builder of a TFDS data set with its data on disk; the first call downloads and prepares it.

    Args:
        name: as TFDS has it: "voc/2007", "coco/2017:1.1.0".
        data_dir: where TFDS keeps data; None: $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
        ValueError: when TFDS does not know the name (the nearest are named) or cannot get the data.
    """
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        near = difflib.get_close_matches(_base_name(name), tfds.list_builders(), n=3)
        hint = f"the nearest names are {', '.join(near)}" if near else "see https://www.tensorflow.org/datasets/catalog"
        raise ValueError(f"tfds:{name}: TensorFlow Datasets has no such data set; {hint}") from error
    except (
        Exception
    ) as error:  # the configuration or the version does not exist, or a package that the data set needs is missing
        known = ", ".join(tfds.builder_cls(_base_name(name)).builder_configs)
        hint = f" (its configurations: {known})" if known else ""
        why = re.split(r"\n| Here are", str(error))[0]
        raise ValueError(f"tfds:{name}: can't be opened{hint}: {why}") from error
    if builder.info.features is not None:  # before gigabytes are downloaded for nothing
        _require_features(builder, f"tfds:{name}")
    # Without a network each file is tried ten times, and each try is a warning of several lines.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    try:
        builder.download_and_prepare(file_format=_FORMAT)
        return builder if _has_random_access(builder) else _prepare_again(name, builder)
    except Exception as error:  # downloads and generators raise errors of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"tfds:{name}: could not be downloaded and prepared: {reason}") from error


def _base_name(name: str) -> str:
    return name.split("/")[0].split(":")[0]


def _has_random_access(builder: tfds.core.DatasetBuilder) -> bool:
    return any(file_format.value == _FORMAT for file_format in builder.info.available_file_formats())


def _prepare_again(name: str, builder: tfds.core.DatasetBuilder) -> tfds.core.DatasetBuilder:
    """Prepares a data set beside the files of another format; what was downloaded before is used again."""
    root = Path(builder.data_dir).parents[len(builder.info.full_name.split("/")) - 1]
    other = root / _FORMAT
    again = tfds.builder(name, data_dir=str(other))
    if not again.is_prepared():
        LOGGER.warning(
            "tfds:%s is there as %s, which can't be read in any order; preparing it once more in %s",
            name, builder.info.file_format.value, other,
        )  # fmt: skip
        again.download_and_prepare(download_dir=root / "downloads", file_format=_FORMAT)
    return again


def _require_features(builder: tfds.core.DatasetBuilder, name: str) -> tfds.features.FeaturesDict:
    features = builder.info.features
    fields = _object_fields(features)
    if "image" not in features or "bbox" not in fields or "label" not in fields:
        raise ValueError(
            f"{name}: must have the features image, objects/bbox and objects/label, "
            f"got {', '.join([*features, *(f'objects/{field}' for field in fields)])}"
        )
    if not isinstance(features["objects"]["label"], tfds.features.ClassLabel):
        raise ValueError(f"{name}: objects/label must be a ClassLabel, got {features['objects']['label']}")
    box_format = getattr(features["objects"]["bbox"], "bbox_format", None)
    if box_format is not None and box_format.value != "REL_YXYX":
        raise ValueError(f"{name}: objects/bbox must be in TFDS's REL_YXYX format, got {box_format.value}")
    return features


def _object_fields(features: tfds.features.FeaturesDict) -> list[str]:
    """Returns those fields of `objects` that are used here."""
    inner = getattr(features["objects"], "feature", None) if "objects" in features else None
    known = ("bbox", "label", "is_crowd", "is_difficult", "area")
    return [field for field in known if field in inner] if isinstance(inner, tfds.features.FeaturesDict) else []


def _column(objects: list[dict[str, np.ndarray]], field: str) -> np.ndarray:
    return np.concatenate([item[field] if field in item else np.zeros(len(item["label"])) for item in objects])


def open_place(place: str, split: str = "train", *, masks: bool = False) -> Source:
    """Opens `NAME[,SPLIT]`; the first time, the data set is downloaded and prepared."""
    name, split = place_and_split(place, split)
    return TfdsSource(prepared(name), split, f"tfds:{name},{split}", masks=masks)


def validation_data(place: str) -> str | None:
    """Returns the split `validation` or `test` of the same data set, where it has one."""
    name, split = place_and_split(place, "train")
    splits = prepared(name).info.splits
    return next(
        (f"tfds:{name},{other}" for other in ("validation", "test") if other in splits and not split.startswith(other)),
        None,
    )
