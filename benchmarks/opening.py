"""Measures how long a data set in COCO's form takes to open, the first time and again, and how much memory that needs.

    python benchmarks/opening.py --images 20000
    python benchmarks/opening.py --images 118000 --ways once again

The JPEGs are 640 x 480, links to forty different files, so they lie in the page cache. Each opening is a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

_FILES = 40
_CLASSES = 80
_WAYS = {"once": "once", "again": "once", "none": "none", "full": "full"}
"""Name of a row -> `--check-images`. Before each one but `again`, what was remembered is removed."""
_OPEN = """
import json, sys, time
from pathlib import Path
from kfpn.data.formats import open_source
wall, cpu = time.perf_counter(), time.process_time()
source = open_source(sys.argv[1], check_images=sys.argv[2])
# getrusage would count the memory of the process that started this one.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
row = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "memory": int(peak.split()[1]) * 1024}
print(json.dumps(row))
"""


def make(folder: Path, images: int, boxes: int) -> str:
    """Writes a data set and returns its name.

    Args:
        folder: where it is written; what is there is overwritten.
        images: number of JPEGs.
        boxes: of each.
    """
    chance = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    originals = []
    for number in range(_FILES):
        coarse = Image.fromarray(chance.integers(0, 255, (60, 80, 3), dtype=np.uint8)).resize((640, 480))
        noisy = np.asarray(coarse).astype(int) + chance.integers(-12, 12, (480, 640, 3))
        originals.append(folder / f"original {number}.jpg")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(originals[-1], quality=88)
    names = [f"{number:012d}.jpg" for number in range(images)]
    for number, name in enumerate(names):
        (folder / "images" / name).unlink(missing_ok=True)
        os.link(originals[number % _FILES], folder / "images" / name)
    corners = chance.uniform((0, 0, 5, 5), (500, 400, 139, 79), (images * boxes, 4)).round(2).tolist()
    labels = chance.integers(1, _CLASSES + 1, images * boxes).tolist()
    annotations = [
        {
            "id": i + 1,
            "image_id": i // boxes + 1,
            "category_id": label,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for i, (box, label) in enumerate(zip(corners, labels, strict=True))
    ]
    content = {
        "images": [{"id": i + 1, "file_name": name, "width": 640, "height": 480} for i, name in enumerate(names)],
        "annotations": annotations,
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, _CLASSES + 1)],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    for memory in folder.glob(".kfpn-checked-*"):
        memory.unlink()
    return f"coco:{folder}/annotations.json,{folder}/images"


def measure(data: str, check_images: str) -> dict:
    """Opens a data set in a process of its own and returns the seconds it took and the most memory it needed."""
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, data, check_images], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return json.loads(done.stdout)


def main() -> None:
    """Prints a row for each way to open."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--boxes", type=int, default=7, help="boxes an image")
    parser.add_argument("--folder", type=Path, help="where the data set is made; None: a folder that is removed again")
    parser.add_argument(
        "--ways",
        nargs="+",
        default=list(_WAYS),
        choices=list(_WAYS),
        help="--check-images; 'again' is a second time 'once'",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data = make(options.folder or Path(temporary), options.images, options.boxes)
        time.sleep(0.1)  # files of this very moment are not remembered
        print(f"{options.images:,} images, {options.images * options.boxes:,} boxes\n")
        print(f"{'':8}  {'seconds':>8}  {'of CPU':>8}  {'memory':>8}")
        for way in options.ways:
            if way != "again":
                for memory in Path(data.partition(":")[2].partition(",")[0]).parent.glob(".kfpn-checked-*"):
                    memory.unlink()
            row = measure(data, _WAYS[way])
            print(f"{way:8}  {row['wall']:8.2f}  {row['cpu']:8.2f}  {row['memory'] / 2**20:5.0f} MB")


if __name__ == "__main__":
    main()
