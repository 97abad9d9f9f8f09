"""Published protocols on small data that the tests write: known poses, known distances."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import trimesh
from scipy.io import savemat
from scipy.spatial.transform import Rotation
from trimesh.creation import icosphere

from flame_assets.load import load_head
from flame_assets.surface_points import Surface, closest_barycentrics
from tracker.errors import UserError
from tracker.evaluation.baselines import Tracked
from tracker.evaluation.protocols import aflw2000, now, svfr
from tracker.head_track import HeadTrack

# --- AFLW2000-3D ----------------------------------------------------------------------------------------------------


def test_aflw_signs():
    """Each angle alone: up, towards the picture's left, clockwise in the picture."""
    forward, right = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0])
    up, left, clockwise = (aflw2000.rotations(np.array([a]))[0] for a in ([30, 0, 0], [0, 30, 0], [0, 0, 30]))
    assert (up @ forward)[1] == pytest.approx(0.5) and (left @ forward)[0] == pytest.approx(-0.5)
    assert (clockwise @ right)[1] == pytest.approx(-0.5)  # y is up: the head's right-hand end sinks


def test_aflw_axes_are_drawn_where_the_datasets_tools_draw_them():
    """The projected axes for pitch p, yaw y, roll r, as head-pose papers draw them (image axes, y down)."""
    p, y, r = np.radians([20.0, -50.0, 15.0])
    matrix = aflw2000.rotations(np.degrees([[p, y, r]]))[0]
    x_axis = [np.cos(-y) * np.cos(r), np.cos(p) * np.sin(r) + np.cos(r) * np.sin(p) * np.sin(-y)]
    z_axis = [np.sin(-y), -np.cos(-y) * np.sin(p)]
    np.testing.assert_allclose(matrix[:2, 0] * [1, -1], x_axis, atol=1e-12)
    np.testing.assert_allclose(matrix[:2, 2] * [1, -1], z_axis, atol=1e-12)


def test_aflw_angles_come_back():
    angles = np.random.default_rng(0).uniform(-80, 80, (50, 3))
    np.testing.assert_allclose(aflw2000.angles_deg(aflw2000.rotations(angles)), angles, atol=1e-9)


def test_aflw_files_are_read_filtered_and_scored(tmp_path):
    for name, angles in {"image1": [10, -20, 5], "image2": [0, 98, 0], "image3": [0, 120, 0], "image4": [1, 2, 179]}.items():
        pose = np.array([[*np.radians(angles), 100, 120, -50, 0.001]])
        savemat(tmp_path / f"{name}.mat", {"Pose_Para": pose, "pt3d_68": np.zeros((3, 68))})
    truth = aflw2000.read_poses(tmp_path)
    assert set(truth) == {"image1", "image2"}
    np.testing.assert_allclose(truth["image1"], [10, -20, 5], atol=1e-5)
    scores = aflw2000.score({"image1": np.array([12.0, -19, 5]), "image2": np.array([0.0, 95, 4])}, truth)
    assert (scores.pitch, scores.yaw, scores.roll) == pytest.approx((1.0, 2.0, 2.0), abs=1e-4)
    assert scores.mean == pytest.approx(5 / 3, abs=1e-4) and scores.missing == 0
    around = aflw2000.score({"a": np.array([0.0, 0, -179])}, {"a": np.array([0.0, 0, 179])})
    assert around.roll == pytest.approx(2)
    assert aflw2000.score({"image1": truth["image1"]}, truth).missing == 1


def test_aflw_errors_are_one_line(tmp_path):
    with pytest.raises(UserError, match="no \\*"):
        aflw2000.read_poses(tmp_path)
    (tmp_path / "image1.mat").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"image1\.mat"):
        aflw2000.read_poses(tmp_path)


# --- NoW ------------------------------------------------------------------------------------------------------------


def landmarks_of(vertices: np.ndarray) -> np.ndarray:
    head = load_head(None)
    return head.landmarks["ibug68"].positions(vertices, head.faces)[list(now.IBUG_LANDMARKS)]


def test_closest_points_by_hand():
    square = np.array([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [2, 2, 0]])
    faces = np.array([[0, 1, 2], [1, 3, 2]])
    points = np.array([[0.5, 0.5, 3.0], [-1.0, 1.0, 0.0], [3.0, 3.0, 1.0], [1.0, -2.0, 0.5]])
    found = Surface(square, faces).nearest(points).points
    np.testing.assert_allclose(found, [[0.5, 0.5, 0], [0, 1, 0], [2, 2, 0], [1, 0, 0]], atol=1e-12)


def test_no_triangle_is_overlooked_however_large_or_flat():
    rng = np.random.default_rng(4)
    small = icosphere(subdivisions=3, radius=1.0)
    vertices = np.concatenate([small.vertices, [[-30.0, -30, 1.2], [30, -30, 1.1], [0, 40, 1.3], [2, 0, 0], [3, 0, 0], [4, 0, 0]]])
    n = len(small.vertices)
    faces = np.concatenate([small.faces, [[n, n + 1, n + 2], [n + 3, n + 5, n + 4]]])  # one large, one without an area
    points = rng.normal(0, 1.5, (300, 3))
    points[:20] = np.column_stack([rng.uniform(2, 4, 20), rng.normal(0, 0.05, (20, 2))])
    hits = Surface(vertices, faces).nearest(points)
    corners = vertices[faces]
    everywhere = np.einsum("nfk,fkc->nfc", closest_barycentrics(points[:, None], corners[None]), corners)
    least = np.linalg.norm(everywhere - points[:, None], axis=2).min(1)
    np.testing.assert_allclose(np.linalg.norm(hits.points - points, axis=1), least, atol=1e-12)
    np.testing.assert_allclose(np.einsum("nk,nkc->nc", hits.barycentrics, corners[hits.faces]), hits.points, atol=1e-12)
    assert Surface(vertices, faces).nearest(points[:0]).points.shape == (0, 3)
    # a line's nearest points by hand
    np.testing.assert_allclose(closest_barycentrics(np.array([2.5, 1.0, 0.0]), corners[-1]) @ corners[-1], [2.5, 0, 0], atol=1e-12)
    assert len({int(f) for f in hits.faces} & {len(faces) - 1, len(faces) - 2}) == 2


def test_the_same_head_has_no_distance_whatever_its_pose_and_size():
    head = load_head(None)
    scan = 1000 * head.v_template.astype(np.float64)
    turn = Rotation.from_rotvec([0.2, -0.7, 0.1]).as_matrix()
    mesh = 0.013 * head.v_template @ turn.T + [0.3, -0.2, 0.1]
    distance = now.scan_distances(scan, landmarks_of(scan), mesh, head.faces, landmarks_of(mesh))
    assert distance.max() < 0.01


def test_a_known_distance_between_spheres():
    """A scan with bumps of known height on a sphere: the refined fit lies between them."""
    ball = icosphere(subdivisions=4, radius=80.0)
    outside = np.asarray(ball.vertices)
    height = np.where(np.arange(len(outside)) % 2 == 0, 1.0, -1.0)
    scan = outside * (1 + height / 80)[:, None]
    corners = np.array([[-45, 30, 58], [-15, 30, 72], [15, 30, 72], [45, 30, 58], [0, -5, 79], [-25, -35, 67], [25, -35, 67.0]])
    on_ball = 80 * corners / np.linalg.norm(corners, axis=1, keepdims=True)
    wrong = on_ball + np.random.default_rng(0).normal(0, 2, on_ball.shape)  # landmarks are never exact
    distance = now.scan_distances(scan, on_ball, outside, np.asarray(ball.faces), wrong)
    assert np.median(distance) == pytest.approx(1.0, abs=0.1)
    small = now.scan_distances(scan, on_ball, 0.9 * outside, np.asarray(ball.faces), 0.9 * on_ball)
    kept = now.scan_distances(scan, on_ball, 0.9 * outside, np.asarray(ball.faces), 0.9 * on_ball, metrical=True)
    assert np.median(small) == pytest.approx(1.0, abs=0.1)
    assert np.median(kept) > 1.2  # a ball a tenth too small cannot lie on the scan


def test_only_the_face_counts():
    marks = np.array([[-45, 0, 0], [-15, 0, 0], [15, 0, 0], [45, 0, 0], [0, -40, 10], [-25, -60, 0], [25, -60, 0.0]])
    bridge = np.array([0.0, 0, 0])
    centre = marks[4] + 0.3 * (bridge - marks[4])
    radius = 0.7 * (90 + np.hypot(40, 10))
    near, far = centre + np.array([radius - 1, 0, 0]), centre + np.array([0, 0, radius + 1])
    assert now.face_region(np.array([near, far]), marks).tolist() == [True, False]


def test_distances_are_pooled_over_scans():
    scores = now.pooled([np.array([1.0, 2.0]), np.array([3.0, 4.0, 10.0])])
    assert (scores.median, scores.mean) == (3.0, 4.0) and scores.std == pytest.approx(np.std([1, 2, 3, 4, 10]))


def test_landmark_files(tmp_path):
    file = tmp_path / "scan_picked_points.txt"
    points = np.random.default_rng(0).normal(0, 50, (7, 3))
    file.write_text("\n".join(",".join(str(v) for v in p) for p in points) + "\n")
    np.testing.assert_allclose(now.read_landmarks(file), points)
    file.write_text("1 2 3\n")
    with pytest.raises(UserError, match="seven points"):
        now.read_landmarks(file)


# --- NeRSemble SVFR -------------------------------------------------------------------------------------------------


def still_head() -> Tracked:
    head = load_head(None)
    expr = np.zeros((1, head.n_expression))
    expr[0, head.expression_names.index("jawOpen")] = 0.8
    zero = np.zeros((1, 3))
    track = HeadTrack(
        rotation=np.array([[0.1, 0.4, 0.0]]), neck_pose=zero, jaw_pose=zero, eyes_pose=np.zeros((1, 6)),
        translation=np.array([[0.0, 0.0, 0.4]]), shape=np.random.default_rng(0).normal(0, 1, head.n_identity), expr=expr,
        focal_px=900.0, principal_point=np.array([256.0, 256.0]), image_size=np.array([512, 512]), timestamps=np.zeros(1),
        valid=np.ones(1, bool), confidence=np.ones(1), timestep_id=np.array(["0"]), expression_names=head.expression_names,
        head_name=head.name, head_sha256=head.sha256(), frame_rate=1.0,
    )  # fmt: skip
    return Tracked(track, head)


def test_svfr_archive_has_the_promised_files(tmp_path):
    for folder in ("017/EMO-1-shout+laugh_156_221501007", "017/EXP-4-lips_6_221501007", "readme/nothing_1_2"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        (tmp_path / "data" / folder / "rgb.png").write_bytes(b"")
    pictures = svfr.find_pictures(tmp_path / "data")
    assert [(p.participant, p.sequence, p.timestep, p.serial) for p in pictures] == [
        (17, "EMO-1-shout+laugh", 156, "221501007"), (17, "EXP-4-lips", 6, "221501007"),
    ]  # fmt: skip
    tracked = still_head()
    assert svfr.write_submission(tmp_path / "out.zip", [(p, tracked) for p in pictures]) == 2
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        names = set(archive.namelist())
        assert {n.rsplit("/", 1)[0] for n in names} == {"017/EMO-1-shout+laugh_156_221501007", "017/EXP-4-lips_006_221501007"}
        folder = "017/EXP-4-lips_006_221501007"
        posed, neutral = (trimesh.load(io.BytesIO(archive.read(f"{folder}/mesh_{t}.ply")), "ply", process=False) for t in ("posed", "neutral"))
        marks = {t: np.load(io.BytesIO(archive.read(f"{folder}/landmarks_{t}.npy")), allow_pickle=False) for t in ("posed", "neutral")}
    assert len(posed.vertices) == len(neutral.vertices) == tracked.head.n_vertices
    np.testing.assert_allclose(posed.vertices, tracked.vertices[0], atol=1e-6)
    assert all(m.shape == (7, 3) for m in marks.values())
    # the landmarks lie on the mesh that they come with, the subject's right eye (the picture's left) first
    for mesh, name in ((posed, "posed"), (neutral, "neutral")):
        on_mesh = Surface(np.asarray(mesh.vertices), np.asarray(mesh.faces)).nearest(marks[name]).points
        np.testing.assert_allclose(on_mesh, marks[name], atol=1e-5)
    assert marks["neutral"][0, 0] < marks["neutral"][1, 0] < marks["neutral"][2, 0] < marks["neutral"][3, 0]
    # neutral means: no open jaw
    gap = [np.linalg.norm(m[4] - m[5:].mean(0)) for m in marks.values()]
    assert gap[0] > gap[1]


def test_svfr_without_pictures_or_results(tmp_path):
    with pytest.raises(UserError, match="no pictures"):
        svfr.find_pictures(tmp_path)
    with pytest.raises(UserError, match="nothing to write"):
        svfr.write_submission(tmp_path / "out.zip", [])
    assert not list(tmp_path.iterdir())
