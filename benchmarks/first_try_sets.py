"""Opens the data sets of `first_try.py`: their own splits where they have some, and folds where they are small."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Split(NamedTuple):
    """Holds one way to divide a data set.

    Attributes:
        name: of the data set, and of the fold where it has several.
        data: what to train on, as `kfpn train --data` takes it.
        val_data: what to evaluate on; None: the split that `data` has.
    """

    name: str
    data: str
    val_data: str | None = None


class CocoPart(NamedTuple):
    """Names a COCO file and the folder of its images."""

    annotations: Path
    images: Path


def merged(parts: Sequence[CocoPart]) -> dict:
    """Returns several COCO files as one: absolute file names, ids counted anew, classes by their names.

    Args:
        parts: files of one data set, with the same classes.
    """
    names: dict[str, int] = {}
    whole: dict[str, list] = {"images": [], "annotations": []}
    for part in parts:
        content = json.loads(part.annotations.read_text())
        label = {row["id"]: names.setdefault(row["name"], len(names) + 1) for row in content["categories"]}
        image = {row["id"]: len(whole["images"]) + i + 1 for i, row in enumerate(content["images"])}
        for row in content["images"]:
            path = str((part.images / row["file_name"]).resolve())
            whole["images"].append({**row, "id": image[row["id"]], "file_name": path})
        for row in content["annotations"]:
            new = {"id": len(whole["annotations"]) + 1, "image_id": image[row["image_id"]]}
            whole["annotations"].append({**row, **new, "category_id": label[row["category_id"]]})
    counted = {row["category_id"] for row in whole["annotations"]}
    kept = {name: number for name, number in names.items() if number in counted}
    return whole | {"categories": [{"id": number, "name": name} for name, number in kept.items()]}


def folds(name: str, parts: Sequence[CocoPart], count: int, folder: Path, seed: int = 0) -> list[Split]:
    """Divides a COCO data set by image into folds, writes the files, and returns the splits; each image is evaluated on once.

    Args:
        name: of the data set.
        parts: its files.
        count: number of folds.
        folder: where the files go.
        seed: of the division.
    """
    whole = merged(parts)
    order = list(whole["images"])
    random.Random(seed).shuffle(order)
    folder.mkdir(parents=True, exist_ok=True)
    splits = []
    for fold in range(count):
        kept = {row["id"] for row in order[fold::count]}
        files = {}
        for part, held in (("train", False), ("val", True)):
            images = [row for row in whole["images"] if (row["id"] in kept) == held]
            ids = {row["id"] for row in images}
            objects = [row for row in whole["annotations"] if row["image_id"] in ids]
            files[part] = folder / f"{name}_{fold}_{part}.json"
            content = {"images": images, "annotations": objects, "categories": whole["categories"]}
            files[part].write_text(json.dumps(content))
        splits.append(Split(f"{name} {fold + 1}/{count}", f"coco:{files['train']},/", f"coco:{files['val']},/"))
    return splits


def shared_splits(shared: Path, folder: Path, count: int) -> dict[str, list[Split]]:
    """Returns the splits of the data sets in a folder: those that are there.

    Args:
        shared: the folder, with `bccd`, `pothole`, `rbcwbc`, `coco33` and `mush`.
        folder: where files of folds go.
        count: number of folds of the small sets.
    """

    def roboflow(name: str, *parts: str) -> list[CocoPart]:
        files = [shared / name / part / "_annotations.coco.json" for part in parts]
        return [CocoPart(file, file.parent) for file in files if file.exists()]

    sets = {"shapes": [Split("shapes", "shapes")]}
    if (shared / "bccd").exists():
        sets["bccd"] = [Split("bccd", f"voc:{shared}/bccd,train", f"voc:{shared}/bccd,val")]
    for name, parts in (("pothole", ("train", "valid", "test")), ("rbcwbc", ("train", "valid", "test"))):
        if files := roboflow(name, *parts):
            sets[name] = folds(name, files, count, folder)
    if (shared / "coco33").exists():
        file = CocoPart(shared / "coco33" / "instances.json", shared / "coco33" / "images")
        sets["coco33"] = folds("coco33", [file], count, folder)
    if files := roboflow("mush", "train"):
        (train,) = files
        rest = merged(roboflow("mush", "valid", "test"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mush_val.json").write_text(json.dumps(rest))
        sets["mush"] = [Split("mush", f"coco:{train.annotations},{train.images}", f"coco:{folder}/mush_val.json,/")]
    return sets
