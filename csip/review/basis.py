"""What a review of a data set starts from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from csip.data.folder import Sighting
from csip.retrieval.clustering import camera_shifts, in_sight_together, merge_steps, without_cameras
from csip.retrieval.descriptors import Descriptors
from csip.review.neighbours import nearest
from csip.review.together import brief
from csip.review.tree import MergeTree


class Basis:
    """Descriptors, their tree, their neighbours, and who was in sight together.

    Parameters
    ----------
    descriptors
        Of all tracklets.
    sightings
        Where and when each was seen.
    threshold
        Up to which mean distance tracklets are joined; chosen by the silhouette where it is not given.
    """

    def __init__(
        self, descriptors: Descriptors, sightings: Mapping[str, Sighting], threshold: float | None = None
    ) -> None:
        names = descriptors.names
        self.names, self.rows = names, {name: row for row, name in enumerate(names)}
        self.cameras = np.asarray(descriptors.cameras)
        together = in_sight_together(names, sightings)
        steps, self.threshold = merge_steps(descriptors.features, names, self.cameras, together, threshold)
        short = brief(together, names, sightings)
        self.apart, self.brief = together[~short], together[short]
        self.tree = MergeTree.of(steps, self.threshold)
        self.features = without_cameras(descriptors.features, self.cameras).astype(np.float32)
        self.neighbours = nearest(self.features)
        self.model = descriptors.model
        self._shifts = camera_shifts(descriptors.features, self.cameras)

    def feature_of(self, descriptor: np.ndarray, camera: int | None = None) -> np.ndarray:
        """Return a descriptor, (D,), of the same model as it is compared with `features`; `camera` is None if unknown."""
        moved = descriptor.astype(np.float64)
        if camera in self._shifts:
            moved += self._shifts[camera]
        return np.asarray(moved / max(float(np.linalg.norm(moved)), 1e-12), dtype=np.float32)
