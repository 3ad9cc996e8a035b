"""Videos that are not of one stream, one size, or one layer, and folders that are not of one sequence."""

from __future__ import annotations

import os
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from csip.video.decode import UnreadableVideo, VideoReader
from csip.video.find import find_videos
from csip.video.state import source_of


def picture(width: int, height: int, colour: tuple[int, int, int] = (40, 40, 40)) -> np.ndarray:
    """A dark picture whose upper left quarter is bright."""
    image = np.full((height, width, 3), colour, np.uint8)
    image[: height // 2, : width // 2] = 220
    return image


def encode(container: av.container.OutputContainer, images: list[np.ndarray], codec: str = "mpeg2video") -> None:
    stream = container.add_stream(codec, rate=25)
    stream.height, stream.width = images[0].shape[:2]
    stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
    for image in images:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
    container.mux(stream.encode(None))


@pytest.mark.parametrize("size", [(64, 48), (96, 160)])
def test_pictures_that_change_their_size_on_the_way_are_fitted_into_the_first(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    parts = []
    for number, (width, height) in enumerate(((128, 96), size)):
        with av.open(str(tmp_path / f"{number}.ts"), "w") as container:
            encode(container, [picture(width, height)] * 4)
        parts.append((tmp_path / f"{number}.ts").read_bytes())
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    reader = VideoReader(tmp_path / "a.ts")
    frames = list(reader)
    assert {frame.image.shape for frame in frames} == {(96, 128, 3)}
    assert f"its pictures are {size[0]} x {size[1]} from frame " in reader.problem
    wide = round(96 * size[0] / size[1]) if size[1] > size[0] else 128
    left = (128 - wide) // 2
    last = frames[-1].image.astype(int)
    assert last[20, left + wide // 4].mean() > 180 and last[70, left + 3 * wide // 4].mean() < 80
    assert left == 0 or last[:, : left - 1].max() < 10, "beside it there is nothing"


def test_of_two_video_streams_the_first_is_read_and_the_other_named(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for stream, level in zip(streams, (60, 200), strict=True):
            for _ in range(3):
                image = np.full((48, 64, 3), level, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
            container.mux(stream.encode(None))
    reader = VideoReader(tmp_path / "a.mkv")
    assert [round(frame.image.mean(), -1) for frame in reader] == [60] * 3
    assert reader.problem == "has 2 video streams, of which the first is read; make a file of each"


def test_colours_behind_the_alpha_of_a_video_do_not_matter(tmp_path: Path) -> None:
    images = []
    for hidden in (0, 255):
        path = tmp_path / f"{hidden}.mov"
        image = np.full((48, 64, 4), hidden, np.uint8)
        image[..., 3] = 0
        image[10:30, 20:40] = (10, 20, 200, 255)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("png", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "rgba"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgba")))
            container.mux(stream.encode(None))
        images.append(next(iter(VideoReader(path))).image)
    assert np.array_equal(*images)
    assert images[0][15, 25].tolist() == [200, 20, 10] and images[0][0, 0].tolist() == [128] * 3


def test_two_pictures_of_one_number_are_refused(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "02.png"):
        cv2.imwrite(str(tmp_path / name), picture(16, 16))
    with pytest.raises(UnreadableVideo, match=r"02\.png and 2\.png are both frame 2"):
        VideoReader(tmp_path)


def test_pictures_of_several_sizes_are_fitted_into_the_first(tmp_path: Path) -> None:
    for number, size in enumerate(((64, 48), (32, 24), (64, 48)), start=1):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(*size))
    reader = VideoReader(tmp_path)
    one, two, _ = (frame.image.astype(int) for frame in reader)
    assert np.abs(one - two).mean() < 4
    assert reader.problem == "1 of 3 pictures are not 64 x 48, and fitted into that"


def test_folders_that_systems_make_are_no_cameras(tmp_path: Path) -> None:
    for name in (
        "hall/a.mp4",
        "hall/@eaDir/a.mp4/SYNOVIDEO_VIDEO_SCREENSHOT.jpg",
        "#recycle/hall/b.mp4",
        "__MACOSX/hall/._a.mp4",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [video.name for video in find_videos(tmp_path)] == ["hall/a.mp4"]


def test_a_video_of_the_same_size_and_time_is_another(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    sources = []
    for level in (60, 61):
        with av.open(str(path), "w") as container:
            stream = container.add_stream("rawvideo", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for _ in range(3):
                image = np.full((48, 64, 3), level, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        os.utime(path, (10**9, 10**9))
        sources.append(source_of(*find_videos(tmp_path), None))
    assert sources[0]["bytes"] == sources[1]["bytes"] and sources[0]["digest"] == sources[1]["digest"]
    assert sources[0] != sources[1]


def test_another_rate_of_a_folder_of_pictures_makes_its_times_anew(tmp_path: Path) -> None:
    (tmp_path / "seq/img1").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "seq/img1/000001.jpg"), picture(16, 16))
    (video,) = find_videos(tmp_path)
    sources = []
    for rate in (30, 10):
        (tmp_path / "seq/seqinfo.ini").write_text(f"[Sequence]\nframeRate={rate}\n")
        sources.append(source_of(video, None))
        assert VideoReader(video.path).rate == rate
    assert sources[0] != sources[1]
