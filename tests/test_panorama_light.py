"""Light and backgrounds from panoramas: no light is lost, it comes from where the picture shows it, and files are checked."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from densemarks_model.crops import HeadCrop
from densemarks_model.data import panoramas
from densemarks_model.data.panoramas import Panorama
from densemarks_model.data.synthetic import effects, light, noise
from densemarks_model.data.synthetic.__main__ import main
from densemarks_model.data.synthetic.mesh import CLOTH, EYE, PLASTIC, SKIN
from densemarks_model.data.synthetic.people import Pose, pose_head, random_expression, random_person
from densemarks_model.data.synthetic.repertoire import FULL, PLAIN
from densemarks_model.data.synthetic.scene import SceneRenderer
from densemarks_model.data.synthetic.shading import shade
from densemarks_model.data.synthetic.views import View
from densemarks_model.errors import ModelError
from flame_assets import downloads

ROWS, COLUMNS = 64, 128


def _unit(x: float, y: float, z: float) -> np.ndarray:
    return np.array([x, y, z]) / np.linalg.norm([x, y, z])


def _panorama(towards: np.ndarray, strength: float = 400.0) -> Panorama:
    """A blue sky, a brown ground, and a yellow sun of 4 degrees' radius."""
    w = panoramas.directions(ROWS, COLUMNS)
    sky = np.array([0.3, 0.5, 0.9]) * (0.6 + 0.4 * w[..., 1:2])
    radiance = np.where(w[..., 1:2] > 0, sky, np.array([0.25, 0.18, 0.1]))
    radiance = radiance + strength * np.array([1.0, 0.9, 0.6]) * (w @ towards > np.cos(np.deg2rad(4)))[..., None]
    return Panorama("made up", radiance.astype(np.float32))


def _world(panorama: Panorama, to_world: np.ndarray) -> light.World:
    return light.World(panorama, light.split(panorama), to_world, np.ones(3))


def _sphere(n: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Normals of a ball seen by a far camera ``(n, n, 3)``, row 0 at the bottom, and where it is."""
    at = (np.arange(n) + 0.5) / n * 2 - 1
    x, y = np.meshgrid(at, at)
    inside = x * x + y * y < 0.95
    return np.stack([x, y, np.sqrt(np.maximum(1 - x * x - y * y, 0))], -1), inside


def _shaded(lighting: light.Lighting, kind: int, albedo: float, gloss: float) -> tuple[np.ndarray, np.ndarray]:
    """Colours of a far ball's pixels ``(n, 3)`` and their normals: every pixel is a triangle of its own."""
    normals, inside = _sphere()
    normals = normals[inside]
    count = len(normals)
    rast = np.zeros((1, count, 4), np.float32)
    rast[0, :, 0], rast[0, :, 3] = 1, np.arange(count) + 1
    tri = np.repeat(np.arange(count, dtype=np.int32)[:, None], 3, 1)
    positions = (np.array([0, 0, -1e5]) + normals).astype(np.float32)
    details = np.tile(np.array([1, 0, gloss, 0], np.float32), (count, 1))
    out = np.zeros((1, count, 3), np.float32)
    shade(
        rast, tri, np.full(count, kind), positions, normals.astype(np.float32), positions, np.full((count, 3), albedo, np.float32), details,
        noise.volume(), np.zeros(3), np.zeros(8), lighting.lights, lighting.ambient, np.zeros((0, 8, 8), np.float32), np.zeros((0, 3, 4), np.float32),
        np.array([0, 0, -1e5, lighting.hair_spread], np.float32), lighting.scatter, lighting.mirrored, lighting.to_world, out,
    )  # fmt: skip
    return out[0], normals


def _irradiance(lighting: light.Lighting, normals: np.ndarray) -> np.ndarray:
    """What unshadowed white surfaces send back, ``(n, 3)``: the shading's formula for lights and ambient light, in plain sight."""
    x, y, z = normals.T
    basis = np.stack([np.ones_like(x), x, y, z, x * y, y * z, z * x, x * x - y * y, 2 * z * z - x * x - y * y], 1)
    return basis @ lighting.ambient + np.maximum(normals @ lighting.lights[:, :3].T, 0) @ lighting.lights[:, 3:6]


@pytest.mark.parametrize("seed", range(3))
def test_lights_and_rest_are_the_panoramas_irradiance(seed):
    rng = np.random.default_rng(seed)
    panorama = _panorama(_unit(*rng.normal(size=3)), float(rng.uniform(0, 800)))
    normals = rng.normal(size=(200, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    turn = Rotation.random(random_state=seed).as_matrix()
    weight = panorama.radiance * panoramas.solid_angles(ROWS, COLUMNS)[..., None] / np.pi
    towards = panoramas.directions(ROWS, COLUMNS).reshape(-1, 3)
    truth = np.maximum(normals @ turn.T @ towards.T, 0) @ weight.reshape(-1, 3)
    ours = _irradiance(_world(panorama, turn).lighting(), normals)
    assert np.abs(ours - truth).mean() < 0.02 * truth.mean()
    assert np.abs(ours - truth).max() < 0.08 * truth.mean()


def test_no_light_is_lost_or_counted_twice():
    panorama = _panorama(_unit(1, 1, 0.2))
    parts = light.split(panorama)
    whole = (panorama.radiance * panoramas.solid_angles(ROWS, COLUMNS)[..., None]).sum((0, 1)) / np.pi
    np.testing.assert_allclose(parts.lights[:, 3:6].sum(0) + parts.moments[0], whole, rtol=1e-4)
    assert panoramas.solid_angles(ROWS, COLUMNS).sum() * COLUMNS == pytest.approx(4 * np.pi, rel=1e-5)


@pytest.mark.parametrize("towards", [_unit(1, 0.4, 0.3), _unit(-0.2, 0.9, -0.4), _unit(0.01, 0.1, 1)])
def test_the_sun_is_the_first_light(towards):
    parts = light.split(_panorama(towards))
    assert np.degrees(np.arccos(parts.lights[0, :3] @ towards)) < 2
    assert parts.lights[0, 3] > parts.lights[0, 5]  # yellow


def test_an_even_world_has_no_lights():
    parts = light.split(Panorama("fog", np.ones((ROWS, COLUMNS, 3), np.float32)))
    assert len(parts.lights) == 0
    lighting = _world(Panorama("fog", np.ones((ROWS, COLUMNS, 3), np.float32)), np.eye(3)).lighting()
    np.testing.assert_allclose(_irradiance(lighting, np.eye(3)), 1, rtol=1e-3)


def test_median_cut_halves_the_light():
    energy = np.random.default_rng(0).uniform(0.5, 1, (ROWS, COLUMNS))
    regions = light.median_cut(energy, 4)
    covered = np.zeros((ROWS, COLUMNS), int)
    for region in regions:
        covered[region] += 1
    assert len(regions) == 16 and (covered == 1).all()
    shares = np.array([energy[r].sum() for r in regions]) / energy.sum() * 16
    assert shares.min() > 0.75 and shares.max() < 1.3


def test_shading_follows_the_formula():
    """A matt ball without shadows: albedo times irradiance, for a panorama and for light from above and below."""
    for lighting in (_world(_panorama(_unit(1, 0.5, 0.7)), light.camera_turn(0.3, 0.2, 0.1)).lighting(), light.formula(np.random.default_rng(4))):
        colours, normals = _shaded(lighting, PLASTIC, 0.5, 0.0)
        np.testing.assert_allclose(colours, 0.5 * _irradiance(lighting, normals), atol=2e-3)
    lights, (above, below) = light.random_lights(np.random.default_rng(4))
    up = 0.5 + 0.5 * normals[:, 1:2]
    direct = np.maximum(normals @ lights[:, :3].T, 0) @ lights[:, 3:6]
    np.testing.assert_allclose(colours, 0.5 * (below + (above - below) * up + direct), atol=2e-3)


def test_skin_glows_into_the_dark_in_red():
    lighting = _world(_panorama(_unit(1, 0, 0.05)), np.eye(3)).lighting()
    skin, normals = _shaded(lighting, SKIN, 0.5, 0.0)
    cloth, _ = _shaded(lighting, CLOTH, 0.5, 0.0)
    edge = np.abs(normals @ lighting.lights[0, :3]) < 0.05
    assert (skin[edge, 0] > cloth[edge, 0]).all()
    np.testing.assert_allclose(skin[edge, 2], cloth[edge, 2], atol=2e-3)


def test_eyes_mirror_the_panorama():
    sun = _unit(0.6, 0.4, 0.7)
    world = _world(_panorama(sun), np.eye(3))
    colours, normals = _shaded(world.lighting(), EYE, 0.0, 1.0)
    half = _unit(*(sun + np.array([0, 0, 1])))
    assert normals[np.argmax(colours.sum(1))] @ half > 0.995


@pytest.mark.parametrize("roll", [0.0, 0.5])
def test_what_is_seen_is_where_the_camera_looks(roll):
    """The sun stands in the background where a far point in its direction is projected to."""
    to_world = light.camera_turn(2.0, -0.2, 0.15)
    camera = _unit(0.25, 0.3, -1)  # the sun, in camera space
    world = _world(_panorama(to_world @ camera), to_world)
    view = View(np.eye(3), np.zeros(3), HeadCrop(np.array([0.1, -0.15]), 1.0, roll), 0.0, 0.0)
    x, y, _, w = view.clip(20 * camera[None])[0]
    picture = effects.seen(world, view.crop, 128)
    row, column = np.unravel_index(picture.sum(2).argmax(), (128, 128))
    # clip space is y up: rows of the rasteriser start at the bottom
    assert abs(column + 0.5 - (x / w + 1) * 64) < 6 and abs(row + 0.5 - (1 - y / w) * 64) < 6
    assert picture.sum(2).max() > 20 * np.median(picture.sum(2))
    assert np.degrees(np.arccos(world.lighting().lights[0, :3] @ camera)) < 2


def test_the_head_is_bright_on_the_suns_side():
    person = random_person(np.random.default_rng(0))
    head, _, _ = pose_head(person, random_expression(np.random.default_rng(1)), Pose(np.zeros(3), np.zeros(6)))
    view = View(np.eye(3), np.array([0.0, 0.0, -0.8]) - person.rest.mean(0), HeadCrop(np.zeros(2), 0.45), 0.0, 0.0)
    posed = head.moved(view.rotation, view.translation)
    renderer, ratio = SceneRenderer(64, 16, PLAIN), []
    for side in (-1, 1):
        world = _world(_panorama(_unit(side, 0.2, 0.1)), np.eye(3))
        linear, parts = renderer.draw([posed], person, view, np.random.default_rng(2), world)
        shown = linear.mean(2) * parts[::2, ::2]
        ratio.append(shown[:, 32:].sum() / shown[:, :32].sum())
    assert ratio[0] < 0.6 and ratio[1] > 1.6


@pytest.fixture
def made_up(monkeypatch):
    """Panoramas without a cache or a network."""
    monkeypatch.setattr(panoramas, "available", lambda: True)
    monkeypatch.setattr(panoramas, "panoramas", lambda: [_panorama(_unit(1, 0.5, 0)), _panorama(_unit(0, 1, 0.2))])
    light._prepared.cache_clear()
    yield
    light._prepared.cache_clear()


def test_pictures_are_lit_by_the_share_that_the_repertoire_says(made_up):
    worlds = [light.random_world(0.75, np.random.default_rng([1, k, 3])) for k in range(200)]
    assert 0.65 < np.mean([w is not None for w in worlds]) < 0.85
    assert light.random_world(0.0, np.random.default_rng(0)) is None
    up = np.array([0.0, 0.5, 0.8])  # the body leans towards the camera: it looks down, or the body bows
    looks = [light.random_world(1.0, np.random.default_rng(k), up).to_world @ [0, 0, -1] for k in range(50)]
    assert -0.7 < np.mean([look[1] for look in looks]) < -0.2


def test_a_lit_sample_is_repeatable(made_up):
    first, again = (SceneRenderer(64, 16, FULL).sample(3, 4) for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)


def test_plain_pictures_never_ask_for_a_panorama(monkeypatch):
    def refuse() -> bool:
        raise AssertionError("asked for a panorama")

    monkeypatch.setattr(panoramas, "available", refuse)
    monkeypatch.setattr(panoramas, "panoramas", refuse)
    assert SceneRenderer(64, 16, PLAIN).sample(3, 4).image.std() > 1


def test_without_panoramas_in_the_cache_the_formula_lights(monkeypatch):
    monkeypatch.setattr(panoramas, "available", lambda: False)
    assert light.random_world(1.0, np.random.default_rng(0)) is None


def _archive(path, content: bytes):
    with tarfile.open(path, "w:gz") as package:
        script = b"export default 'data:application/exr;base64," + base64.b64encode(content) + b"'"
        info = tarfile.TarInfo("package/hdri/place.exr.js")
        info.size = len(script)
        package.addfile(info, io.BytesIO(script))
    return path


def test_files_are_checked(tmp_path):
    path = _archive(tmp_path / "package.tgz", b"light")
    digest = hashlib.sha256(b"light").hexdigest()
    assert panoramas.unpack(path, {"place": digest}) == {"place": b"light"}
    with pytest.raises(ModelError, match="place is not the panorama"):
        panoramas.unpack(path, {"place": hashlib.sha256(b"other").hexdigest()})
    with pytest.raises(ModelError, match="not the archive"):
        panoramas.unpack(path, {"elsewhere": digest})


def test_suns_that_lost_red_and_green_get_them_back():
    radiance = np.full((32, 64, 3), [0.2, 0.3, 0.5], np.float32)
    radiance[8:13, 18:23] = [16, 12, 8]
    radiance[9:12, 19:22] = [0, 0, -3]
    radiance[10, 20] = [0, 0, 4000]
    mended = panoramas.mended(radiance)
    np.testing.assert_allclose(mended[10, 20], [8000, 6000, 4000], rtol=1e-4)
    assert mended.min() > 0.1 and np.array_equal(mended[0], radiance[0])


def test_the_command_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(panoramas, "_exr", lambda: None)
    monkeypatch.setattr(downloads.shutil, "which", lambda name: None)
    monkeypatch.setattr(panoramas, "_file", lambda cache: tmp_path / "none.npz")
    assert main(["--out", str(tmp_path / "shards"), "--count", "4"]) == 2
    message = capsys.readouterr().err.strip()
    assert message.count("\n") == 0 and "npm" in message and "--no-panoramas" in message
