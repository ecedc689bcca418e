"""Trains networks that propose segments for the same time, and prints table 6 of the paper with the paper's row under each of ours.

    python benchmarks/segments.py                                        # all rows, 15 minutes each ("twice": 30), on the built-in shapes
    python benchmarks/segments.py --rows both single --minutes 5
    python benchmarks/segments.py --data my_folder --output runs/mine --options --input.short-side 256 --input.long-side 384

Each row is a `kfpn train --task segments --preset shapes` from random weights, in a process and a work directory of its own. `single` has
no pyramid of features: one level of stride 16 for objects of one size, as DeepMask has it. It trains on images at a factor of 0.5 to 2
that chance draws, cut to the canvas of the others, and looks at images in five sizes from half to twice the run's own. When all have
trained, they take turns on one image, for the time. What was measured goes to OUTPUT/segments.json as it comes; a row that stands there
already is not run again. The table is Markdown, for docs/segments.md.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from backbones import call

FACTORS = (0.5, 0.5**0.5, 1.0, 2.0**0.5, 2.0)
"""Sizes of an image pyramid, of the run's own: half octaves."""
RECALLS = ("AR@10", "AR@100", "AR@1000", "ARs@1000", "ARm@1000", "ARl@1000")
RUNS = 9
"""Times that each network looks at the image; the median counts."""


class Row(NamedTuple):
    """One row of table 6.

    Attributes:
        title: what it is.
        paper: what the paper calls the row that stands under it.
        figures: the paper's AR, ARs, ARm, ARl (of 1000 segments, in %), and seconds an image.
        options: of kfpn train.
        factors: sizes in which it looks at images, of the run's own.
        times: how long it trains, as a multiple of --minutes.
    """

    title: str
    paper: str
    figures: tuple[float, ...]
    options: tuple[str, ...]
    factors: tuple[float, ...] = (1.0,)
    times: int = 1


FINE = ("--model.segment-windows", "both", "--model.segment-side", "28")
SINGLE = ("--pyramid", "c4", "--model.segment-windows", "5x5", "--input.large-scale-jitter", "0.5", "2.0")
ROWS = {
    "single": Row("one level, image pyramid", "DeepMask", (37.1, 15.8, 50.1, 54.9, 0.49), SINGLE, FACTORS),
    "5x5": Row("5x5", "FPN, 5x5", (43.4, 32.5, 49.2, 53.7, 0.15), ("--model.segment-windows", "5x5")),
    "7x7": Row("7x7", "FPN, 7x7", (43.5, 30.0, 49.6, 57.8, 0.19), ("--model.segment-windows", "7x7")),
    "both": Row("5x5 and 7x7", "FPN, both", (45.7, 31.9, 51.5, 60.8, 0.24), ("--model.segment-windows", "both")),
    "both28": Row("… masks of 28 x 28", "FPN, 2x mask resolution", (46.7, 31.7, 53.1, 63.2, 0.25), FINE),
    "twice": Row("… and twice the time", "FPN, 2x train schedule", (48.1, 32.6, 54.2, 65.6, 0.25), FINE, times=2),
}
"""Name -> row, in the order of the table. As in the paper, `twice` is `both28` trained for longer."""


def amount(row: str, options: argparse.Namespace) -> str:
    """Returns how long a row trains, as it is named in files: 15min, or 3steps."""
    times = ROWS[row].times
    return f"{options.steps * times}steps" if options.steps else f"{options.minutes * times:g}min"


def identity(row: str, options: argparse.Namespace) -> dict[str, Any]:
    """Returns what tells a measurement from all others."""
    words = [*options.options, *options_of(row, options)]
    return {"row": row, "data": options.data, "amount": amount(row, options), "options": words}


def options_of(row: str, options: argparse.Namespace) -> tuple[str, ...]:
    """Returns the options of kfpn train that a row differs from the others by."""
    size = ("--model.anchor-sizes", f"{options.single_size:g}") if row == "single" else ()
    return (*ROWS[row].options, *size)


def training_words(row: str, workdir: Path, options: argparse.Namespace) -> list[str]:
    """Returns the command that trains a row."""
    times = ROWS[row].times
    length = ["--steps", str(options.steps * times)] if options.steps else ["--minutes", f"{options.minutes * times:g}"]
    words = ["-m", "kfpn", "train", "--task", "segments", "--preset", "shapes", "--workdir", str(workdir), *length]
    words += ["--data", options.data] if options.data else []
    return [*words, *options.options, *options_of(row, options)]


def scales_of(row: str, workdir: Path) -> list[int]:
    """Returns the short sides in pixels in which a trained row looks at images."""
    from kfpn.runs.workdir import Workdir

    own = Workdir(workdir).read_config().input.short_side
    return [round(own * factor) for factor in ROWS[row].factors]


def measure(row: str, options: argparse.Namespace) -> dict[str, Any]:
    """Trains a row, and returns its recall."""
    workdir = Path(options.output) / f"{row}-{amount(row, options)}"
    call(training_words(row, workdir, options), workdir.with_name(f"{workdir.name}.train.log"))
    final = json.loads((workdir / "final.json").read_text(encoding="utf-8"))
    figures, scales = final, scales_of(row, workdir)
    if len(scales) > 1 or RECALLS[0] not in final:
        file = workdir.with_name(f"{workdir.name}.json")
        sizes = ",".join(map(str, scales))
        words = ["-m", "kfpn", "evaluate", "--workdir", str(workdir), "--scales", sizes, "--json", str(file)]
        call(words, workdir.with_name(f"{workdir.name}.evaluate.log"))
        figures = json.loads(file.read_text(encoding="utf-8"))
    recalls = {name: figures[name] for name in RECALLS}
    trained = {"steps": final["steps"], "workdir": str(workdir), "scales": scales}
    return identity(row, options) | trained | recalls


def add_times(rows: Sequence[dict[str, Any]]) -> None:
    """Measures the time of an image in all rows, which take turns, and adds it to them as `ms`: resizing, network and merging."""
    import tensorflow as tf

    from kfpn.data.image import load_image
    from kfpn.inference.evaluate_segments import open_segment_pass
    from kfpn.inference.segment_pyramid import SegmentPyramid
    from kfpn.runs.load import load_segmenter
    from kfpn.runs.workdir import Workdir

    # An image pyramid has many sizes. Of each TensorFlow would say that it compiles once more.
    tf.get_logger().setLevel("ERROR")
    image = load_image(open_segment_pass(rows[0]["workdir"]).source[0])
    pyramids = [
        SegmentPyramid(
            load_segmenter(row["workdir"], padded=True), Workdir(row["workdir"]).read_config(), row["scales"]
        )
        for row in rows
    ]
    for pyramid in pyramids:
        pyramid.segment_image(image)  # compiles
    seconds: list[list[float]] = [[] for _ in rows]
    for _ in range(RUNS):
        for pyramid, own in zip(pyramids, seconds, strict=True):
            start = time.perf_counter()
            pyramid.segment_image(image)
            own.append(time.perf_counter() - start)
    for row, own in zip(rows, seconds, strict=True):
        row["ms"] = 1e3 * median(own)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows as a table in Markdown, each with the paper's beneath it."""

    def figure(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"  # None: there are no objects of this size

    lines = [
        "| | AR@10 | AR@100 | AR@1000 | ARs | ARm | ARl | steps | ms an image |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        of_row = ROWS[row["row"]]
        recalls = " | ".join(figure(row[name]) for name in RECALLS)
        lines.append(f"| {of_row.title} | {recalls} | {row['steps']} | {row['ms']:.0f} |")
        *of_paper, seconds = of_row.figures
        recalls = " | ".join(f"{value / 100:.3f}" for value in of_paper)
        lines.append(f"| *the paper's {of_row.paper}, on COCO* | - | - | {recalls} | - | {1e3 * seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measures the rows that are not measured yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15.0, help="of each training, from its start to its exit")
    parser.add_argument("--steps", type=int, default=0, help="of each training instead, to try this program")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--data", help="with masks, as for kfpn train (default: shapes)")
    parser.add_argument("--single-size", type=float, default=40.0, help="size of the objects of `single`, in pixels")
    parser.add_argument("--output", default="runs/segments")
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], help="of kfpn train, for all of them; the last"
    )
    options = parser.parse_args()
    kept = Path(options.output) / "segments.json"
    rows = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []

    def measured(name: str) -> dict[str, Any] | None:
        wanted = identity(name, options)
        return next((row for row in rows if wanted.items() <= row.items()), None)

    for name in options.rows:
        if measured(name) is None:
            rows.append(measure(name, options))
            kept.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    asked = [row for name in ROWS if name in options.rows and (row := measured(name)) is not None]
    if any("ms" not in row for row in asked):
        add_times(asked)
        kept.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(table(asked))


if __name__ == "__main__":
    main()
