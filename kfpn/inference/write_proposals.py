"""Writes the proposals of a trained detector, of the images it was trained on and of those it is evaluated on."""

from collections.abc import Sequence
from pathlib import Path

from kfpn.config.run import Config
from kfpn.data.proposal_table import collect_proposals, write_proposals
from kfpn.data.record import Source
from kfpn.evaluation.detect import detect_function
from kfpn.evaluation.recall import propose_source
from kfpn.modeling.fast_rcnn import proposals_model
from kfpn.modeling.submodels import Submodels


def propose(
    submodels: Submodels,
    config: Config,
    sources: Sequence[Source],
    output: Path,
    count: int | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> list[int]:
    """Writes the proposals of whole data sets to a file that `config.proposals` can name.

    Args:
        submodels: of a trained detector.
        config: of its run.
        sources: data sets of different names.
        output: the file.
        count: proposals an image, at most. None: the larger of `post_nms_train` and `post_nms_test`.
        batch_size: images at once. None: that of the run.
        progress: show a bar.

    Returns:
        How many proposals each source got.

    Raises:
        ValueError: if two sources have one name, or an image can't be read.
    """
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ValueError(f"sources must have different names, got {', '.join(names)}")
    if count is None:
        count = max(config.model.post_nms_train, config.model.post_nms_test)
    model = detect_function(proposals_model(submodels, config.model, count, nms="kernel"))
    tables = []
    for source in sources:
        found = propose_source(model, source, config, batch_size, progress)
        tables.append(collect_proposals(source, found))
    write_proposals(output, tables)
    return [len(table.boxes) for table in tables]
