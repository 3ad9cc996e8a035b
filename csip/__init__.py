"""CSIP-ReID: video person re-identification pretrained on 3D skeletons.

    import csip

    model = csip.load("runs/mars")
    mars = csip.load_dataset("mars")
    print(csip.evaluate(model, mars))
    gallery = model.embed(mars.gallery)
    hits = csip.search(model.embed("crops/"), gallery, top=10)

Names are imported on first use, so ``import csip`` is fast and does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csip.config import EvaluationSettings, RuntimeSettings, Settings
    from csip.data.dataset import Dataset, Tracklet
    from csip.errors import CsipError
    from csip.loading import load, load_dataset, load_settings
    from csip.monitor import Monitor, Silent
    from csip.retrieval.clustering import Proposal, cluster
    from csip.retrieval.descriptors import Descriptors, read_descriptors
    from csip.retrieval.evaluation import evaluate
    from csip.retrieval.model import Model
    from csip.retrieval.scores import Evaluation
    from csip.retrieval.search import SearchResult, search
    from csip.training.results import SkeletonResult, Stage1Result, Stage2Result
    from csip.training.skeletons_alone import train_skeleton
    from csip.training.stage1 import train_stage1
    from csip.training.stage2 import train_stage2

    __version__: str

# Where each name is defined, as above.
_MODULES = {
    "csip.config": ("EvaluationSettings", "RuntimeSettings", "Settings"),
    "csip.data.dataset": ("Dataset", "Tracklet"),
    "csip.errors": ("CsipError",),
    "csip.loading": ("load", "load_dataset", "load_settings"),
    "csip.monitor": ("Monitor", "Silent"),
    "csip.retrieval.clustering": ("Proposal", "cluster"),
    "csip.retrieval.descriptors": ("Descriptors", "read_descriptors"),
    "csip.retrieval.evaluation": ("evaluate",),
    "csip.retrieval.scores": ("Evaluation",),
    "csip.retrieval.model": ("Model",),
    "csip.retrieval.search": ("SearchResult", "search"),
    "csip.training.results": ("SkeletonResult", "Stage1Result", "Stage2Result"),
    "csip.training.skeletons_alone": ("train_skeleton",),
    "csip.training.stage1": ("train_stage1",),
    "csip.training.stage2": ("train_stage2",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "CsipError",
    "Dataset",
    "Descriptors",
    "Evaluation",
    "EvaluationSettings",
    "Model",
    "Monitor",
    "Proposal",
    "RuntimeSettings",
    "SearchResult",
    "Settings",
    "Silent",
    "SkeletonResult",
    "Stage1Result",
    "Stage2Result",
    "Tracklet",
    "__version__",
    "cluster",
    "evaluate",
    "load",
    "load_dataset",
    "load_settings",
    "read_descriptors",
    "search",
    "train_skeleton",
    "train_stage1",
    "train_stage2",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value = import_module("csip.version").version()
    elif name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'csip' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
