"""Measures the resident memory of the input pipeline while it makes images, for `scaling.py --memory`."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

POINTS = 10
LIMIT = 32 * 2**20
"""Bytes by which memory may grow over a whole run. One thousandth of the pixels of 10,000 images of 512 x 512 would be 7.9 MB."""


def resident_bytes() -> int:
    """Returns this process's resident memory.

    Raises:
        ValueError: where there is no /proc.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        raise ValueError("--memory needs /proc/self/status, which only Linux has")
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS:")) * 1024


def memory_series(
    batches: Iterator[Any],
    batch_size: int,
    images: int,
    warm_up: int,
    measure: Callable[[], int] = resident_bytes,
) -> list[tuple[int, int]]:
    """Takes images from the pipeline and returns (images since the warm-up, bytes) at `POINTS` places.

    Args:
        batches: an iterator without end.
        batch_size: images of each batch.
        images: at least POINTS batches; rounded down to whole batches.
        warm_up: images before the first that counts.
        measure: returns the memory in bytes.

    Raises:
        ValueError: if `images` are fewer than POINTS batches.
    """
    steps = images // batch_size
    if steps < POINTS:
        raise ValueError(f"images must be at least {POINTS} batches of {batch_size}, got {images}")
    due = {steps * (point + 1) // POINTS for point in range(POINTS)}
    series = []
    with tqdm(total=warm_up + images, desc="memory", unit="image") as bar:
        for _ in range(-(-warm_up // batch_size)):
            next(batches)
            bar.update(batch_size)
        for step in range(1, steps + 1):
            next(batches)
            bar.update(batch_size)
            if step in due:
                series.append((step * batch_size, measure()))
    return series


def bytes_an_image(series: Sequence[tuple[int, int]]) -> float:
    """Returns the slope of memory over images: the median of the slopes of all pairs of points, which one jump does not change."""
    images, taken = np.array(series, np.float64).T
    first, second = np.triu_indices(len(images), 1)
    return float(np.median((taken[second] - taken[first]) / (images[second] - images[first])))


def grows(series: Sequence[tuple[int, int]], limit: float = LIMIT) -> bool:
    """Returns True if memory rises by more than `limit` bytes over the series, as it does when a part of each image is kept."""
    return bytes_an_image(series) * (series[-1][0] - series[0][0]) > limit


def memory_table(series: Sequence[tuple[int, int]], limit: float = LIMIT) -> str:
    """Returns the series as a table, and a line that says whether memory grows."""
    lines = ["| images | resident MB | more than the first |", "|---|---|---|"]
    lines += [f"| {n} | {b / 2**20:.1f} | {(b - series[0][1]) / 2**20:+.1f} |" for n, b in series]
    verdict = "memory grows" if grows(series, limit) else "memory does not grow"
    span = series[-1][0] - series[0][0]
    slope = bytes_an_image(series)
    lines += [
        "",
        f"{verdict}: {slope:+.0f} bytes an image, {slope * span / 2**20:+.1f} MB over {span} images "
        f"(limit {limit / 2**20:.0f} MB)",
    ]
    return "\n".join(lines)


def plot_memory(series: Sequence[tuple[int, int]], path: Path) -> None:
    """Draws memory over images, from zero, with a line at the first point plus the limit."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    images, taken = np.array(series).T
    axes.plot(images, taken / 2**20, "o-", label="resident memory")
    axes.axhline((series[0][1] + LIMIT) / 2**20, color="C3", linestyle="--", label="first point + limit")
    axes.set(xlabel="images made, after the warm-up", ylabel="MB", ylim=(0, 1.15 * (taken.max() + LIMIT) / 2**20))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
