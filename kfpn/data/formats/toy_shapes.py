"""Generates the built-in data set `shapes` as a TensorFlow Datasets builder: offline, then cached like any other."""

import dataclasses
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from kfpn.data.formats.place_and_split import place_and_split
from kfpn.data.formats.tfds import TfdsSource
from kfpn.data.record import Source
from kfpn.data.toy_scenes import CLASS_NAMES, SIZE, scene

_SEED = 2017
_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass
class ShapesConfig(tfds.core.BuilderConfig):
    """How many scenes each split has. Scene i of a split is the same in every configuration."""

    train: int = 4000
    validation: int = 300
    test: int = 300


class Shapes(tfds.core.GeneratorBasedBuilder):
    """Five kinds of shapes on textured backgrounds, 1 to 10 a scene, with occlusion; boxes, masks and areas.

    Features of an example: `image` (SIZE, SIZE, 3) uint8; `image/id` int64, its index in the split (tfds shuffles); `mask`
    (SIZE, SIZE, 1) uint8, i + 1 where object i is what one sees; `objects`: `bbox` around the visible part, `label`,
    `area` (visible pixels), `is_crowd` (always False).
    """

    # A new drawing needs a new version: tfds serves the cached pictures of the same version.
    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {"1.0.0": "First drawing.", "1.1.0": "Objects hide less of one another."}  # noqa: RUF012 - as tfds documents it
    BUILDER_CONFIGS = [  # noqa: RUF012
        ShapesConfig(name="default", description="4000 + 300 + 300 scenes."),
        ShapesConfig(name="tiny", description="For tests.", train=12, validation=4, test=4),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="jpeg"),
                "image/id": np.int64,
                "mask": tfds.features.Image(shape=(SIZE, SIZE, 1), encoding_format="png"),
                "objects": tfds.features.Sequence(
                    {
                        "bbox": tfds.features.BBoxFeature(),
                        "label": tfds.features.ClassLabel(names=CLASS_NAMES),
                        "area": np.int64,
                        "is_crowd": np.bool_,
                    }
                ),
            }
        )
        return self.dataset_info_from_configs(features=features, description=type(self).__doc__)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        return {name: self._generate_examples(name) for name in _SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(getattr(self.builder_config, split)):
            yield index, example(split, index)


def example(split: str, index: int) -> dict[str, Any]:
    """Returns scene `index` of a split as tfds wants it, a pure function of both.

    Raises:
        ValueError: when `split` is not train, validation or test.
    """
    if split not in _SPLITS:
        raise ValueError(f"split must be one of {', '.join(_SPLITS)}, got {split!r}")
    drawn = scene(np.random.default_rng([_SEED, _SPLITS.index(split), index]))
    objects = [
        {
            "bbox": tfds.features.BBox(*(float(v) / SIZE for v in box)),
            "label": int(label),
            "area": int(area),
            "is_crowd": False,
        }
        for box, label, area in zip(drawn.boxes, drawn.labels, drawn.areas, strict=True)
    ]
    return {
        "image": _encoded(drawn.image, "JPEG", quality=95, subsampling=0),
        "image/id": index,
        "mask": _encoded(drawn.mask, "PNG", compress_level=1),
        "objects": objects,
    }


def _encoded(pixels: np.ndarray, file_format: str, **options: int) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, **options)
    file.seek(0)
    return file


def builder(data_dir: str | None = None, config: str = "default") -> tfds.core.DatasetBuilder:
    """Returns the prepared builder of `shapes`; the first call generates it (about 40 s, with a progress bar).

    Args:
        data_dir: where data sets are cached; None: tfds's default, ~/tensorflow_datasets or $TFDS_DATA_DIR.
        config: "default", or "tiny" (20 scenes).
    """
    made = Shapes(data_dir=data_dir, config=config, file_format="array_record")
    try:
        made.download_and_prepare()
    except OSError:
        # Another process may have been faster: its folder cannot be replaced, and holds the same scenes.
        made = Shapes(data_dir=data_dir, config=config, file_format="array_record")
        if not made.is_prepared():
            raise
    return made


def open_place(place: str, split: str = "train", *, masks: bool = False) -> Source:
    """Opens `shapes[,SPLIT]`; the first time, the scenes are generated."""
    _, split = place_and_split(place, split)
    if split.partition("[")[0] not in _SPLITS:  # said before a minute goes into generating them
        raise ValueError(f"shapes: split must be one of {', '.join(_SPLITS)}, got {split!r}")
    return TfdsSource(builder(), split, f"shapes,{split}", masks=masks)


def validation_data(place: str) -> str | None:
    """Returns the split `validation`, unless the place is that split."""
    return "shapes,validation" if place_and_split(place, "train")[1] != "validation" else None
