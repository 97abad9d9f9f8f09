"""Photos: sizes, orientation, pixel formats, where they lie on their canvas, and whole runs over them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from flame_assets.load import load_head
from tracker.camera import FOCAL_PRIOR_RATIO
from tracker.cli import main
from tracker.errors import UserError
from tracker.export.flame_params import load_track
from tracker.landmarks.mediapipe_detector import FaceLandmarker
from tracker.track_vertices import track_vertices
from tracker.video.image_folder import picture_size, read_image
from tracker.video.lens import FILM_DIAGONAL_MM
from tracker.video.photos import LARGEST_CANVAS, PhotoFolder, PhotoOptions, own_cameras, words_on_photos
from tracker.video.reader import open_video

EXCERPT = Path(__file__).parent / "data" / "demo_excerpt.mp4"


def exif(film_mm: int | None = None, orientation: int = 1) -> Image.Exif:
    note = Image.Exif()
    note[ExifTags.Base.Orientation] = orientation
    if film_mm is not None:
        note.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = film_mm
    return note


def plain(path: Path, width: int, height: int, film_mm: int | None = None, orientation: int = 1) -> Path:
    Image.new("RGB", (width, height), (200, 100, 50)).save(path, exif=exif(film_mm, orientation))
    return path


@pytest.fixture(scope="module")
def faces() -> list[Image.Image]:
    with open_video(EXCERPT) as video:
        frames = [frame.image for frame in video]
    return [Image.fromarray(frames[n]) for n in (0, 40, 80)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright_and_its_size_known_without_decoding(tmp_path: Path, orientation: int) -> None:
    upright = Image.new("RGB", (60, 40))
    upright.paste((255, 0, 0), (0, 0, 30, 20))
    # how a camera that was held so stores it: the inverse of what showing it does
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright if orientation == 1 else upright.transpose(inverse[orientation])
    path = tmp_path / "photo.png"
    stored.save(path, exif=exif(orientation=orientation))
    assert picture_size(path) == (60, 40)
    np.testing.assert_array_equal(read_image(path), np.asarray(upright))


def test_photos_are_laid_with_equal_focal_lengths_and_centres_and_none_is_cropped(tmp_path: Path) -> None:
    plain(tmp_path / "wide.jpg", 640, 480, 24)
    plain(tmp_path / "tele.jpg", 300, 400, 85)
    plain(tmp_path / "unknown 2.png", 500, 500)
    folder = PhotoFolder(tmp_path)
    assert [p.path.name for p in folder.photos] == ["tele.jpg", "unknown 2.png", "wide.jpg"]
    cameras = own_cameras(folder.photos, folder.camera.focal_px, 0.05, np.array(folder.camera.principal_point))
    diagonals = {"wide.jpg": 800 * 24, "tele.jpg": 500 * 85}
    expected = [diagonals["tele.jpg"] / FILM_DIAGONAL_MM, FOCAL_PRIOR_RATIO * 500, diagonals["wide.jpg"] / FILM_DIAGONAL_MM]
    np.testing.assert_allclose(cameras.K[:, 0, 0], expected, rtol=2e-3)
    np.testing.assert_allclose(cameras.K[:, 1, 1], expected, rtol=2e-3)
    np.testing.assert_allclose(cameras.K[:, :2, 2], cameras.image_size[:, ::-1] / 2, atol=0.51)
    np.testing.assert_allclose(cameras.focal_log_sigma, [0.05, math.hypot(0.05, 0.2), 0.05])
    for (_, canvas), photo in zip(folder.pictures(), folder.photos, strict=True):
        assert canvas.shape == (folder.height, folder.width, 3)
        left, top, right, bottom = photo.box
        assert 0 <= left < right <= folder.width and 0 <= top < bottom <= folder.height
        assert (canvas[top:bottom, left:right] > 20).all()
        assert np.count_nonzero(canvas.any(-1)) == (right - left) * (bottom - top)


def test_huge_photos_share_a_canvas_of_bounded_size(tmp_path: Path) -> None:
    plain(tmp_path / "huge.png", 9000, 200, 20)
    plain(tmp_path / "small.png", 64, 48, 400)
    folder = PhotoFolder(tmp_path)
    assert max(folder.width, folder.height) == LARGEST_CANVAS


def test_one_photo_keeps_its_own_pixels(tmp_path: Path) -> None:
    folder = PhotoFolder(plain(tmp_path / "a.jpg", 320, 200), PhotoOptions(fov_deg=60))
    assert (folder.width, folder.height) == (320, 200) and folder.photos[0].box == (0, 0, 320, 200)
    assert folder.camera.log_sigma == 0 and folder.camera.focal_px == pytest.approx(160 / math.tan(math.radians(30)))


def test_a_folder_without_photos_and_a_broken_one_are_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images in this folder"):
        PhotoFolder(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    with pytest.raises(UserError, match=r"a\.jpg: cannot be read as an image"):
        PhotoFolder(tmp_path)


def test_photos_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(UserError, match=r"IMG_1\.HEIC cannot be read; convert"):
        PhotoFolder(tmp_path)
    plain(tmp_path / "a.png", 64, 48)
    folder = PhotoFolder(tmp_path)
    assert len(folder.photos) == 1 and folder.left_out == ("IMG_1.HEIC",)
    assert "1 photos like IMG_1.HEIC" in " ".join(words_on_photos(folder))


def test_a_photo_without_a_face_is_shown_as_it_is(tmp_path: Path, faces: list[Image.Image]) -> None:
    photos = tmp_path / "mixed"
    photos.mkdir()
    faces[0].save(photos / "face.png")
    plain(photos / "wall.png", 200, 100)
    assert main(["--photos", str(photos), "--preset", "fast", "--out", str(tmp_path), "--quiet"]) == 0
    track = load_track(tmp_path / "mixed" / "flame_params.npz")
    assert track.valid.tolist() == [True, False]
    shown = np.asarray(Image.open(tmp_path / "mixed" / "overlay" / "wall.png"))
    assert shown.shape == (100, 400, 3) and (shown == (200, 100, 50)).all()


def test_photos_of_other_sizes_give_one_head_in_each_ones_own_pixels(tmp_path: Path, faces: list[Image.Image]) -> None:
    photos = tmp_path / "people"
    photos.mkdir()
    faces[0].save(photos / "a.jpg", quality=95)
    # the same picture, half as large: it must come out as the same head in the same place of the picture
    faces[0].resize((320, 180), Image.Resampling.LANCZOS).save(photos / "a.png")
    # held upright, noted as turned
    faces[2].transpose(Image.Transpose.ROTATE_90).save(photos / "b.jpg", quality=95, exif=exif(50, 6))
    assert main(["--photos", str(photos), "--preset", "fast", "--out", str(tmp_path), "--quiet"]) == 0
    out = tmp_path / "people"
    track = load_track(out / "flame_params.npz")
    assert track.photos is not None and track.valid.all()
    assert list(track.photos.names) == ["a.jpg", "a.png", "b.jpg"]
    np.testing.assert_array_equal(track.photos.image_size, [[360, 640], [180, 320], [360, 640]])
    assert sorted(p.name for p in (out / "overlay").iterdir()) == ["a.jpg.png", "a.png.png", "b.png"]
    assert Image.open(out / "overlay" / "b.png").size == (1280, 360)
    assert "1 of 3 photos" in " ".join(json.loads((out / "summary.json").read_text())["notes"])
    head = load_head(None)
    marks = head.landmarks["mediapipe"]
    vertices = np.stack(list(track_vertices(track, head))) - [0, 0, 1]

    def seen(number: int) -> np.ndarray:
        """The face's landmarks, as shares of the photo's size."""
        points = marks.positions(vertices[number], head.faces) * [1, -1, -1] @ track.photos.K[number].T
        return points[:, :2] / points[:, 2:] / track.photos.image_size[number][::-1]

    np.testing.assert_allclose(seen(0), seen(1), atol=0.012)
    # where the detector sees them in the whole, upright picture
    with FaceLandmarker() as detector:
        found = detector.detect(np.asarray(faces[2]), 0.0)
    assert found is not None
    assert np.median(np.abs(seen(2) - found.points[marks.indices] / [640, 360])) < 0.006


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--fps", "10"], "--fps does not go with --photos"), (["--focal-px", "3"], "field of view"), (["--video", "x"], "not allowed")],
)
def test_options_that_photos_cannot_have_are_refused(
    tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain(tmp_path / "a.png", 640, 480)
    try:
        code = main(["--photos", str(tmp_path), "--preset", "fast", "--out", str(tmp_path / "out"), *arguments])
    except SystemExit as left:
        code = int(left.code or 0)
    assert code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def odd_pictures(face: Image.Image, folder: Path) -> list[Path]:
    """One face in the formats that cameras, scanners and editors write."""
    grey = np.asarray(face.convert("L")).astype(np.uint16) * 257
    alpha = face.convert("RGBA")
    alpha.putalpha(Image.new("L", face.size, 255))
    pictures = {
        "cmyk.jpg": face.convert("CMYK"),
        "palette.png": face.convert("P", palette=Image.Palette.ADAPTIVE),
        "alpha.png": alpha,
        "grey16.png": Image.fromarray(grey),
        "grey16.tif": Image.fromarray(grey),
        "grey alpha.png": face.convert("LA"),
    }
    for name, picture in pictures.items():
        picture.save(folder / name)
    return [folder / name for name in pictures]


def test_unusual_pixel_formats_show_the_same_picture(tmp_path: Path, faces: list[Image.Image]) -> None:
    reference = np.asarray(faces[0].convert("L")).astype(float)
    for path in odd_pictures(faces[0], tmp_path):
        image = read_image(path)
        assert image.shape == (360, 640, 3) and image.dtype == np.uint8, path.name
        grey = np.asarray(Image.fromarray(image).convert("L")).astype(float)
        assert np.abs(grey - reference).mean() < 6, path.name
