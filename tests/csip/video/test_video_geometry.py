"""What a player shows: mirrors, turns, pixel aspect, cropping; and which videos are whole."""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import csip.video.decode
from csip.video.container_crop import container_crop
from csip.video.decode import UnreadableVideo, VideoReader
from csip.video.geometry import Geometry

SHARED = Path(__file__).parents[4] / "shared/cases/videos"
WIDTH, HEIGHT = 96, 48
MATRICES = [
    (a, b, c, d)
    for turned in (False, True)
    for one, two in product((1, -1), repeat=2)
    for a, b, c, d in [(0, one, two, 0) if turned else (one, 0, 0, two)]
]


def picture(number: int = 0) -> np.ndarray:
    """Four quarters that tell every mirroring and turn apart."""
    image = np.full((HEIGHT, WIDTH, 3), 40 + 4 * number, np.uint8)
    image[: HEIGHT // 2, : WIDTH // 2] = (255, 60, 60)
    image[: HEIGHT // 2, WIDTH // 2 :] = (60, 255, 60)
    image[HEIGHT // 2 :, : WIDTH // 2] = (60, 60, 255)
    return image


def write(path: Path, count: int = 4, aspect: Fraction | None = None, matrix: tuple[int, ...] | None = None,
          shift: Fraction | None = None, codec: str = "libx264", options: dict[str, str] | None = None) -> None:  # fmt: skip
    """Encode a video of 10 frames per second; ``shift`` moves its time stamps, where negative ones become an edit list."""
    muxer = {"avoid_negative_ts": "disabled"} if shift is not None and shift < 0 else {}
    with av.open(str(path), "w", options=muxer) as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = options or {}
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if matrix is not None:
            a, b, c, d = matrix
            stream.set_display_matrix([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30])
        for number in range(count + 1):
            frame = None if number == count else av.VideoFrame.from_ndarray(picture(number), format="bgr24")
            for packet in stream.encode(frame):
                ticks = int((shift or 0) / packet.time_base)
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                container.mux(packet)


def shown_by(matrix: tuple[int, int, int, int], image: np.ndarray) -> np.ndarray:
    """Move every pixel as the matrix says, one by one."""
    a, b, c, d = matrix
    height, width = image.shape[:2]
    points = {(x, y): (a * x + c * y, b * x + d * y) for y in range(height) for x in range(width)}
    low = np.min(list(points.values()), axis=0)
    high = np.max(list(points.values()), axis=0)
    result = np.zeros((*(high - low + 1)[::-1], 3), np.uint8)
    for (x, y), (to_x, to_y) in points.items():
        result[to_y - low[1], to_x - low[0]] = image[y, x]
    return result


@pytest.mark.parametrize("matrix", MATRICES)
def test_a_matrix_moves_pixels_and_boxes(matrix: tuple[int, int, int, int]) -> None:
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    geometry = Geometry((6, 4), matrix=matrix)
    shown = geometry.show(image)
    assert np.array_equal(shown, shown_by(matrix, image))
    assert geometry.size == shown.shape[1::-1]
    [[left, top, right, bottom]] = geometry.boxes(np.array([[1.0, 0, 4, 3]])).round().astype(int).tolist()
    marked = np.zeros((4, 6, 3), np.uint8)
    marked[0:3, 1:4] = 1
    assert geometry.show(marked)[top:bottom, left:right].all()
    assert geometry.show(marked).sum() == 27 == (bottom - top) * (right - left) * 3


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_display_matrices_of_files(tmp_path: Path, name: str, matrix: tuple[int, int, int, int]) -> None:
    write(tmp_path / name, matrix=matrix)
    write(tmp_path / "plain.mkv")
    coded = next(iter(VideoReader(tmp_path / "plain.mkv"))).image
    reader = VideoReader(tmp_path / name)
    if reader.geometry.matrix == (1, 0, 0, 1) != matrix and name == "a.mkv":
        pytest.skip("this muxer does not write this matrix")
    image = next(iter(reader)).image
    assert np.array_equal(image, shown_by(matrix, coded))
    assert reader.geometry.size == image.shape[1::-1]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "mpeg2video")]
)
def test_pixels_that_are_not_square(tmp_path: Path, name: str, codec: str) -> None:
    for aspect in (Fraction(2), Fraction(4, 3)) if codec != "mpeg2video" else (Fraction(8, 9),):
        write(tmp_path / name, aspect=aspect, codec=codec)
        image = next(iter(VideoReader(tmp_path / name))).image
        assert image.shape[0] == HEIGHT
        assert abs(image.shape[1] - WIDTH * aspect) <= 1
        assert np.abs(image[5, 5].astype(int) - (255, 60, 60)).max() < 40


def test_pixel_aspect_is_of_the_stored_picture(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", aspect=Fraction(1, 2), matrix=(0, 1, -1, 0))
    reader = VideoReader(tmp_path / "a.mp4")
    assert reader.geometry.size == (HEIGHT, WIDTH // 2)
    assert next(iter(reader)).image.shape == (WIDTH // 2, HEIGHT, 3)


def test_cropping_of_the_stream(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", options={"x264-params": "crop-rect=16,8,0,0"})
    image = next(iter(VideoReader(tmp_path / "a.mp4"))).image
    assert image.shape == (HEIGHT - 8, WIDTH - 16, 3)


def with_clean_aperture(data: bytes, width: int, height: int, right: int, down: int) -> bytes:
    """Put a box clap into the sample entry of an MP4 whose index is behind its pictures."""
    clap = struct.pack(">I4sIIIIiIiI", 40, b"clap", width, 1, height, 1, right, 2, down, 2)
    changed = bytearray(data)
    at = data.index(b"avc1", data.index(b"stsd")) - 4
    end = at + struct.unpack(">I", data[at : at + 4])[0]
    for name in (b"avc1", b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        place = data.rindex(name, 0, at + 8) - 4
        (size,) = struct.unpack(">I", data[place : place + 4])
        changed[place : place + 4] = struct.pack(">I", size + len(clap))
    return bytes(changed[:end]) + clap + bytes(changed[end:])


def with_pixel_crop(data: bytes, left: int, top: int, right: int, bottom: int) -> bytes:
    """Put PixelCrop elements into the video of a Matroska file, and drop what is before its tracks."""
    crop = b"".join(
        struct.pack(">HBH", name, 0x82, value)
        for name, value in ((0x54CC, left), (0x54BB, top), (0x54DD, right), (0x54AA, bottom))
    )

    def element(at: int) -> tuple[int, int, int]:
        """Return where an element's content begins and ends, and its name."""
        count = 9 - data[at].bit_length()
        size_at = at + count
        more = 9 - data[size_at].bit_length()
        size = int.from_bytes(data[size_at : size_at + more], "big") - (1 << (7 * more))
        return size_at + more, size_at + more + size, int.from_bytes(data[at:size_at], "big")

    def inside(begin: int, end: int, wanted: int) -> int:
        while begin < end:
            _, after, name = element(begin)
            if name == wanted:
                return begin
            begin = after
        raise AssertionError(hex(wanted))

    def packed(name: int, content: bytes) -> bytes:
        return (
            name.to_bytes((name.bit_length() + 7) // 8, "big") + (len(content) | 1 << 56).to_bytes(8, "big") + content
        )

    _, header, _ = element(0)
    segment, end, _ = element(header)
    tracks = inside(segment, end, 0x1654AE6B)
    info = inside(segment, end, 0x1549A966)
    entry = inside(*element(tracks)[:2], 0xAE)
    video = inside(*element(entry)[:2], 0xE0)
    new_video = packed(0xE0, data[element(video)[0] : element(video)[1]] + crop)
    new_entry = packed(0xAE, data[element(entry)[0] : video] + new_video + data[element(video)[1] : element(entry)[1]])
    body = data[info : element(info)[1]] + packed(0x1654AE6B, new_entry)
    cluster = inside(segment, end, 0x1F43B675)
    return data[:header] + packed(0x18538067, body + data[cluster : element(cluster)[1]])


@pytest.mark.parametrize("matrix", [None, (0, 1, -1, 0)])
def test_clean_aperture(tmp_path: Path, matrix: tuple[int, ...] | None) -> None:
    path = tmp_path / "a.mp4"
    write(path, matrix=matrix)
    whole = next(iter(VideoReader(path))).image
    path.write_bytes(with_clean_aperture(path.read_bytes(), 80, 40, 8, -4))  # the middle 4 to the right and 2 up
    reader = VideoReader(path)
    assert reader.geometry.crop == (12, 2, 4, 6)
    inner = whole[2:42, 12:92] if matrix is None else whole[12:92, 6:46]
    assert np.array_equal(next(iter(reader)).image, inner)
    assert len(list(reader)) == 4
    boxes = reader.geometry.boxes(np.array([[12.0, 2, 92, 42]]))
    assert boxes.tolist() == [[0, 0, *reader.geometry.size]]


def test_cropping_of_matroska(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    write(path)
    whole = next(iter(VideoReader(path))).image
    path.write_bytes(with_pixel_crop(path.read_bytes(), 8, 4, 16, 2))
    reader = VideoReader(path)
    assert reader.geometry.crop == (8, 4, 16, 2)
    assert np.array_equal(next(iter(reader)).image, whole[4:46, 8:80])
    assert len(list(reader)) == 4


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_indexes_are_no_cropping_and_no_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["a.mp4", "a.mkv"]))
    path = tmp_path_factory.getbasetemp() / f"crop-{name}"
    if not path.exists():
        write(path)
        made = path.read_bytes()
        path.write_bytes(
            with_pixel_crop(made, 8, 4, 16, 2) if name == "a.mkv" else with_clean_aperture(made, 80, 40, 8, -4)
        )
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = path.with_name("damaged" + path.suffix)
    damaged.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    crop = container_crop(damaged, (WIDTH, HEIGHT))
    assert len(crop) == 4
    assert min(crop) >= 0


@pytest.mark.parametrize("aspect", [Fraction(0), Fraction(1), Fraction(1000), Fraction(97, 96)])
def test_aspects_that_change_nothing(tmp_path: Path, aspect: Fraction) -> None:
    write(tmp_path / "a.mkv", aspect=aspect)
    reader = VideoReader(tmp_path / "a.mkv")
    assert next(iter(reader)).image.shape == (HEIGHT, WIDTH, 3)
    assert reader.geometry.plain


# ---- whole videos that could be taken for cut ones -------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("shift", [Fraction(-3, 2), Fraction(3, 2)])
def test_edit_lists_do_not_cut_a_video(tmp_path: Path, codec: str, shift: Fraction) -> None:
    write(tmp_path / "a.mp4", 40, shift=shift, codec=codec)
    reader = VideoReader(tmp_path / "a.mp4")
    frames = list(reader)
    assert len(frames) == (25 if shift < 0 else 40)
    assert [frames[0].time, frames[-1].time] == pytest.approx([0.0, (len(frames) - 1) / 10])
    assert reader.problem == ""


def variable(path: Path, stamps: list[int]) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libvpx" if path.suffix == ".webm" else "mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, stamp in enumerate([*stamps, None]):
            frame = None
            if stamp is not None:
                frame = av.VideoFrame.from_ndarray(picture(number), format="bgr24")
                frame.time_base, frame.pts = Fraction(1, 1000), stamp
            container.mux(stream.encode(frame))


@pytest.mark.parametrize("name", ["a.webm", "a.mkv", "a.mp4"])
def test_a_variable_rate_does_not_cut_a_video(tmp_path: Path, name: str) -> None:
    stamps = [0, 40, 80, 120, 600, 640, 1900, 1940, 1980, 2020, 2060, 4000]
    variable(tmp_path / name, stamps)
    reader = VideoReader(tmp_path / name)
    frames = list(reader)
    assert [frame.time for frame in frames] == pytest.approx(np.array(stamps) / 1000, abs=2e-3)
    assert reader.problem == ""


@pytest.mark.parametrize(
    ("name", "sound"), [("a.mkv", "libopus"), ("a.mp4", "aac"), ("a.avi", "mp2"), ("a.flv", "aac")]
)
@pytest.mark.parametrize("seconds", [1, 6])
def test_sound_of_another_length_does_not_cut_a_video(tmp_path: Path, name: str, sound: str, seconds: int) -> None:
    with av.open(str(tmp_path / name), "w") as container:
        stream: Any = container.add_stream("flv1" if name == "a.flv" else "mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        voice: Any = container.add_stream(sound, rate=48000)
        voice.layout = "stereo"
        for number in range(31):
            frame = None if number == 30 else av.VideoFrame.from_ndarray(picture(number), format="bgr24")
            container.mux(stream.encode(frame))
        planes = voice.codec_context.format.is_planar
        for start in range(0, seconds * 48000, 960):
            samples = np.zeros(
                (2, 960) if planes else (1, 1920), np.float32 if "flt" in voice.codec_context.format.name else np.int16
            )
            heard = av.AudioFrame.from_ndarray(samples, format=voice.codec_context.format.name, layout="stereo")
            heard.sample_rate, heard.pts = 48000, start
            container.mux(voice.encode(heard))
        container.mux(voice.encode(None))
    reader = VideoReader(tmp_path / name)
    assert len(list(reader)) == 30
    assert reader.problem == ""


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.mp4", "mpeg4"), ("a.avi", "mpeg4")])
def test_a_cut_video_is_named(tmp_path: Path, name: str, codec: str) -> None:
    path = tmp_path / name
    options = {"movflags": "faststart"} if name == "a.mp4" else {}
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for _ in range(60):
            image = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    reader = VideoReader(path)
    assert 20 < len(list(reader)) < 50
    assert re.match(r"ends after \d+ frames, at \d\.\d s of 6\.0 s|\d damaged places", reader.problem)


def test_pictures_that_are_too_large_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.mp4")
    monkeypatch.setattr(csip.video.decode, "MAX_PIXELS", 4000)
    with pytest.raises(UnreadableVideo, match=r"a\.mp4: pictures of 96 x 48; at most"):
        VideoReader(tmp_path / "a.mp4")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damaged_videos_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["a.mp4", "a.mkv", "a.avi"]))
    path = tmp_path_factory.getbasetemp() / f"whole-{name}"
    if not path.exists():
        write(path, codec="mpeg4" if name == "a.avi" else "libx264")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    damaged = path.with_name("damaged" + path.suffix)
    damaged.write_bytes(bytes(content))
    try:
        frames = sum(1 for _ in VideoReader(damaged))
    except UnreadableVideo as error:
        assert damaged.name in str(error)
    else:
        assert 1 <= frames <= 100


def test_frames_of_a_folder_are_counted_as_people_count(tmp_path: Path) -> None:
    for number in (1, 2, 10, 11):
        cv2.imwrite(str(tmp_path / f"img_{number}.png"), picture(number))
    levels = [int(frame.image[-1, -1, 0]) for frame in VideoReader(tmp_path)]
    assert levels == sorted(levels)
    assert len(levels) == 4


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the cases beside the project")
def test_cases_beside_the_project() -> None:
    plain, mirrored = (VideoReader(SHARED / name) for name in ("cam1.mp4", "mirrored.mp4"))
    for one, other in zip(plain, mirrored, strict=True):
        assert np.abs(one.image[:, ::-1].astype(int) - other.image).mean() < 3
    variable_rate = VideoReader(SHARED / "variable_rate.webm")
    assert list(variable_rate)[-1].time == pytest.approx(59 / 12, abs=2e-3)
    assert variable_rate.problem == ""
