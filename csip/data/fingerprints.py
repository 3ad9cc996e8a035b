"""What training and evaluation depend on besides settings: tracklets, pictures and skeletons, each by its content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from csip.data.content import content_of
from csip.data.dataset import Dataset, Tracklet, fingerprint
from csip.errors import CsipError
from pose_cache.plan import changed_tracklets
from pose_cache.store import SkeletonStore

_WORDS = {"tracklets": "the training tracklets", "skeletons": "their skeletons", "pictures": "their pictures"}


@dataclass(frozen=True)
class TrainingData:
    """Digests of what training reads: equal where it would read the same.

    Attributes
    ----------
    tracklets
        Names, identities, cameras and frames of the training tracklets.
    skeletons
        Their skeletons. Those of others in the same cache do not count.
    pictures
        The content of their frames' files.
    """

    tracklets: str
    skeletons: str
    pictures: str

    @staticmethod
    def of(dataset: Dataset, skeletons: Path) -> TrainingData:
        """Look at a data set and its skeleton cache.

        Raises
        ------
        PoseCacheError
            The cache cannot be read.
        """
        with SkeletonStore(skeletons) as store:
            digest = store.digest_of(t.name for t in dataset.train)
        return TrainingData(fingerprint(dataset.train), digest, content_of(dataset.root, dataset.train))

    def as_dict(self) -> dict[str, str]:
        """Return the digests by name."""
        return asdict(self)

    def changes(self, recorded: Mapping[str, object]) -> str:
        """Say what differs from the digests that a model's description has, for people; empty where nothing does.

        A description without ``pictures`` is of before these were noted: nothing is compared.
        """
        if "pictures" not in recorded:
            return ""
        return ", ".join(words for key, words in _WORDS.items() if recorded.get(key) != getattr(self, key))


def evaluation_data(dataset: Dataset) -> dict[str, str]:
    """Return digests of what an evaluation ranks: ``tracklets``, with their identities and parts, and ``pictures``."""
    parts = (*dataset.query, Tracklet("", 0, 0, ("",)), *dataset.gallery)
    once = {t.name: t for t in (*dataset.query, *dataset.gallery)}
    return {
        "tracklets": fingerprint(parts),
        "pictures": content_of(dataset.root, [once[name] for name in sorted(once)]),
    }


def check_skeletons(path: Path, tracklets: Sequence[Tracklet], root: Path) -> None:
    """Refuse skeletons of pictures that have changed since, under the same names.

    Raises
    ------
    CsipError
        Pictures have changed. Frames that are gone, and skeletons that were not made from pictures, pass.
    """
    with SkeletonStore(path) as store:
        changed = changed_tracklets(store, [t.name for t in tracklets if t.name in store], root)
    if changed:
        raise CsipError(
            f"{path}: the pictures of {len(changed):,} of {len(tracklets):,} training tracklets have changed since their "
            f"skeletons were estimated, e.g. of {min(changed)}",
            parameter="changed_skeletons",
        )
