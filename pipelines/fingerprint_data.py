"""The step that tells Make whether a data set's content has changed."""

from __future__ import annotations

import os
from pathlib import Path

from csip.config import Settings
from csip.data.content import content_of
from csip.data.dataset import fingerprint
from csip.data.fingerprints import evaluation_data
from csip.data.readers import load_dataset
from csip.data.sequences import fingerprint_sequences
from csip.data.skeleton_readers import LAYOUTS, load_skeleton_set
from csip.data.skeletons import splits_for
from csip.files import atomic

TRAIN, TEST = "train.fingerprint", "test.fingerprint"


def run(settings: Settings, run_folder: Path) -> None:
    """Write ``RUN/train.fingerprint`` and ``RUN/test.fingerprint``; a file whose part has not changed keeps its time.

    A file that is new gets the oldest time there is: what was made before anybody asked is taken for right, and the stages refuse
    it where it is not.

    Raises
    ------
    CsipError
        The data set cannot be read.
    """
    for name, digest in fingerprints(settings).items():
        path = run_folder / name
        known = path.exists()
        with atomic(path, if_changed=True) as temporary:
            temporary.write_text(digest + "\n")
            if not known:
                os.utime(temporary, (1, 1))


def fingerprints(settings: Settings) -> dict[str, str]:
    """Return digests of what trains, and of what is tested, by the names of their files."""
    if settings.dataset.layout in LAYOUTS:
        sequences = load_skeleton_set(settings.dataset, settings.runtime.seed)
        tested = (*sequences.probe, *sequences.gallery)
        return {TRAIN: fingerprint_sequences(sequences.train), TEST: fingerprint_sequences(tested)}
    dataset = load_dataset(settings.dataset)
    # Where nobody is known, all are those whose skeletons are wanted.
    trains = [tracklet for part in splits_for(dataset, test_too=False) for tracklet in getattr(dataset, part)]
    return {
        TRAIN: f"{fingerprint(trains)} {content_of(dataset.root, trains)}",
        TEST: " ".join(evaluation_data(dataset).values()),
    }
