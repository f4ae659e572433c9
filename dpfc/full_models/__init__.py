"""Private training of whole networks through Opacus: networks, optimizers and what else there is.

The classifier is `dpfc.DPSGDClassifier`.
"""

from dpfc.full_models.augmentation import AUGMENTATIONS
from dpfc.full_models.checkpoints import CheckpointError
from dpfc.full_models.dp_sgd.clipping import CLIPPINGS
from dpfc.full_models.networks.factory import NETWORKS, make_network
from dpfc.full_models.optimizers.factory import (
    OPTIMIZERS,
    SCHEDULES,
    OptimizerSettings,
    make_optimizer,
)
from dpfc.full_models.trainable import TRAINABLE

__all__ = [
    "AUGMENTATIONS",
    "CLIPPINGS",
    "NETWORKS",
    "OPTIMIZERS",
    "SCHEDULES",
    "TRAINABLE",
    "CheckpointError",
    "OptimizerSettings",
    "make_network",
    "make_optimizer",
]
