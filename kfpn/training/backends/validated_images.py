"""Holds what validation losses are computed of, whatever library computes them."""

from dataclasses import dataclass

from kfpn.config.run import Config
from kfpn.data.proposal_table import ProposalTable
from kfpn.data.record import Source
from kfpn.modeling.segment_submodels import SegmentSubmodels
from kfpn.modeling.submodels import Submodels


@dataclass(eq=False)
class ValidatedImages:
    """A network that is trained, and the images on which its losses are measured.

    Attributes:
        submodels: of the network.
        config: the run's.
        source: of the validation images.
        proposals: of the same images, for a detector whose RPN is not trained; None: the RPN's.
    """

    submodels: Submodels | SegmentSubmodels
    config: Config
    source: Source
    proposals: ProposalTable | None = None
