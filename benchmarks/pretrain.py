"""Trains the small network of `kfpn train` beforehand, on made pictures, and writes the weights that ship with the package.

    python benchmarks/pretrain.py FOLDER

FOLDER takes the pictures and the run (some 300 MB). The weights are written to kfpn/weights/shipped/small.npz, half precision. What is
made by this file alone depends on no photograph and on no other network.
"""

import argparse
import dataclasses
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from pretrain_scenes import CLASS_NAMES, SIZE, picture
from tqdm import tqdm

import kfpn
from kfpn.config.presets import preset
from kfpn.weights.shipped import SHIPPED, SMALL, write_shipped

TRAINING, VALIDATION = 3200, 200
"""Pictures to train and to evaluate on."""


def write_picture(folder: Path, seed: int, index: int) -> list[dict]:
    """Draws a picture, writes it, and returns its objects as COCO's annotations without an id.

    Args:
        folder: where the picture goes.
        seed: of the set.
        index: of the picture in it.
    """
    rng = np.random.default_rng((seed, index))
    made = picture(rng)
    Image.fromarray(made.image).save(folder / f"{index:05d}.jpg", quality=int(rng.integers(70, 98)), subsampling=0)
    corners = made.boxes.tolist()
    return [
        {"image_id": index, "category_id": int(label) + 1, "iscrowd": 0, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        | {"area": (x1 - x0) * (y1 - y0)}
        for (y0, x0, y1, x1), label in zip(corners, made.labels, strict=True)
    ]


def write_set(folder: Path, count: int, seed: int) -> None:
    """Writes pictures and their `annotations.json`, unless they are there.

    Args:
        folder: made if it is not there.
        count: pictures.
        seed: two sets of other seeds have no picture in common.
    """
    if (folder / "annotations.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        made = pool.map(partial(write_picture, folder, seed), range(count), chunksize=8)
        objects = [item for items in tqdm(made, total=count, unit="picture", desc=folder.name) for item in items]
    content = {
        "images": [{"id": i, "file_name": f"{i:05d}.jpg", "width": SIZE, "height": SIZE} for i in range(count)],
        "annotations": [{"id": i + 1, **item} for i, item in enumerate(objects)],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASS_NAMES)],
    }
    (folder / "annotations.json").write_text(json.dumps(content))


def training(folder: Path, steps: int) -> kfpn.Config:
    """Returns the configuration of the run: the preset `shapes`, at more pixels and for longer.

    Args:
        folder: with the sets.
        steps: of the optimizer.
    """
    base = preset("shapes")
    return dataclasses.replace(
        base,
        data=f"coco:{folder}/training/annotations.json,{folder}/training",
        val_data=f"coco:{folder}/validation/annotations.json,{folder}/validation",
        workdir=str(folder / "run"),
        steps=steps,
        eval_every=steps,
        checkpoint_every=250,
        strategy="one_device",
        model=dataclasses.replace(base.model, num_classes=len(CLASS_NAMES)),
        input=dataclasses.replace(base.input, short_side=192, long_side=192),
        optimizer=dataclasses.replace(base.optimizer, ema_decay=0.998),
    )


def main() -> None:
    """Makes the pictures and trains on them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    write_set(folder / "training", TRAINING, 1)
    write_set(folder / "validation", VALIDATION, 2)
    kfpn.train(training(folder, arguments.steps))
    write_shipped(folder / "run", SHIPPED[SMALL])
    print(f"{SHIPPED[SMALL]}: {SHIPPED[SMALL].stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
