"""Interpolation on one core, and the derivatives of interpolation and of rasterisation.

All of them walk the picture in runs, stretches of pixels in memory order that show the same triangle, and do the work
that depends on the triangle alone once per run. Kernels take C-contiguous arrays and trust their shapes; the forward
kernels check indices, the backward ones rely on their having done so.
"""

from __future__ import annotations

import numpy as np

from tracker.rendering.jit import fast_kernel, inline, kernel

OK, BAD_INDEX = 0, 2
"""What kernels return; the numbers are those of ``cpu_kernels``."""

_CLAMPED = 1e-9  # a weight further below zero than this was clamped, and not merely rounded, by the forward pass


@inline
def _run_end(rast, begin, end):
    """First pixel after ``begin`` that shows another triangle; ``rast`` is flat."""
    number = rast[4 * begin + 3]
    p = begin + 1
    while p < end and rast[4 * p + 3] == number:
        p += 1
    return p


@fast_kernel
def interpolate(attr, rast, tri, out):
    """``out = u a₀ + v a₁ + (1 − u − v) a₂`` where a triangle shows, zeros elsewhere.

    Args:
        attr: (V, C) float32. rast: (H, W, 4) float32. tri: (F, 3) int32. out: (H, W, C) float32.
    """
    vertices, channels = attr.shape
    pixels = rast.shape[0] * rast.shape[1]
    a, r, o = attr.reshape(-1), rast.reshape(-1), out.reshape(-1)
    begin = 0
    while begin < pixels:
        end = _run_end(r, begin, pixels)
        number = r[4 * begin + 3]
        if number > 0:
            f = np.int64(number) - 1
            if f >= tri.shape[0]:
                return BAD_INDEX
            i, j, k = np.int64(tri[f, 0]), np.int64(tri[f, 1]), np.int64(tri[f, 2])
            if min(i, j, k) < 0 or max(i, j, k) >= vertices:
                return BAD_INDEX
            a0 = a[i * channels : (i + 1) * channels]
            a1 = a[j * channels : (j + 1) * channels]
            a2 = a[k * channels : (k + 1) * channels]
            for p in range(begin, end):
                u, v = r[4 * p], r[4 * p + 1]
                t = np.float32(1) - u - v
                pixel = o[p * channels : (p + 1) * channels]
                for c in range(channels):
                    pixel[c] = u * a0[c] + v * a1[c] + t * a2[c]
        else:
            for q in range(begin * channels, end * channels):
                o[q] = 0
        begin = end
    return OK


@fast_kernel
def paint(colors, rast, tri, opacity, image):
    """Blend interpolated vertex colours into a picture whose row 0 is on top.

    Args:
        colors: (V, 3) float32, 0 to 255. rast: (H, W, 4) float32. tri: (F, 3) int32. opacity: float32.
        image: (H, W, 3) uint8, changed in place.
    """
    height, width = rast.shape[0], rast.shape[1]
    r = rast.reshape(-1)
    keep = np.float32(1) - opacity
    for row in range(height):
        begin, row_end = row * width, (row + 1) * width
        pixels = image[height - 1 - row]
        while begin < row_end:
            end = _run_end(r, begin, row_end)
            number = r[4 * begin + 3]
            if number > 0:
                f = np.int64(number) - 1
                if f >= tri.shape[0]:
                    return BAD_INDEX
                i, j, k = np.int64(tri[f, 0]), np.int64(tri[f, 1]), np.int64(tri[f, 2])
                if min(i, j, k) < 0 or max(i, j, k) >= colors.shape[0]:
                    return BAD_INDEX
                for p in range(begin, end):
                    u, v = r[4 * p], r[4 * p + 1]
                    t = np.float32(1) - u - v
                    column = p - row * width
                    for c in range(3):
                        color = u * colors[i, c] + v * colors[j, c] + t * colors[k, c]
                        mixed = opacity * color + keep * pixels[column, c] + np.float32(0.5)
                        pixels[column, c] = np.uint8(min(max(mixed, np.float32(0)), np.float32(255)))
            begin = end
    return OK


@fast_kernel
def interpolate_backward(grad_out, attr, rast, tri, want_attr, want_rast, grad_attr, grad_rast):
    """Derivatives of :func:`interpolate`.

    Args:
        grad_out: (H, W, C) float32. want_attr, want_rast: which results to write.
        grad_attr: (V, C) float32, added to. grad_rast: (H, W, 4) float32, overwritten.
    """
    channels = attr.shape[1]
    pixels = rast.shape[0] * rast.shape[1]
    a, r, g = attr.reshape(-1), rast.reshape(-1), grad_out.reshape(-1)
    ga, gr = grad_attr.reshape(-1), grad_rast.reshape(-1)
    begin = 0
    while begin < pixels:
        end = _run_end(r, begin, pixels)
        number = r[4 * begin + 3]
        if not number > 0:
            if want_rast:
                for q in range(4 * begin, 4 * end):
                    gr[q] = 0
            begin = end
            continue
        f = np.int64(number) - 1
        i, j, k = tri[f, 0] * channels, tri[f, 1] * channels, tri[f, 2] * channels
        if want_attr:
            g0, g1, g2 = ga[i : i + channels], ga[j : j + channels], ga[k : k + channels]
            for p in range(begin, end):
                u, v = r[4 * p], r[4 * p + 1]
                t = np.float32(1) - u - v
                grad = g[p * channels : (p + 1) * channels]
                for c in range(channels):
                    g0[c] += u * grad[c]
                for c in range(channels):
                    g1[c] += v * grad[c]
                for c in range(channels):
                    g2[c] += t * grad[c]
        if want_rast:
            a0, a1, a2 = a[i : i + channels], a[j : j + channels], a[k : k + channels]
            for p in range(begin, end):
                grad = g[p * channels : (p + 1) * channels]
                grad_u = grad_v = np.float32(0)
                for c in range(channels):
                    grad_u += grad[c] * (a0[c] - a2[c])
                    grad_v += grad[c] * (a1[c] - a2[c])
                gr[4 * p] = grad_u
                gr[4 * p + 1] = grad_v
                gr[4 * p + 2] = 0
                gr[4 * p + 3] = 0
        begin = end


@inline
def _add_cross(grad_pos, vertex, ax, ay, aw, bx, by, bw):
    """Add a × b to the (x, y, w) of one vertex's gradient."""
    grad_pos[vertex, 0] += ay * bw - aw * by
    grad_pos[vertex, 1] += aw * bx - ax * bw
    grad_pos[vertex, 3] += ax * by - ay * bx


@kernel
def rasterize_backward(grad_rast, rast, pos, tri, grad_pos):
    """Derivative of u and v with respect to clip-space x, y and w; z gets none.

    With P = (x, y, w) of a vertex and the homogeneous edge functions E₀ = P₁ × P₂, E₁ = P₂ × P₀, E₂ = P₀ × P₁, the
    weights at pixel centre q = (X, Y, 1) are u = E₀·q / Σ E·q and v = E₁·q / Σ E·q. A run adds up the gradient with
    respect to the three E, and then takes it through the cross products. Where the forward pass clamped a weight the
    value no longer depends on the position, so such pixels pass nothing on.

    Args:
        grad_rast: (H, W, 4) float32; channels 0 and 1 are used. rast: (H, W, 4) float32. pos: (V, 4) float32.
        tri: (F, 3) int32. grad_pos: (V, 4) float32, added to.
    """
    height, width = rast.shape[0], rast.shape[1]
    g, r = grad_rast.reshape(-1), rast.reshape(-1)
    for row in range(height):
        y = (2 * row + 1) / height - 1
        begin, row_end = row * width, (row + 1) * width
        while begin < row_end:
            end = _run_end(r, begin, row_end)
            number = r[4 * begin + 3]
            if not number > 0:
                begin = end
                continue
            f = np.int64(number) - 1
            i, j, k = tri[f, 0], tri[f, 1], tri[f, 2]
            x0, y0, w0 = np.float64(pos[i, 0]), np.float64(pos[i, 1]), np.float64(pos[i, 3])
            x1, y1, w1 = np.float64(pos[j, 0]), np.float64(pos[j, 1]), np.float64(pos[j, 3])
            x2, y2, w2 = np.float64(pos[k, 0]), np.float64(pos[k, 1]), np.float64(pos[k, 3])
            a0, b0, c0 = y1 * w2 - w1 * y2, w1 * x2 - x1 * w2, (x1 * y2 - y1 * x2)
            a1, b1, c1 = y2 * w0 - w2 * y0, w2 * x0 - x2 * w0, (x2 * y0 - y2 * x0)
            a2, b2, c2 = y0 * w1 - w0 * y1, w0 * x1 - x0 * w1, (x0 * y1 - y0 * x1)
            c0, c1, c2 = c0 + b0 * y, c1 + b1 * y, c2 + b2 * y
            sum0 = sum1 = sum2 = sum0x = sum1x = sum2x = 0.0
            for p in range(begin, end):
                grad_u, grad_v = np.float64(g[4 * p]), np.float64(g[4 * p + 1])
                x = (2 * (p - row * width) + 1) / width - 1
                e0, e1, e2 = a0 * x + c0, a1 * x + c1, a2 * x + c2
                inverse = 1.0 / (e0 + e1 + e2)
                u, v = e0 * inverse, e1 * inverse
                if min(u, v, e2 * inverse) > -_CLAMPED:  # false also for the NaN of a triangle seen edge-on
                    common = grad_u * u + grad_v * v
                    g0, g1, g2 = (grad_u - common) * inverse, (grad_v - common) * inverse, -common * inverse
                    sum0 += g0
                    sum1 += g1
                    sum2 += g2
                    sum0x += g0 * x
                    sum1x += g1 * x
                    sum2x += g2 * x
            _add_cross(grad_pos, i, sum1x, sum1 * y, sum1, x2, y2, w2)
            _add_cross(grad_pos, i, x1, y1, w1, sum2x, sum2 * y, sum2)
            _add_cross(grad_pos, j, sum2x, sum2 * y, sum2, x0, y0, w0)
            _add_cross(grad_pos, j, x2, y2, w2, sum0x, sum0 * y, sum0)
            _add_cross(grad_pos, k, sum0x, sum0 * y, sum0, x1, y1, w1)
            _add_cross(grad_pos, k, x0, y0, w0, sum1x, sum1 * y, sum1)
            begin = end
