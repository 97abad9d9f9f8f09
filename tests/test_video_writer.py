"""Writing videos: true timing, the input's sound, odd sizes, and nothing left behind when it fails."""

from __future__ import annotations

import os

import av
import numpy as np
import pytest
from make_clips import counted, picture, write_clip

from tracker.errors import UserError
from tracker.video import VideoWriter, open_video, writer


def save(path, images, stamps, **arguments):
    height, width = images[0].shape[:2]
    with VideoWriter(path, width, height, **arguments) as video:
        for image, stamp in zip(images, stamps, strict=True):
            video.write(image, stamp)
    return path


def sound_of(path):
    """Codec, samples as one float array, and the time of the first."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        frames = list(container.decode(stream))
        return stream.codec_context.name, np.concatenate([f.to_ndarray()[0] for f in frames]), float(frames[0].time)


def test_variable_timing_survives_read_write_read(tmp_path):
    rng = np.random.default_rng(1)
    stamps = np.concatenate([[0], np.cumsum(rng.uniform(0.005, 0.3, 30))])
    source = write_clip(tmp_path / "in.mp4", [picture(i) for i in range(31)], stamps, codec="libx264")
    with open_video(source) as video:
        frames = list(video)
    out = save(tmp_path / "out.mp4", [f.image for f in frames], [f.timestamp for f in frames])
    with open_video(out) as video:
        again = list(video)
    assert [f.timestamp for f in again] == pytest.approx(stamps, abs=2 / 90_000)
    assert [counted(f.image) for f in again] == [i % 20 for i in range(31)]


def test_film_rate_does_not_drift(tmp_path):
    stamps = [i * 1001 / 24_000 for i in range(240)]
    out = save(tmp_path / "out.mp4", [picture(i) for i in range(240)], stamps, frame_rate=24_000 / 1001)
    with open_video(out) as video:
        again = [f.timestamp for f in video]
    assert again == pytest.approx(stamps, abs=1 / 90_000)
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        # the last frame has a length too
        assert float(stream.duration * stream.time_base) == pytest.approx(240 * 1001 / 24_000, abs=1e-3)


def test_h264_420_in_mp4_with_true_colours(tmp_path):
    out = save(tmp_path / "out.mp4", [picture(0, 128, 96)], [0.0])
    with av.open(str(out)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    with open_video(out) as video:
        image = next(video).image
    for row, column, colour in ((20, 20, (200, 30, 30)), (20, 100, (30, 200, 30)), (70, 20, (30, 30, 200))):
        assert np.abs(image[row, column].astype(int) - colour).max() < 8


@pytest.mark.parametrize("size", [(63, 47), (64, 47), (63, 48)])
def test_odd_sizes_are_padded_by_repeating_the_edge(tmp_path, size):
    image = picture(9, *size)
    out = save(tmp_path / "out.mp4", [image, image], [0, 0.04])
    with open_video(out) as video:
        frame = next(video).image
    assert frame.shape == (48, 64, 3)
    assert np.abs(frame[: size[1], : size[0]].astype(int) - image).mean() < 6
    assert np.abs(frame[-1, -1].astype(int) - image[-1, -1]).max() < 12


@pytest.mark.parametrize(
    ("codec", "suffix", "written"), [("aac", "mp4", "aac"), ("libmp3lame", "mkv", "mp3"), ("pcm_s16le", "mov", "aac")]
)
def test_sound_is_kept(tmp_path, codec, suffix, written):
    images = [picture(i) for i in range(50)]
    source = write_clip(tmp_path / f"in.{suffix}", images, tone=codec, tone_seconds=2.0)
    out = save(tmp_path / "out.mp4", images, [i / 25 for i in range(50)], audio_from=source)
    name, samples, start = sound_of(out)
    assert name.startswith(written)
    assert abs(start) < 0.06
    assert len(samples) / 44_100 == pytest.approx(2.0, abs=0.08)
    middle = samples[20_000:60_000].astype(float)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.fft.rfftfreq(len(middle), 1 / 44_100)[spectrum.argmax()] == pytest.approx(440, abs=3)


def test_copied_sound_is_bit_identical(tmp_path):
    images = [picture(i) for i in range(50)]
    source = write_clip(tmp_path / "in.mp4", images, tone="aac", tone_seconds=2.0)
    out = save(tmp_path / "out.mp4", images, [i / 25 for i in range(50)], audio_from=source)

    def packets(path):
        with av.open(str(path)) as container:
            return [bytes(p) for p in container.demux(audio=0) if p.size]

    before, after = packets(source), packets(out)
    assert len(after) > 80 and after == before[-len(after) :]


def test_sound_ends_with_the_last_frame(tmp_path):
    images = [picture(i) for i in range(50)]
    source = write_clip(tmp_path / "in.mp4", images, tone="aac", tone_seconds=2.0)
    out = save(tmp_path / "out.mp4", images[:20], [i / 25 for i in range(20)], audio_from=source)
    _, samples, _ = sound_of(out)
    assert len(samples) / 44_100 == pytest.approx(0.8, abs=0.05)


def test_sound_keeps_step_with_a_picture_that_starts_late(tmp_path):
    stamps = [0.5 + i / 25 for i in range(50)]
    source = write_clip(
        tmp_path / "in.mkv", [picture(i) for i in range(50)], stamps, codec="libx264", tone="aac", tone_seconds=2.5
    )
    with open_video(source) as video:
        assert video.start_time == pytest.approx(0.5, abs=0.03)
        out = save(tmp_path / "out.mp4", [f.image for f in video], [i / 25 for i in range(50)], audio_from=source)
    _, samples, start = sound_of(out)
    # the first half second of sound belongs to no picture
    assert start + len(samples) / 44_100 == pytest.approx(2.0, abs=0.06)


def test_silent_sources_give_silent_videos(tmp_path):
    source = write_clip(tmp_path / "in.mp4", [picture(0)])
    for audio_from in (source, tmp_path, None):
        out = save(tmp_path / "out.mp4", [picture(0)], [0.0], audio_from=audio_from)
        with av.open(str(out)) as container:
            assert not container.streams.audio


def test_failure_leaves_nothing(tmp_path):
    out = tmp_path / "out.mp4"
    with pytest.raises(RuntimeError, match="boom"), VideoWriter(out, 64, 48) as video:
        video.write(picture(0), 0.0)
        raise RuntimeError("boom")
    assert list(tmp_path.iterdir()) == []
    out.write_text("the result of an earlier run")
    with pytest.raises(RuntimeError), VideoWriter(out, 64, 48) as video:
        video.write(picture(0), 0.0)
        raise RuntimeError
    assert out.read_text() == "the result of an earlier run"
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_failing_encoder_is_reported_and_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(VideoWriter, "_encode", fail)
    with pytest.raises(UserError, match="No space left"), VideoWriter(tmp_path / "out.mp4", 64, 48) as video:
        for i in range(20):
            video.write(picture(i), i / 25)
    assert list(tmp_path.iterdir()) == []


def test_no_frames_no_file(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", 64, 48):
        pass
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        VideoWriter(tmp_path / "nowhere" / "out.mp4", 64, 48)


def test_wrong_frames_are_refused(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", 64, 48) as video:
        video.write(picture(0), 0.5)
        with pytest.raises(ValueError, match="expected"):
            video.write(picture(0, 32, 32), 0.6)
        with pytest.raises(ValueError, match="after the previous"):
            video.write(picture(0), 0.5)


def test_falls_back_to_an_encoder_that_exists(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "ENCODERS", (("no-such-encoder", {}, None), writer.ENCODERS[-1]))
    with VideoWriter(tmp_path / "out.mp4", 64, 48) as video:
        assert video.encoder == "mpeg4"
        for i in range(5):
            video.write(picture(i), 0.013 * i)
    with open_video(tmp_path / "out.mp4") as video:
        again = list(video)
    assert [f.timestamp for f in again] == pytest.approx([0.013 * i for i in range(5)], abs=1e-3)


def test_temporary_name_is_beside_the_file(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", 64, 48) as video:
        video.write(picture(0), 0.0)
        names = os.listdir(tmp_path)
        assert len(names) == 1 and names[0].endswith(".part")
    assert os.listdir(tmp_path) == ["out.mp4"]
