"""Writes the proposals of a trained detector for the images of whole data sets."""

from collections.abc import Sequence
from pathlib import Path

from kfpn.config.model import ModelConfig
from kfpn.data.proposal_table import collect_proposals, write_proposals
from kfpn.evaluation.recall import propose_source
from kfpn.evaluation.source_pass import SourcePass, detect_function
from kfpn.modeling.fast_rcnn import proposals_model
from kfpn.modeling.submodels import Submodels


def propose(
    submodels: Submodels,
    config: ModelConfig,
    passes: Sequence[SourcePass],
    output: Path,
    count: int | None = None,
) -> list[int]:
    """Writes the proposals of whole data sets to a file that `config.proposals` can name.

    Args:
        submodels: of a trained detector.
        config: the one they were built with.
        passes: over data sets of different names.
        output: the file.
        count: the largest number of proposals of an image. None: the larger of `post_nms_train` and `post_nms_test`.

    Returns:
        The number of proposals of each data set.

    Raises:
        ValueError: if two data sets have one name, or an image can't be read.
    """
    names = [one.source.name for one in passes]
    if len(set(names)) < len(names):
        raise ValueError(f"sources must have different names, got {', '.join(names)}")
    if count is None:
        count = max(config.post_nms_train, config.post_nms_test)
    model = detect_function(proposals_model(submodels, config, count, nms="kernel"))
    tables = [collect_proposals(one.source, propose_source(model, one)) for one in passes]
    write_proposals(output, tables)
    return [len(table.boxes) for table in tables]
