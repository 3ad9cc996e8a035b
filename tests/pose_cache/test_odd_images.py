"""Pictures whose pixels are not what a plain decoder makes of them."""

from __future__ import annotations

import io
import resource
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from pose_cache.images import BACKGROUND, load_frame, to_8_bits
from pose_cache.sources import FrameKind

SHARED = Path(__file__).parents[3] / "shared/cases/images"


def colours(width: int = 64, height: int = 128) -> np.ndarray:
    """A smooth picture (H, W, 3) with every corner different, RGB."""
    return cv2.resize(np.random.default_rng(3).integers(0, 256, (6, 4, 3), dtype=np.uint8), (width, height))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def load(tmp_path: Path):
    def load(data: bytes, name: str = "frame"):
        (tmp_path / name).write_bytes(data)
        image, source = load_frame(tmp_path / name)
        return image, source.kind

    return load


# ---- damage ----------------------------------------------------------------------------------------------------------


def noisy_jpeg(**options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (128, 64, 3), dtype=np.uint8)
    return encoded(Image.fromarray(noise), "jpeg", **options)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}])
def test_a_jpeg_with_a_damaged_scan_and_an_intact_end_is_damaged(load, options: dict[str, object]) -> None:
    whole = noisy_jpeg(**options)
    assert load(whole)[1] is FrameKind.COLOUR
    middle, size = len(whole) // 2, len(whole) // 10
    for broken in (
        whole[:middle] + bytes(size) + whole[middle + size :],
        whole[:middle] + b"\xff\xd9",
        whole[:middle] + b"\xff\xc4" + whole[middle + 2 :],
        whole[:middle] + whole[middle + size :],
    ):
        assert load(broken) == (None, FrameKind.DAMAGED)


@pytest.mark.parametrize("options", [{"quality": 75}, {"quality": 90}, {"quality": 90, "restart_marker_rows": 1}])
def test_no_stretch_of_zeros_in_a_scan_is_a_picture(load, options: dict[str, object]) -> None:
    whole = encoded(Image.fromarray(cv2.GaussianBlur(colours(128, 256), (5, 5), 2)), "jpeg", **options)
    scan = whole.rindex(b"\xff\xda") + 14
    rng = np.random.default_rng(0)
    for _ in range(60):
        size = int(rng.integers(17, 400))
        at = int(rng.integers(scan, len(whole) - size - 17))
        assert load(whole[:at] + bytes(size) + whole[at + size :])[1] is FrameKind.DAMAGED, (at, size)


def test_zeros_behind_the_first_picture_of_several_are_no_damage(load) -> None:
    whole = encoded(Image.fromarray(colours()), "jpeg")
    second = whole[:2] + b"\xff\xe1\x01\x02" + bytes(256) + whole[2:]
    assert load(whole + second)[1] is FrameKind.COLOUR


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("quality", [1, 50, 95])
def test_plain_pictures_are_no_stretches_of_zeros(load, quality: int, optimize: bool) -> None:
    steps = np.indices((128, 304)).sum(0)
    for picture in (
        np.zeros((600, 800)), np.full((600, 800, 3), 255), steps % 256, steps % 2 * 255, np.dstack([steps % 2 * 255] * 3),
        np.where(steps % 8 == 0, 255, 0),
    ):  # fmt: skip
        image = Image.fromarray(picture.astype(np.uint8))
        assert load(encoded(image, "jpeg", quality=quality, optimize=optimize))[1].usable


def test_grey_and_cmyk_scans_are_looked_at_too(load) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 64, 3), dtype=np.uint8)
    for mode, kind in (("L", FrameKind.GREY), ("CMYK", FrameKind.CMYK)):
        whole = encoded(Image.fromarray(noise).convert(mode), "jpeg")
        assert load(whole)[1] is kind
        assert load(whole[: len(whole) // 2] + b"\xff\xd9") == (None, FrameKind.DAMAGED)


def test_what_cameras_do_to_the_ends_and_headers_of_healthy_pictures_is_no_damage(load) -> None:
    whole = encoded(Image.fromarray(colours()), "jpeg", quality=95)
    expected = cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_COLOR)
    padded = whole[:-2] + bytes(7) + whole[-2:]
    jfif = whole.replace(b"JFIF\0\1\1", b"JFIF\0\3\1")
    for name, data in {"as it is": whole, "behind": whole + bytes(99), "zeros": padded, "revision": jfif}.items():
        image, kind = load(data)
        assert kind is FrameKind.COLOUR and np.array_equal(image, expected), name


def test_a_jpeg_is_decoded_to_the_bit_as_opencv_does(load) -> None:
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 20}):
        for size in ((33, 65), (64, 128), (127, 30)):
            data = encoded(Image.fromarray(colours(*size)), "jpeg", **options)
            assert np.array_equal(load(data)[0], cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


@pytest.mark.parametrize("kind", ["webp", "tiff", "bmp", "avif", "png"])
def test_other_formats_cut_short_are_not_used(load, kind: str) -> None:
    data = encoded(Image.fromarray(colours()), kind)
    assert load(data)[1] is FrameKind.COLOUR
    image, found = load(data[: len(data) * 2 // 3])
    assert image is None and not found.usable


def test_a_chunk_of_a_png_that_promises_gigabytes_takes_no_memory(load) -> None:
    data = bytearray(encoded(Image.fromarray(colours()), "png"))
    at = data.index(b"IDAT") - 4
    data[at : at + 4] = (2**31 - 64).to_bytes(4, "big")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert load(bytes(data)) == (None, FrameKind.DAMAGED)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "KiB"


def test_a_png_whose_checksum_differs_is_damaged(load) -> None:
    data = bytearray(encoded(Image.fromarray(colours()), "png"))
    data[len(data) // 2] ^= 1
    assert load(bytes(data)) == (None, FrameKind.DAMAGED)


# ---- orientation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "avif"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_a_picture_upright_in_every_format(load, kind: str, mode: str, orientation: int) -> None:
    if (kind, mode) == ("jpeg", "RGBA"):
        return
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"webp": {"lossless": True}, "jpeg": {"quality": 100}, "avif": {"quality": 100}}.get(kind, {})
    picture = Image.fromarray(colours()).convert(mode)
    image, found = load(encoded(picture, kind, exif=exif, **options))
    picture = picture.convert("RGB")
    picture.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(picture))[..., ::-1]
    assert found.usable and image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 4 and image.flags.c_contiguous


def test_exif_behind_the_pixels_of_a_png_counts(load) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(colours()), "png", exif=exif)
    at = data.index(b"eXIf") - 4
    chunk = data[at : at + 12 + struct.unpack(">I", data[at : at + 4])[0]]
    end = data.index(b"IEND") - 4
    moved = data[:at] + data[at + len(chunk) : end] + chunk + data[end:]
    assert moved.index(b"eXIf") > moved.index(b"IDAT") and load(moved)[0].shape == (64, 128, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_tiff_is_turned_once(load, orientation: int) -> None:
    grey = colours()[..., 0]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image, kind = load(encoded(Image.fromarray(grey.astype(np.uint16) << 8), "tiff", exif=exif))
    reference = Image.fromarray(grey)
    reference.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(reference)).astype(int)
    assert kind is FrameKind.DEEP and image.shape[:2] == expected.shape
    assert np.abs(image[..., 0] - expected).max() <= 1


# ---- depth -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "tiff", "pgm"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_the_low_bits_of_16_are_scaled_to_8(load, kind: str, bits: int) -> None:
    grey = colours()[..., 0]
    grey[0, 0], grey[0, 1] = 255, 0
    deep = (grey.astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)
    image, found = load(cv2.imencode(f".{kind}", deep)[1].tobytes())
    assert found is FrameKind.DEEP and np.abs(image[..., 1].astype(int) - grey).max() <= 1
    colour = np.dstack([deep, deep[::-1], deep[:, ::-1]])
    if kind != "pgm":
        image, _ = load(cv2.imencode(f".{kind}", colour)[1].tobytes())
        assert np.abs(image[..., 1].astype(int) - grey[::-1]).max() <= 1


def test_a_thermal_picture_keeps_its_levels() -> None:
    grey = colours()[..., 0]
    thermal = (7800 + grey.astype(np.uint16)).copy()
    thermal[5, 5] = 16383  # a hot pixel
    image = to_8_bits(thermal)
    assert len(np.unique(image)) > 150 and image[5, 5] == 255
    order = np.argsort(grey.ravel(), kind="stable")
    assert (np.diff(image.ravel()[order].astype(int))[: -len(order) // 100] >= 0).all()


def test_fractions_whole_numbers_and_plain_areas_are_scaled() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    np.testing.assert_array_equal(to_8_bits(ramp), np.arange(256).reshape(16, 16))
    assert np.ptp(to_8_bits(ramp * 1e6 - 3e5)) == 255 and np.ptp(to_8_bits(np.where(ramp > 0.5, np.nan, ramp))) > 100
    assert not np.ptp(to_8_bits(np.full((8, 8), 9000, np.uint16))) and not to_8_bits(np.zeros((8, 8), np.uint16)).any()
    assert not to_8_bits(np.full((8, 8), np.nan)).any()


# ---- alpha, palette, bits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "webp", "tiff", "avif"])
def test_colours_behind_alpha_do_not_matter(load, kind: str) -> None:
    seen = np.zeros((128, 64), bool)
    seen[30:100, 20:50] = True
    images = []
    for seed in (0, 1):
        hidden = np.random.default_rng(seed).integers(0, 256, (128, 64, 3), dtype=np.uint8)
        rgba = np.dstack([np.where(seen[..., None], 200, hidden), np.where(seen, 255, 0)]).astype(np.uint8)
        options = {"lossless": True, "exact": True} if kind == "webp" else {"quality": 100} if kind == "avif" else {}
        image, found = load(encoded(Image.fromarray(rgba), kind, **options))
        assert found is FrameKind.ALPHA and (image[:20] == BACKGROUND).all()
        assert np.abs(image[seen].astype(int) - 200).mean() < 3
        images.append(image)
    assert np.abs(images[0].astype(int) - images[1]).mean() < 1


def test_half_transparent_deep_and_palette_pictures_are_composed(load) -> None:
    half = np.full((32, 16, 4), 128, np.uint8)
    half[..., :3] = 255
    assert np.abs(load(encoded(Image.fromarray(half), "png"))[0].astype(int) - (255 + BACKGROUND) / 2).max() < 2
    deep = np.full((32, 16, 4), 65535, np.uint16)
    deep[:16, :, 3] = 0
    image, kind = load(cv2.imencode(".png", deep)[1].tobytes())
    assert kind is FrameKind.DEEP and (image[:16] == BACKGROUND).all() and (image[16:] == 255).all()
    palette = Image.fromarray(np.repeat(np.arange(2, dtype=np.uint8), 256).reshape(32, 16), "P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    image, kind = load(encoded(palette, "png", transparency=0))
    assert kind is FrameKind.ALPHA and (image[:16] == BACKGROUND).all() and (image[16:] == (255, 0, 0)).all()


def test_one_bit_and_palette_pictures_have_their_colours(load) -> None:
    bits = Image.fromarray((np.indices((32, 16)).sum(0) % 2 * 255).astype(np.uint8)).convert("1")
    for kind in ("png", "tiff", "bmp"):
        image, found = load(encoded(bits, kind))
        assert found is FrameKind.GREY and np.array_equal(image[..., 0] > 0, np.asarray(bits)), kind
    palette = Image.fromarray(colours()).quantize(64)
    for kind in ("png", "tiff", "bmp"):
        assert np.array_equal(load(encoded(palette, kind))[0], np.asarray(palette.convert("RGB"))[..., ::-1]), kind


def tiff_of(deep: np.ndarray, photometric: int) -> bytes:
    """Write 16-bit grey in one strip; photometric 0 is white at 0."""
    height, width = deep.shape
    tags = ((256, width), (257, height), (258, 16), (259, 1), (262, photometric), (273, 0), (277, 1), (278, height),
            (279, deep.nbytes))  # fmt: skip
    start = 8 + 2 + 12 * len(tags) + 4
    entries = (struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return head + b"".join(entries) + bytes(4) + deep.astype("<u2").tobytes()


@pytest.mark.parametrize("top", [4095, 65535])
def test_a_deep_tiff_whose_zero_is_white_is_not_inverted(load, top: int) -> None:
    grey = colours()[..., 0]
    deep = (grey.astype(np.float64) / 255 * top).round()
    deep[0, 0], deep[0, 1] = 0, top
    for photometric, values in ((1, deep), (0, top - deep)):
        image, kind = load(tiff_of(values, photometric))
        assert kind is FrameKind.DEEP and np.abs(image[1:, :, 0].astype(int) - grey[1:]).max() <= 1


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_the_hidden_grey_of_a_png_does_not_matter(load, mode: str) -> None:
    images = []
    for hidden in (0, 255 if mode == "L" else 65535):
        grey = np.full((32, 16), hidden, np.uint8 if mode == "L" else np.uint16)
        grey[8:20] = 200 if mode == "L" else 51400
        grey[20:24, :4] = 1
        images.append(load(encoded(Image.fromarray(grey), "png", transparency=hidden))[0])
    assert np.array_equal(*images)
    assert (images[0][:8] == BACKGROUND).all() and np.abs(images[0][10].astype(int) - 200).max() <= 56


def test_an_empty_alpha_of_a_bmp_is_none(load) -> None:
    picture = np.dstack([colours(16, 24)[..., ::-1], np.zeros((24, 16), np.uint8)])
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<IiiHHIIiiII", 108, 16, -24, 1, 32, 3, picture.nbytes, 0, 0, 0, 0) + masks + bytes(52)
    for alpha, shown in ((0, picture[..., :3]), (255, picture[..., :3])):
        picture[..., 3] = alpha
        data = b"BM" + struct.pack("<IHHI", 122 + picture.nbytes, 0, 0, 122) + head + picture.tobytes()
        assert np.array_equal(load(data)[0], shown)


def test_the_largest_value_that_a_pgm_states_is_white(load) -> None:
    grey = np.repeat(np.linspace(0, 1000, 256).round()[:, None], 8, axis=1)
    for head in (b"P5 8 256 4095\n", b"P5\n# of a sensor\n8 256\n4095\n"):
        image, kind = load(head + grey.astype(">u2").tobytes())
        assert kind is FrameKind.DEEP and np.abs(image[..., 0] - grey / 4095 * 255).max() <= 1
    dark = np.repeat(np.linspace(0, 30, 256).round()[:, None], 8, axis=1)
    assert np.ptp(load(b"P5 8 256 4095\n" + dark.astype(">u2").tobytes())[0]) > 200, "few levels are spread"


def test_a_picture_that_unpacks_to_gigabytes_is_not_decoded_in_any_format(load) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 16, 6, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    assert load(bomb + chunk(b"IEND", b""))[1] is FrameKind.TOO_LARGE
    assert load(b"P5 60000 60000 255\n" + bytes(99))[1] is FrameKind.TOO_LARGE


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared cases are not beside this checkout")
def test_the_shared_cases() -> None:
    kinds = {path.name: load_frame(path) for path in SHARED.iterdir()}
    assert kinds["zero_block.jpg"][1].kind is kinds["cut_with_end.jpg"][1].kind is FrameKind.DAMAGED
    for name in ("exif6.jpg", "exif6.png"):
        image = kinds[name][0]
        assert image.shape[0] > image.shape[1]
    assert len(np.unique(kinds["ir12.png"][0])) > 100 and kinds["ir12.png"][1].kind is FrameKind.DEEP
    assert kinds["cutout_noise.png"][1].kind is FrameKind.ALPHA
