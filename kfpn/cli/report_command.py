"""Carries out `kfpn report`: writes what a detector gets right and wrong into one HTML file."""

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from kfpn.cli.evaluate_command import require_place
from kfpn.config.checks import SHARE, check, whole
from kfpn.config.run import Config


@dataclasses.dataclass(frozen=True)
class Report:
    """Options of `kfpn report`."""

    workdirs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="WORKDIR")] = ()
    """Work directories of `kfpn train`: one; or two to compare, first the one from before."""
    workdir: str | None = None
    """The work directory of one run, instead of naming it without an option."""
    data: str | None = None
    """What to report on, as for `kfpn train`. None: the validation data of the run, of two runs those of the first."""
    split: str = "validation"
    """Split of `data`, where its name does not say one."""
    output: str = "report.html"
    """The file to write, also over an older report; another file that is there is refused."""
    detections: tuple[str, ...] = ()
    """A file of detections for each run, in COCO's results form, as `kfpn evaluate --detections` writes it. Without: the detector makes them."""
    images: int = 20
    """Pictures of the worst images, at most; of two runs, of the images that changed most."""
    min_score: float = 0.5
    """Detections below it are in no picture and in no confusion matrix; all other figures count all of them."""

    def __post_init__(self) -> None:
        count = len(self.runs)
        if count not in (1, 2) or (self.workdir and self.workdirs):
            raise ValueError(
                f"workdir must name one run, or two as kfpn report BEFORE AFTER, got {' '.join(self.runs) or 'nothing'}"
            )
        if len(self.detections) not in (0, count):
            raise ValueError(f"detections must name a file for each run, got {len(self.detections)} for {count}")
        if Path(self.output).suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"output must end in .html, got {self.output}")
        check(self, "", "images", whole(0))
        check(self, "", "min_score", SHARE)

    @property
    def runs(self) -> tuple[str, ...]:
        """Returns the work directories."""
        return (*self.workdirs, *([self.workdir] if self.workdir else []))


def report_on_training(config: Config, final: Mapping[str, Any]) -> None:
    """Writes the report of a run at its end, of the detections that it has measured, and says where it is.

    A report that can't be written does not change that the run has ended well: it is warned of.

    Args:
        config: with the run's work directory; its `report` says whether one is wanted.
        final: what the training has returned; empty for a worker that is not the chief.
    """
    from kfpn.report.gather import ReportRequest, gather_run
    from kfpn.report.write_report import write_report
    from kfpn.runs.workdir import Workdir

    run = Workdir(config.workdir)
    if not (config.report and final and run.detections.exists()):
        return
    if run.report.exists() and run.report.stat().st_mtime >= run.detections.stat().st_mtime:
        return  # of the same detections: the command was repeated
    try:
        write_report(gather_run(ReportRequest(config.workdir, detections=run.detections)), run.report)
    except (ValueError, OSError) as error:
        warnings.warn(f"{run.report} can't be written: {error}", stacklevel=2)
        return
    print(f"{run.report}: what the detector gets right and wrong; open it in a browser", flush=True)


def report_and_print(command: Report) -> int:
    """Writes a report and says where; returns the exit code."""
    from kfpn.data.class_table import describe_source
    from kfpn.report.compare_runs import gather_two, write_comparison
    from kfpn.report.gather import ReportRequest, gather_run
    from kfpn.report.page import require_own_report
    from kfpn.report.write_report import write_report

    require_place("output", command.output)
    output = Path(command.output)
    require_own_report(output)
    files = command.detections or (None,) * len(command.runs)
    requests = [
        ReportRequest(workdir, command.data, command.split, file, command.min_score, command.images)
        for workdir, file in zip(command.runs, files, strict=True)
    ]
    if len(requests) == 1:
        run = gather_run(requests[0])
        print(describe_source(run.source), flush=True)
        write_report(run, output)
        print(
            f"AP {run.figures['AP']:.4f}; images with an error: {sum(bool(one.errors) for one in run.errors)} of {len(run.errors)}"
        )
    else:
        before, after = gather_two(*requests)
        write_comparison(before, after, output)
        print(describe_source(after.source))
        print(f"AP {before.figures['AP']:.4f} -> {after.figures['AP']:.4f}")
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB; open it in a browser")
    return 0
