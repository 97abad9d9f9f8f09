"""From a video to a track: observe → fit, and what the track is written as. The one place that knows the order of things.

The video is decoded twice (once to look, once to draw) rather than kept: what is held in memory does not grow with its
length, but for about one kilobyte of parameters per frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from densemarks_model.errors import ModelError
from densemarks_model.loading import is_shipped, network_cube, speaks_default_cube
from flame_assets.asset import AssetError, HeadAsset
from tracker.camera import FocalPrior, focal_prior, stated_focal
from tracker.errors import UserError
from tracker.head_track import HeadTrack
from tracker.importing import read_any
from tracker.loaded import Loaded
from tracker.observe.embedder import HeadEmbedder
from tracker.observe.first_pass import observe
from tracker.observe.guides import Whereabouts
from tracker.observe.reading import DENSE, MOTION, PICTURES
from tracker.observe.sites import spread_sites
from tracker.observe.survey import Survey, survey
from tracker.progress import Progress, StageClock, silent
from tracker.rendering.devices import Device, resolve_device
from tracker.result import TrackResult
from tracker.settings import TrackerSettings
from tracker.stages.calibration import CANDIDATES, calibrate
from tracker.stages.fit import Fit, fit
from tracker.stages.texture import unwrap_texture
from tracker.video.image_folder import DEFAULT_FOLDER_RATE
from tracker.video.photos import (
    PHOTO_RATE,
    Photo,
    PhotoFolder,
    PhotoOptions,
    own_cameras,
    refuse_for_photos,
    words_on_photos,
)
from tracker.video.reader import VideoPart, VideoReader, VideoSource

_NOT_CALIBRATED = (
    "too little of the head was seen to calibrate this head and network to each other; the dense cues are unreliable here"
)

_MORE_ITERATIONS = 4  # of photos than of frames


LARGEST, ALL = "largest", "all"
"""Who is tracked of several people, where it is not a number: the one whose face is the largest at the beginning, or each."""

OBSERVATIONS = "observations"
"""Name of the folder with the observations in a folder of work."""


@dataclass(frozen=True)
class Request:
    """What is asked for; see ``track.py --help`` for the meaning of each field."""

    video: Path
    settings: TrackerSettings
    preset: str = "balanced"
    part: VideoPart = VideoPart()
    head: Path | None = None
    landmarker: Path | None = None
    network: str = "lite"
    focal_px: float | None = None
    fov_deg: float | None = None
    intrinsics: Path | None = None
    device: str = "auto"
    photos: bool = False
    start_from: Path | None = None
    person: int | str = LARGEST

    @property
    def source(self) -> VideoSource:
        """What is looked at."""
        return VideoSource(self.video, self.part, PhotoOptions(self.focal_px, self.fov_deg) if self.photos else None)

    def for_photos(self) -> Request:
        """The same with settings for frames that tell nothing of each other, when they are photos.

        Raises:
            UserError: options that photos cannot have.
        """
        if not self.photos:
            return self
        part = self.part
        person = None if self.person == LARGEST else self.person
        refuse_for_photos({"--person": person, "--start-from": self.start_from, "--intrinsics": self.intrinsics, "--fps": part.frame_rate, "--start": part.start, "--end": part.end})
        settings = self.settings.without("smoothness").untied()
        # no frame starts from what its neighbour ended with, and there are few
        longer = {name: {"iterations": _MORE_ITERATIONS * stage.iterations} for name, stage in settings.window_stages.items()}
        changes = {"observe": {"stride": 1}, "windows": {"gap_seconds": 0.5 / PHOTO_RATE}, "stages": {"windows": longer}}
        return replace(self, settings=settings.changed(changes))


def run(
    request: Request,
    *,
    work: Path | None = None,
    draws: bool = False,
    loaded: Loaded | None = None,
    people: Survey | None = None,
    progress: Progress = silent,
    clock: StageClock | None = None,
) -> TrackResult:
    """Observe, fit, and unwrap the texture where the settings look at pictures.

    Args:
        request: what is asked for.
        work: folder in which the observations are kept. What a run of the same request left there when it was stopped is gone on
            with, to the same result bit for bit. None for a temporary folder that goes at the end.
        draws: the track is to be drawn afterwards, so the device must have a renderer whatever the settings.
        loaded: heads and networks that earlier runs of this process have read; what is missing is added. It changes no result.
        people: of the video; looked for when None and a person is asked for by number.
        progress, clock: to be told.

    Raises:
        UserError: see :func:`tracker.library.track`.
    """
    request, clock, loaded = request.for_photos(), clock or StageClock(), loaded or Loaded()
    settings = request.settings
    device = resolve_device(request.device, needs_renderer=draws or bool(settings.reads))
    source = request.source
    with source.open() as video:
        # known at once: a focal length that cannot be must not cost the user the whole first pass
        camera, lens_notes = camera_of(video, request)
        photos = video.photos
    start = start_of(request, loaded)  # nor must a file that cannot be read
    with user_errors(), ExitStack() as stack:
        stack.enter_context(one_torch_thread())
        folder = work or Path(stack.enter_context(TemporaryDirectory(prefix="head-track-")))
        person = _person(request, folder, people, progress, clock)
        asset, embedder, notes = _prepare(request, source, camera, device, folder, loaded, person, progress, clock)
        observations = stack.enter_context(
            observe(
                source, settings.observe, embedder=embedder, pictures=bool(settings.reads & {PICTURES, MOTION}), folder=folder / OBSERVATIONS,
                landmarker=request.landmarker, person=person, go_on=True, progress=progress, clock=clock,
            )  # fmt: skip
        )
        found = fit(observations, asset, settings, camera, start=start, device=device.compute, progress=progress, clock=clock)
        if photos:
            found = replace(found, track=with_own_cameras(found, photos))
        texture = None
        if PICTURES in settings.reads and asset.uv is not None:
            with clock.stage("texture"):
                texture = unwrap_texture(
                    source, observations, found.track, asset, found.appearance, settings.texture.size, device.draw
                )
        notes = (*observations.facts.notes, *lens_notes, *notes, *found.notes())
    where = {"fit": str(device.compute), "drawing": str(device.draw), "reason": device.reason.removeprefix("cpu: ")}
    if embedder is not None:
        where["network"] = embedder.runtime
    return TrackResult(found, asset, source, texture, device, request.preset, notes, where, dict(clock.seconds))


def _person(
    request: Request, folder: Path, people: Survey | None, progress: Progress, clock: StageClock
) -> Whereabouts | None:
    """Where the person that is asked for by number is; None where that need not be known.

    Raises:
        UserError: the video shows fewer people.
    """
    number = request.person
    if number == LARGEST:
        return None
    assert isinstance(number, int)
    people = people or survey(request.source, folder, request.landmarker, progress, clock)
    count = max(len(people), 1)  # a head whose face is never seen
    if not 1 <= number <= count:
        shown = "one person; give 1" if count == 1 else f"{count} people; give a number from 1 to {count}"
        raise UserError(f"--person {number}: the video shows {shown}")
    return people.person(number)


def camera_of(video: VideoReader, request: Request) -> tuple[FocalPrior, tuple[str, ...]]:
    """What is known of the camera, and what the user should know of where from: what was given wins over what the file says.

    Raises:
        UserError: see :func:`tracker.camera.focal_prior`.
    """
    if isinstance(video.source, PhotoFolder):
        return video.source.camera, tuple(words_on_photos(video.source))
    given = focal_prior(video.width, video.height, request.focal_px, request.fov_deg, request.intrinsics)
    if given.log_sigma == 0 or video.lens is None:
        return given, ()
    lens = video.lens
    said = f"the focal length starts from {lens.focal_px:.0f} px ± {100 * lens.log_sigma:.0f} %, which is what the file says ({lens.words})"
    return stated_focal(video.width, video.height, lens.focal_px, lens.log_sigma), (said,)


def start_of(request: Request, loaded: Loaded) -> HeadTrack | None:
    """The earlier track that the fit begins from, if one is asked for.

    Raises:
        UserError: it cannot be read, or is of another head.
    """
    if request.start_from is None:
        return None
    with user_errors():
        head = loaded.head(request.head)
    part = request.part
    # frames of a file are numbered from the video's first one
    whole = replace(part, start=None, max_frames=None if part.start else part.max_frames)
    return read_any(request.start_from, head, part.frame_rate or DEFAULT_FOLDER_RATE, VideoSource(request.video, whole))


def with_own_cameras(found: Fit, photos: tuple[Photo, ...]) -> HeadTrack:
    """A track of photos with the camera of each in its own pixels."""
    track = found.track
    shown = tuple(photos[round(time * PHOTO_RATE)] for time in track.timestamps)
    return replace(track, photos=own_cameras(shown, track.focal_px, found.focal_log_sigma, track.principal_point))


def _prepare(
    request: Request,
    source: VideoSource,
    camera: FocalPrior,
    device: Device,
    folder: Path,
    loaded: Loaded,
    person: Whereabouts | None,
    progress: Progress,
    clock: StageClock,
) -> tuple[HeadAsset, HeadEmbedder | None, tuple[str, ...]]:
    """The head in the network's cube, the network (None where no cue looks at what it says), and notes for the user.

    A cube that is not known to be the head's own is measured on some frames of the clip, which are looked at for this alone.
    """
    settings = request.settings
    with user_errors():
        asset = loaded.head(request.head)
        if DENSE not in settings.reads:
            return asset, None, ()
        asset = asset.with_cube(network_cube(request.network))
        foreign = not speaks_of(request.network, request.head, asset, loaded)
        # a cube that is not known to be the head's contradicts every landmark
        doubt = math.inf if foreign else settings.observe.landmark_doubt
        sites = loaded.sites(request.head, asset, settings.observe.sites)
        embedder = loaded.embedder(request.network, device.compute.type, asset, sites, doubt)
        if not is_shipped(request.network):  # a file of other origin may be whole and hold nothing
            embedder.check()
    if not foreign:
        return asset, embedder, ()
    every = settings.observe.model_copy(update={"stride": 1})
    with observe(
        source, every, embedder=embedder, folder=folder / "calibration", landmarker=request.landmarker, person=person,
        at_most=CANDIDATES, go_on=True, name="calibrate", progress=progress, clock=clock,
    ) as sample, clock.stage("calibration"):  # fmt: skip
        measured = calibrate(sample, asset, settings, camera, device.compute)
    if measured is None:
        return asset, embedder.for_head(asset, sites, math.inf), (_NOT_CALIBRATED,)
    asset = replace(asset, canonical=measured)
    sites = spread_sites(asset, settings.observe.sites)
    return asset, embedder.for_head(asset, sites, settings.observe.landmark_doubt), ()


def speaks_of(network: str, head: Path | None, asset: HeadAsset, loaded: Loaded | None = None) -> bool:
    """Whether the network's cube is this head's own, as it is of the shipped pair, whatever their files are called.

    Args:
        network, head: what the user named.
        asset: the head, in the network's version of the cube.
        loaded: the heads that are read already.
    """
    if not speaks_default_cube(network):
        return False
    if head is None:
        return True
    default = (loaded or Loaded()).head(None).with_cube(asset.cube)
    return asset.sha256() == default.sha256() and np.array_equal(asset.canonical, default.canonical)


@contextmanager
def user_errors() -> Iterator[None]:
    """What is wrong with a head or a network is the user's to know."""
    try:
        yield
    except (AssetError, ModelError) as error:
        raise UserError(str(error)) from error


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """PyTorch on one thread meanwhile: the matrices here are small, and waiting threads would take the cores that
    decoding, detection and encoding need (measured: up to five times slower on two busy cores)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
