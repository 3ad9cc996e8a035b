"""Settings: one typed tree, read from YAML, strict and described.

``sections`` and ``training`` declare the settings, ``reading`` reads and merges files and overrides, ``named``
finds the file of a data set, ``listing`` shows them.
"""

from csip.config.named import did_you_mean, known_names, moved_to, named_settings
from csip.config.reading import Override, dump_settings, load_settings, settings_of, valid_keys
from csip.config.sections import (
    ClipSettings,
    DatasetSettings,
    EvaluationSettings,
    RuntimeSettings,
    Section,
    SkeletonEncoderSettings,
    VisionSettings,
)
from csip.config.settings import Settings
from csip.config.training import (
    SkeletonAugmentation,
    SkeletonTrainingSettings,
    Stage1Settings,
    Stage2Settings,
    WindowNetworkSettings,
)

__all__ = [
    "ClipSettings",
    "DatasetSettings",
    "EvaluationSettings",
    "Override",
    "RuntimeSettings",
    "Section",
    "Settings",
    "SkeletonAugmentation",
    "SkeletonEncoderSettings",
    "SkeletonTrainingSettings",
    "Stage1Settings",
    "Stage2Settings",
    "VisionSettings",
    "WindowNetworkSettings",
    "did_you_mean",
    "dump_settings",
    "known_names",
    "load_settings",
    "moved_to",
    "named_settings",
    "settings_of",
    "valid_keys",
]
