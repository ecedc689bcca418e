import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def modules():
    """The benchmark's two files, which import each other as a script does."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module("first_try_sets"), importlib.import_module("first_try")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def write(folder, count, names=("group", "cat"), label=1):
    folder.mkdir()
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 9, "height": 9} for i in range(count)],
        "annotations": [{"id": i, "image_id": i, "category_id": label, "bbox": [0, 0, 3, 3]} for i in range(count)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return folder


def test_folds_evaluate_on_each_image_once_and_train_on_all_others(modules, tmp_path):
    sets, _ = modules
    parts = [sets.CocoPart(write(tmp_path / n, c) / "a.json", tmp_path / n) for n, c in (("one", 7), ("two", 4))]
    splits = sets.folds("made", parts, 3, tmp_path / "out")
    assert [split.name for split in splits] == ["made 1/3", "made 2/3", "made 3/3"]
    seen = []
    for split in splits:
        train, val = (
            json.loads(Path(place.removeprefix("coco:").removesuffix(",/")).read_text())
            for place in (split.data, split.val_data)
        )
        names = [{row["file_name"] for row in part["images"]} for part in (train, val)]
        assert not names[0] & names[1]
        assert len(names[0] | names[1]) == 11
        assert len(val["annotations"]) == len(val["images"])
        assert [row["name"] for row in val["categories"]] == ["cat"]  # "group" has no object
        seen += names[1]
    assert len(seen) == len(set(seen)) == 11


def test_classes_of_merged_files_are_matched_by_their_names(modules, tmp_path):
    sets, _ = modules
    one = write(tmp_path / "one", 2, ("cat", "dog"), label=0)
    two = write(tmp_path / "two", 1, ("dog", "cat"), label=0)
    whole = sets.merged([sets.CocoPart(folder / "a.json", folder) for folder in (one, two)])
    names = {row["id"]: row["name"] for row in whole["categories"]}
    assert [names[row["category_id"]] for row in whole["annotations"]] == ["cat", "cat", "dog"]
    assert [Path(row["file_name"]).parent.name for row in whole["images"]] == ["one", "one", "two"]


def test_the_table_has_means_over_folds(modules):
    _, first_try = modules
    rows = [
        {"set": f"made {i}/2", "minutes": 5.0, "taken": 4.9, "AP": 0.2 * i, "AP50": 0.4, "AP75": None, "steps": 100 * i}
        for i in (1, 2)
    ]
    assert first_try.table(rows).splitlines()[2] == "| made (2 folds) | 5 | 4.9 | 150 | 0.300 | 0.400 |  |"
