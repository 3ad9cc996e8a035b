"""Decoding: numbers, times, rotation, and files that are not as they should be."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from csip.video.decode import UnreadableVideo, VideoReader
from csip.video.find import find_videos


def write_video(
    path: Path, images: list[np.ndarray], stamps: list[int] | None = None, rate: int = 10, codec: str = "mpeg4"
) -> None:
    """Encode pictures; ``stamps`` are times in milliseconds, for a variable frame rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            if stamps is not None:
                frame.time_base, frame.pts = Fraction(1, 1000), stamps[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def rotate(path: Path, degrees: int) -> None:
    """Write a rotation flag into the header of an MP4's track, as phones do; clockwise."""
    one, zero = 1 << 16, 0
    a, b, c, d = {0: (one, 0, 0, one), 90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[degrees]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # behind the times, the number and the volume of version 0
    data[at : at + 36] = struct.pack(">9i", a, b, zero, c, d, zero, zero, zero, 1 << 30)
    path.write_bytes(data)


def pictures(count: int, height: int = 48, width: int = 80) -> list[np.ndarray]:
    """A dark picture with a bright corner, top left, and a grey level that rises with the number."""
    images = []
    for number in range(count):
        image = np.full((height, width, 3), 20 + 8 * number, np.uint8)
        image[: height // 4, : width // 4] = 255
        images.append(image)
    return images


def test_numbers_times_and_pixels(tmp_path: Path) -> None:
    images = pictures(12)
    write_video(tmp_path / "a.mp4", images)
    reader = VideoReader(tmp_path / "a.mp4")
    assert reader.expected == 12
    for _ in range(2):  # as often as it is asked
        frames = list(reader)
        assert [frame.number for frame in frames] == list(range(1, 13))
        assert np.allclose([frame.time for frame in frames], np.arange(12) / 10)
        for frame, image in zip(frames, images, strict=True):
            assert np.abs(frame.image.astype(int) - image).mean() < 8
        assert reader.problem == ""


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_time_comes_from_the_stamps(tmp_path: Path, name: str) -> None:
    stamps = [0, 40, 200, 240, 900, 1000, 2500]
    write_video(tmp_path / name, pictures(7), stamps)
    assert np.allclose([frame.time for frame in VideoReader(tmp_path / name)], np.array(stamps) / 1000, atol=2e-3)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_flag(tmp_path: Path, degrees: int) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, pictures(3))
    rotate(path, degrees)
    image = next(iter(VideoReader(path))).image
    capture = cv2.VideoCapture(str(path))
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    _, lying = capture.read()
    turn = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
    expected = cv2.rotate(lying, turn[degrees]) if degrees else lying
    assert image.shape == expected.shape == ((80, 48, 3) if degrees % 180 else (48, 80, 3))
    assert np.abs(image.astype(int) - expected).max() <= 12
    bright = {0: image[0, 0], 90: image[0, -1], 180: image[-1, -1], 270: image[-1, 0]}[degrees]
    assert bright.min() > 180


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    write_video(tmp_path / "whole.mp4", pictures(12))
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])  # without the index at its end
    for name, reason in (("empty", "is empty"), ("text", "cannot be opened"), ("cut", "cannot be opened")):
        with pytest.raises(UnreadableVideo, match=rf"{name}\.mp4: .*{reason}"):
            VideoReader(tmp_path / f"{name}.mp4")
    with pytest.raises(UnreadableVideo, match="no such file"):
        VideoReader(tmp_path / "none.mp4")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UnreadableVideo, match="no video stream"):
        VideoReader(path)


def test_what_is_there_of_a_cut_video_is_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 80, 3), np.uint8)
    write_video(tmp_path / "a.avi", list(noise))
    whole = [frame.image for frame in VideoReader(tmp_path / "a.avi")]
    data = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: int(len(data) * 0.6)])
    reader = VideoReader(tmp_path / "cut.avi")
    frames = list(reader)
    assert 10 < len(frames) < 40
    assert reader.problem
    for frame, image in zip(frames[:10], whole, strict=False):
        assert np.array_equal(frame.image, image)


def test_a_damaged_stretch_does_not_end_a_video(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 80, 3), np.uint8)
    write_video(tmp_path / "a.ts", list(noise), codec="mpeg2video", rate=25)
    data = bytearray((tmp_path / "a.ts").read_bytes())
    third = len(data) // 3
    data[third : third + 4000] = bytes(4000)
    (tmp_path / "a.ts").write_bytes(data)
    reader = VideoReader(tmp_path / "a.ts")
    times = [frame.time for frame in reader]
    assert len(times) > 25
    assert times[-1] > 1.3
    assert (np.diff(times) > 0).all()


def test_folder_of_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "seq" / "img1"
    folder.mkdir(parents=True)
    for number in (10, 9, 12):
        cv2.imwrite(str(folder / f"{number:06d}.png"), pictures(13)[number])
    (folder / "000011.png").write_bytes(b"broken")
    (tmp_path / "seq/seqinfo.ini").write_text("[Sequence]\nname=seq\nframeRate=5\n")
    reader = VideoReader(folder)
    frames = list(reader)
    assert [(frame.number, frame.time) for frame in frames] == [(9, 0.0), (10, 0.2), (12, pytest.approx(0.6))]
    assert np.array_equal(frames[2].image, pictures(13)[12])
    assert "1 of 4 pictures" in reader.problem
    (folder / "cover.png").write_bytes((folder / "000009.png").read_bytes())
    assert [frame.number for frame in VideoReader(folder)] == [1, 2, 4, 5]  # names that are no numbers: the order
    (tmp_path / "none").mkdir()
    with pytest.raises(UnreadableVideo, match="no pictures"):
        VideoReader(tmp_path / "none")
    (folder / "000013.HEIC").touch()
    with pytest.raises(UnreadableVideo, match=r"1 pictures are of formats that cannot be read, e\.g\. 000013\.HEIC"):
        VideoReader(folder)
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone/1.heic").touch()
    assert [video.name for video in find_videos(tmp_path)] == ["phone", "seq"], "nothing is passed over without a word"


def test_pictures_named_by_seconds_are_in_the_order_of_time(tmp_path: Path) -> None:
    for number, name in enumerate(("0.05", "0.1", "0.15", "0.2")):
        cv2.imwrite(str(tmp_path / f"{name}.png"), pictures(4)[number])
    images = [frame.image for frame in VideoReader(tmp_path)]
    assert all(np.array_equal(one, other) for one, other in zip(images, pictures(4), strict=True))
