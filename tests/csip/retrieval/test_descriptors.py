import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest

from csip.errors import CsipError
from csip.retrieval.descriptors import Descriptors, read_descriptors, write_descriptors
from pipelines.advice import advice


def some(count: int = 5, width: int = 7) -> Descriptors:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(count, width)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return Descriptors(
        features,
        tuple(f"hall/cam1-{i:04d}\udcff é" for i in range(count)),
        generator.integers(0, 3, count),
        generator.integers(1, 3, count),
        generator.random(count) < 0.5,
        np.ones(count, bool),
        "hall",
        "0123456789abcdef",
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run" / "descriptors.h5"
    written = some()
    write_descriptors(path, written)
    read = read_descriptors(path)
    assert (read.names, read.dataset, read.model) == (written.names, written.dataset, written.model)
    for column in ("features", "identities", "cameras", "query", "gallery"):
        one, two = getattr(read, column), getattr(written, column)
        assert one.dtype == two.dtype and np.array_equal(one, two), column
    assert [p.name for p in path.parent.iterdir()] == ["descriptors.h5"], "no temporary file is left"


def test_files_that_are_no_descriptors(tmp_path: Path) -> None:
    path = tmp_path / "descriptors.h5"
    with pytest.raises(CsipError, match="no such file") as refused:
        read_descriptors(path)
    assert advice(refused.value.parameter).startswith("; `csip embed`")
    path.write_bytes(b"not HDF5")
    with pytest.raises(CsipError, match="damaged"):
        read_descriptors(path)
    with h5py.File(path, "w") as file:
        file["joints"] = 1
    with pytest.raises(CsipError, match="no descriptors of format 1"):
        read_descriptors(path)
    write_descriptors(path, some())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CsipError, match="damaged"):
        read_descriptors(path)
    write_descriptors(path, some())
    with h5py.File(path, "a") as file:
        del file["pids"]
    with pytest.raises(CsipError, match="damaged"):
        read_descriptors(path)


@pytest.mark.parametrize("column", ["features", "identities", "cameras", "query", "gallery"])
def test_lengths_must_agree(column: str) -> None:
    whole = some()
    with pytest.raises(CsipError, match="tracklets must be"):
        dataclasses.replace(whole, **{column: getattr(whole, column)[:-1]})


def test_names_must_differ() -> None:
    whole = some()
    with pytest.raises(CsipError, match="1 names of tracklets appear twice"):
        dataclasses.replace(whole, names=(*whole.names[:-1], whole.names[0]))


def as_format_1(path: Path, descriptors: Descriptors) -> None:
    """Write descriptors as the first version of the format had them: texts of variable length."""
    write_descriptors(path, descriptors)
    with h5py.File(path) as file:
        arrays = {key: file[key][()] for key in file}
    names = [name.encode(errors="surrogateescape") for name in descriptors.names]
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            if key != "names":
                file[key] = array
        file.create_dataset("names", data=np.array(names, dtype=object), dtype=h5py.string_dtype())
        file.attrs.update({"format": 1, "dataset": descriptors.dataset, "model": descriptors.model})


def test_files_of_the_first_format_are_read(tmp_path: Path) -> None:
    path, written = tmp_path / "descriptors.h5", dataclasses.replace(some(), pictures=np.arange(5, dtype=np.uint64))
    as_format_1(path, written)
    for mapped in (False, True):
        read = read_descriptors(path, mapped)
        assert (read.names, read.dataset, read.model) == (written.names, written.dataset, written.model)
        assert read.pictures is not None and np.array_equal(read.features, written.features)
    data = path.read_bytes()
    heap = data.index(b"GCOL")
    path.write_bytes(data[: heap + 16] + bytes(4080) + data[heap + 4096 :])
    with pytest.raises(CsipError, match=r"damaged .*the heap of texts"):  # where HDF5 itself would not return
        read_descriptors(path)


def test_features_are_mapped_as_they_lie(tmp_path: Path) -> None:
    for width in (1, 7, 64):
        path, written = tmp_path / f"{width}.h5", some(40, width)
        write_descriptors(path, written)
        features = read_descriptors(path, mapped=True).features
        assert isinstance(features, np.memmap) and features.flags.aligned
        assert np.array_equal(features, written.features)


def test_names_of_no_length_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "descriptors.h5"
    write_descriptors(path, dataclasses.replace(some(1), names=("",), dataset=""))
    read = read_descriptors(path)
    assert (read.names, read.dataset) == (("",), "")
