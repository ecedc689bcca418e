"""Makes a small data set on disk, a work directory without weights, and detections: what a report needs when the network does not run."""

import json

import numpy as np
from PIL import Image

from kfpn.config.presets import preset
from kfpn.config.run import to_dict

NAMES = ("cat", "<i>dog</i>")
IDS = (17, 18)


def write_data(folder, boxes=None, names=NAMES):
    """Writes three images of 120 x 90 pixels with objects in COCO's form, and returns the data's name."""
    folder.mkdir(parents=True, exist_ok=True)
    boxes = boxes or [(1, 17, [10, 10, 30, 30]), (1, 18, [60, 20, 40, 60]), (2, 17, [0, 0, 50, 80])]
    for number in (1, 2, 3):
        pixels = np.random.default_rng(number).integers(0, 255, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    images = [{"id": number, "file_name": f"{number}.png", "width": 120, "height": 90} for number in (1, 2, 3)]
    annotations = [
        {"id": row, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for row, (image, category, box) in enumerate(boxes, start=1)
    ]
    categories = [{"id": number, "name": name} for number, name in zip(IDS, names, strict=True)]
    path = folder / "data.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return f"coco:{path}"


def write_run(folder, data, **changes):
    """Writes a work directory that has everything but weights."""
    folder.mkdir(parents=True)
    config = {**to_dict(preset("shapes")), "data": data, "val_data": data, "workdir": str(folder), **changes}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "classes.json").write_text(json.dumps({"class_names": NAMES, "category_ids": IDS}))
    rows = [
        {"step": 1, "loss": 2.0, "lr": 0.1},
        {"step": 2, "loss": 1.0, "lr": 0.1},
        {"step": 2, "AP": 0.3, "AP50": 0.5},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_detections(path, *rows):
    """Writes detections (image id, category id, box xywh, score)."""
    fields = ("image_id", "category_id", "bbox", "score")
    path.write_text(json.dumps([dict(zip(fields, row, strict=True)) for row in rows]))
    return path


RIGHT = [(1, 17, [10, 10, 30, 30], 0.9), (1, 18, [60, 20, 40, 60], 0.8), (2, 17, [0, 0, 50, 80], 0.7)]
WRONG = [(1, 17, [10, 10, 30, 30], 0.9), (1, 17, [60, 20, 40, 60], 0.8), (3, 18, [5, 5, 20, 20], 0.95)]
