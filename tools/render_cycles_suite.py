"""Render the benchmark's Cycles suite, which is shipped in tracker/evaluation/data/cycles_suite.

    python tools/render_cycles_suite.py --work build/cycles_suite      # needs bpy; goes on where it stopped
    python tools/render_cycles_suite.py --work build/cycles_suite --frames 0 20 --out ""   # two pictures a clip, to look at

People, hair, glasses, light, lenses and motions are written down here, number by number, and occur nowhere else: nothing of the
suite is ever trained on. Every picture is kept in the work folder; when all are there the clips are encoded (noise of a
sensor, H.264) and the truths are written beside them. The same versions of this project and of bpy give the same pictures
again; later ones may give others, which is why the pictures themselves are shipped.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from densemarks_model.crops import HeadCrop
from densemarks_model.data.cycles.wardrobe import Wardrobe
from densemarks_model.data.synthetic import palette
from densemarks_model.data.synthetic.hair import HairStyle
from densemarks_model.data.synthetic.mesh import Mesh
from densemarks_model.data.synthetic.people import Person, head_kit, pose_head, random_person
from densemarks_model.data.synthetic.sequences import Motion, Script
from densemarks_model.data.synthetic.views import View
from flame_assets.atomic_files import atomic_file
from tracker.evaluation.cycles_suite import FOLDER, Performance, write_truths

FRAMES, FRAME_RATE, SIZE = 40, 12.5, 384
PEOPLE_SEED, MOTION_SEED, NOISE_SEED = 20241, 20242, 20243
CRF = "17"


@dataclass(frozen=True)
class SuiteClip:
    """One clip, completely.

    Attributes:
        shows: who and what, in a few words.
        person: number of the person in the series :data:`PEOPLE_SEED`. stretch: of ``people.random_person``.
        hair: colour of hair, brows and beard, 8-bit sRGB; None for the one that the person was drawn with.
        script: motion and lens.
        distance: from the camera to the head, in multiples of the focal length over the picture's width, metres.
        wardrobe: hair, beard, glasses, hat, clothes.
        panorama: one of bpy's. turn: degrees that it is turned about the vertical.
        noise: standard deviation of the sensor's noise, levels of 255.
    """

    shows: str
    person: int
    stretch: float
    hair: tuple[int, int, int] | None
    script: Script
    distance: float
    wardrobe: Wardrobe
    panorama: str
    turn: float
    noise: float


def _script(yaw: float, focal: float, speech: float, start: float = 0.0, turns: float = 1.0, nod: float = 1.0) -> Script:
    return Script(0, FRAMES, FRAME_RATE, yaw, SIZE, focal, speech, start, turns, nod)


BUZZ = HairStyle(0.0085, None, 0.75, 0, 0, 0, 0.25, 0.002, None, (0.0, -0.2, -1.0), None, 0, 5000, 0.0022)
SHORT = HairStyle(0.043, None, 0.47, 7.5, 0, 0, 0.22, 0.013, None, (-0.9, -0.2, -0.45), None, 0, 4200, 0.0024)
FRINGE = HairStyle(0.135, 0.066, 0.22, 27.0, 0, 0, 0.14, 0.012, -0.021, (0.0, -0.3, -1.0), None, 0, 3600, 0.003)
CURLS = HairStyle(0.077, None, 0.82, 2.5, 0.0065, 88.0, 0.75, 0.024, None, (0.0, -0.2, -1.0), None, 0, 3600, 0.0028)
LONG = HairStyle(0.31, None, 0.1, 18.0, 0.0045, 15.0, 0.1, 0.012, 0.011, (0.0, -0.3, -1.0), None, 0, 3600, 0.0035)
"""Hair styles of the suite, from shorn to long; training's are drawn at random from continuous ranges."""

CLIPS = (
    SuiteClip(
        "shaved head, full beard, begins in profile", 12, 0.05, None, _script(74, 1.5, 0.7, start=np.pi / 2, turns=0.5), 0.52,
        Wardrobe(None, beard=0.018, clothes=37, seed=130, scalp_shade=0.25), "interior", 60, 2.0,
    ),
    SuiteClip(
        "long loose hair, begins in profile", 22, 0.03, (112, 64, 40), _script(72, 1.1, 0.6, start=-np.pi / 2, turns=0.5, nod=1.3), 0.55,
        Wardrobe(LONG, clothes=8, seed=134), "courtyard", 150, 2.5,
    ),
    SuiteClip(
        "cap, shorn hair, goatee", 20, 0.03, (20, 17, 16), _script(75, 1.8, 0.5), 0.5,
        Wardrobe(BUZZ, beard=0.006, hat=1, clothes=32, seed=146), "forest", 200, 3.0,
    ),
    SuiteClip(
        "glasses, hair to the jaw with a fringe", 9, 0.05, (168, 124, 78), _script(50, 1.0, 0.8, start=np.pi, nod=1.6), 0.56,
        Wardrobe(FRINGE, glasses=24, clothes=12, seed=129), "city", 290, 2.5,
    ),
    SuiteClip(
        "curls", 7, 0.03, None, _script(75, 2.2, 0.6, start=np.pi), 0.5,
        Wardrobe(CURLS, clothes=25, seed=156), "sunset", 220, 2.0,
    ),
    SuiteClip(
        "short hair, nods and tilts", 23, 0.03, (66, 46, 34), _script(28, 1.3, 0.9, nod=2.6), 0.53,
        Wardrobe(SHORT, clothes=3, seed=117), "night", 120, 3.5,
    ),
)  # fmt: skip
"""The suite. Two of bpy's eight panoramas are left out: ``sunrise`` is one of training's, ``studio`` shows the same room as one of them."""


@dataclass(frozen=True)
class Take:
    """A clip, worked out: the person, and for every frame the head (in its own frame), the skull's motion and the view."""

    person: Person
    frames: list[tuple[Mesh, np.ndarray, np.ndarray, View]]
    performance: Performance


def work_out(clip: SuiteClip, number: int) -> Take:
    """Everything about a clip but its pictures."""
    script = clip.script
    person = dyed(random_person(np.random.default_rng([PEOPLE_SEED, clip.person, 77]), clip.stretch), clip.hair)
    motion = Motion(script, np.random.default_rng([MOTION_SEED, number]))
    centre = person.rest[head_kit().outside].mean(0)
    away = np.array([0.0, 0.0, -script.focal_ratio * clip.distance])
    frames, rows = [], []
    for index in range(script.frames):
        expression, pose, body, shift = motion.at(index)
        translation = away + shift - body @ centre
        head, skull, offset = pose_head(person, expression, pose)
        frames.append((head, skull, offset, View(body, translation, HeadCrop(np.zeros(2), 1 / script.focal_ratio), 0.0, 0.0)))
        rows.append((expression, pose.neck, pose.eyes, Rotation.from_matrix(body).as_rotvec(), translation))
    columns = (np.stack(c) for c in zip(*rows, strict=True))
    return Take(person, frames, Performance(person.identity, person.bend, *columns, focal_px=script.focal_ratio * script.size))


def dyed(person: Person, colour: tuple[int, int, int] | None) -> Person:
    """The person with other hair, brows and beard; dark skin without freckles, whose colour in the studio is for light skin."""
    look, tone = person.look.copy(), person.hair_colour
    if colour is not None:
        tone = palette.linear(np.array(colour))
        look[4:7] = 0.8 * tone
    if person.darkness > 0.7:
        look[1] = 0
    return replace(person, hair_colour=tone, look=look)


def panorama(name: str) -> Path:
    """File of one of the panoramas that come with bpy (CC0)."""
    import bpy

    return Path(bpy.utils.system_resource("DATAFILES", path="studiolights/world")) / f"{name}.exr"


def render(clip: SuiteClip, take: Take, wanted: list[int], folder: Path, open_studio: Any, bar: tqdm) -> None:
    """Render the ``wanted`` frames of a clip that are not in ``folder`` yet. ``open_studio()`` gives the renderer."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {i: folder / f"{i:05d}.png" for i in wanted}
    missing = [i for i in wanted if not paths[i].exists()]
    bar.update(len(wanted) - len(missing))
    if not missing:
        return
    studio = open_studio()
    studio.set_up(take.person, clip.wardrobe, panorama(clip.panorama), np.deg2rad(clip.turn))
    if missing[0] != 0:
        studio.frame(*take.frames[0])  # the first picture of all sets the exposure
    for index in missing:
        picture = studio.frame(*take.frames[index])
        with atomic_file(paths[index]) as unfinished:
            cv2.imwrite(str(unfinished), picture[..., ::-1])
        bar.update()


def encode(clip: SuiteClip, number: int, pictures: list[Path], path: Path) -> None:
    """Write a clip as H.264 with noise that a sensor would add."""
    with atomic_file(path) as unfinished, av.open(str(unfinished), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FRAME_RATE).limit_denominator(), options={"preset": "slow", "crf": CRF})
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1
        for index, picture in enumerate(pictures):
            image = cv2.imread(str(picture))[..., ::-1].astype(np.float32)
            image += np.random.default_rng([NOISE_SEED, number, index]).normal(0, clip.noise, image.shape)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.clip(image + 0.5, 0, 255), np.uint8), format="rgb24")
            for packet in stream.encode(frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="pictures are kept there, one folder a clip")
    parser.add_argument("--out", default=str(FOLDER), metavar="FOLDER", help='clips and truths are written there ("": nowhere; default: the shipped ones)')
    parser.add_argument("--clips", type=int, nargs="+", default=list(range(len(CLIPS))), help="render only these (the suite is written when all are there)")
    parser.add_argument("--frames", type=int, nargs="+", default=list(range(FRAMES)), help="render only these")
    parser.add_argument("--samples", type=int, default=6, help="light paths a pixel (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    options = parser.parse_args(arguments)
    studio: list[Any] = []

    def open_studio() -> Any:
        if not studio:
            from densemarks_model.data.cycles.studio import Studio

            studio.append(Studio(SIZE, options.samples, options.threads))
        return studio[0]

    takes = [work_out(clip, number) for number, clip in enumerate(CLIPS)]
    with tqdm(total=len(options.clips) * len(options.frames), unit="frame") as bar:
        for number in options.clips:
            render(CLIPS[number], takes[number], sorted(options.frames), options.work / f"clip_{number}", open_studio, bar)
    return write(takes, options.work, Path(options.out)) if options.out else 0


def write(takes: list[Take], work: Path, out: Path) -> int:
    """Encode the suite and write its truths, if every picture is there; the exit code is 1 if not."""
    pictures = [[work / f"clip_{n}" / f"{i:05d}.png" for i in range(FRAMES)] for n in range(len(CLIPS))]
    missing = sum(not path.exists() for clip in pictures for path in clip)
    if missing:
        print(f"{missing} pictures are missing still; nothing was written to {out}", file=sys.stderr)
        return 1
    out.mkdir(parents=True, exist_ok=True)
    for number, clip in enumerate(CLIPS):
        encode(clip, number, pictures[number], out / f"clip_{number}.mp4")
    rendered = np.stack([np.stack([f[0].moved(f[3].rotation, f[3].translation).vertices for f in t.frames]) for t in takes])
    write_truths(out / "truth.npz", {c.shows: t.performance for c, t in zip(CLIPS, takes, strict=True)}, rendered, head_kit().asset)
    total = sum(f.stat().st_size for f in out.iterdir()) / 2**20
    print(f"{len(CLIPS)} clips and their truths, {total:.1f} MB, in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
