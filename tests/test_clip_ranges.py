"""``--start``, ``--end`` and ``--fps``: every pass sees the same frames, and the results keep the source's times."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

from flame_assets.load import load_head
from tests.make_clips import write_clip
from tests.tracks import talking_track
from tracker.cli import main
from tracker.export.flame_params import load_track
from tracker.overlay import OverlaySettings, write_overlay
from tracker.video import open_video
from tracker.video.packaged_clips import EXCERPT


def run(video, out, *arguments):
    assert main(["--video", str(video), "--out", str(out), "--preset", "fast", "--quiet", *arguments]) == 0
    return out / video.stem


def test_a_part_of_a_file_keeps_its_times_in_every_output(tmp_path):
    with open_video(EXCERPT) as video:
        wanted = [f for f in video if 1.2 <= f.timestamp < 1.6]
    result = run(EXCERPT, tmp_path, "--start", "1.2", "--end", "1.6")
    track = load_track(result / "flame_params.npz")
    assert track.timestamps.tolist() == [f.timestamp for f in wanted]
    with open_video(result / "overlay.mp4") as overlay:
        drawn = list(overlay)
    assert [f.timestamp for f in drawn] == pytest.approx(track.timestamps - track.timestamps[0], abs=1e-3)
    for frame, source in ((drawn[0], wanted[0]), (drawn[-1], wanted[-1])):
        left = frame.image[:, : frame.image.shape[1] // 2].astype(int)
        assert left.shape == source.image.shape and np.abs(left - source.image).mean() < 4


def test_a_folder_is_tracked_at_the_rate_that_it_is_said_to_have(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    with open_video(EXCERPT, max_frames=12) as video:
        for frame in video:
            Image.fromarray(frame.image).save(folder / f"{frame.index}.png")
    result = run(folder, tmp_path / "out", "--fps", "12.5", "--start", "0.16")
    track = load_track(result / "flame_params.npz")
    assert track.timestamps == pytest.approx(np.arange(2, 12) / 12.5) and track.frame_rate == 12.5
    with open_video(result / "overlay.mp4") as overlay:
        assert [f.timestamp for f in overlay] == pytest.approx(np.arange(10) / 12.5, abs=1e-3)


def test_sound_of_an_overlay_begins_where_its_pictures_do(tmp_path):
    head = load_head()
    images = [np.full((360, 640, 3), 40 + i, np.uint8) for i in range(50)]
    # pictures for two seconds, a tone in the first one only
    source = write_clip(tmp_path / "in.mp4", images, codec="libx264", tone="aac", tone_seconds=1.0)
    track = talking_track(head, 30, timestamps=np.arange(15, 45) / 25, frame_rate=25.0)
    write_overlay(tmp_path / "out.mp4", source, track, head, OverlaySettings())
    with av.open(str(tmp_path / "out.mp4")) as container:
        sound = [f for f in container.decode(audio=0)]
        length = float(sound[-1].time) + sound[-1].samples / sound[-1].sample_rate
    assert length == pytest.approx(1.0 - 15 / 25, abs=0.06)
    with open_video(tmp_path / "out.mp4") as video:
        assert next(video).timestamp == 0 and video.frame_count == 30


@pytest.mark.parametrize(
    "arguments",
    [("--fps", "0"), ("--fps", "nan"), ("--start", "-1"), ("--end", "0"), ("--start", "3", "--end", "2"), ("--start", "900")],
)
def test_times_that_cannot_be_are_one_line(tmp_path, capsys, arguments):
    code = main(["--video", str(EXCERPT), "--out", str(tmp_path), "--preset", "fast", "--quiet", *arguments])
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and arguments[-2].strip("-") in error
    assert not list(tmp_path.iterdir())
