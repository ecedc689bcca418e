"""Chooses the images that a detector does worst on, and shows each with what went wrong."""

from collections.abc import Sequence

from kfpn.evaluation.image_errors import KINDS, ImageErrors, error_sentences
from kfpn.report.gather import GatheredRun
from kfpn.report.html_parts import COLORS, choice, paragraph, section, text_of
from kfpn.report.pictures import picture_of_errors


def worst_images(run: GatheredRun) -> list[int]:
    """Returns the indices of the images with the heaviest errors, the worst first; none without an error."""
    order = sorted(range(len(run.errors)), key=lambda index: -run.errors[index].weight)
    return [index for index in order if run.errors[index].errors][: run.request.images]


def note_on_low_scores(*runs: GatheredRun) -> str:
    """Returns a sentence where no detection of the runs reaches the least score that is shown, else nothing."""
    highest = max(
        (float(one["scores"].max(initial=0.0)) for run in runs for one in run.detections.values()), default=0.0
    )
    least = runs[-1].request.min_score
    if highest >= least or not highest:
        return ""
    whose = "No detection has" if len(runs) == 1 else "In neither run has a detection"
    return (
        f" {whose} a score of {least:g} or more, so none is drawn: the highest is {highest:.3f}. A lower --min-score shows them; "
        "scores rise when a training is longer."
    )


def section_of_images(run: GatheredRun) -> str:
    """Returns the section of the worst images, with its menus."""
    wrong = sum(bool(one.errors) for one in run.errors)
    chosen = worst_images(run)
    if not chosen:
        why = "" if not wrong else " No picture was asked for."
        return section(
            "images", "The worst images", paragraph(f"{wrong:,} of {len(run.errors):,} images have an error.{why}")
        )
    least = f"{run.request.min_score:g}"
    explained = paragraph(
        f"{wrong:,} of {len(run.errors):,} images have an error, counting detections with a score of {least} or more, by their boxes. "
        f"The {len(chosen)} worst are here: a missed object weighs 1, a wrong detection its score. Left the ground truth, right the "
        f"detections; <b>black and white frames</b> mark what was missed and what is wrong.{note_on_low_scores(run)}"
    )
    kinds = [kind for kind in KINDS if any(kind in run.errors[index].counts for index in chosen)]
    menus = (
        '<div class="menus">'
        + choice("order", "Order", [("kind", "by what went wrong"), ("rank", "the worst first")])
        + choice("kind", "What went wrong", [("", "anything"), *((kind, kind) for kind in kinds)])
        + '<span id="shown"></span></div>'
    )
    figures = [_figure(run, index, rank) for rank, index in enumerate(chosen)]
    return section("images", "The worst images", explained, menus, f"<div>{''.join(figures)}</div>")


def _figure(run: GatheredRun, index: int, rank: int) -> str:
    record, errors = run.source[index], run.errors[index]
    caption = f"{text_of(record.name or f'image {record.image_id}')}, {record.width} x {record.height} pixels"
    right = f"{errors.right} of {int((~record.crowd).sum())} objects found"
    points = "".join(f"<li>{text_of(line)}</li>" for line in error_sentences(errors.errors, run.source.class_names))
    try:
        uri = picture_of_errors(
            record, [run.detections[errors.image_id]], [errors], run.source.class_names, run.request.min_score
        )
        picture = f'<img src="{uri}" alt="ground truth and detections" loading="lazy">'
    except (ValueError, OSError) as error:  # Detections of a file can be of images that are gone.
        picture = paragraph(f"no picture: {text_of(error)}")
    return (
        f'<figure class="image" data-rank="{rank}" data-kind="{KINDS.index(errors.main_kind)}" '
        f'data-kinds="{" ".join(kind for kind in KINDS if kind in errors.counts)}" data-classes="{classes_of(errors)}">'
        f"{picture}<figcaption>{kind_label(errors.main_kind)} <b>{caption}</b>: {right}<ul>{points}</ul></figcaption></figure>"
    )


def kind_label(kind: str) -> str:
    """Returns the name of a kind of error on its colour."""
    return f'<span class="kind" style="background:{COLORS[kind]}">{kind}</span>'


def classes_of(errors: ImageErrors) -> str:
    """Returns the labels that the errors of an image have to do with, with blanks between them."""
    labels: Sequence[int | None] = [label for one in errors.errors for label in (one.label, one.object_label)]
    return " ".join(str(label) for label in sorted({label for label in labels if label is not None}))
