"""Lays two runs beside each other: what became better, what worse, and the images that changed most."""

import dataclasses
from pathlib import Path

from kfpn.data.record import Source
from kfpn.evaluation.coco_figures import FIGURES, OF_MASKS
from kfpn.evaluation.coco_rows import named_file
from kfpn.evaluation.detect import source_labels
from kfpn.evaluation.image_errors import error_sentences
from kfpn.plotting.svg_charts import ChartLine, line_chart
from kfpn.report.gather import GatheredRun, ReportRequest, gather_run, opened_data, require_gathered
from kfpn.report.html_parts import (
    BLUE,
    ORANGE,
    beside,
    choice,
    css_color,
    difference,
    paragraph,
    section,
    share,
    small_print,
    table,
    text_of,
)
from kfpn.report.page import whole_page
from kfpn.report.pictures import picture_of_errors
from kfpn.report.run_sections import changed_settings, classes_menu
from kfpn.report.sections import KIND_NAMES, mean_curve
from kfpn.report.worst_images import classes_of, note_on_low_scores
from kfpn.runs.atomic_files import write_aside
from kfpn.runs.workdir import Workdir

ANCHORS = (
    ("figures", "Figures"),
    ("errors", "Errors"),
    ("classes", "Classes"),
    ("images", "Images"),
    ("run", "Settings"),
)


def gather_two(before: ReportRequest, after: ReportRequest) -> tuple[GatheredRun, GatheredRun]:
    """Gathers two runs on the same data: those that are asked for, or the validation data of the first.

    Args:
        before: the first run. Its data are opened once, for both, with masks if one of the runs has them.
        after: the second run. None as its data, or the same as those of the first: the data of the first.

    Raises:
        ValueError: as `gather_run`, or if the runs' data differ.
    """
    for request in (before, after):  # what is wrong with the second is said before the work on the first
        require_gathered(request)
    data = _data_of_both(before, after)
    for request in (before, after):
        if request.detections is None:
            with named_file(request.workdir):
                source_labels(data, Workdir(request.workdir).read_classes()[0])
    first = gather_run(dataclasses.replace(before, data=data))
    of_both = after.data is None or after.data == before.data
    second = gather_run(dataclasses.replace(after, data=data) if of_both else after)
    _require_same(first.source, second.source)
    return first, second


def _data_of_both(before: ReportRequest, after: ReportRequest) -> Source:
    """Opens the data of the first run, with masks if one of both runs has them."""
    config, other = (Workdir(request.workdir).read_config() for request in (before, after))
    model = dataclasses.replace(config.model, mask=config.model.mask or other.model.mask)
    return opened_data(before, dataclasses.replace(config, model=model))


def _require_same(first: Source, second: Source) -> None:
    same = len(first) == len(second) and first.class_names == second.class_names
    if not same or any(first[i].image_id != second[i].image_id for i in range(len(first))):
        raise ValueError(
            f"data must be the same for both runs, got {first.name} and {second.name}: name them with --data"
        )


def write_comparison(before: GatheredRun, after: GatheredRun, path: Path) -> None:
    """Writes the page of two runs.

    Raises:
        OSError: naming the file, if it can't be written.
    """
    write_aside(path, comparison_page(before, after))


def comparison_page(before: GatheredRun, after: GatheredRun) -> str:
    """Returns the page of two runs on the same data."""
    title = f"{before.name} and {after.name}"
    head = f"<h1>{text_of(before.name)} → {text_of(after.name)}</h1>" + paragraph(
        f"Measured on <b>{text_of(after.source.name)}</b>, {len(after.source):,} images.{_files_of_both(before, after)}"
    )
    sections = [
        head, _figures_of_both(before, after), _errors_of_both(before, after), _classes_of_both(before, after),
        _changed_images(before, after),
        section("run", "Settings that differ", changed_settings(before.config, after.config)),
    ]  # fmt: skip
    return whole_page(title, ANCHORS, choice("class", "Class", classes_menu(after.source)), sections)


def _files_of_both(before: GatheredRun, after: GatheredRun) -> str:
    files = [run.request.detections for run in (before, after)]
    if files == [None, None]:
        return ""
    before_file, after_file = (text_of("the detector's own" if file is None else file) for file in files)
    return f" Detections: before {before_file}, after {after_file}."


def _figures_of_both(before: GatheredRun, after: GatheredRun) -> str:
    names = [prefix + name for prefix in ("", OF_MASKS) for name in FIGURES]
    rows = [
        [
            name,
            share(before.figures[name], 4),
            share(after.figures[name], 4),
            difference(before.figures[name], after.figures[name]),
        ]
        for name in names
        if name in before.figures and name in after.figures
    ]
    lines = [
        ChartLine(run.name, mean_curve(run.analyses[0], 0.5), color) for run, color in ((before, BLUE), (after, ORANGE))
    ]
    chart = "<h3>boxes at IoU .5, mean over the classes</h3>" + line_chart("boxes", "recall", "precision", lines)
    return section("figures", "COCO's figures", beside(table(["", "before", "after", "change"], rows), chart))


def _errors_of_both(before: GatheredRun, after: GatheredRun) -> str:
    parts = []
    for old, new in zip(before.analyses, after.analyses, strict=False):
        rows = [
            [
                one.kind,
                f"{one.count:,}",
                f"{other.count:,}",
                share(one.gain),
                share(other.gain),
                difference(-one.gain, -other.gain),
            ]
            for one, other in zip(old.errors, new.errors, strict=True)
        ]
        head = [KIND_NAMES[old.kind], "before", "after", "cost before", "cost after", "AP50 gained"]
        parts.append(table(head, rows))
    note = "How many there are of each kind, and what they cost in AP50: what mending all of the kind would add."
    return section("errors", "What goes wrong", beside(*parts), small_print(note))


def _classes_of_both(before: GatheredRun, after: GatheredRun) -> str:
    old, new = before.analyses[0].classes, after.analyses[0].classes
    order = sorted(
        range(len(new)), key=lambda label: (new[label].ap is None, (new[label].ap or 0.0) - (old[label].ap or 0.0))
    )
    rows = [
        [
            f'<span class="swatch" style="background:{css_color(label)}"></span>{text_of(new[label].name)}',
            f"{new[label].objects:,}", share(old[label].ap), share(new[label].ap), difference(old[label].ap, new[label].ap),
        ]
        for label in order
    ]  # fmt: skip
    listed = table(
        ["class", "objects", "AP before", "AP after", "change"], rows, [f'data-class="{label}"' for label in order]
    )
    return section("classes", "Class by class", listed)


def _changed_images(before: GatheredRun, after: GatheredRun) -> str:
    changes = [new.weight - old.weight for old, new in zip(before.errors, after.errors, strict=True)]
    order = sorted(range(len(changes)), key=lambda index: changes[index])
    better = [index for index in order if changes[index] < 0]
    worse = [index for index in order[::-1] if changes[index] > 0]
    most = after.request.images
    # Half of each, and more where there are few of the others.
    of_worse = min(len(worse), max(most // 2, most - len(better)))
    chosen = better[: most - of_worse] + worse[:of_worse]
    figures = "".join(_figure_of_both(before, after, index, rank) for rank, index in enumerate(chosen))
    note = (
        f"{len(better):,} of {len(changes):,} images became better, {len(worse):,} worse: a missed object weighs 1, a wrong detection its score, "
        f"from {after.request.min_score:g} on. Left the ground truth, then before, then after; black and white frames mark what is wrong, and what both "
        f"runs miss.{note_on_low_scores(before, after)}"
    )
    return section(
        "images", "The images that changed most", paragraph(note), f'<span id="shown"></span><div>{figures}</div>'
    )


def _figure_of_both(before: GatheredRun, after: GatheredRun, index: int, rank: int) -> str:
    record, errors = after.source[index], [run.errors[index] for run in (before, after)]
    names = after.source.class_names
    detections = [run.detections[errors[0].image_id] for run in (before, after)]
    try:
        uri = picture_of_errors(record, detections, errors, names, after.request.min_score)
        picture = f'<img src="{uri}" alt="ground truth, before and after" loading="lazy">'
    except (ValueError, OSError) as error:
        picture = paragraph(f"no picture: {text_of(error)}")
    verdict = "better" if errors[1].weight < errors[0].weight else "worse"
    lists = [
        f"{title}: {text_of('; '.join(error_sentences(one.errors, names)) or 'all is right')}"
        for title, one in zip(("before", "after"), errors, strict=True)
    ]
    labels = " ".join(sorted({label for one in errors for label in classes_of(one).split()}, key=int))
    return (
        f'<figure class="image" data-rank="{rank}" data-kinds="" data-classes="{labels}">{picture}<figcaption><b class="{verdict}">{verdict}</b> '
        f"<b>{text_of(record.name or f'image {record.image_id}')}</b><br>{'<br>'.join(lists)}</figcaption></figure>"
    )
