"""GaussianAvatars' data set and NeRF's ``transforms.json``: laid out as their readers want them, cameras and poses on our own pixels."""

from __future__ import annotations

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from densemarks_model.errors import ModelError
from flame_assets.asset import save_npz
from tests.heads import flame_sized_head, tiny_head
from tests.tracks import filmed_track, talking_track
from tools.export import main
from tracker.camera import Camera
from tracker.errors import UserError
from tracker.evaluation.baselines.interface import Tracked
from tracker.export import export
from tracker.export.flame_params import load_track
from tracker.export.gaussian_avatars import centred
from tracker.export.head_masks import HeadMasks, refined
from tracker.head_track import HeadTrack
from tracker.track_vertices import track_vertices

HEAD = flame_sized_head()


@pytest.fixture(autouse=True)
def network(monkeypatch):
    """Replaced by one that cannot run; a test may put another in its place."""
    made = SimpleNamespace(found=None)

    def network_of(name: str):
        if made.found is None:
            raise ModelError("not here")
        return made.found

    monkeypatch.setattr("tracker.export.head_masks.fast_network", network_of)
    return made


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def pixels(points, frame):
    """By the keys of ``transforms.json`` alone: a camera-to-world matrix with OpenGL's axes."""
    matrix = np.array(frame["transform_matrix"])
    view = (points - matrix[:3, 3]) @ matrix[:3, :3]
    return np.stack([frame["cx"] - frame["fl_x"] * view[:, 0] / view[:, 2], frame["cy"] + frame["fl_y"] * view[:, 1] / view[:, 2]], 1)


def avatar_vertices(folder, frame, track):
    """The posed head from what the data set holds, as GaussianAvatars poses it."""
    with np.load(folder / frame["flame_param_path"], allow_pickle=False) as file:
        data = dict(file)
    one = track.select(np.array([frame["timestep_index_original"]]))
    fields = {name: getattr(one, name) for name in one.__dataclass_fields__}
    poses = {name: data[name] for name in ("rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation")}
    sized = {"shape": data["shape"][: HEAD.n_identity], "expr": data["expr"][:, : HEAD.n_expression]}
    return next(track_vertices(HeadTrack(**(fields | poses | sized)), HEAD)).astype(np.float64)


@pytest.fixture
def avatars(tmp_path):
    track, source = filmed_track(HEAD, tmp_path / "frames", 12)  # two frames in the middle have no head
    assert export(track, HEAD, "gaussian-avatars", tmp_path, source=source) == ["gaussian_avatars/"]
    return track, tmp_path / "gaussian_avatars"


def test_gaussian_avatars_finds_all_that_it_reads(avatars):
    track, folder = avatars
    whole, train, val, test = (read(folder / f"transforms{part}.json") for part in ("", "_train", "_val", "_test"))
    top = {"frames", "cx", "cy", "fl_x", "fl_y", "h", "w", "camera_angle_x", "camera_angle_y", "timestep_indices", "camera_indices"}
    each = (top - {"frames", "timestep_indices", "camera_indices"}) | {
        "timestep_index", "timestep_index_original", "timestep_id", "camera_index", "camera_id", "transform_matrix", "file_path",
        "fg_mask_path", "flame_param_path",
    }  # fmt: skip
    for part in (whole, train, val, test):
        assert top <= part.keys() and all(set(frame) == each for frame in part["frames"])
    assert [f["timestep_index"] for f in whole["frames"]] == list(range(10))  # no gaps, from 0
    assert [f["timestep_index_original"] for f in whole["frames"]] == np.flatnonzero(track.valid).tolist()
    assert [len(part["frames"]) for part in (train, val, test)] == [7, 0, 3]
    assert train["frames"] + test["frames"] == whole["frames"] and train["timestep_indices"] == list(range(7))
    assert all((folder / f[key]).is_file() for f in whole["frames"] for key in ("file_path", "fg_mask_path", "flame_param_path"))
    assert len(list((folder / "images").iterdir())) == 10
    assert whole["frames"][3]["file_path"] == "images/00003_00.png"
    assert whole["camera_angle_x"] == pytest.approx(2 * np.arctan(320 / 700))


def test_gaussian_avatars_parameters(avatars):
    track, folder = avatars
    shapes = {
        "translation": (1, 3), "rotation": (1, 3), "neck_pose": (1, 3), "jaw_pose": (1, 3), "eyes_pose": (1, 6), "shape": (300,), "expr": (1, 100),
        "static_offset": (1, 5143, 3),
    }  # fmt: skip
    for name in ("canonical_flame_param", *(f"flame_param/{k:05d}" for k in range(10))):
        with np.load(folder / f"{name}.npz", allow_pickle=False) as data:
            assert {key: data[key].shape for key in data.files} == shapes
            assert all(data[key].dtype == np.float32 for key in data.files)
    with np.load(folder / "canonical_flame_param.npz") as data:
        assert data["jaw_pose"].tolist() == [[pytest.approx(0.3), 0, 0]]
        np.testing.assert_array_equal(data["shape"][: HEAD.n_identity], track.shape.astype(np.float32))
        assert not any(data[key].any() for key in ("translation", "rotation", "neck_pose", "eyes_pose", "expr", "static_offset"))


def test_gaussian_avatars_lands_on_our_pixels_and_is_recentred(avatars):
    track, folder = avatars
    known = Tracked(track, HEAD)
    wanted = known.pixels(known.vertices)
    moved = []
    for frame in read(folder / "transforms.json")["frames"]:
        vertices = avatar_vertices(folder, frame, track)
        assert np.abs(pixels(vertices, frame) - wanted[frame["timestep_index_original"]]).max() < 0.1
        with np.load(folder / frame["flame_param_path"]) as data:
            moved.append(data["translation"][0])
    np.testing.assert_allclose(np.mean(moved, 0), 0, atol=1e-7)


def test_gaussian_avatars_pictures_are_on_white(avatars):
    _, folder = avatars
    for frame in read(folder / "transforms.json")["frames"][::4]:
        number = frame["timestep_index_original"]
        image, mask = cv2.imread(str(folder / frame["file_path"])), cv2.imread(str(folder / frame["fg_mask_path"]), cv2.IMREAD_UNCHANGED)
        noise = cv2.imread(str(folder.parent / "frames" / f"{number:05d}.png"))
        assert mask.shape == (360, 640) and 0.02 < (mask == 255).mean() < 0.7
        np.testing.assert_array_equal(image[mask == 255], noise[mask == 255])
        assert (image[mask == 0] == 255).all()


def test_a_principal_point_off_the_middle_widens_the_pictures(tmp_path):
    track, source = filmed_track(HEAD, tmp_path / "frames", 3, principal_point=np.array([300.25, 190.0]))
    export(track, HEAD, "gaussian-avatars", tmp_path, source=source)
    folder = tmp_path / "gaussian_avatars"
    frame = read(folder / "transforms.json")["frames"][0]
    assert (frame["w"], frame["h"], frame["cx"], frame["cy"]) == (680, 380, 340, 190)
    known = Tracked(track, HEAD)
    shift = np.array([340, 190]) - [300.25, 190]
    wanted = known.pixels(known.vertices)[0] + shift
    assert np.abs(pixels(avatar_vertices(folder, frame, track), frame) - wanted).max() < 0.1
    assert cv2.imread(str(folder / frame["file_path"])).shape == (380, 680, 3)
    assert centred(Camera(700, 320, 180, 640, 360))[0] == Camera(700, 320, 180, 640, 360)


def test_nerf_sees_one_still_head_from_moving_cameras(tmp_path):
    """Points that move with the skull alone: pupils looking ahead, the top of the head."""
    head = tiny_head()
    track, source = filmed_track(head, tmp_path / "frames", 8, principal_point=np.array([318.0, 183.0]))
    export(track, head, "nerf", tmp_path, source=source)
    content = read(tmp_path / "nerf" / "transforms.json")
    assert [f["timestep_index"] for f in content["frames"]] == np.flatnonzero(track.valid).tolist()
    crown = np.flatnonzero((head.weights[:, 1] > 0.9999) & (np.abs(head.posedirs).max((1, 2)) < 1e-5) & (np.abs(head.shapedirs[..., 6:]).max((1, 2)) == 0))
    assert len(crown) > 30
    rest = head.v_template + head.shapedirs[..., : head.n_identity] @ track.shape
    known = Tracked(track, head)
    wanted = known.pixels(known.vertices)
    for frame in content["frames"]:
        seen = pixels(rest[crown], {**content, **frame})
        np.testing.assert_allclose(seen, wanted[frame["timestep_index"]][crown], atol=0.1)
        assert np.array_equal(
            cv2.imread(str(tmp_path / "nerf" / frame["file_path"])), cv2.imread(str(tmp_path / "frames" / f"{frame['timestep_index']:05d}.png"))
        )
        assert np.linalg.det(np.array(frame["transform_matrix"])[:3, :3]) == pytest.approx(1)
    assert content["mask_source"].startswith("silhouette")


class Disc:
    """A network that sees a disc of half the crop's side."""

    image_size = 96

    def __call__(self, crops):
        y, x = np.mgrid[:48, :48] + 0.5
        return SimpleNamespace(confidence=(np.hypot(x - 24, y - 24) < 12).astype(np.float32)[None])


class Nothing(Disc):
    def __call__(self, crops):
        return SimpleNamespace(confidence=np.zeros((1, 48, 48), np.float32))


@pytest.mark.parametrize("sees", [Disc, Nothing])
def test_the_networks_mask_comes_back_in_the_frame(sees, network):
    network.found = sees()
    track = talking_track(HEAD, 1, rotation=np.zeros((1, 3)), neck_pose=np.zeros((1, 3)), translation=np.zeros((1, 3)))
    vertices = next(track_vertices(track, HEAD))
    masks = HeadMasks(HEAD, track.camera)
    crop = masks._crop(vertices)
    y, x = np.mgrid[:360, :640] + 0.5
    far = np.hypot(x - crop.center[0], y - crop.center[1]) / crop.side
    noise = np.random.default_rng(0).integers(-9, 10, (360, 640, 3))
    mask = masks.mask((np.where(far[..., None] < 0.25, 180, 60) + noise).astype(np.uint8), vertices)
    if sees is Nothing:
        assert masks.by_silhouette == 1 and masks.words.startswith("silhouette")
        return
    assert (mask[far < 0.22] == 255).all() and (mask[far > 0.28] == 0).all()
    assert masks.words == "embedding network, refined by GrabCut"


def test_silhouettes_cover_the_head(network):
    track = talking_track(HEAD, 1)
    vertices = next(track_vertices(track, HEAD))
    known = Tracked(track, HEAD)
    at = known.pixels(known.vertices)[0]
    at = at[(at > 1).all(1) & (at < [638, 358]).all(1)].astype(int)
    mask = HeadMasks(HEAD, track.camera).mask(np.zeros((360, 640, 3), np.uint8), vertices)
    assert (mask[at[:, 1], at[:, 0]] > 250).all()
    box = np.ptp(at, axis=0)
    assert (mask > 0).sum() < 1.2 * 1.1 * box[0] * box[1]


def test_colours_decide_along_a_vague_outline():
    """The network's outline is four pixels too wide; the picture's own is where the colours change."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:200, :200]
    far = np.hypot(x - 100, y - 100)
    true = far < 60
    picture = np.where(true[..., None], (200, 150, 120), (40, 60, 50)) + rng.integers(-15, 16, (200, 200, 3))
    said = np.clip((64 - far) / 20 + 0.5, 0, 1)
    before, after = ((m & true).sum() / (m | true).sum() for m in (said > 0.5, refined(picture.astype(np.uint8), said)))
    assert before < 0.9 and after > 0.99


def test_another_video_is_one_line(tmp_path, capsys):
    track, _ = filmed_track(HEAD, tmp_path / "frames", 3)
    export(track, HEAD, "npz", tmp_path / "clip")
    save_npz(HEAD, tmp_path / "head.npz")
    options = [str(tmp_path / "clip"), "--head", str(tmp_path / "head.npz"), "--to", "nerf,gaussian-avatars"]
    assert main(options) == 2
    assert "it holds the video's pictures" in capsys.readouterr().err
    filmed_track(HEAD, tmp_path / "others", 3, image_size=np.array([180, 320]))
    assert main([*options, "--video", str(tmp_path / "others")]) == 2
    assert "320×180, but the tracked video has 640×360" in capsys.readouterr().err
    filmed_track(HEAD, tmp_path / "shorter", 2)
    assert main([*options, "--video", str(tmp_path / "shorter")]) == 2
    assert "no frame at 0.080 s" in capsys.readouterr().err
    assert {p.name for p in (tmp_path / "clip").iterdir()} == {"flame_params.npz"}
    assert main([*options, "--video", str(tmp_path / "frames"), "--quiet"]) == 0
    assert {p.name for p in (tmp_path / "clip").iterdir()} == {"flame_params.npz", "gaussian_avatars", "nerf"}
    assert load_track(tmp_path / "clip" / "flame_params.npz").n_frames == 3


def test_a_track_without_a_head_has_nothing_to_write(tmp_path):
    track, source = filmed_track(HEAD, tmp_path / "frames", 2, valid=np.zeros(2, bool))
    with pytest.raises(UserError, match="tracked in no frame"):
        export(track, HEAD, "nerf", tmp_path, source=source)
