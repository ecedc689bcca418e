"""Writes the report of a run into one HTML file."""

from pathlib import Path

from kfpn.report.confusions import section_of_confusions
from kfpn.report.gather import GatheredRun
from kfpn.report.html_parts import choice
from kfpn.report.page import whole_page
from kfpn.report.run_sections import classes_menu, head_of_report, section_of_data, section_of_run
from kfpn.report.sections import (
    section_of_calibration,
    section_of_classes,
    section_of_curves,
    section_of_errors,
    section_of_figures,
    section_of_properties,
)
from kfpn.report.worst_images import section_of_images
from kfpn.runs.atomic_files import write_aside

SECTIONS = (
    ("figures", "Figures"), ("errors", "Errors"), ("images", "Worst images"), ("confusions", "Confusions"), ("classes", "Classes"),
    ("curves", "Precision and recall"), ("properties", "Size, shape, crowding"), ("calibration", "Scores"), ("run", "Run"),
    ("data", "Data"),
)  # fmt: skip
"""Anchor and name of each section, in their order."""


def report_page(run: GatheredRun) -> str:
    """Returns the page of a run."""
    parts = {
        "figures": section_of_figures, "errors": section_of_errors, "images": section_of_images,
        "confusions": section_of_confusions, "classes": section_of_classes, "curves": section_of_curves,
        "properties": section_of_properties, "calibration": section_of_calibration, "run": section_of_run, "data": section_of_data,
    }  # fmt: skip
    sections = [head_of_report(run), *(parts[anchor](run) for anchor, _ in SECTIONS)]
    return whole_page(run.name, SECTIONS, choice("class", "Class", classes_menu(run.source)), sections)


def write_report(run: GatheredRun, path: Path) -> None:
    """Writes the page of a run.

    Raises:
        OSError: naming the file, if it can't be written.
    """
    write_aside(path, report_page(run))
