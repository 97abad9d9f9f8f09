"""FLAME ↔ ARKit on a head whose expressions are known mixtures of ARKit's: bigger, another person, elsewhere."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

from flame_assets.load import load_head
from tests.tracks import talking_track
from tracker.export import export
from tracker.export.arkit_values import ARKIT_NAMES
from tracker.export.flame_arkit import head_map
from tracker.track_vertices import track_vertices

SCALE = 1.1
TONGUE = ARKIT_NAMES.index("tongueOut")
UNSEEN = [TONGUE, *(k for k, name in enumerate(ARKIT_NAMES) if name.startswith(("eyeLookIn", "eyeLookOut")))]
"""What moves no skin: the tongue, and looks to the side, which the eyes' joints tell."""


@pytest.fixture(scope="module")
def mixed():
    """A head with numbered expressions, and the matrix from ARKit's values to its coefficients."""
    head, rng = load_head(), np.random.default_rng(0)
    mixture = np.linalg.qr(rng.normal(size=(52, 52)))[0] * rng.uniform(0.5, 2, 52)  # coefficients = mixture @ values
    identity = head.shapedirs[:, :, : head.n_identity]
    shapes = head.shapedirs[:, :, head.n_identity :].astype(np.float64) @ np.linalg.inv(mixture)
    person = head.v_template + identity @ rng.normal(0, 0.7, head.n_identity)
    return replace(
        head, name="mixed", v_template=(SCALE * person + [0.01, 0.02, -0.03]).astype(np.float32),
        shapedirs=(SCALE * np.concatenate([identity, shapes], axis=2)).astype(np.float32), posedirs=SCALE * head.posedirs,
        expression_names=tuple(f"expr{k:03d}" for k in range(52)), expression_range=(-np.inf, np.inf),
    ), mixture[:, [head.expression_names.index(n) for n in ARKIT_NAMES]]  # fmt: skip


@pytest.fixture(scope="module")
def fitted(mixed):
    return head_map(mixed[0])


def faces(frames=40):
    """Values of a few shapes at a time, none of those that move no skin."""
    rng = np.random.default_rng(1)
    values = np.where(rng.random((frames, 52)) < 0.1, rng.random((frames, 52)), 0)
    values[:, UNSEEN] = 0
    return values


def test_values_come_back(mixed, fitted):
    values = faces()
    found = fitted.arkit_values(values @ mixed[1].T, np.zeros((len(values), 3)))
    assert np.abs(found - values).mean() < 0.01 and np.abs(found - values).max() < 0.15
    assert found.min() >= 0 and found.max() <= 1 and not found[:, UNSEEN].any()


def test_every_shape_that_the_head_has_is_found(fitted):
    assert fitted.points > 1500
    assert np.delete(fitted.residual, UNSEEN).max() < 0.4 and np.delete(fitted.residual, UNSEEN).mean() < 0.15
    assert (fitted.residual[UNSEEN] == 1).all()


def test_a_shape_that_the_head_lacks_is_left_over(mixed, fitted):
    """Without the cheeks' shape in its expressions the head cannot puff them, and the map says so."""
    head, mixture = mixed
    puff = ARKIT_NAMES.index("cheekPuff")
    # without the direction that cheekPuff alone has: coefficients of the other shapes stay
    others = np.linalg.qr(np.delete(mixture, puff, 1))[0]
    kept = head.shapedirs.copy()
    kept[:, :, head.n_identity :] = kept[:, :, head.n_identity :] @ (others @ others.T)
    lacking = head_map(replace(head, shapedirs=kept.astype(np.float32))).residual
    default = load_head()
    shapes = default.shapedirs[default.regions["face"]][:, :, default.n_identity :].reshape(-1, 52).astype(np.float64)
    place = default.expression_names.index("cheekPuff")
    wanted, rest = shapes[:, place], np.delete(shapes, place, 1)
    best = np.linalg.norm(wanted - rest @ np.linalg.lstsq(rest, wanted, rcond=None)[0]) / np.linalg.norm(wanted)
    assert lacking[puff] == pytest.approx(best, abs=0.07)  # what the other 51 cannot imitate
    assert lacking[puff] > 10 * fitted.residual[puff]
    assert lacking[ARKIT_NAMES.index("jawOpen")] < 0.1


def test_the_jaw_joint_counts_as_jaw_open(fitted, mixed):
    found = fitted.arkit_values(np.zeros((3, 52)), np.array([[0, 0, 0], [0.1, 0, 0], [0.25, 0, 0]]))
    opened = found[:, ARKIT_NAMES.index("jawOpen")]
    assert found[0].max() < 1e-6 and 0.05 < opened[1] < opened[2] and opened[2] > 0.2


def test_back_to_flame(fitted, mixed):
    """The surface is what counts: the jaw joint may do what a shape does, where both show the same face."""
    head, mixture = mixed
    values = faces(10)
    expr, jaw = fitted.flame_values(values)
    assert expr.shape == (10, 52) and jaw.shape == (10, 3)
    still = {"rotation": np.zeros((10, 3)), "neck_pose": np.zeros((10, 3)), "translation": np.zeros((10, 3))}
    shown, wanted, rest = (
        np.stack(list(track_vertices(talking_track(head, 10, **still, expr=e, jaw_pose=j), head)))[:, head.regions["face"]]
        for e, j in ((expr, jaw), (values @ mixture.T, 0 * jaw), (0 * expr, 0 * jaw))
    )
    assert np.sqrt(((shown - wanted) ** 2).mean()) < 0.2 * np.sqrt(((wanted - rest) ** 2).mean())


def test_live_link_of_a_flame_track(mixed, tmp_path):
    head, mixture = mixed
    values = faces(4)
    track = talking_track(head, 4, expr=values @ mixture.T, jaw_pose=np.zeros((4, 3)), eyes_pose=np.zeros((4, 6)))
    (name,) = export(track, head, "livelink", tmp_path)
    with (tmp_path / name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, wanted in zip(rows, values, strict=True):
        assert float(row["EyeBlinkLeft"]) == pytest.approx(wanted[ARKIT_NAMES.index("eyeBlinkLeft")], abs=0.1)
        assert float(row["EyeLookUpLeft"]) == 0
