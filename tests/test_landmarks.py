"""Landmarks of a real face: found in every frame, in their place, of one subject; and kept on disk, not in memory."""

from __future__ import annotations

import os
import tracemalloc
import zipfile

import cv2
import numpy as np
import pytest

from tracker.errors import UserError
from tracker.landmarks import landmark_schemes as schemes
from tracker.landmarks.detection import Detection, LandmarkSource
from tracker.landmarks.mediapipe_detector import DEFAULT_MODEL, FaceLandmarker, shape_change, square_tiles
from tracker.landmarks.mediapipe_graph import Graph, quiet_stderr
from tracker.observe.landmark_store import LandmarkStore
from tracker.video import open_video
from tracker.video.packaged_clips import EXCERPT

STEP = 0.04


@pytest.fixture(scope="module")
def frames():
    with open_video(EXCERPT) as video:
        return list(video)


@pytest.fixture(scope="module")
def track(frames):
    with FaceLandmarker() as detector:
        return [detector.detect(frame.image, frame.timestamp) for frame in frames]


@pytest.fixture(scope="module")
def face(frames, track):
    """A 320x320 cut with the face in its middle, and its landmarks there."""
    image, points = frames[0].image, track[0].points
    centre = points.mean(0)
    left = int(np.clip(centre[0] - 160, 0, image.shape[1] - 320))
    return image[20:340, left : left + 320], points - (left, 20)


def inter_ocular(points):
    return float(np.linalg.norm(points[schemes.INTER_OCULAR[0]] - points[schemes.INTER_OCULAR[1]]))


def test_every_frame_of_the_excerpt_is_found(frames, track):
    assert len(track) == 112 and all(found is not None for found in track)
    first = track[0]
    assert first.points.shape == (478, 2) and first.points.dtype == np.float32
    assert first.depth.shape == (478,) and first.blendshapes.shape == (52,) and first.matrix.shape == (4, 4)
    for found in track:
        assert 0 <= found.confidence <= 1
        assert 0 <= found.blendshapes.min() and found.blendshapes.max() <= 1
        # nose before the ears
        assert found.depth[1] < found.depth[234] and found.depth[1] < found.depth[454]
    assert np.median([found.confidence for found in track]) > 0.9


def test_left_is_the_subjects_left(track):
    points = track[0].points
    # she faces the camera, so her right is on the picture's left
    for right, left in (
        (schemes.RIGHT_IRIS, schemes.LEFT_IRIS),
        (schemes.RIGHT_LIDS, schemes.LEFT_LIDS),
        (schemes.RIGHT_BROW, schemes.LEFT_BROW),
    ):
        assert points[list(right), 0].mean() < points[list(left), 0].mean()
    assert schemes.INTER_OCULAR[0] in schemes.RIGHT_LIDS and schemes.INTER_OCULAR[1] in schemes.LEFT_LIDS


def test_groups_are_distinct_and_lie_where_their_names_say(track):
    groups = schemes.landmark_groups()
    every = [i for group in groups.values() for i in group]
    assert len(every) == len(set(every)) and min(every) >= 0 and max(every) < schemes.N_LANDMARKS
    points = track[0].points
    unit = inter_ocular(points)
    mean = {name: points[list(group)].mean(0) for name, group in groups.items()}
    assert mean["brows"][1] < mean["lids"][1] < mean["nose"][1] < mean["lips"][1]
    for iris, lids in ((schemes.RIGHT_IRIS, schemes.RIGHT_LIDS), (schemes.LEFT_IRIS, schemes.LEFT_LIDS)):
        assert np.linalg.norm(points[iris[0]] - points[list(lids)].mean(0)) < 0.15 * unit
        ring = np.linalg.norm(points[list(iris[1:])] - points[iris[0]], axis=1)
        assert ring.max() < 0.15 * unit
    hull = points[list(schemes.FACE_OVAL)]
    assert (points[:, 1] > hull[:, 1].min() - 2).all() and (points[:, 1] < hull[:, 1].max() + 2).all()


def test_blendshapes_are_named_and_mean_what_they_say(track):
    assert len(schemes.BLENDSHAPE_NAMES) == len(set(schemes.BLENDSHAPE_NAMES)) == 52
    assert FaceLandmarker.blendshape_names == schemes.BLENDSHAPE_NAMES
    smile = schemes.BLENDSHAPE_NAMES.index("mouthSmileLeft")
    blink = schemes.BLENDSHAPE_NAMES.index("eyeBlinkLeft")
    # the excerpt begins with a broad smile and open eyes, and ends with closed ones
    assert track[0].blendshapes[smile] > 0.3 and track[0].blendshapes[blink] < 0.4
    assert max(found.blendshapes[blink] for found in track[-20:]) > 0.5


def test_names_are_those_of_the_model(frames):
    from mediapipe import Image, ImageFormat
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_buffer=DEFAULT_MODEL.read_bytes()), output_face_blendshapes=True
    )
    with quiet_stderr(), vision.FaceLandmarker.create_from_options(options) as landmarker:
        result = landmarker.detect(Image(image_format=ImageFormat.SRGB, data=frames[0].image))
    assert tuple(score.category_name for score in result.face_blendshapes[0]) == schemes.BLENDSHAPE_NAMES


def test_no_lag_behind_motion(face):
    """A face that slides along is reported where it is; MediaPipe's own filter would trail."""
    image, points = face
    speed = 6
    errors = []
    with FaceLandmarker() as detector:
        for i in range(20):
            frame = np.full((340, 500, 3), 60, np.uint8)
            frame[10:330, i * speed : i * speed + 320] = image
            found = detector.detect(frame, i * STEP)
            errors.append(found.points.mean(0) - (points.mean(0) + (i * speed, 10)))
    lag_frames = -np.mean(np.array(errors)[5:, 0]) / speed
    assert abs(lag_frames) < 0.15, f"lags by {lag_frames:.2f} frames"


def test_no_half_pixel_offset_on_large_faces(frames):
    """Mirror images give mirrored landmarks; without the correction of the crop they lie 2.5 pixels off here."""
    finder = Graph(DEFAULT_MODEL, faces=1, follow=False)
    offsets = []
    for frame in frames[::6]:
        large = cv2.resize(frame.image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
        straight, mirrored = (finder(image)[0].landmarks[:, 0].mean() for image in (large, large[:, ::-1]))
        offsets.append((straight + mirrored - large.shape[1]) / 2)
    finder.close()
    assert abs(np.mean(offsets)) < 1.3


def test_strided_views_are_read_right(frames):
    wide = np.zeros((360, 700, 3), np.uint8)
    wide[:, :640] = frames[0].image
    with FaceLandmarker() as one, FaceLandmarker() as other:
        assert np.array_equal(one.detect(wide[:, :640], 0).points, other.detect(frames[0].image, 0).points)


def test_repeated_and_backward_timestamps_do_no_harm(frames):
    with FaceLandmarker() as detector:
        for frame, stamp in zip(frames[:6], (0.0, 0.0, 0.0004, 0.5, 0.2, 0.2), strict=True):
            assert detector.detect(frame.image, stamp) is not None


def test_noise_and_flat_frames_have_no_face():
    rng = np.random.default_rng(0)
    with FaceLandmarker() as detector:
        for i in range(5):
            grey = np.repeat(rng.integers(0, 255, (180, 320, 1), np.uint8), 3, 2)
            assert detector.detect(grey, i * STEP) is None
        assert detector.detect(np.full((180, 320, 3), 128, np.uint8), 1.0) is None


def test_lost_face_is_found_again(frames, face):
    blank = np.full_like(frames[0].image, 90)
    with FaceLandmarker() as detector:
        sequence = [frames[0].image, frames[1].image, blank, blank, frames[2].image, frames[3].image]
        found = [detector.detect(image, i * STEP) is not None for i, image in enumerate(sequence)]
    assert found == [True, True, False, False, True, True]


def test_small_frames_work(frames):
    small = frames[0].image[::4, ::4]
    with FaceLandmarker() as detector:
        found = detector.detect(small, 0.0)
    with FaceLandmarker() as detector:
        full = detector.detect(frames[0].image, 0.0)
    assert found is not None
    error = np.linalg.norm(found.points * 4 - full.points, axis=1).mean() / inter_ocular(full.points)
    assert error < 0.05


def two_faces(image, scale, gap=0):
    """The face at full size on the left and, mirrored and scaled down, on the right."""
    height, width = image.shape[:2]
    side = int(width * scale)
    pick = (np.arange(side) / scale).astype(int)
    canvas = np.full((height, width + gap + side, 3), 60, np.uint8)
    canvas[:, :width] = image
    canvas[:side, width + gap :] = image[:, ::-1][pick][:, pick]
    return canvas


def other_larger(image):
    """The left face at 3/4 of its size about its place, the right one, mirrored, at full size."""
    pick = (np.arange(240) / 0.75).astype(int)
    canvas = np.full((320, 640, 3), 60, np.uint8)
    canvas[40:280, 40:280] = image[pick][:, pick]
    canvas[:, 320:] = image[:, ::-1]
    return canvas


def test_largest_face_first_then_the_same_one(face):
    image, points = face
    left_x = points[:, 0].mean()
    with FaceLandmarker() as detector:
        first = detector.detect(two_faces(image, 0.7), 0.0)
        assert abs(first.points[:, 0].mean() - left_x) < 10
        for i in range(1, 5):  # now the other one is larger; the subject stays
            found = detector.detect(other_larger(image), i * STEP)
            assert found.points[:, 0].mean() < 280
    with FaceLandmarker() as detector:
        assert detector.detect(other_larger(image), 0.0).points[:, 0].mean() > 320


def test_a_bystander_is_not_taken_for_the_subject_who_leaves(face):
    image, points = face
    both = two_faces(image, 0.7, gap=80)
    alone = both.copy()
    alone[:, :320] = 60
    with FaceLandmarker() as detector:
        assert detector.detect(both, 0.0) is not None
        assert [detector.detect(alone, (1 + i) * STEP) for i in range(5)] == [None] * 5
        back = detector.detect(both, 6 * STEP)
        assert abs(back.points[:, 0].mean() - points[:, 0].mean()) < 10
        # gone for good: after a while the other one is the subject
        for i in range(3):
            detector.detect(alone, 7 * STEP + i * 1.5)
        assert detector.detect(alone, 6.0).points[:, 0].mean() > 400


def test_small_face_in_a_wide_frame(face):
    image, points = face
    pick = (np.arange(64) * 5).astype(int)
    canvas = np.full((240, 1000, 3), 60, np.uint8)
    canvas[100:164, 700:764] = image[pick][:, pick]
    with FaceLandmarker() as detector:
        found = detector.detect(canvas, 0.0)
        assert found is not None
        assert np.abs(found.points.mean(0) - (points.mean(0) / 5 + (700, 100))).max() < 3
        assert detector.detect(canvas, STEP) is not None


def test_confidence_drops_when_the_picture_jumps_or_the_face_leaves(frames):
    # the first frame is cropped by the face detector, the others by the landmarks before: that shows a little
    with FaceLandmarker() as detector:
        still = [detector.detect(frames[0].image, i * STEP).confidence for i in range(4)]
        cut = np.zeros_like(frames[0].image)
        cut[:200] = frames[0].image[160:]  # the upper half of the face is outside
        partly = detector.detect(cut, 4 * STEP)
    assert min(still[2:]) > 0.97
    assert partly is None or partly.confidence < 0.9


def test_tiles_cover_the_frame():
    for width, height in ((640, 360), (360, 640), (1000, 240), (300, 299)):
        tiles = list(square_tiles(width, height))
        covered = np.zeros((height, width), bool)
        for left, top, side in tiles:
            covered[top : top + side, left : left + side] = True
            assert left >= 0 and top >= 0 and left + side <= width and top + side <= height
        assert covered.all()
    assert list(square_tiles(100, 100)) == []


def test_shape_change_ignores_similarities():
    rng = np.random.default_rng(0)
    mesh = rng.normal(size=(478, 2)) * 50
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    assert shape_change(mesh, 1.7 * mesh @ turn + (30, -5)) < 1e-12
    eyes = inter_ocular(mesh)
    other = mesh.copy()
    other[::2, 0] += 0.1 * eyes
    assert 0.03 < shape_change(mesh, other) < 0.07


def _missing(folder):
    return folder / "none.task", "no such file"


def _no_bundle(folder):
    (folder / "a.task").write_bytes(b"not a model")
    return folder / "a.task", "not a MediaPipe .task file"


def _other_task(folder):
    with zipfile.ZipFile(folder / "a.task", "w") as bundle:
        bundle.writestr("hand_detector.tflite", b"")
    return folder / "a.task", "not a face landmarker"


def _broken_models(folder):
    with zipfile.ZipFile(DEFAULT_MODEL) as good, zipfile.ZipFile(folder / "a.task", "w") as bundle:
        for name in good.namelist():
            bundle.writestr(name, b"no model")
    return folder / "a.task", "cannot load"


@pytest.mark.parametrize("make", [_missing, _no_bundle, _other_task, _broken_models])
def test_wrong_model_is_one_clear_line(tmp_path, make):
    path, what = make(tmp_path)
    with pytest.raises(UserError, match=what) as caught:
        FaceLandmarker(path)
    assert "\n" not in str(caught.value) and "--landmarker" in str(caught.value)


def test_console_stays_quiet(frames, capfd):
    with FaceLandmarker() as detector:
        detector.detect(frames[0].image, 0.0)
        os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_detector_is_a_landmark_source():
    source: type[LandmarkSource] = FaceLandmarker
    assert callable(source.detect)


def made_up(i):
    rng = np.random.default_rng(i)
    return Detection(
        rng.normal(size=(478, 2)).astype(np.float32),
        rng.normal(size=478).astype(np.float32),
        rng.random(52).astype(np.float32),
        rng.random(),
    )


def test_store_gives_back_what_it_took(tmp_path):
    with LandmarkStore(tmp_path) as store:
        assert len(store) == 0 and store.found.shape == (0,)
        for i in range(10):
            store.append(i * 0.1, None if i in (3, 4) else made_up(i))
        assert store.found.tolist() == [i not in (3, 4) for i in range(10)]
        assert store.timestamps == pytest.approx(np.arange(10) * 0.1)
        assert store.confidence[3] == 0 and store.confidence[5] == made_up(5).confidence
        records = store.read(np.array([7, 3, 0]))
        assert np.array_equal(records.points[0], made_up(7).points)
        assert np.array_equal(records.depth[2], made_up(0).depth)
        assert np.array_equal(records.blendshapes[2], made_up(0).blendshapes)
        assert not records.points[1].any()
        assert records.found.tolist() == [True, False, True] == [store.has_face(f) for f in (7, 3, 0)]
        assert records.timestamps == pytest.approx([0.7, 0.3, 0.0])
        # reading does not disturb further writing
        store.append(1.0, made_up(10))
        assert np.array_equal(store.read(np.array([10])).points[0], made_up(10).points)
        assert store.blendshape_names == schemes.BLENDSHAPE_NAMES
        with pytest.raises(IndexError):
            store.read(np.array([11]))
        with pytest.raises(IndexError):
            store.read(np.array([-1]))
    with LandmarkStore(tmp_path) as again:
        assert len(again) == 11 and again.found.tolist() == [i not in (3, 4) for i in range(11)]
        assert np.array_equal(again.read(np.array([10])).points[0], made_up(10).points)


def test_store_does_not_grow_in_memory(tmp_path):
    detection = made_up(0)
    with LandmarkStore(tmp_path) as store:
        tracemalloc.start()
        try:
            for i in range(4000):
                store.append(i * 0.04, detection)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(store.read(np.array([0, 3999])).points) == 2
    assert peak < 1_500_000, f"{peak} bytes for 4000 frames"


def test_a_face_upside_down_is_found_as_it_is(frames, track):
    """MediaPipe by itself lays an upright mesh over it."""
    with FaceLandmarker() as detector:
        for frame, upright in zip(frames[:12], track[:12], strict=True):
            height, width = frame.image.shape[:2]
            found = detector.detect(np.ascontiguousarray(frame.image[::-1, ::-1]), frame.timestamp)
            off = np.linalg.norm((width, height) - found.points - upright.points, axis=1)
            assert np.median(off) < 0.03 * inter_ocular(upright.points)
            assert np.abs(np.diag([-1, -1, 1]) @ found.matrix[:3, :3] - upright.matrix[:3, :3]).max() < 0.1
        # and when it stands up again, it is found anew
        again = detector.detect(frames[12].image, frames[12].timestamp)
        assert np.median(np.linalg.norm(again.points - track[12].points, axis=1)) < 0.03 * inter_ocular(again.points)
