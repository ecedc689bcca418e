"""Plots how the losses, the learning rate and the AP of a run change over its steps."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RECALLS_OF_SEGMENTS = ("AR@10", "AR@100", "AR@1000", "ARs@1000", "ARm@1000", "ARl@1000")
"""The figures of a run whose network proposes segments."""
LARGEST = 1e30
"""The largest number that is drawn: matplotlib fails at axes that go on to the largest of all."""


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
            evaluation. A row that a crash cut short is left out, and so is what is no row, no number, or beyond what can be drawn.
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
    of_segments = any(RECALLS_OF_SEGMENTS[0] in row for row in rows)
    own_limit = list(RECALLS_OF_SEGMENTS) if of_segments else own_limit
    title = "validation AR" if of_segments else "validation AP"
    of_heads = dict.fromkeys(name for row in rows for name in row if name.startswith(("roi_", "segment_")))
    shown = ("loss", "val_loss", "rpn_class", "rpn_box", *of_heads)
    losses = [name for name in shown if _series(rows, name)[0]]
    for axes, heading, names in (
        (panels[0], "training loss" if "val_loss" not in losses else "training and validation loss", losses),
        (panels[1], "learning rate", ["lr"]),
        (panels[2], title, ["AP", "AP50", "AP75", "mask_AP", "mask_AP50", *own_limit]),
    ):
        for name in names:
            steps, values = _series(rows, name)
            if steps:
                marker = "o" if len(steps) == 1 or axes is panels[2] or name == "val_loss" else None
                axes.plot(steps, values, label=name, marker=marker, markersize=4, linewidth=1.2)
        axes.set(title=heading, xlabel="step")
        axes.grid(alpha=0.3)
        if len(axes.lines) > 1:
            axes.legend(fontsize=8)
    panels[0].set_ylim(bottom=0)
    panels[2].set_ylim(0, 1)
    return figure


def _read_rows(path: str | Path) -> list[dict[str, Any]]:
    rows = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and _can_be_drawn(row.get("step")):
            rows.append(row)
    return rows


def _can_be_drawn(value: Any) -> bool:
    return isinstance(value, int | float) and -LARGEST <= value <= LARGEST


def _series(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    points = {row["step"]: row[name] for row in rows if _can_be_drawn(row.get(name))}
    return sorted(points), [points[step] for step in sorted(points)]
