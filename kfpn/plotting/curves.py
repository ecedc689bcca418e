"""Plots how the losses, the learning rate and the AP of a run change over its steps."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def plot_curves(metrics_path: str | Path, png_path: str | Path) -> None:
    """Plots the losses, the learning rate and the AP of a run over its steps.

    Args:
        metrics_path: as `draw_curves` takes it.
        png_path: the picture to write.
    """
    draw_curves(metrics_path).savefig(png_path, dpi=110)


def draw_curves(metrics_path: str | Path) -> Any:
    """Returns matplotlib's figure of the losses, the learning rate and the AP of a run over its steps.

    Args:
        metrics_path: a run's `metrics.jsonl`. Each row has a `step`, and either losses and `lr` or the figures of an
            evaluation. A row that a crash cut short is left out.
    """
    # matplotlib's object-oriented interface opens no window and leaves the global state of pyplot alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = _read_rows(metrics_path)
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    at_limit = ("AP@", "AP50@", "mask_AP@", "mask_AP50@")
    own_limit = sorted({name for row in rows for name in row if name.startswith(at_limit)})
    of_heads = dict.fromkeys(name for row in rows for name in row if name.startswith("roi_"))
    shown = ("loss", "val_loss", "rpn_class", "rpn_box", *of_heads)
    losses = [name for name in shown if _series(rows, name)[0]]
    for axes, title, names in (
        (panels[0], "training loss" if "val_loss" not in losses else "training and validation loss", losses),
        (panels[1], "learning rate", ["lr"]),
        (panels[2], "validation AP", ["AP", "AP50", "AP75", "mask_AP", "mask_AP50", *own_limit]),
    ):
        for name in names:
            steps, values = _series(rows, name)
            if steps:
                marker = "o" if len(steps) == 1 or title == "validation AP" or name == "val_loss" else None
                axes.plot(steps, values, label=name, marker=marker, markersize=4, linewidth=1.2)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        if len(axes.lines) > 1:
            axes.legend(fontsize=8)
    panels[0].set_ylim(bottom=0)
    panels[2].set_ylim(0, 1)
    return figure


def _read_rows(path: str | Path) -> list[dict[str, Any]]:
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


def _series(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    points = {row["step"]: row[name] for row in rows if row.get(name) is not None}
    return sorted(points), [points[step] for step in sorted(points)]
