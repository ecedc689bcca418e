"""Measures what a first try gives: AP after some minutes, with `kfpn train --data X --minutes N` and nothing else.

    python benchmarks/first_try.py --shared ../shared --minutes 5 15 45
    python benchmarks/first_try.py --data mine=my_folder --minutes 15

Nothing is tuned for a data set. Small sets are divided into folds, of which `--folds` says how many are run. `mush` is the set
that no rule of the preset `auto` was measured on. Minutes count from the command's start to its exit. The rows go to
OUTPUT/first_try.json as they come, the picture to OUTPUT/first_try.png; a run that stands there already is not repeated.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from first_try_sets import Split, shared_splits
from tqdm import tqdm

FOLDS = 5


def run(split: Split, minutes: float, workdir: Path) -> dict[str, Any]:
    """Trains once, and returns a row of the table.

    Args:
        split: of a data set.
        minutes: of the run.
        workdir: its work directory.

    Raises:
        SystemExit: if the command fails, with its last lines.
    """
    command = [sys.executable, "-m", "kfpn", "train", "--data", split.data, "--minutes", f"{minutes:g}"]
    command += ["--workdir", str(workdir)] + (["--val-data", split.val_data] if split.val_data else [])
    workdir.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with open(workdir.with_suffix(".log"), "w") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    taken = (time.monotonic() - start) / 60.0
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}: see {workdir.with_suffix('.log')}")
    final = json.loads((workdir / "final.json").read_text())
    own = {name: final[name] for name in final if name.startswith(("AP@", "AP50@"))}
    figures = {name: final.get(name) for name in ("AP", "AP50", "AP75", "steps")}
    return {"set": split.name, "minutes": minutes, "taken": taken, **figures, **own}


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a table in Markdown: a line for each set and number of minutes, means over the folds."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["set"].split(" ")[0], row["minutes"]), []).append(row)
    lines = [
        "| set | minutes | taken | steps | AP | AP50 | AP50 at the run's own limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for (name, minutes), found in groups.items():

        def mean(key: str, among: list[dict[str, Any]] = found) -> float | None:
            values = [row[key] for row in among if row.get(key) is not None]
            return sum(values) / len(values) if values else None

        own = next((key for key in found[0] if key.startswith("AP50@")), None)
        cells = [mean("taken"), mean("steps"), mean("AP"), mean("AP50"), mean(own) if own else None]
        forms = (".1f", ".0f", ".3f", ".3f", ".3f")
        texts = ["" if value is None else f"{value:{form}}" for value, form in zip(cells, forms, strict=True)]
        folds = f" ({len(found)} folds)" if len(found) > 1 else ""
        limit = f" ({own})" if own else ""
        lines.append(f"| {name}{folds} | {minutes:g} | " + " | ".join(texts) + f"{limit} |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws AP against minutes, a line for each set."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name in dict.fromkeys(row["set"].split(" ")[0] for row in rows):
        of_set = [row for row in rows if row["set"].split(" ")[0] == name and row["AP50"] is not None]
        minutes = sorted({row["minutes"] for row in of_set})
        values = [[row["AP50"] for row in of_set if row["minutes"] == m] for m in minutes]
        axes.plot(minutes, [sum(v) / len(v) for v in values], marker="o", label=name)
    axes.set(xlabel="minutes, all included", ylabel="AP50", ylim=(0, 1), title="kfpn train --data X --minutes N")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Runs what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shared", type=Path, help="folder with bccd, pothole, rbcwbc, coco33 and mush")
    parser.add_argument("--data", nargs="*", default=[], metavar="NAME=DATA", help="data sets of your own")
    parser.add_argument("--sets", nargs="*", help="only these")
    parser.add_argument("--minutes", nargs="+", type=float, default=[5.0, 15.0, 45.0])
    parser.add_argument("--folds", type=int, default=FOLDS, help=f"folds that are run, of {FOLDS}")
    parser.add_argument("--output", type=Path, default=Path("runs/first_try"))
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    output = arguments.output.resolve()
    sets = {name: [Split(name, place)] for name, _, place in (item.partition("=") for item in arguments.data)}
    if arguments.shared:
        sets |= shared_splits(arguments.shared.resolve(), output / "folds", FOLDS)
    if not sets:
        parser.error("give --shared or --data")
    chosen = arguments.sets or list(sets)
    if unknown := [name for name in chosen if name not in sets]:
        parser.error(f"--sets must be among {', '.join(sets)}, got {unknown[0]}")
    output.mkdir(parents=True, exist_ok=True)
    file = output / "first_try.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    done = {(row["set"], row["minutes"]) for row in rows}
    wanted = [(split, m) for m in arguments.minutes for name in chosen for split in sets[name][: arguments.folds]]
    for split, minutes in tqdm([w for w in wanted if (w[0].name, w[1]) not in done], unit="run"):
        name = split.name.replace(" ", "_").replace("/", "of")
        rows.append(run(split, minutes, output / f"{name}_{minutes:g}"))
        file.write_text(json.dumps(rows, indent=1))
    print(table(rows))
    draw(rows, output / "first_try.png")


if __name__ == "__main__":
    main()
