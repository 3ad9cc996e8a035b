"""Nearest-neighbour search: exact, or candidates from faiss that are compared exactly.

Up to `EXACT` descriptors every one is compared. Above it, candidates are compared exactly that faiss finds by short codes of
all descriptors: half a byte for every two principal components, which are looked up 32 at a time in a processor's registers.
The similarities returned are always those of the whole descriptors. How many candidates are compared is chosen when the index
is built, by measuring recall on descriptors of the data themselves; where no number is enough, everything is compared.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import faiss
import numpy as np
import torch

from csip.data.numerals import whole
from csip.errors import CsipError
from csip.files import atomic, digest, parse_json, write_json
from csip.monitor import Monitor, Silent
from csip.retrieval.descriptors import Descriptors
from csip.retrieval.distances import parts

FORMAT = 2
EXACT = 50_000  # descriptors that are compared one by one in some 50 ms
COMPONENTS = 256
RECALL = 0.995  # of the 10 nearest, over the sample; what is promised is .99
SAMPLE = 200  # descriptors that recall is measured on
DEPTH = 10
TRAINING = 65_536  # descriptors that components and codes are found from
QUERIES = 1024  # queries compared at once
NOTED = 4096  # descriptors that an index is known by, number by number
CHUNK = 65_536  # descriptors added at once: half a gigabyte of 2,048 numbers


@dataclass(frozen=True)
class Effort:
    """How hard an index searches.

    Attributes
    ----------
    candidates
        Entries that are compared exactly; 0 compares all.
    recall
        Share of the 10 nearest that were found, measured when the index was built.
    """

    candidates: int
    recall: float


class Index:
    """Descriptors, and what finds the nearest of them; made by `build` or `load`.

    Parameters
    ----------
    features
        (N, D) float32, unit length; may be a memory map.
    codes
        faiss's index of their codes, None where everything is compared.
    effort
        How hard to search.
    """

    def __init__(self, features: np.ndarray, codes: faiss.Index | None, effort: Effort) -> None:
        self.features, self.codes, self.effort = features, codes, effort

    def __len__(self) -> int:
        return len(self.features)

    @property
    def exact(self) -> bool:
        """Whether everything is compared."""
        return self.codes is None or self.effort.candidates == 0

    def search(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest entries of each query.

        Parameters
        ----------
        queries
            (Q, D) float32, unit length.
        count
            How many; fewer are returned where there are no more.

        Returns
        -------
        similarities, rows
            (Q, count) float32 cosines in falling order, and (Q, count) int64 entries; equal ones in the order of the rows.
            Where an approximate index found fewer, the rest has row -1 and similarity -inf.

        Raises
        ------
        CsipError
            The queries have another width.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.features.shape[1]:
            raise CsipError(f"queries must be (Q, {self.features.shape[1]}) as the descriptors, got {queries.shape}")
        count = min(count, len(self))
        return (
            self._compare_all(queries, count)
            if self.exact
            else self._compare_some(queries, count, self.effort.candidates)
        )

    def _compare_all(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        best = np.full((len(queries), count), -np.inf, dtype=np.float32)
        rows = np.full((len(queries), count), -1, dtype=np.int64)
        for part in parts(len(self), CHUNK):
            entries = torch.from_numpy(np.array(self.features[part]))
            for asked in parts(len(queries), QUERIES):
                found = (torch.from_numpy(queries[asked]) @ entries.T).topk(min(count, len(entries)), dim=1)
                similar = np.hstack([best[asked], found.values.numpy()])
                among = np.hstack([rows[asked], found.indices.numpy() + part.start])
                best[asked], rows[asked] = _sorted(similar, among, count)
        return best, rows

    def _compare_some(self, queries: np.ndarray, count: int, candidates: int) -> tuple[np.ndarray, np.ndarray]:
        assert self.codes is not None
        _, found = self.codes.search(queries, min(max(candidates, 4 * count), len(self)))
        similar = np.full(found.shape, -np.inf, dtype=np.float32)
        for query, entries, line in zip(queries, found, similar, strict=True):
            there = entries >= 0
            line[there] = self.features[entries[there]] @ query
        return _sorted(similar, found, count)


def build(features: np.ndarray, monitor: Monitor | None = None, exact: int = EXACT, seed: int = 0) -> Index:
    """Make the index of descriptors.

    Parameters
    ----------
    features
        (N, D) float32, unit length; may be a memory map, which is read a part at a time.
    exact
        Up to how many everything is compared.

    Returns
    -------
    Index
        It keeps `features`.
    """
    monitor = monitor or Silent()
    size, width = features.shape
    if size <= exact:
        return Index(features, None, Effort(0, 1.0))
    generator = np.random.default_rng(seed)
    sample = np.sort(generator.choice(size, min(TRAINING, size), replace=False))
    training = np.ascontiguousarray(features[sample])
    codes = _empty_codes(width)
    monitor.say(f"search index of {size:,} descriptors: finding components and codes")
    codes.train(training)
    for part in parts(size, CHUNK):
        codes.add(np.ascontiguousarray(features[part], dtype=np.float32))
        monitor.progress("indexing descriptors", part.stop, size)
    asked = np.ascontiguousarray(features[np.sort(generator.choice(size, min(SAMPLE, size), replace=False))])
    index = Index(features, codes, Effort(0, 1.0))
    return Index(features, codes, _enough(index, asked))


def save(index: Index, path: Path, source: str) -> None:
    """Write an approximate index, PATH and PATH.json; the descriptors are not in it.

    Parameters
    ----------
    source
        What the descriptors are, as `load` will be asked for it.
    """
    codes = index.codes
    if codes is None:
        raise CsipError(f"{path}: an index of few descriptors is made anew in no time; there is nothing to write")
    # The notes last: without them, or with old ones, the index is not used.
    _notes(path).unlink(missing_ok=True)
    with atomic(path) as temporary:
        faiss.write_index(codes, str(temporary))
        content = _content(temporary, source, index.effort)
    write_json(_notes(path), {"format": FORMAT, "source": source, "content": content, "effort": asdict(index.effort)})


def load(path: Path, features: np.ndarray, source: str) -> Index | None:
    """Read what `save` wrote; None where it is missing, damaged, or was made of other descriptors."""
    try:
        notes = parse_json(_notes(path).read_bytes())
        if notes["format"] != FORMAT or notes["source"] != source:
            return None
        effort = Effort(whole(notes["effort"]["candidates"]), float(notes["effort"]["recall"]))
        # Of codes that are damaged faiss makes wrong neighbours, or ends the process.
        if notes["content"] != _content(path, source, effort):
            return None
        codes = faiss.read_index(str(path))
        if codes.ntotal != len(features) or codes.d != features.shape[1]:
            return None
        return Index(features, codes, effort)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None


def open_index(path: Path, descriptors: Descriptors, monitor: Monitor) -> Index:
    """Return the index of a file of descriptors: the one kept beside it where it is still right, or a new one.

    Small ones are made anew each time. Where the folder cannot be written, so are large ones.
    """
    status = path.stat()
    about = (descriptors.dataset, descriptors.model, len(descriptors), status.st_size, status.st_mtime_ns)
    source = " ".join(map(str, (*about, _digest(descriptors.features))))
    kept = path.with_name(f"{path.name}.index")
    if len(descriptors) > EXACT:
        index = load(kept, descriptors.features, source)
        if index is not None:
            return index
    index = build(descriptors.features, monitor)
    if index.codes is not None:
        try:
            save(index, kept, source)
        except (OSError, RuntimeError) as error:
            monitor.say(f"the index cannot be kept in {kept} ({error}): it will be made anew next time")
    return index


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of the true neighbours, (Q, k), that are among those found, (Q, k)."""
    return float(np.mean([len(set(one) & set(other)) / len(other) for one, other in zip(found, truth, strict=True)]))


def _content(path: Path, source: str, effort: Effort) -> str:
    """Digest of an index and of what its notes say of it."""
    return hashlib.sha256(f"{digest(path)} {source} {effort}".encode()).hexdigest()[:16]


def _digest(features: np.ndarray) -> str:
    """Digest of at most `NOTED` descriptors, evenly spread: files that replace one another may have one size and one time."""
    rows = np.unique(np.linspace(0, len(features) - 1, min(len(features), NOTED)).round().astype(int))
    return hashlib.sha256(np.ascontiguousarray(features[rows], dtype=np.float32).tobytes()).hexdigest()[:16]


def _empty_codes(width: int) -> faiss.Index:
    half = max(min(COMPONENTS, width) // 2, 1)
    # Components are centred: unit vectors are compared by their squared distance, which falls as the cosine rises.
    return faiss.index_factory(width, f"PCA{min(2 * half, width)},PQ{half}x4fs", faiss.METRIC_L2)


def _enough(index: Index, asked: np.ndarray) -> Effort:
    """Return the least effort whose recall is high enough, or that of comparing everything."""
    _, truth = index._compare_all(asked, DEPTH + 1)
    for candidates in (64, 256, 1024, 4096):
        _, found = index._compare_some(asked, DEPTH + 1, candidates)
        # The query itself is there, and always found.
        reached = recall(found[:, 1:], truth[:, 1:])
        if reached >= RECALL:
            return Effort(candidates, reached)
    return Effort(0, 1.0)


def _sorted(similar: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `count` most similar of each line in order; equal ones by their row."""
    order = np.lexsort((rows, -similar), axis=1)[:, :count]
    return np.take_along_axis(similar, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _notes(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
