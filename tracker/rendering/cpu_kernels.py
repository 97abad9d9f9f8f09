"""Rasterisation on one core: triangles into a depth buffer, then barycentrics for what is visible.

The life of a picture:

1. *Project.* Every vertex becomes a pixel position snapped to 1/256 px and a depth in fixed point.
2. *Cover.* Every triangle walks its bounding box with integer edge functions and the top-left rule, so that a pixel
   centre on a shared edge belongs to exactly one triangle. Each pixel keeps one 64-bit key, depth in the high bits and
   triangle number in the low ones; the smallest key wins, so the result does not depend on the order of drawing.
3. *Resolve.* For each pixel the winner's perspective-correct barycentrics are computed from its unsnapped clip-space
   vertices, as ratios of homogeneous edge functions (Olano and Greer, "Triangle Scan Conversion using 2D Homogeneous
   Coordinates", 1997). They need no division by w per vertex, so a triangle that was clipped keeps exact weights.

Triangles that leave the view volume through the near or far plane, or leave the guard band, are clipped for step 2.

Kernels take C-contiguous arrays, trust their shapes, and check indices. Row 0 is the bottom of the picture.
"""

from __future__ import annotations

import numpy as np

from tracker.rendering.jit import inline, kernel

EMPTY = np.int64(np.iinfo(np.int64).max)
"""Key of a pixel that nothing covers."""

ROW_PADDING = 8
"""Extra keys at the end of each row: the inner loop works on eight pixels at a time and may run past the edge."""

OK, BAD_POSITION, BAD_INDEX = 0, 1, 2
"""What kernels return."""

_SUBPIXELS = 256
_ID_BITS = 24  # as many triangles as Renderer lets through
_ID_MASK = np.int64((1 << _ID_BITS) - 1)
_DEPTH_ONE = float(1 << 44)  # depth 1.0 in fixed point; shifted left by 18 it fills the bits above the triangle number
_DEPTH_SHIFT = np.int64(18)
_STEEPEST = float(1 << 61)
_GUARD_BAND_PX = 32768.0  # edge functions of coordinates within it stay far inside 64 bits
_MIN_W = 1e-6
_CLIP_CORNERS = 12  # a triangle has at most 3 + 7 corners after seven planes


@inline
def _edge_setup(ax, ay, bx, by, px, py):
    """Edge function of a→b at pixel centre (px, py), with its steps per pixel; non-negative inside, top-left rule."""
    dx, dy = bx - ax, by - ay
    value = dx * (py - ay) - dy * (px - ax)
    # rows grow upwards and triangles are counter-clockwise: left edges go down, top edges go left
    if not (dy < 0 or (dy == 0 and dx < 0)):
        value -= 1
    return value, -dy * _SUBPIXELS, dx * _SUBPIXELS


@inline
def _fill(keys, width, row_begin, row_end, ax, ay, az, bx, by, bz, cx, cy, cz, number):
    """Offer one triangle, in snapped coordinates, to every pixel centre it covers."""
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if area == 0:
        return
    if area < 0:
        area = -area
        bx, by, bz, cx, cy, cz = cx, cy, cz, bx, by, bz
    half = _SUBPIXELS // 2
    x_first = max((min(ax, bx, cx) - half + _SUBPIXELS - 1) >> 8, 0)
    x_last = min((max(ax, bx, cx) - half) >> 8, width - 1)
    y_first = max((min(ay, by, cy) - half + _SUBPIXELS - 1) >> 8, row_begin)
    y_last = min((max(ay, by, cy) - half) >> 8, row_end - 1)
    if x_first > x_last or y_first > y_last:
        return
    px, py = x_first * _SUBPIXELS + half, y_first * _SUBPIXELS + half
    e0, e0x, e0y = _edge_setup(bx, by, cx, cy, px, py)
    e1, e1x, e1y = _edge_setup(cx, cy, ax, ay, px, py)
    e2, e2x, e2y = _edge_setup(ax, ay, bx, by, px, py)
    per_area = _SUBPIXELS / area
    zx = ((bz - az) * (cy - ay) - (cz - az) * (by - ay)) * per_area
    zy = ((cz - az) * (bx - ax) - (bz - az) * (cx - ax)) * per_area
    zx = min(max(zx, -_STEEPEST), _STEEPEST)
    zy = min(max(zy, -_STEEPEST), _STEEPEST)
    z_row = az + (zx * (px - ax) + zy * (py - ay)) / _SUBPIXELS
    z_low, z_high = np.int64(min(az, bz, cz)), np.int64(max(az, bz, cz))
    z_step = np.int64(zx)
    stride = width + ROW_PADDING
    row = y_first * stride + x_first
    columns = (x_last - x_first + ROW_PADDING) & ~(ROW_PADDING - 1)
    for _ in range(y_last - y_first + 1):
        z_begin = np.int64(min(max(z_row, -4 * _STEEPEST), 3.9 * _STEEPEST))
        pixels = keys[row : row + columns]
        for k in range(columns):
            inside = ((e0 + k * e0x) | (e1 + k * e1x) | (e2 + k * e2x)) >= 0
            # slivers extrapolate wildly between snapped and true position; depth stays within the vertices'
            depth = min(max(z_begin + k * z_step, z_low), z_high)
            key = ((depth << _DEPTH_SHIFT) & ~_ID_MASK) | number
            pixels[k] = min(pixels[k], key if inside else EMPTY)
        e0 += e0y
        e1 += e1y
        e2 += e2y
        z_row += zy
        row += stride


@inline
def _plane_distance(corner, plane, guard_x, guard_y):
    """Signed clip-space distance of (x, y, z, w) from a plane of the view volume or guard band, positive inside."""
    x, y, z, w = corner[0], corner[1], corner[2], corner[3]
    if plane == 0:
        return w - _MIN_W
    if plane == 1:
        return w + z
    if plane == 2:
        return w - z
    if plane == 3:
        return guard_x * w + x
    if plane == 4:
        return guard_x * w - x
    if plane == 5:
        return guard_y * w + y
    return guard_y * w - y


@inline
def _fill_clipped(keys, width, height, row_begin, row_end, pos, i, j, k, number):
    """Clip a triangle in clip space (Sutherland and Hodgman), then offer what is left as a fan of triangles."""
    polygon = np.empty((_CLIP_CORNERS, 4), np.float64)
    clipped = np.empty((_CLIP_CORNERS, 4), np.float64)
    for axis in range(4):
        polygon[0, axis], polygon[1, axis], polygon[2, axis] = pos[i, axis], pos[j, axis], pos[k, axis]
    corners = 3
    guard_x, guard_y = _GUARD_BAND_PX / width, _GUARD_BAND_PX / height
    for plane in range(7):
        kept = 0
        for this in range(corners):
            following = (this + 1) % corners
            here = _plane_distance(polygon[this], plane, guard_x, guard_y)
            there = _plane_distance(polygon[following], plane, guard_x, guard_y)
            if here >= 0:
                clipped[kept] = polygon[this]
                kept += 1
            if (here >= 0) != (there >= 0):
                # from the inner to the outer end always, so that neighbours sharing the edge cut it at the same point
                if here >= 0:
                    t = here / (here - there)
                    clipped[kept] = polygon[this] + t * (polygon[following] - polygon[this])
                else:
                    t = there / (there - here)
                    clipped[kept] = polygon[following] + t * (polygon[this] - polygon[following])
                kept += 1
        if kept < 3:
            return
        corners = kept
        polygon, clipped = clipped, polygon
    for c in range(corners):
        x, y, z, w = polygon[c]
        clipped[c, 0] = np.floor((x / w + 1) * 0.5 * width * _SUBPIXELS + 0.5)
        clipped[c, 1] = np.floor((y / w + 1) * 0.5 * height * _SUBPIXELS + 0.5)
        clipped[c, 2] = np.rint(min(max(z / w, -1.0), 1.0) * _DEPTH_ONE)
    for c in range(1, corners - 1):
        _fill(keys, width, row_begin, row_end,
              np.int64(clipped[0, 0]), np.int64(clipped[0, 1]), clipped[0, 2],
              np.int64(clipped[c, 0]), np.int64(clipped[c, 1]), clipped[c, 2],
              np.int64(clipped[c + 1, 0]), np.int64(clipped[c + 1, 1]), clipped[c + 1, 2], number)


@kernel
def cover(pos, tri, width, height, row_begin, row_end, snapped, depths, keys):
    """Steps 1 and 2 for rows ``row_begin`` to ``row_end``.

    Args:
        pos: (V, 4) float32, clip space. tri: (F, 3) int32.
        snapped: (V, 2) int64 scratch. depths: (V,) float64 scratch.
        keys: (height * (width + ROW_PADDING),) int64, the rows of interest all EMPTY.

    Returns:
        OK, BAD_POSITION or BAD_INDEX; in the latter cases the keys are spoilt.
    """
    sx, sy = 0.5 * width, 0.5 * height
    n = pos.shape[0]
    for i in range(n):
        x, y, z, w = np.float64(pos[i, 0]), np.float64(pos[i, 1]), np.float64(pos[i, 2]), np.float64(pos[i, 3])
        if not np.isfinite(x + y + z + w):
            return BAD_POSITION
        inverse = 1.0 / w
        px, py, pz = (x * inverse + 1) * sx, (y * inverse + 1) * sy, z * inverse
        inside = w > _MIN_W and abs(pz) <= 1 and abs(px) < _GUARD_BAND_PX and abs(py) < _GUARD_BAND_PX
        if inside:
            snapped[i, 0] = np.int64(np.floor(px * _SUBPIXELS + 0.5))
            snapped[i, 1] = np.int64(np.floor(py * _SUBPIXELS + 0.5))
            depths[i] = np.rint(pz * _DEPTH_ONE)
        else:
            depths[i] = np.inf
    for f in range(tri.shape[0]):
        i, j, k = tri[f, 0], tri[f, 1], tri[f, 2]
        if min(i, j, k) < 0 or max(i, j, k) >= n:
            return BAD_INDEX
        az, bz, cz = depths[i], depths[j], depths[k]
        if az + bz + cz < np.inf:
            _fill(keys, width, row_begin, row_end, snapped[i, 0], snapped[i, 1], az,
                  snapped[j, 0], snapped[j, 1], bz, snapped[k, 0], snapped[k, 1], cz, f)
        else:
            _fill_clipped(keys, width, height, row_begin, row_end, pos, i, j, k, f)
    return OK


@kernel
def resolve(keys, pos, tri, width, height, row_begin, row_end, out):
    """Step 3: (u, v, z/w, triangle + 1) for each covered pixel, zeros elsewhere; leaves the keys EMPTY.

    u weights vertex 0 and v vertex 1. A pixel centre may lie up to half a snapping step outside the unsnapped
    triangle; u, v and 1 − u − v are clamped to [0, 1].

    Args:
        out: (height, width, 4) float32.
    """
    stride = width + ROW_PADDING
    previous = np.int64(-1)
    x_step, y_step = 2 / width, 2 / height
    x_first, y_first = 1 / width - 1, 1 / height - 1
    a0 = a1 = a2 = b0 = b1 = b2 = c0 = c1 = c2 = 0.0
    for row in range(row_begin, row_end):
        y = y_first + row * y_step
        row_keys = keys[row * stride : row * stride + width]
        row_out = out[row]
        for column in range(width):
            key = row_keys[column]
            if key == EMPTY:
                row_out[column, 0] = 0
                row_out[column, 1] = 0
                row_out[column, 2] = 0
                row_out[column, 3] = 0
                continue
            row_keys[column] = EMPTY
            number = key & _ID_MASK
            if number != previous:
                previous = number
                i, j, k = tri[number, 0], tri[number, 1], tri[number, 2]
                x0, y0, w0 = np.float64(pos[i, 0]), np.float64(pos[i, 1]), np.float64(pos[i, 3])
                x1, y1, w1 = np.float64(pos[j, 0]), np.float64(pos[j, 1]), np.float64(pos[j, 3])
                x2, y2, w2 = np.float64(pos[k, 0]), np.float64(pos[k, 1]), np.float64(pos[k, 3])
                # homogeneous edge functions a X + b Y + c: opposite vertices 0 and 1, and the sum of all three
                a0, b0, c0 = y1 * w2 - w1 * y2, w1 * x2 - x1 * w2, x1 * y2 - y1 * x2
                a1, b1, c1 = y2 * w0 - w2 * y0, w2 * x0 - x2 * w0, x2 * y0 - y2 * x0
                a2 = a0 + a1 + (y0 * w1 - w0 * y1)
                b2 = b0 + b1 + (w0 * x1 - x0 * w1)
                c2 = c0 + c1 + (x0 * y1 - y0 * x1)
            x = x_first + column * x_step
            inverse = 1.0 / (a2 * x + (b2 * y + c2))
            u = (a0 * x + (b0 * y + c0)) * inverse
            v = (a1 * x + (b1 * y + c1)) * inverse
            # written so that the 0/0 of a triangle seen edge-on ends at a number
            u = min(u, 1.0) if u > 0 else 0.0
            v = min(v, 1.0 - u) if v > 0 else 0.0
            row_out[column, 0] = u
            row_out[column, 1] = v
            row_out[column, 2] = (key >> _DEPTH_SHIFT) / _DEPTH_ONE
            row_out[column, 3] = number + 1
