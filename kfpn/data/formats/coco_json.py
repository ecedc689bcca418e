"""Reads the JSON file of COCO's annotations and checks that its lists have the fields they need."""

from pathlib import Path
from typing import Any

from kfpn.data.field_values import shown
from kfpn.data.formats.coco_fields import repeated_key
from kfpn.data.formats.coco_outlines import MASK, box_around, packed_segmentation
from kfpn.data.formats.json_files import parsed_json

Rows = list[dict[str, Any]]

_FIELDS = {"images": ("id", "file_name"), "annotations": ("image_id",), "categories": ("id", "name")}


def existing_json(path: Path) -> Path:
    """Returns the path of a file that is there.

    Raises:
        ValueError: when it is a folder or missing; names the JSON files there.
    """
    if path.is_dir():
        candidates = sorted(str(file) for pattern in ("*.json", "*/*.json") for file in path.glob(pattern))
        candidates = [file for file in candidates if not Path(file).name.startswith(".")]
        hint = f"it holds {', '.join(candidates[:5])}" if candidates else "it holds no .json file"
        raise ValueError(f"coco: must name an annotations file (.json), got the folder {path}; {hint}")
    if not path.is_file():
        candidates = sorted(str(file) for file in path.parent.glob("[!.]*.json")) if path.parent.is_dir() else []
        hint = f"; that folder holds {', '.join(candidates[:5])}" if candidates else ""
        raise ValueError(f"coco: annotations file {path} does not exist (looked in {path.parent.resolve()}){hint}")
    return path


def read_coco_json(path: Path, name: str, *, masks: bool = False) -> dict[str, Rows]:
    """Reads a file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Args:
        path: of the file.
        name: what messages call the data set.
        masks: whether the field `segmentation` is kept, packed, as the field `MASK`.

    Returns:
        The lists `images`, `annotations` and `categories`: their rows have the fields that are needed, of any type. Of the
        field `segmentation` the box around it is left, and only where there is no other box.

    Raises:
        ValueError: when it can't be read, or a list, a row or a field is missing; says which.
    """
    content = _parsed_json(path, name, masks=masks)
    if not isinstance(content, dict):
        raise ValueError(
            f"{name}: must hold an object with images, annotations and categories, got a {type(content).__name__}"
        )
    for key, fields in _FIELDS.items():
        if not isinstance(content.get(key), list):
            raise ValueError(
                f"{name}: must have a list {key!r}, got the keys {', '.join(map(shown, list(content)[:10]))[:200]}"
            )
        for number, row in enumerate(content[key]):
            for field in fields:
                if not isinstance(row, dict) or row.get(field) is None:
                    raise ValueError(f"{name}: {key}[{number}] must have {field!r}, got {shown(row, 200)}")
    return content


def _parsed_json(path: Path, name: str, *, masks: bool) -> Any:
    repeated: list[str] = []

    def without_masks(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) != len(pairs) and not repeated and (said := repeated_key(pairs)):
            repeated.append(said)
        # Most of the file: dropped while parsing, so it never fills the memory. Some files write it with a capital.
        outline = row.pop("segmentation" if "segmentation" in row else "Segmentation", None)
        if outline is not None and not row.get("bbox") and "image_id" in row:
            row["segmentation"] = box_around(outline)
        if masks and outline is not None and "image_id" in row:
            row[MASK] = packed_segmentation(outline)
        return row

    content = parsed_json(path, name, without_masks)
    if repeated:
        raise ValueError(f"{name}: {repeated[0]}")
    return content
