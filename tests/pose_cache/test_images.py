import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pose_cache.estimator import EstimatorSpec, PoseEstimator
from pose_cache.extract import ExtractOptions, FrameSequence, extract
from pose_cache.images import MAX_PIXELS, has_changed, load_frame, read_frame
from pose_cache.shipped import CONFIGS
from pose_cache.sources import FrameKind
from pose_cache.store import SkeletonStore, verify_store

SPEC = EstimatorSpec("small", CONFIGS / "pose/demo/pose2d.py", None, CONFIGS / "pose/demo/lifter.py", None)


def picture(mode: str, size: tuple[int, int] = (40, 80)) -> Image.Image:
    rng = np.random.default_rng(1)
    colour = cv2.resize(rng.integers(0, 256, (6, 4, 3), dtype=np.uint8), size)
    return Image.fromarray(colour).convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is that large, and holds next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


JPEG = saved(picture("RGB"), "jpeg", quality=95)
PNG = saved(picture("RGB"), "png")
DEEP = cv2.imencode(".png", np.asarray(picture("RGB"))[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
FILES = {
    "colour.jpg": (JPEG, FrameKind.COLOUR),
    "colour.png": (PNG, FrameKind.COLOUR),
    "palette.png": (saved(picture("P"), "png"), FrameKind.COLOUR),
    "colour.bmp": (saved(picture("RGB"), "bmp"), FrameKind.COLOUR),
    "colour.webp": (saved(picture("RGB"), "webp"), FrameKind.COLOUR),
    "png-named.jpg": (PNG, FrameKind.COLOUR),
    "padded.jpg": (JPEG + bytes(100), FrameKind.COLOUR),
    "grey.jpg": (saved(picture("L"), "jpeg"), FrameKind.GREY),
    "grey.png": (saved(picture("L"), "png"), FrameKind.GREY),
    "bits.png": (saved(picture("1"), "png"), FrameKind.GREY),
    "cmyk.jpg": (saved(picture("CMYK"), "jpeg", quality=95), FrameKind.CMYK),
    "alpha.png": (saved(picture("RGBA"), "png"), FrameKind.ALPHA),
    "grey-alpha.png": (saved(picture("LA"), "png"), FrameKind.ALPHA),
    "deep.png": (DEEP, FrameKind.DEEP),
    "deep-grey.png": (
        cv2.imencode(".png", np.asarray(picture("L")).astype(np.uint16) * 257)[1].tobytes(),
        FrameKind.DEEP,
    ),
    "empty.jpg": (b"", FrameKind.EMPTY),
    "cut.jpg": (JPEG[: len(JPEG) // 2], FrameKind.TRUNCATED),
    "cut.png": (PNG[: len(PNG) // 2], FrameKind.TRUNCATED),
    "text.jpg": (b"not an image", FrameKind.NOT_AN_IMAGE),
    "html.png": (b"<html>404</html>" * 500, FrameKind.NOT_AN_IMAGE),
    "hollow.jpg": (b"\xff\xd8\xff\xd9", FrameKind.NOT_AN_IMAGE),
    "dot.png": (saved(picture("RGB", (1, 1)), "png"), FrameKind.TOO_SMALL),
    "line.jpg": (saved(picture("RGB", (200, 2)), "jpeg"), FrameKind.TOO_SMALL),
    "bomb.png": (png_header(60000, 60000), FrameKind.TOO_LARGE),
    "huge.png": (png_header(12000, 9000), FrameKind.TOO_LARGE),
}
CONVERTED = {FrameKind.GREY, FrameKind.CMYK, FrameKind.ALPHA, FrameKind.DEEP}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, (data, _) in FILES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    return tmp_path


def test_every_kind_of_file_is_told(root: Path):
    for name, (data, kind) in FILES.items():
        image, source = load_frame(root / name)
        assert source == (len(data), zlib.crc32(data), kind), name
        assert (image is None) == (not kind.usable and kind != FrameKind.TOO_SMALL), name
    for name, kind in {
        "gone.jpg": FrameKind.MISSING,
        "colour.jpg/inside.jpg": FrameKind.MISSING,
        "folder.jpg": FrameKind.UNREADABLE,
        "pipe.jpg": FrameKind.UNREADABLE,
        "loop.jpg": FrameKind.UNREADABLE,
        "nul\0.jpg": FrameKind.UNREADABLE,
    }.items():
        assert load_frame(root / name) == (None, (-1, 0, kind)), name


def test_a_real_picture_above_the_limit_is_never_decoded(tmp_path: Path, monkeypatch):
    cv2.imwrite(str(tmp_path / "huge.jpg"), np.zeros((12000, 9000), np.uint8))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    assert MAX_PIXELS < 12000 * 9000 and load_frame(tmp_path / "huge.jpg")[1].kind == FrameKind.TOO_LARGE


def test_what_is_converted_looks_as_in_pillow(root: Path):
    colour = np.asarray(picture("RGB"))[..., ::-1].astype(int)
    grey = np.repeat(np.asarray(picture("L"))[..., None], 3, axis=2).astype(int)
    for name, expected, tolerance in (
        ("colour.jpg", colour, 6),
        ("cmyk.jpg", colour, 6),
        ("alpha.png", colour, 0),
        ("deep.png", colour, 0),
        ("padded.jpg", colour, 6),
        ("grey.png", grey, 0),
        ("grey-alpha.png", grey, 0),
        ("deep-grey.png", grey, 0),
        ("grey.jpg", grey, 6),
    ):
        found = read_frame(root / name)
        assert found is not None and found.dtype == np.uint8, name
        assert np.abs(found - expected).mean() <= tolerance / 3 and found.shape == expected.shape, name


def test_an_extraction_uses_what_it_can_and_counts_the_rest(root: Path):
    bad = ["gone.jpg", "folder.jpg", "pipe.jpg"]
    frames = (*FILES, *bad)
    out = root / "out.h5"
    sequences = [FrameSequence("odd", frames), FrameSequence("lost", ("gone.jpg", "text.jpg"))]
    summary = extract(sequences, root, SPEC, out, ExtractOptions(batch_size=4))
    expected = {kind: sum(kind == other for _, other in FILES.values()) for _, kind in FILES.values()}
    expected |= {FrameKind.MISSING: 2, FrameKind.UNREADABLE: 2}
    expected[FrameKind.NOT_AN_IMAGE] += 1
    del expected[FrameKind.COLOUR]
    assert summary.kinds == expected and summary.without_pose == 0
    assert (summary.missing, summary.unreadable) == (2, sum(not k.usable for _, k in FILES.values()) + 3)
    assert summary.examples[0] == "empty.jpg (zero bytes)" and len(summary.examples) == 5
    with SkeletonStore(out) as store:
        odd = store.read("odd")
        usable = [kind.usable for _, kind in FILES.values()] + [False] * len(bad)
        assert odd.valid.tolist() == usable and not store.valid("lost").any()
        assert not odd.joints[~odd.valid].any() and not odd.keypoints2d[~odd.valid].any()
        # What is lost at the end repeats its neighbour for the lifter.
        estimator = PoseEstimator(SPEC)
        last = int(np.flatnonzero(odd.valid).max())
        rows = [*range(last + 1), *[last] * (len(frames) - last - 1)]
        assert odd.valid[: last + 1].all()
        crops = [image for row in rows if (image := read_frame(root / frames[row])) is not None]
        (joints,) = estimator.lift([(estimator.detect(crops), np.array([crop.shape[1::-1] for crop in crops]))])
        np.testing.assert_allclose(odd.joints[odd.valid], joints[odd.valid], atol=1e-3)
    assert verify_store(out) == []
    again = extract(sequences, root, SPEC, out)
    assert again.up_to_date and (again.kinds, again.examples) == (summary.kinds, summary.examples)


def test_an_edit_is_a_change_and_a_touch_or_a_lost_file_is_not(root: Path):
    path = root / "colour.jpg"
    source = load_frame(path)[1]
    os.utime(path, (1000, 1000))
    assert not has_changed(path, *source, since=2000)
    os.utime(path, (3000, 3000))
    assert not has_changed(path, *source, since=2000)  # read again, and found to be the same
    path.write_bytes(JPEG[:-10] + bytes(8) + b"\xff\xd9")  # as many bytes
    os.utime(path, (3000, 3000))
    assert has_changed(path, *source, since=2000)
    os.utime(path, (1000, 1000))
    assert has_changed(path, *source, since=2000)  # as long, and said to be old: its entry has changed
    path.write_bytes(JPEG + b"\0")
    assert has_changed(path, *source, since=2000)
    path.unlink()
    assert not has_changed(path, *source, since=2000)
    path.mkdir()
    assert has_changed(path, *source, since=2000)
    gone = (-1, 0, FrameKind.MISSING)
    assert not has_changed(root / "gone.jpg", *gone, since=0) and has_changed(root / "grey.jpg", *gone, since=1e12)
    assert not has_changed(root / "folder.jpg", -1, 0, FrameKind.UNREADABLE, since=0)
    assert not has_changed(root / "grey.jpg", -1, 0, FrameKind.UNKNOWN, since=0)
