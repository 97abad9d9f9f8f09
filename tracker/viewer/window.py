"""The window: viser's scene and controls around a track."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import cv2
import numpy as np
from viser import CameraHandle, ClientHandle, ViserServer, uplot

from tracker.camera import CAMERA_POSITION
from tracker.report.curves import Chart, charts_of
from tracker.report.page_head import FOV_DEG, framing
from tracker.viewer.coloured_mesh import ColouredMesh
from tracker.viewer.pictures import Pictures, behind

_CHARTS = ("Head pose", "Expressions that move most", "Confidence")
_POINTS = 400  # of a curve; all are sent whenever the cursor moves
_CURVES_EVERY = 0.12  # seconds, while playing
_PANEL_WIDTH = 480  # of the frame beside the head, pixels
_STROKES = ("#2f6fb0", "#c2571a", "#2f8f4e", "#8a4fb0", "#b0892f", "#b02f5c")


class Window:
    """Everything that is shown, on one server for any number of browsers.

    Args:
        mesh: the head.
        pictures: the frames behind it.
        host, port: where the server listens; another port is taken when that one is in use.
    """

    def __init__(self, mesh: ColouredMesh, pictures: Pictures, host: str, port: int) -> None:
        self._mesh, self._pictures, self.track = mesh, pictures, mesh.track
        with redirect_stdout(io.StringIO()):  # its banner; the command says where to look in a line of its own
            self.server = ViserServer(host=host, port=port, verbose=False)
        self.server.scene.set_up_direction("+y")
        self.server.gui.configure_theme(control_width="large", show_logo=False, show_share_button=False)
        self.server.gui.main_panel.dock_right()
        self._charts = [c for c in charts_of(self.track) if c.title in _CHARTS]
        self._seconds = self.track.timestamps - self.track.timestamps[0]
        self._at, self._changed = framing(self.track, mesh.asset), True
        self._through_camera: dict[int, bool] = {}
        self._aspects: dict[int, float] = {}
        self._parts: dict[str, Any] = {}
        self._wires: Any = None
        self._patches: list[Any] = []
        self._patch_mode: str | None = None
        self._last_curves = 0.0
        self._controls()
        self.server.on_client_connect(self._welcome)

    @property
    def address(self) -> str:
        """Where browsers find it."""
        return f"http://{self.server.get_host()}:{self.server.get_port()}"

    def _controls(self) -> None:
        gui, last = self.server.gui, self.track.n_frames - 1
        self.frame = gui.add_slider("frame", 0, max(last, 1), 1, 0, disabled=last == 0)
        self.play = gui.add_checkbox("play", False)
        self.colours = gui.add_dropdown("colours", self._mesh.modes)
        self.wireframe = gui.add_checkbox("wireframe", False)
        self.head = gui.add_checkbox("head", True, hint="hide it to see the frame alone")
        self.view = gui.add_dropdown("view", ("close", "camera"), hint="camera: through the video's camera, over the picture")
        self.words = gui.add_markdown("")
        for control in (self.frame, self.play, self.colours, self.wireframe, self.head):
            control.on_update(self._mark)
        self.view.on_update(lambda event: self.look(event.client))
        self.image = None
        first = self._pictures.at(0) if self._pictures.there else None
        if first is not None:
            self.image = gui.add_image(_smaller(first), label="frame", format="jpeg")
        self._plots = [self._plot(chart) for chart in self._charts]

    def _plot(self, chart: Chart) -> tuple[Any, tuple[np.ndarray, ...], tuple[float, float]]:
        """A chart, its data without the cursor, and the least and greatest value."""
        kept = np.unique(np.linspace(0, self.track.n_frames - 1, min(self.track.n_frames, _POINTS)).round().astype(int))
        values = [_filled(self._seconds, c.values)[kept] for c in chart.curves]
        data = (self._seconds[kept], *values)
        low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
        series = (
            uplot.Series(label="s"),
            *(uplot.Series(label=c.name, stroke=_STROKES[i % len(_STROKES)], width=1.5) for i, c in enumerate(chart.curves)),
            uplot.Series(label="now", stroke="#d33", width=1.5),
        )
        title = f"{chart.title}, {chart.unit}" if chart.unit else chart.title
        handle = self.server.gui.add_uplot(
            (*data, np.full(len(kept), low)), series, title=title, height=190, scales={"x": uplot.Scale(time=False)},
        )  # fmt: skip
        return handle, data, (low, high if high > low else low + 1)

    def _mark(self, _event: object = None) -> None:
        self._changed = True

    def _welcome(self, client: ClientHandle) -> None:
        self.look(client)
        client.camera.on_update(self._resized)

    def _resized(self, camera: CameraHandle) -> None:
        """The picture behind the head depends on a window's proportions."""
        if self._aspects.get(camera.client.client_id) != camera.aspect:
            self._aspects[camera.client.client_id] = camera.aspect
            self._mark()

    def look(self, client: ClientHandle | None = None) -> None:
        """Put the camera of a browser, or of all, where the chosen view is from."""
        for one in [client] if client is not None else list(self.server.get_clients().values()):
            through = self.view.value == "camera"
            self._through_camera[one.client_id] = through
            target, camera = self._at.target, one.camera
            camera.up_direction = (0.0, 1.0, 0.0)
            if through:
                camera.position, camera.look_at = CAMERA_POSITION, (0.0, 0.0, float(target[2]))
            else:
                camera.position, camera.look_at = (*target[:2], target[2] + self._at.distance), tuple(target)
                camera.fov = math.radians(FOV_DEG)
                one.scene.set_background_image(None)
        self._mark()

    def run(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Show what the controls say until ``stop()`` is true (asked some times a second) or the process is interrupted."""
        began = None
        while not stop():
            now = time.monotonic()
            if self.play.value and self.track.n_frames > 1:
                if began is None:
                    began = now - self._seconds[self.frame.value % self.track.n_frames]
                elapsed = (now - began) % (self._seconds[-1] + 1 / self.track.frame_rate)
                frame = int(np.searchsorted(self._seconds, elapsed, side="right") - 1)
                if frame != self.frame.value:
                    self.frame.value = frame  # its callback marks the change
            else:
                began = None
            if self._changed:
                self._changed = False
                self.show(int(self.frame.value))
            time.sleep(0.01)

    def show(self, frame: int) -> None:
        """Bring head, picture, words and curves to a frame."""
        frame = min(frame, self.track.n_frames - 1)
        vertices, mode = self._mesh.vertices(frame), self.colours.value
        picture = self._pictures.at(frame) if self._pictures.there else None
        with self.server.atomic():
            self._show_head(frame, mode, vertices)
            if self.image is not None and picture is not None:
                self.image.image = _smaller(picture)
            self.words.content = self._said(frame)
        if picture is not None:
            self._show_behind(frame, picture)
        now = time.monotonic()
        if not self.play.value or now - self._last_curves > _CURVES_EVERY:
            self._last_curves = now
            for handle, data, (low, high) in self._plots:
                cursor = np.where(data[0] <= self._seconds[frame] + 1e-9, high, low)
                handle.data = (*data, cursor)

    def _show_head(self, frame: int, mode: str, vertices: np.ndarray) -> None:
        scene = self.server.scene
        if not self.head.value:
            scene.remove_by_name("/wires")
            self._wires = None
        wired = self.head.value and self.wireframe.value
        moving = self.head.value and not wired and self.play.value
        self._show_patches(frame, mode if moving else None, vertices)
        glbs = self._mesh.glbs(frame, mode, vertices) if self.head.value and not wired and not moving else {}
        for name in self._parts.keys() - glbs.keys():
            self._parts.pop(name).remove()
        for name, glb in glbs.items():
            if name in self._parts:
                self._parts[name].glb_data = glb
            else:
                self._parts[name] = scene.add_glb(f"/{name}", glb, cast_shadow=False, receive_shadow=False)
        if wired:
            if self._wires is None:
                self._wires = scene.add_mesh_simple(
                    "/wires", vertices, self._mesh.asset.faces.astype(np.uint32), color=(40, 90, 160), wireframe=True, cast_shadow=False,
                )  # fmt: skip
            self._wires.vertices = vertices
        if self._wires is not None:
            self._wires.visible = wired

    def _show_patches(self, frame: int, mode: str | None, vertices: np.ndarray) -> None:
        """The moving head in the colours of ``mode``; None for none."""
        if mode != self._patch_mode:
            for handle in self._patches:
                handle.remove()
            self._patches, self._patch_mode = [], mode
            for number, patch in enumerate(self._mesh.patches(mode) if mode else ()):
                handle = self.server.scene.add_mesh_simple(
                    f"/moving/{number}", vertices[patch.vertices], patch.triangles, side="double", cast_shadow=False, receive_shadow=False,
                )  # fmt: skip
                self._patches.append(handle)
        for handle, patch in zip(self._patches, self._mesh.patches(mode) if mode else (), strict=True):
            handle.vertices = vertices[patch.vertices]
            handle.color = self._mesh.patch_colour(frame, mode, patch)

    def _show_behind(self, frame: int, picture: np.ndarray) -> None:
        """The picture behind the head, for browsers that look through the camera."""
        for client in list(self.server.get_clients().values()):
            if not self._through_camera.get(client.client_id):
                continue
            image, fov = behind(picture, self._pictures.camera(frame), client.camera.aspect)
            if abs(client.camera.fov - fov) > 1e-4:
                client.camera.fov = fov
            client.scene.set_background_image(image, format="jpeg", jpeg_quality=85)

    def _said(self, frame: int) -> str:
        track = self.track
        name = f"photo {track.photos.names[frame]}" if track.photos is not None else f"frame {frame}, {self._seconds[frame]:.3f} s"
        state = f"confidence {track.confidence[frame]:.2f}" if track.valid[frame] else "no head was tracked here"
        if track.interpolated is not None and track.interpolated[frame]:
            state = f"interpolated, {state}"
        if track.n_people > 1:
            name += f", person {track.person[frame]}"
        return f"{name} · {state}"

    def close(self) -> None:
        """Stop the server."""
        self.server.stop()
        self._pictures.close()


def _filled(seconds: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A curve with straight lines across its gaps."""
    good = np.isfinite(values)
    return np.interp(seconds, seconds[good], values[good]) if good.any() else np.zeros(len(values))


def _smaller(picture: np.ndarray) -> np.ndarray:
    scale = min(1.0, _PANEL_WIDTH / picture.shape[1])
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else picture
