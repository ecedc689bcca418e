"""Compares the paper's pyramids on the built-in shapes: all rows get the same number of steps and the same three seeds.

    python benchmarks/ablation.py                     # all rows; run again, the command goes on where it stopped
    python benchmarks/ablation.py --rows fpn c4 --seeds 0 --steps 200 --output runs/quick --document ""

First it trains a backbone on single objects (`ablation_backbone.py`). All rows start from this backbone, as the paper's rows start
from ImageNet. Then it trains each row with each seed, in a process and a work directory of its own. Then the rows take turns to
detect on one image, and are timed. The tables go between the markers of docs/ablation.md, and the figure into the folder beside
it. The settings are `CONFIG` below, the same for all rows.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from tqdm import tqdm

from kfpn.config.presets import preset
from kfpn.config.run import Config

ROOT = Path(__file__).resolve().parents[1]
PICTURE = "images/ablation.png"  # from the document's folder

ROWS = {
    "c4": "(a) conv4 alone",
    "c5": "(b) conv5 alone",
    "fpn": "(c) FPN",
    "bottom_up": "(d) bottom-up pyramid",
    "top_down": "(e) top-down, no laterals",
    "finest": "(f) only the finest level",
}
RECALLS = ("AR@100", "AR@1000", "ARs@1000", "ARm@1000", "ARl@1000")
PRECISIONS = ("AP50", "AP", "APs", "APm", "APl")
TITLES = ("AR100", "AR1k", "ARs", "ARm", "ARl", *PRECISIONS)
# Lin et al. 2017. The recall is from table 1. The precision of (a) to (c) is from table 3: trained end to end, as here.
# The precision of (d) to (f) is from table 2, the only one that has it: Fast R-CNN, trained on the proposals of (c).
PAPER = {
    "c4": (36.1, 48.3, 32.0, 58.7, 62.2, 53.1, 31.6, 13.2, 35.6, 47.1),
    "c5": (36.3, 44.9, 25.3, 55.5, 64.2, 51.7, 28.0, 9.6, 31.9, 43.1),
    "fpn": (44.0, 56.3, 44.9, 63.4, 66.2, 56.9, 33.9, 17.8, 37.7, 45.8),
    "bottom_up": (37.4, 49.5, 30.5, 59.9, 68.0, 44.9, 24.9, 10.9, 24.4, 38.5),
    "top_down": (34.5, 46.1, 26.5, 57.4, 64.7, 54.0, 31.3, 13.3, 35.2, 45.3),
    "finest": (38.4, 51.3, 35.1, 59.7, 67.6, 56.3, 33.4, 17.3, 37.3, 45.6),
}


def _config() -> Config:
    """Returns the settings of all rows: the preset `shapes` with fewer channels, so that 18 trainings take an hour and a half."""
    # At the preset's 128 pixels the smallest anchors are 10 pixels wide, on a grid of 4 pixels, and small objects match
    # none of them. At 384 pixels they are 30 pixels wide, nearly the paper's 32.
    base, side = preset("shapes"), 384
    scale = side / base.input.short_side
    return dataclasses.replace(
        base,
        strategy="one_device",
        steps=300,
        eval_every=10**9,  # only at the end
        checkpoint_every=10**9,
        samples=0,
        model=dataclasses.replace(
            base.model,
            backbone_width=16,
            pyramid_channels=32,
            anchor_sizes=tuple(size * scale for size in base.model.anchor_sizes),
            canonical_size=base.model.canonical_size * scale,
        ),
        input=dataclasses.replace(base.input, short_side=side, long_side=side),
        # A RoI costs a hundred times as much where conv5 is the box head as in the other rows.
        sampling=dataclasses.replace(base.sampling, rpn_batch=256, roi_batch=32),
    )


CONFIG = _config()


def run_config(row: str, seed: int, steps: int, output: Path) -> Config:
    """Returns the configuration of one training: the rows differ in `model.pyramid` only."""
    return dataclasses.replace(
        CONFIG,
        workdir=str(output / f"{row}_{seed}"),
        init=str(output / "backbone.safetensors"),
        seed=seed,
        steps=steps,
        model=dataclasses.replace(CONFIG.model, pyramid=row),
    )


def train_one(row: str, seed: int, steps: int, output: Path) -> None:
    """Trains one row with one seed, or goes on with it."""
    from kfpn.training.train import train

    train(run_config(row, seed, steps, output))


def train_all(rows: list[str], seeds: list[int], steps: int, output: Path) -> None:
    """Trains all rows that are not finished, each in a process of its own: all rows with one seed, then with the next."""
    script = [
        sys.executable,
        str(Path(__file__).with_name("ablation_backbone.py")),
        str(output / "backbone.safetensors"),
    ]
    if not (output / "backbone.safetensors").exists():
        subprocess.run(script, check=True)
    runs = [(row, seed) for seed in seeds for row in rows]
    for row, seed in tqdm(runs, desc="ablation", unit="run"):
        if not _finished(output / f"{row}_{seed}", steps):
            here = [sys.executable, __file__, "--one", row, str(seed), "--steps", str(steps), "--output", str(output)]
            subprocess.run(here, check=True)


def _finished(workdir: Path, steps: int) -> bool:
    try:
        return json.loads((workdir / "final.json").read_text())["steps"] == steps
    except (OSError, ValueError, KeyError):
        return False


def measure(rows: list[str], seed: int, output: Path, runs: int) -> dict[str, dict[str, float]]:
    """Returns for each row's trained detector the median milliseconds an image ("ms"), the anchors and the millions of weights.

    Args:
        rows: names in `ROWS`.
        seed: of the detectors that are measured.
        output: folder of the work directories.
        runs: how often each detector is timed.
    """
    import tensorflow as tf

    from kfpn.data.augment import prepare_image
    from kfpn.data.formats import open_source
    from kfpn.data.image import load_image
    from kfpn.losses.training_losses import noise_shapes
    from kfpn.modeling.detector import inference_model
    from kfpn.runs.load import load_submodels
    from kfpn.runs.workdir import Workdir

    image, _ = prepare_image(load_image(open_source("shapes", "validation")[0]), CONFIG.input)
    image = tf.constant(image[None])
    detect, sizes = {}, {}
    for row in rows:
        files = Workdir(output / f"{row}_{seed}")
        config, submodels = files.read_config(), load_submodels(files)
        detect[row] = tf.function(inference_model(submodels, config.model), jit_compile=True)
        side = config.input.short_side
        sizes[row] = {
            "anchors": noise_shapes(config, side, side, 1)["rpn"][0],
            "weights": submodels.weights_model.count_params() / 1e6,
        }
    seconds: dict[str, list[float]] = {row: [] for row in rows}
    for turn in range(runs + 2):
        for row in rows:
            start = time.perf_counter()
            detect[row](image)["boxes"].numpy()
            if turn >= 2:
                seconds[row].append(time.perf_counter() - start)
    return {row: {**sizes[row], "ms": 1000 * float(np.median(seconds[row]))} for row in rows}


def figures_of(rows: list[str], seeds: list[int], output: Path) -> dict[str, np.ndarray]:
    """Returns the figures of each row in percent: (seeds, columns), NaN where nothing was measured."""
    figures = {}
    for row in rows:
        finals = [json.loads((output / f"{row}_{seed}" / "final.json").read_text()) for seed in seeds]
        columns = [
            [final["proposals"][name] for name in RECALLS] + [final[name] for name in PRECISIONS] for final in finals
        ]
        figures[row] = 100 * np.array(columns, float)
    return figures


def tables(figures: dict[str, np.ndarray], measured: dict[str, dict[str, float]]) -> str:
    """Lays out the figures as the paper's tables do, with the paper's own numbers below each row."""
    lines = ["| row | anchors | weights | " + " | ".join(TITLES) + " | ms an image |", "|---" * (len(TITLES) + 4) + "|"]
    best = np.max([values.mean(0) for values in figures.values()], axis=0)
    for row, values in figures.items():
        mean, spread = values.mean(0), values.std(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
        cells = [_cell(m, s, m == b, len(values) > 1) for m, s, b in zip(mean, spread, best, strict=True)]
        sizes = measured[row]
        lines.append(
            f"| {ROWS[row]} | {sizes['anchors']} | {sizes['weights']:.2f} M | {' | '.join(cells)} | {sizes['ms']:.0f} |"
        )
        lines.append(f"| *the paper's* | | | {' | '.join(f'*{value}*' for value in PAPER[row])} | |")
    return "\n".join(lines)


def _cell(mean: float, spread: float, best: bool, several: bool) -> str:
    if np.isnan(mean):
        return "-"
    return (f"**{mean:.1f}**" if best else f"{mean:.1f}") + (f" ± {spread:.1f}" if several else "")


def plot(figures: dict[str, np.ndarray], path: Path) -> None:
    """Draws AR1k and AP of all rows by the size of the objects: the measured figures above, the paper's below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2)
    parts = (
        (("AR1k", "ARs", "ARm", "ARl"), "recall of 1000 proposals"),
        (("AP", "APs", "APm", "APl"), "average precision"),
    )
    rows = list(figures)
    for column, (names, title) in enumerate(parts):
        places = [TITLES.index(name) for name in names]
        for axes, source in zip(panels[:, column], (figures, PAPER), strict=True):
            for number, row in enumerate(rows):
                values = np.atleast_2d(np.asarray(source[row], float))[:, places]
                at = np.arange(len(names)) + (number - (len(rows) - 1) / 2) * 0.13
                axes.bar(at, values.mean(0), 0.12, label=ROWS[row], color=f"C{number}")
                for of_seed in values if len(values) > 1 else ():
                    axes.plot(at, of_seed, ".", color="black", markersize=4)
            axes.set_xticks(range(len(names)), names)
            axes.set_title(f"{title}: " + ("shapes, each seed a dot" if source is figures else "the paper, COCO"))
            axes.grid(axis="y", alpha=0.3)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(rows), fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def write_document(document: Path, text: str) -> None:
    """Puts the tables between the markers of the document, and leaves the text around them as it is.

    Raises:
        ValueError: if the document lacks the markers.
    """
    start, end = "<!-- tables -->\n", "<!-- /tables -->"
    old = document.read_text(encoding="utf-8") if document.exists() else f"# The paper's tables\n\n{start}{end}\n"
    if start not in old or end not in old:
        raise ValueError(f"{document} must hold {start.strip()} and {end}")
    document.write_text(old.split(start)[0] + start + "\n" + text + "\n\n" + end + old.split(end)[1], encoding="utf-8")


def main() -> None:
    """Parses the options and does what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=CONFIG.steps)
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"))
    parser.add_argument(
        "--document", default=str(ROOT / "docs" / "ablation.md"), help='page to write into; "": only print the tables'
    )
    parser.add_argument("--runs", type=int, default=20, help="how often each row's detector is timed")
    parser.add_argument("--one", nargs=2, metavar=("ROW", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        train_one(options.one[0], int(options.one[1]), options.steps, options.output)
        return
    train_all(options.rows, options.seeds, options.steps, options.output)
    figures = figures_of(options.rows, options.seeds, options.output)
    text = tables(figures, measure(options.rows, options.seeds[0], options.output, options.runs))
    print(text)
    if options.document:
        document = Path(options.document)
        plot(figures, document.parent / PICTURE)
        write_document(document, text)


if __name__ == "__main__":
    main()
