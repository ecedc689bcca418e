"""Carries out `kfpn evaluate`, `kfpn predict` and `kfpn visualize` for a run with `--task segments`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from kfpn.cli.options import Evaluate, Predict, Visualize
from kfpn.cli.segment_options import require_left_out
from kfpn.config.run import Config
from kfpn.config.test_scales import parse_scales

SHOWN = 20
"""Segments of an image that `kfpn predict` draws and writes, where nothing else is said: all 1000 would cover the picture."""


def holds_segments(workdir: str) -> bool:
    """Tells whether a folder is the work directory of a run with `--task segments`."""
    from kfpn.runs.load import task_of

    return task_of(workdir) == "segments"


def evaluate_segments_and_print(command: Evaluate) -> int:
    """Measures the recall of a run's segments, prints it and writes the file that was asked for; returns the exit code."""
    from kfpn.data.class_table import describe_source
    from kfpn.evaluation.segment_recall import segment_recall_line
    from kfpn.inference.evaluate_segments import measure_segments, open_segment_pass
    from kfpn.inference.timed_passes import pyramid_cost_line
    from kfpn.runs.atomic_files import write_json
    from kfpn.runs.load import require_trained
    from kfpn.runs.workdir import Workdir

    require_left_out(
        command,
        (
            "tiles",
            "overlap",
            "tiles_only",
            "proposals",
            "max_detections",
            "best_thresholds",
            "detections",
        ),
    )
    require_trained(Workdir(command.workdir), rpn=False, task="segments")
    source_pass = open_segment_pass(
        command.workdir, command.data, command.split, command.batch_size, command.eval_batch_size, command.check_images
    )
    print(describe_source(source_pass.source), flush=True)
    recall = measure_segments(
        command.workdir, source_pass, parse_scales(command.scales), command.flip, command.precision
    )
    print(f"{source_pass.source.name}: {len(source_pass.source)} images\nsegments: {segment_recall_line(recall)}")
    if "image_pyramid" in recall:
        print(pyramid_cost_line(recall["image_pyramid"], source_pass.config.input.short_side))
    if command.json:
        write_json(Path(command.json), recall)
    return 0


def predict_segments(command: Predict) -> int:
    """Writes pictures and the run lengths of the best segments of a user's images; returns the exit code."""
    from kfpn.data.decode_limits import decoding_at_most
    from kfpn.data.jpeg_fraction import DecodedImage
    from kfpn.evaluation.source_pass import detect_function
    from kfpn.inference.predict_files import write_pictures
    from kfpn.inference.segment_pyramid import SegmentPyramid
    from kfpn.inference.segments import Segments, segment_image, surest
    from kfpn.inference.user_inputs import find_inputs
    from kfpn.runs.load import load_segmenter
    from kfpn.runs.workdir import Workdir

    require_left_out(command, ("tiles", "overlap", "tiles_only"))
    inputs, output = find_inputs(command.images), Path(command.output)
    count = command.max_detections or SHOWN
    model = load_segmenter(command.workdir, padded=True, max_segments=count, precision=command.precision)
    propose, pyramid = detect_function(model), None
    if command.scales or command.flip:
        config = dataclasses.replace(Workdir(command.workdir).read_config(), model=model.model_config)
        pyramid = SegmentPyramid(propose, config, parse_scales(command.scales), command.flip)

    def look(image: DecodedImage) -> Segments:
        segments = (
            pyramid.segment_image(image)
            if pyramid
            else segment_image(propose, image, model.input_config, model.pasting, model.model_config.levels[0][0])
        )
        return surest(segments, count, command.min_score or 0.0)

    with decoding_at_most(command.max_pixels):
        tally = write_pictures(look, pyramid.largest if pyramid else model.input_config, inputs, output, count)
    print(f"{tally.line().replace('objects', 'segments')}; in {output}")
    if pyramid is not None:
        print(pyramid.cost_line())
    return 1 if tally.faults else 0


def draw_pages_of_segments(command: Visualize, config: Config, pages: Mapping[Path, Path]) -> list[Path]:
    """Draws a page of each image with the best segments of each level; returns the images that can't be read.

    Args:
        command: the options.
        config: of the run.
        pages: image -> page.
    """
    from kfpn.inference.inspect_segments import SHOWN_OF_A_LEVEL, visualize_segments
    from kfpn.runs.load import load_segmenter

    model = load_segmenter(command.workdir, padded=True)
    count = SHOWN_OF_A_LEVEL if command.proposals is None else command.proposals
    return visualize_segments(model, config, pages, command.min_score or 0.0, count)
