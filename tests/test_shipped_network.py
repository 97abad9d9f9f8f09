"""The weights in the repository do what the model card says, on a real face and on heads rendered anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densemarks_model.crops import crop_around_landmarks
from densemarks_model.data.synthetic.repertoire import PLAIN
from densemarks_model.data.synthetic.scene import SceneRenderer
from densemarks_model.evaluation.cubes import in_cube
from densemarks_model.inference import FastNetwork, fast_network
from densemarks_model.matching import sample_bilinear
from densemarks_model.prediction import Prediction
from densemarks_model.train.augment import vary
from flame_assets.canonical import CUBE_VERSION
from flame_assets.load import load_head
from tracker.landmarks.mediapipe_detector import FaceLandmarker
from tracker.video.reader import open_video

CLIP = Path(__file__).parent / "data" / "demo_excerpt.mp4"


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return fast_network("lite", device="cpu", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def face(network):
    with open_video(CLIP, max_frames=1) as video, FaceLandmarker() as landmarker:
        frame = next(iter(video))
        found = landmarker.detect(frame.image, frame.timestamp)
    crop = crop_around_landmarks(found.points)
    return crop.extract(frame.image, network.image_size), crop.to_crop(found.points, network.image_size)


def _on_map(points: np.ndarray, maps: Prediction[np.ndarray], network: FastNetwork) -> np.ndarray:
    """Pixels of the crop as pixels of its maps."""
    return points * (maps.coordinates.shape[1] / network.image_size)


def test_the_file_fits_into_the_repository():
    from densemarks_model.loading import SHIPPED

    assert 1e6 < SHIPPED.stat().st_size <= 60e6


def test_landmarks_of_a_real_face_are_where_the_head_has_them(network, face):
    crop, points = face
    maps = network(crop[None])
    head = load_head().with_cube(network.cube)
    embedding = head.landmarks["mediapipe"]
    own = embedding.positions(head.canonical, head.faces)
    found = sample_bilinear(maps.coordinates[0], _on_map(points[embedding.indices], maps, network))
    error = np.linalg.norm(found - own, axis=1)
    assert np.median(error) < 0.025 and np.mean(error) < 0.03  # 0.02 is 6 mm


def test_the_face_is_head_and_the_wall_is_not(network, face):
    crop, points = face
    maps = network(crop[None])
    confidence = maps.confidence[0]
    corner = round(0.16 * len(confidence))
    assert sample_bilinear(confidence[..., None], _on_map(points, maps, network)).mean() > 0.95
    assert confidence[:corner, :corner].mean() < 0.1 and confidence[:corner, -corner:].mean() < 0.1  # above both shoulders


def test_the_mirrored_face_has_mirrored_coordinates(network, face):
    crop, _ = face
    there, back = network(crop[None]), network(np.ascontiguousarray(crop[None, :, ::-1]))
    mirrored = back.coordinates[0, :, ::-1] * [-1, 1, 1] + [1, 0, 0]
    both = (there.confidence[0] > 0.9) & (back.confidence[0, :, ::-1] > 0.9)
    assert both.mean() > 0.1
    assert np.median(np.linalg.norm(there.coordinates[0] - mirrored, axis=-1)[both]) < 0.02


def test_heads_rendered_anew_are_read_within_the_cards_error(network):
    renderer = SceneRenderer(repertoire=PLAIN)  # one look and one renderer for every version of the weights
    cells = network(np.zeros((1, network.image_size, network.image_size, 3), np.uint8)).coordinates.shape[1]
    error, overlap = [], []
    for index in range(12):
        sample = renderer.sample(314, index)
        masks = np.round(255 * np.stack([sample.head, sample.surface], -1)).astype(np.uint8)
        truth = vary(sample.image, sample.coordinates, masks, network.image_size, cells, None)
        maps = network(np.round(255 * truth["image"].transpose(1, 2, 0))[None].astype(np.uint8))
        known = in_cube(truth["coordinates"].transpose(1, 2, 0), CUBE_VERSION, network.cube)
        head, said = truth["head"][0] > 0.5, maps.confidence[0] > 0.5
        if head.any():
            error.append(np.linalg.norm(maps.coordinates[0] - known, axis=-1)[head].mean())
            overlap.append((head & said).sum() / (head | said).sum())
    assert np.mean(error) < 0.07 and np.mean(overlap) > 0.8  # twelve pictures of any pose, hair and light
