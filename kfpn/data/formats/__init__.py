"""Opens a data set by its name: `shapes`, `coco:…`, `voc:…`, `tfds:…`, or records made in Python."""

import difflib
from collections.abc import Iterable
from pathlib import Path

from kfpn.data.annotation_checks import same_classes
from kfpn.data.formats.coco import CocoSource
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.formats.voc import VocSource, split_names
from kfpn.data.record import Record, Source

# TensorFlow Datasets takes seconds to import, so `kfpn.data.formats.tfds` is imported where it is needed.

FORMS = (
    "shapes[,SPLIT]",
    "coco:ANNOTATIONS.json[,IMAGES_DIR]",
    "voc:DIR[,SPLIT]",
    "tfds:NAME[,SPLIT]",
    "an IterableSource(records, class_names) in Python",
)

_SHAPES_SPLITS = ("train", "validation", "test")


def open_source(data: str | Iterable[Record] | Source, split: str = "train") -> Source:
    """Opens and checks a data set.

    Args:
        data: one of `FORMS`; a source is returned as it is.
        split: the split of `shapes`, `voc:` and `tfds:` when `data` doesn't name one.

    Raises:
        ValueError: when `data` has no known form, or the data set can't be used; says what and why.
    """
    if not isinstance(data, str):
        if isinstance(data, Source):
            return data
        raise ValueError(
            "data must be the name of a data set or a source; records need class names: "
            f"kfpn.data.formats.IterableSource(records, class_names); got a {type(data).__name__}"
        )
    kind, rest = _kind(data)
    if kind == "coco":
        annotations, images = _coco_parts(rest)
        return CocoSource(annotations, images)
    place, split = _with_split(rest, split)
    if kind == "voc":
        return VocSource(place, split)
    if kind == "shapes" and split.partition("[")[0] not in _SHAPES_SPLITS:  # said before a minute goes into making it
        raise ValueError(f"shapes: split must be one of {', '.join(_SHAPES_SPLITS)}, got {split!r}")
    from kfpn.data.formats.tfds import TfdsSource, prepared

    if kind == "tfds":
        return TfdsSource(prepared(place), split, f"tfds:{place},{split}")
    from kfpn.data.formats.toy_shapes import builder

    return TfdsSource(builder(), split, f"shapes,{split}")


def default_val_data(data: str) -> str | None:
    """Returns the name of the data to validate on when none was given: another split of the same data set.

    Args:
        data: name of the training data. For `tfds:` the data set is downloaded to learn its splits.

    Returns:
        a name for `open_source`, or None when the data set has no other split.

    Raises:
        ValueError: when `data` has no known form.
    """
    kind, rest = _kind(data)
    place, split = _with_split(rest, "train")
    if kind == "shapes":
        return "shapes,validation" if split != "validation" else None
    if kind == "coco":
        return None
    if kind == "voc":
        found = split_names(place)
    else:
        from kfpn.data.formats.tfds import prepared

        found = list(prepared(place).info.splits)
    wanted = ("val",) if kind == "voc" else ("validation", "test")
    return next((f"{kind}:{place},{name}" for name in wanted if name in found and not split.startswith(name)), None)


def _kind(data: str) -> tuple[str, str]:
    if data == "shapes" or data.startswith("shapes,"):
        return "shapes", data
    kind, colon, rest = data.partition(":")
    if colon and rest and kind in ("coco", "voc", "tfds"):
        return kind, rest
    raise ValueError(f"data must be {', '.join(FORMS[:-1])} or {FORMS[-1]}, got {data!r}{_nearest(data)}")


def _nearest(data: str) -> str:
    kind, colon, rest = data.partition(":")
    if not colon and data.partition(",")[0].endswith(".json"):
        return f"; did you mean 'coco:{data}'?"
    if (Path(data).expanduser() / "Annotations").is_dir():
        return f"; did you mean 'voc:{data}'?"
    near = difflib.get_close_matches(kind.partition(",")[0], ("shapes", "coco", "voc", "tfds"), n=1, cutoff=0.0)[0]
    if rest and near != "shapes":
        return f"; the nearest is '{near}:{rest}'"
    return f"; the nearest is {next(form for form in FORMS if form.startswith(near))}"


def _coco_parts(rest: str) -> tuple[str, str | None]:
    """Splits at the comma behind the JSON file, so that folders may have commas in their names."""
    if Path(rest).expanduser().exists():
        return rest, None
    head, found, tail = rest.partition(".json,")
    return (f"{head}.json", tail) if found and tail else (rest.removesuffix(","), None)


def _with_split(rest: str, split: str) -> tuple[str, str]:
    if Path(rest).expanduser().is_dir():
        return rest, split
    place, comma, named = rest.rpartition(",")
    return (place, named or split) if comma and place else (rest, split)


__all__ = ["FORMS", "IterableSource", "default_val_data", "open_source", "same_classes"]
