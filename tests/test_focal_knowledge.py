"""Focal lengths that files state, and how sure an estimated one is said to be."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from make_clips import picture
from PIL import ExifTags, Image

from tracker.camera import (
    STATED_FOCAL_HELD,
    FocalPrior,
    focal_inflation,
    focal_posterior_log_sigma,
    focal_prior,
    stated_focal,
)
from tracker.evaluation.synthetic_suite import focal_within
from tracker.pipeline import Request, camera_of
from tracker.residuals.priors import PriorResidual
from tracker.settings import load_settings
from tracker.solver import Linearization, Term, Variable, solve
from tracker.video.lens import PHOTO_LOG_SIGMA, VIDEO_LOG_SIGMA, lens_of_photo
from tracker.video.reader import open_video

SETTINGS = load_settings("fast")
TAG = ExifTags.Base


def photo(path: Path, size: tuple[int, int], orientation: int = 1, **tags: object) -> Path:
    exif = Image.Exif()
    exif[TAG.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif).update({TAG[name]: value for name, value in tags.items()})
    Image.new("RGB", size).save(path, exif=exif)
    return path


def test_the_focal_length_on_film_is_read_by_the_diagonal(tmp_path: Path) -> None:
    lens = lens_of_photo(photo(tmp_path / "a.jpg", (400, 300), orientation=6, FocalLengthIn35mmFilm=26))
    assert lens is not None
    assert lens.focal_px == pytest.approx(26 * 500 / math.hypot(36, 24)) and lens.log_sigma == PHOTO_LOG_SIGMA
    assert "26 mm" in lens.words


def test_without_it_the_lens_and_the_sensors_resolution_tell(tmp_path: Path) -> None:
    tags = {"FocalLength": 50.0, "FocalPlaneXResolution": 4000 / 22.2 * 25.4, "FocalPlaneResolutionUnit": 2}
    resized = {"ExifImageWidth": 4000, "ExifImageHeight": 3000}
    lens = lens_of_photo(photo(tmp_path / "a.jpg", (400, 300), **tags, **resized))
    assert lens is not None and lens.focal_px == pytest.approx(50 / 22.2 * 400, rel=1e-3)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"FocalLengthIn35mmFilm": 0},
        {"FocalLengthIn35mmFilm": 65535},
        {"FocalLength": 50.0},
        {"FocalLength": 50.0, "FocalPlaneXResolution": 1e-3},
        {"FocalLengthIn35mmFilm": 26, "ExifImageWidth": 400, "ExifImageHeight": 225},  # cropped since
    ],
)
def test_notes_that_say_nothing_sure_are_left_alone(tmp_path: Path, tags: dict[str, object]) -> None:
    assert lens_of_photo(photo(tmp_path / "a.jpg", (400, 300), **tags)) is None


def test_a_broken_note_is_no_reason_to_stop(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg", (400, 300), FocalLengthIn35mmFilm=26)
    content = path.read_bytes()
    at = content.index(b"Exif\0\0") + 14
    path.write_bytes(content[:at] + b"\xff" * 24 + content[at + 24 :])
    assert lens_of_photo(path) is None
    with open_video(path) as video:
        assert next(iter(video)).image.shape == (300, 400, 3)


def clip_with_note(path: Path, key: str, value: str) -> Path:
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata[key] = value
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for index in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index, 640, 480), format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("value", "known"), [("26", True), ("26.000000", True), ("-13", False), ("wide", False)])
def test_what_phones_note_in_a_video_is_read(tmp_path: Path, value: str, known: bool) -> None:
    path = clip_with_note(tmp_path / "a.mov", "com.apple.quicktime.camera.focal_length.35mm_equivalent", value)
    with open_video(path) as video:
        camera, notes = camera_of(video, Request(path, SETTINGS))
    if not known:
        assert camera == focal_prior(640, 480) and not notes
        return
    assert camera.focal_px == pytest.approx(26 * 800 / math.hypot(36, 24))
    assert camera.log_sigma == VIDEO_LOG_SIGMA and "26 mm" in notes[0] and "10 %" in notes[0]


def test_what_the_user_gives_wins_over_the_file(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg", (400, 300), FocalLengthIn35mmFilm=26)
    with open_video(path) as video:
        camera, notes = camera_of(video, Request(path, SETTINGS, focal_px=555.0))
        assert (camera.focal_px, camera.log_sigma, notes) == (555.0, 0.0, ())
        stated, said = camera_of(video, Request(path, SETTINGS))
    assert stated.log_sigma == PHOTO_LOG_SIGMA and "EXIF" in said[0]


class Shifted:
    """n readings of ``log_focal``, each said to have an error of 1 / precision."""

    def __init__(self, readings: np.ndarray, precision: float) -> None:
        self._readings, self._precision = torch.as_tensor(readings), precision

    def __call__(self, values: dict[str, torch.Tensor], wanted: frozenset[str]) -> Linearization:
        residual = ((values["log_focal"] - self._readings) * self._precision)[None, :, None]
        return Linearization(residual, {"log_focal": torch.full((1, len(self._readings), 1, 1), self._precision, dtype=torch.float64)})


@pytest.mark.parametrize("prior", [FocalPrior(1000.0, 0.2, (0, 0)), FocalPrior(1000.0, 0.05, (0, 0), 5.0)])
def test_readings_that_err_together_give_the_spread_that_is_reported(prior: FocalPrior) -> None:
    # n readings that share half their variance: together they tell as much as n / inflation² alone, inflation² = 1 + (n - 1) / 2
    rng, n, error, shared = np.random.default_rng(0), 24, 0.1, 0.5
    inflation = math.sqrt(1 + (n - 1) * shared)
    off, stated, fitted = [], 0.0, 0.0
    for _ in range(300):
        truth = rng.normal(0, prior.log_sigma)
        readings = truth + error * (math.sqrt(shared) * rng.normal() + math.sqrt(1 - shared) * rng.normal(size=n))
        terms = [Term("readings", Shifted(readings, 1 / error)), Term("prior", PriorResidual("log_focal", prior.fit_log_sigma))]
        found = solve(terms, [Variable("log_focal", shared=True)], {"log_focal": torch.zeros(1, dtype=torch.float64)})
        fitted = math.sqrt(float(found.shared_covariance[0, 0]))
        stated = focal_posterior_log_sigma(fitted, prior, inflation)
        off.append(float(found.values["log_focal"]) - truth)
    assert stated == pytest.approx(np.std(off), rel=0.12)
    assert fitted < 0.6 * np.std(off)


def test_the_reported_accuracy_at_its_ends() -> None:
    usual = focal_prior(640, 480)
    # nothing learnt: the prior's own; data that count as they should: the fit's own
    assert focal_posterior_log_sigma(0.2, usual, 4.0) == pytest.approx(0.2)
    assert focal_posterior_log_sigma(0.05, usual, 1.0) == pytest.approx(0.05)
    assert focal_posterior_log_sigma(0.05, usual, 4.0) > 3 * 0.05
    assert focal_posterior_log_sigma(0.05, focal_prior(640, 480, focal_px=700.0), 4.0) == 0
    # a stated focal length that is held as firmly as the data are too sure of themselves can only be improved
    stated = stated_focal(640, 480, 700.0, 0.05)
    fitted = (stated.fit_log_sigma**-2 + 0.05**-2) ** -0.5
    assert 0.04 < focal_posterior_log_sigma(fitted, stated, STATED_FOCAL_HELD) < 0.05
    # more frames of one person tell more, but less more than independent ones would
    assert focal_inflation(1) < focal_inflation(16) < 4 * focal_inflation(1)


def test_the_benchmark_counts_how_often_the_truth_is_covered() -> None:
    assert focal_within(1050.0, 0.06, 1000.0) == (1.0, 1.0)
    assert focal_within(1100.0, 0.06, 1000.0) == (0.0, 1.0)
    assert focal_within(1400.0, 0.06, 1000.0) == (0.0, 0.0)
    assert all(math.isnan(x) for x in focal_within(1400.0, float("nan"), 1000.0))
