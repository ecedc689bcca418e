"""Offers callbacks for `fit` of a trainable detector: COCO's figures, pictures, and a work directory for the commands of kfpn.

Everything else is Keras' own: a callback that stands behind `CocoAP` in the list finds `val_AP` in its logs.
"""

from kfpn.training.detecting_callbacks import CocoAP, Pictures
from kfpn.training.workdir_callback import WorkDirectory

__all__ = ["CocoAP", "Pictures", "WorkDirectory"]
