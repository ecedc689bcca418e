"""Writes the sections of a report that say what the run is: its head, its settings, its curves, its data."""

from collections.abc import Mapping
from typing import Any

from kfpn.config.run import Config, to_dict
from kfpn.data.record import Source
from kfpn.evaluation.detection_limit import full_images_line, images_at_limit
from kfpn.report.gather import GatheredRun
from kfpn.report.html_parts import Cell, folded, paragraph, section, share, table, text_of
from kfpn.report.pictures import picture_of_curves


def head_of_report(run: GatheredRun) -> str:
    """Returns the title, the main figures, and one sentence on what costs most."""
    model, source = run.config.model, run.source
    objects = sum(one.objects for one in run.analyses[0].classes)
    tiles = [("AP of boxes", share(run.figures["AP"])), ("AP50", share(run.figures["AP50"]))]
    if run.figures.get("mask_AP") is not None:
        tiles.append(("AP of masks", share(run.figures["mask_AP"])))
    tiles += [
        ("images", f"{len(source):,}"), ("objects", f"{objects:,}"), ("classes", f"{len(source.class_names):,}"),
    ]  # fmt: skip
    shown = "".join(f'<div class="tile">{name}<b>{value}</b></div>' for name, value in tiles)
    below = paragraph(_costs_most(run))
    if run.request.detections is None:
        made = f", at most {model.max_detections} detections an image"
        if cut := images_at_limit(list(run.detections.values()), model.max_detections):
            below += paragraph(
                text_of(full_images_line(cut, len(source), model.max_detections, "--model.max-detections"))
            )
    else:  # a file can have more detections of an image than the run's own limit allows
        made = f". Detections: {text_of(run.request.detections)}"
    what = f"{text_of(model.backbone)} with the pyramid {text_of(model.pyramid)}, measured on <b>{text_of(source.name)}</b>{made}."
    return f'<h1>{text_of(run.name)}</h1>{paragraph(what)}<div class="tiles">{shown}</div>{below}'


def _costs_most(run: GatheredRun) -> str:
    worst = max(run.analyses[0].errors, key=lambda error: error.gain)
    if worst.gain < 0.001:
        return "No kind of error costs more than .001 of AP50."
    return (
        f"What costs most: errors of the kind <b>{worst.kind}</b>. Without them AP50 would be higher by {worst.gain:.3f} "
        f"(<a href='#errors'>all kinds</a>)."
    )


def section_of_run(run: GatheredRun) -> str:
    """Returns the curves of the run and its settings, folded."""
    rows: list[list[str | Cell]] = [
        [text_of(name), Cell(text_of(value), 'class="left"')] for name, value in _settings_of(to_dict(run.config))
    ]
    return section(
        "run",
        "The run",
        _drawn_curves(run),
        folded(f"config.json: {len(rows)} settings", table(["setting", "value"], rows)),
    )


def _drawn_curves(run: GatheredRun) -> str:
    try:
        uri = picture_of_curves(run.workdir.metrics)
    except (ValueError, OSError) as error:  # the report has more in it than the curves
        return paragraph(f"no curves: {text_of(error)}")
    if uri is None:
        return paragraph("The run has no metrics.jsonl, so there are no curves.")
    return f'<img src="{uri}" alt="curves of losses, learning rate and AP" style="max-width:100%">'


def _settings_of(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    rows = []
    for name, value in values.items():
        rows += _settings_of(value, f"{before}{name}.") if isinstance(value, Mapping) else [(before + name, value)]
    return rows


def changed_settings(before: Config, after: Config) -> str:
    """Returns a table of the settings in which two runs differ."""
    old, new = dict(_settings_of(to_dict(before))), dict(_settings_of(to_dict(after)))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if not names:
        return paragraph("None.")
    rows: list[list[str | Cell]] = [
        [text_of(name), *(Cell(text_of(one.get(name, "—")), 'class="left"') for one in (old, new))] for name in names
    ]
    return table(["setting", "before", "after"], rows)


def section_of_data(run: GatheredRun) -> str:
    """Returns what the check of the data left out or changed."""
    parts = []
    for name, faults in run.faults.items():
        rows: list[list[str | Cell]] = [
            [Cell(text_of(kind), 'class="left"'), f"{count:,}", Cell(text_of(first), 'class="left"')]
            for kind, (count, first) in faults.items()
        ]
        content = (
            table(["what", "how many", "the first"], rows) if rows else paragraph("Nothing was left out or changed.")
        )
        parts.append(f"<h3>{text_of(name)}</h3>{content}")
    return section("data", "What the data check left out", *parts)


def classes_menu(source: Source) -> list[tuple[str, str]]:
    """Returns the entries of the menu of classes: label and name."""
    return [("", "all classes"), *((str(label), name) for label, name in enumerate(source.class_names))]
