"""Numbered pictures with maps, as those of ``SceneRenderer.sample``, photographed in the studio.

Setting a person up costs more than moving them, so people come for one, two and three pictures in turn
(:data:`VISITS`): picture *i* of a series belongs to one person and is their k-th pose. Each is drawn from streams of its own, so
any picture can be made alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from densemarks_model.data import panoramas
from densemarks_model.data.cycles.studio import Studio
from densemarks_model.data.cycles.wardrobe import Wardrobe, random_wardrobe
from densemarks_model.data.synthetic import effects, faults, light, palette, worn
from densemarks_model.data.synthetic.dressing import companion, held_up_hands
from densemarks_model.data.synthetic.looks import with_look
from densemarks_model.data.synthetic.mesh import Mesh
from densemarks_model.data.synthetic.mouths import strong_expression
from densemarks_model.data.synthetic.people import Person, head_kit, pose_head, random_expression, random_person
from densemarks_model.data.synthetic.repertoire import FULL, Repertoire
from densemarks_model.data.synthetic.scene import EMPTY_SHARE, Sample, SceneRenderer
from densemarks_model.data.synthetic.views import View, random_pose, random_view, wide_pose, wide_view
from densemarks_model.errors import ModelError

VISITS = (1, 2, 3)
"""Pictures of one person, of the next one, and so on; then again."""

_STREAM = 4040
"""Keeps these series apart from the fast generator's: the same seed means other people."""


def person_of(index: int) -> tuple[int, int]:
    """Number of the person in picture ``index``, and which of their pictures it is."""
    turn, rest = divmod(index, sum(VISITS))
    for k, visits in enumerate(VISITS):
        if rest < visits:
            return turn * len(VISITS) + k, rest
        rest -= visits
    raise AssertionError(index)


def pictures_of(person: int) -> range:
    """Numbers of a person's pictures."""
    turn, k = divmod(person, len(VISITS))
    first = turn * sum(VISITS) + sum(VISITS[:k])
    return range(first, first + VISITS[k])


@dataclass(frozen=True)
class Sitter:
    """Who is in the studio: a person (None: nobody comes), their age, what they wear and where."""

    person: Person | None
    age: str
    wardrobe: Wardrobe
    world: light.World


class Photographer:
    """Makes samples; keeps one studio. One per process.

    Args:
        image_size, map_size: sides of pictures and maps, pixels; the first a multiple of the second. samples, threads: of :class:`Studio`.

    Raises:
        ModelError: bpy is not installed, or the panoramas are not there and cannot be fetched.
    """

    def __init__(self, image_size: int = 256, map_size: int = 64, samples: int = 8, threads: int = 0, repertoire: Repertoire = FULL) -> None:
        if not panoramas.panoramas():
            raise ModelError("there are no panoramas to light pictures with")
        self._studio = Studio(image_size, samples, threads)
        self._maps = SceneRenderer(image_size, map_size)
        self.image_size, self.map_size, self._often = image_size, map_size, repertoire
        self._sitting: tuple[int, int] | None = None
        self._sitter: Sitter | None = None

    def sample(self, seed: int, index: int) -> Sample:
        """Picture number ``index`` of the series ``seed``; always the same."""
        number, visit = person_of(index)
        sitter = self._sitter if self._sitting == (seed, number) and self._sitter is not None else self._seat(seed, number)
        rng, extra = (np.random.default_rng([seed, _STREAM, number, visit, k]) for k in (1, 2))
        if sitter.person is None:
            return self._empty(sitter, rng)
        expression = random_expression(rng)
        strong = extra.random() < self._often.mouth_share
        if strong:
            expression = strong_expression(expression, extra)
        yaw, pitch, roll, pose = wide_pose(random_pose(rng), self._often, extra, sideways=strong)
        head, rotation, offset = pose_head(sitter.person, expression, pose)
        view = wide_view(random_view(head, yaw, pitch, roll, rotation, rng), head, self._often, extra)
        posed = head.moved(view.rotation, view.translation)
        hands = held_up_hands(sitter.person, posed, rng)
        around = [m.moved(view.rotation, view.translation) for m in neckwear(head, sitter.wardrobe)]
        if extra.random() < 0.5 * self._often.companion_share:
            around += companion(view, posed.vertices[head_kit().outside].mean(0), extra)
        shot = self._studio.photograph(head, rotation, offset, view, (*hands, *around))
        coordinates, surface = self._maps._truth(posed, view)
        linear = shot.linear
        if extra.random() < self._often.blur_share:
            linear = self._moved(linear, posed, view, extra)
        image, shown = self._finish(linear, shot.head, bool(hands), rng, extra)
        return Sample(image, coordinates, shown, surface, yaw, pitch)

    def _seat(self, seed: int, number: int) -> Sitter:
        """Draw a person and set the studio up for them."""
        rng, extra = (np.random.default_rng([seed, _STREAM, number, k]) for k in (1, 2))
        world = light.random_world(1.0, np.random.default_rng([seed, _STREAM, number, 3]))
        if world is None:
            raise ModelError("the panoramas are gone: python -m densemarks_model.data.panoramas fetches them")
        if np.random.default_rng([seed, _STREAM, number, 4]).random() < EMPTY_SHARE:
            self._sitter = Sitter(None, "adult", Wardrobe(), world)
        else:
            person, age = random_person(rng), "adult"
            if extra.random() < self._often.look_share:
                person, age = with_look(person, extra)
            wardrobe = random_wardrobe(rng, self._often, adult=age != "child")
            self._sitter = Sitter(person, age, wardrobe, world)
            self._studio.set_up(person, wardrobe, world.panorama.radiance * world.tint, to_world=world.to_world)
        self._sitting = (seed, number)
        return self._sitter

    def _empty(self, sitter: Sitter, rng: np.random.Generator) -> Sample:
        """A background alone."""
        size, cells = self.image_size, self.map_size
        picture = effects.background(size, rng, sitter.world)
        image = effects.degrade(effects.develop(picture, np.ones((size, size), bool), rng), rng)
        nothing = np.zeros((cells, cells), np.float32)
        return Sample(image, np.full((cells, cells, 3), 0.5, np.float32), nothing, nothing, 0.0, 0.0)

    def _moved(self, linear: np.ndarray, posed: Mesh, view: View, rng: np.random.Generator) -> np.ndarray:
        """Blurred along the head's own motion; after :meth:`SceneRenderer._truth`, whose canvas still holds the head."""
        canvas = self._maps._bald
        motion = canvas.interpolate(faults.random_motion(posed.vertices, view, rng, self.image_size), posed.faces)[::-1]
        return faults.blur_along(linear, motion, canvas.rasterized[::-1, :, 3] > 0)

    def _finish(self, linear: np.ndarray, visible: np.ndarray, hands: bool, rng: np.random.Generator, extra: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """From linear light to the picture with its faults, and the mask ``(M, M)`` of what still shows."""
        image = effects.develop(linear, visible > 0.5, rng)
        if rng.random() < 0.12:
            visible = faults.cut_border(image, visible, rng)
        elif extra.random() < self._often.border_share:
            visible = faults.continue_border(image, visible, extra)
        if not hands and rng.random() < 0.06:
            visible = faults.stick(image, visible, rng)
        image = effects.degrade(image, rng)
        cells = self.map_size
        return image, np.clip(cv2.resize(visible.astype(np.float32), (cells, cells), interpolation=cv2.INTER_AREA), 0, 1)


def neckwear(head: Mesh, wardrobe: Wardrobe) -> list[Mesh]:
    """What is worn around the neck of the posed ``head``, in its frame; the same cloth in every pose."""
    if wardrobe.neckwear is None:
        return []
    rng = np.random.default_rng([wardrobe.clothes, 6])
    colour = palette.thing(rng)
    if wardrobe.neckwear == "scarf":
        return worn.scarf(head, rng)
    if wardrobe.neckwear == "turtleneck":
        return worn.turtleneck(head, colour, rng)
    if wardrobe.neckwear == "hood":
        return worn.hood_down(head, colour, rng)
    return worn.open_collar(head, colour, rng, coat=wardrobe.neckwear == "coat")
