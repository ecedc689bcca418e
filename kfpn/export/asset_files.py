"""Names the files in a SavedModel's assets, and reads from them what it computes in."""

import json
from pathlib import Path
from typing import Literal

ExportPrecision = Literal["float32", "bfloat16"]
"""What convolutions and matrix products of an export are computed in."""

CLASSES = Path("assets") / "classes.json"
"""Place of the class names and category ids in a SavedModel."""
SEGMENTS = Path("assets") / "segments.json"
"""Place of what is to be known of segments in a SavedModel."""


def precision_of_saved_model(path: Path) -> ExportPrecision:
    """Returns what a SavedModel of kfpn computes its convolutions and matrix products in; float32 if its assets don't say."""
    for file in (path / CLASSES, path / SEGMENTS):
        if file.exists() and json.loads(file.read_text(encoding="utf-8")).get("precision") == "bfloat16":
            return "bfloat16"
    return "float32"
