"""Light on triangles: one compiled pass over the pixels of a rasterised picture.

Skin has wrapped diffuse light with a red fringe (a cheap stand-in for scattering) and a broad highlight; hair follows
Kajiya and Kay (*Rendering fur with three dimensional textures*, SIGGRAPH 1989); lights cast soft shadows, as many of them
as have a shadow map. Ambient light is a quadratic function of the normal, see :mod:`densemarks_model.data.synthetic.light`.
"""

from __future__ import annotations

import math

from densemarks_model.data.synthetic.mesh import CLOTH, EYE, HAIR, PLASTIC, SKIN
from tracker.rendering.jit import fast_kernel, inline

_SKIN, _EYE, _HAIR, _CLOTH, _PLASTIC = SKIN, EYE, HAIR, CLOTH, PLASTIC


@inline
def _noise(volume, x, y, z, channel):
    size = volume.shape[0]
    x, y, z = x * size, y * size, z * size
    fx, fy, fz = math.floor(x), math.floor(y), math.floor(z)
    tx, ty, tz = x - fx, y - fy, z - fz
    wrap = size - 1  # the size is a power of two
    i, j, k = int(fx) & wrap, int(fy) & wrap, int(fz) & wrap
    i1, j1, k1 = (i + 1) & wrap, (j + 1) & wrap, (k + 1) & wrap
    a = volume[i, j, k, channel] * (1 - tx) + volume[i1, j, k, channel] * tx
    b = volume[i, j1, k, channel] * (1 - tx) + volume[i1, j1, k, channel] * tx
    c = volume[i, j, k1, channel] * (1 - tx) + volume[i1, j, k1, channel] * tx
    d = volume[i, j1, k1, channel] * (1 - tx) + volume[i1, j1, k1, channel] * tx
    return (a * (1 - ty) + b * ty) * (1 - tz) + (c * (1 - ty) + d * ty) * tz


@inline
def _lit_share(shadow, matrix, light, x, y, z, bias, softness):
    """Share of the light that arrives: 1 free, 0 in shadow; percentage-closer filtering."""
    size = shadow.shape[1]
    u = matrix[light, 0, 0] * x + matrix[light, 0, 1] * y + matrix[light, 0, 2] * z + matrix[light, 0, 3]
    v = matrix[light, 1, 0] * x + matrix[light, 1, 1] * y + matrix[light, 1, 2] * z + matrix[light, 1, 3]
    depth = matrix[light, 2, 0] * x + matrix[light, 2, 1] * y + matrix[light, 2, 2] * z + matrix[light, 2, 3]
    column, row = (u * 0.5 + 0.5) * size, (v * 0.5 + 0.5) * size
    free, depth = 0, depth - bias
    for a in range(-2, 3):
        i = int(row + a * softness)
        if i < 0 or i >= size:
            free += 5
            continue
        for b in range(-2, 3):
            j = int(column + b * softness)
            if j < 0 or j >= size or depth < shadow[light, i, j]:
                free += 1
    return free / 25.0


@inline
def _ambient_light(ambient, x, y, z, channel):
    """Irradiance over π on a surface with this normal."""
    linear = ambient[0, channel] + ambient[1, channel] * x + ambient[2, channel] * y + ambient[3, channel] * z
    cross = ambient[4, channel] * x * y + ambient[5, channel] * y * z + ambient[6, channel] * z * x
    squares = ambient[7, channel] * (x * x - y * y) + ambient[8, channel] * (2 * z * z - x * x - y * y)
    return max(linear + cross + squares, 0.0)


@inline
def _mirror(mirrored, turn, x, y, z, channel):
    """Radiance of the panorama in a direction of camera space; the nearest pixel."""
    rows, columns = mirrored.shape[0], mirrored.shape[1]
    a = turn[0, 0] * x + turn[0, 1] * y + turn[0, 2] * z
    b = turn[1, 0] * x + turn[1, 1] * y + turn[1, 2] * z
    c = turn[2, 0] * x + turn[2, 1] * y + turn[2, 2] * z
    column = int((0.5 + math.atan2(a, -c) / (2 * math.pi)) * columns)
    row = int((0.5 - math.asin(min(max(b, -1.0), 1.0)) / math.pi) * rows)
    return mirrored[min(max(row, 0), rows - 1), min(max(column, 0), columns - 1), channel]


@fast_kernel
def shade(
    rast, tri, material, position, direction, rest, albedo, details, volume, shifts, look,
    lights, ambient, shadow, shadow_matrix, middle, scatter, mirrored, to_world, out,
):  # fmt: skip
    """Colour every covered pixel of ``out`` (H, W, 3), linear light; row 0 at the bottom as in ``rast``.

    Args:
        rast: (H, W, 4) of the rasteriser. tri: (F, 3). material: (F,). position, direction, rest, albedo: (V, 3); camera
            space, metres. details: (V, 4), see ``Mesh``.
        volume: noise. shifts: (3,) offset of the noise.
        look: (8,): strength of blotches, freckles, pores, wrinkles; RGB of short hairs; frequency of cloth patterns.
        lights, ambient, scatter, mirrored, to_world: see ``light.Lighting``.
        shadow: (K, S, S) depths seen from the first K lights. shadow_matrix: (K, 3, 4) camera space to their clip space.
        middle: (4,): the head's middle in camera space, and how much hair's ambient light follows the place around it.
    """
    # one kernel: the loop over pixels is compiled as a whole, and nothing in it is allocated
    height, width = rast.shape[0], rast.shape[1]
    for row in range(height):
        for column in range(width):
            face = int(rast[row, column, 3]) - 1
            if face < 0:
                continue
            wa, wb = rast[row, column, 0], rast[row, column, 1]
            wc = 1 - wa - wb
            a, b, c = tri[face, 0], tri[face, 1], tri[face, 2]
            px = wa * position[a, 0] + wb * position[b, 0] + wc * position[c, 0]
            py = wa * position[a, 1] + wb * position[b, 1] + wc * position[c, 1]
            pz = wa * position[a, 2] + wb * position[b, 2] + wc * position[c, 2]
            nx = wa * direction[a, 0] + wb * direction[b, 0] + wc * direction[c, 0]
            ny = wa * direction[a, 1] + wb * direction[b, 1] + wc * direction[c, 1]
            nz = wa * direction[a, 2] + wb * direction[b, 2] + wc * direction[c, 2]
            rx = wa * rest[a, 0] + wb * rest[b, 0] + wc * rest[c, 0]
            ry = wa * rest[a, 1] + wb * rest[b, 1] + wc * rest[c, 1]
            rz = wa * rest[a, 2] + wb * rest[b, 2] + wc * rest[c, 2]
            red = wa * albedo[a, 0] + wb * albedo[b, 0] + wc * albedo[c, 0]
            green = wa * albedo[a, 1] + wb * albedo[b, 1] + wc * albedo[c, 1]
            blue = wa * albedo[a, 2] + wb * albedo[b, 2] + wc * albedo[c, 2]
            openness = wa * details[a, 0] + wb * details[b, 0] + wc * details[c, 0]
            stubble = wa * details[a, 1] + wb * details[b, 1] + wc * details[c, 1]
            gloss = wa * details[a, 2] + wb * details[b, 2] + wc * details[c, 2]
            bump = wa * details[a, 3] + wb * details[b, 3] + wc * details[c, 3]
            kind = material[face]

            if kind == _SKIN:
                blotch = _noise(volume, rx * 4 + shifts[0], ry * 4 + shifts[1], rz * 4 + shifts[2], 0)
                fine = _noise(volume, rx * 6 + shifts[1], ry * 6 + shifts[2], rz * 6 + shifts[0], 2)
                pores = _noise(volume, rx * 24 + shifts[2], ry * 24 + shifts[0], rz * 24 + shifts[1], 3)
                change = 1 + look[0] * blotch * bump + look[2] * 0.4 * fine * bump
                red *= change
                green *= change - 0.5 * look[0] * blotch * bump
                blue *= change - 0.5 * look[0] * blotch * bump
                if fine > 1.9 and bump > 0.5:
                    spot = min((fine - 1.9) * 2, 1.0) * look[1]
                    red, green, blue = red * (1 - 0.35 * spot), green * (1 - 0.55 * spot), blue * (1 - 0.65 * spot)
                if stubble > 0.02:
                    # strokes: noise stretched along the hairs; thin where the density is low
                    stroke = _noise(volume, rx * 16 + shifts[0], ry * 7 + shifts[0], rz * 12, 3)
                    cover = min(max(stubble * 1.5 + (stroke - 0.2) * 0.35 * (1.1 - stubble) * min(stubble * 4, 1.0) - 0.25, 0.0), 1.0)
                    red += (look[4] - red) * cover
                    green += (look[5] - green) * cover
                    blue += (look[6] - blue) * cover
                    gloss *= 1 - cover
                lines = math.sin(ry * 900 + 2.5 * blotch + 40 * abs(rx)) * bump * look[3]
                nx += bump * (look[2] * 0.5 * pores + look[2] * 0.5 * fine)
                ny += bump * (look[2] * 0.5 * fine - look[2] * 0.5 * pores) + lines
            elif kind == _CLOTH:
                weave = _noise(volume, rx * 6 + shifts[0], ry * 6 + shifts[1], rz * 6, 0)
                fold = _noise(volume, rx * 2 + shifts[2], ry * 1.0 + shifts[0], rz * 2, 1)
                nx += 0.5 * bump * fold
                ny += 0.25 * bump * weave
                if look[7] != 0:
                    stripe = math.sin(look[7] * (ry if look[7] > 0 else rx)) * 0.4
                    if abs(look[7]) > 600:
                        stripe = 0.6 * weave
                    red, green, blue = red * (1 + stripe), green * (1 + stripe * 0.8), blue * (1 + stripe)
                    red, green, blue = max(red, 0.0), max(green, 0.0), max(blue, 0.0)
            elif kind == _HAIR:
                streak = _noise(volume, rx * 3 + shifts[1], ry * 0.8, rz * 3 + shifts[2], 0)
                change = max(1 + 0.25 * streak, 0.2)
                red, green, blue = red * change, green * change, blue * change

            length = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
            nx, ny, nz = nx / length, ny / length, nz / length
            distance = math.sqrt(px * px + py * py + pz * pz) + 1e-9
            vx, vy, vz = -px / distance, -py / distance, -pz / distance
            facing = nx * vx + ny * vy + nz * vz
            if kind != _HAIR and facing < 0:  # the inner side of open shells
                nx, ny, nz, facing = -nx, -ny, -nz, -facing

            ax, ay, az = nx, ny, nz
            if kind == _HAIR:  # a strand faces all around; the mop of hair faces away from the head's middle
                qx, qy, qz = px - middle[0], py - middle[1], pz - middle[2]
                share = middle[3] / (math.sqrt(qx * qx + qy * qy + qz * qz) + 1e-9)
                ax, ay, az = share * qx, 0.2 * (1 - middle[3]) + share * qy, share * qz
            r = red * _ambient_light(ambient, ax, ay, az, 0) * openness
            g = green * _ambient_light(ambient, ax, ay, az, 1) * openness
            bl = blue * _ambient_light(ambient, ax, ay, az, 2) * openness
            reflects = kind == _EYE and mirrored.shape[0] > 1
            if reflects or (kind == _SKIN and scatter > 0):
                mx, my, mz = 2 * facing * nx - vx, 2 * facing * ny - vy, 2 * facing * nz - vz
                grazing = (1 - max(facing, 0.0)) ** 5
                if reflects:
                    sheen = (0.03 + 0.4 * grazing) * gloss * openness
                    r += sheen * _mirror(mirrored, to_world, mx, my, mz, 0)
                    g += sheen * _mirror(mirrored, to_world, mx, my, mz, 1)
                    bl += sheen * _mirror(mirrored, to_world, mx, my, mz, 2)
                else:  # rough: what comes from about there
                    sheen = scatter * (0.03 + 0.3 * grazing) * gloss * openness
                    r += sheen * _ambient_light(ambient, mx, my, mz, 0)
                    g += sheen * _ambient_light(ambient, mx, my, mz, 1)
                    bl += sheen * _ambient_light(ambient, mx, my, mz, 2)
            for light in range(lights.shape[0]):
                lx, ly, lz = lights[light, 0], lights[light, 1], lights[light, 2]
                cosine = nx * lx + ny * ly + nz * lz
                if kind != _HAIR and cosine <= -0.25:  # not even wrapped light arrives
                    continue
                free = 1.0
                if light < shadow.shape[0]:
                    bias = 0.004 if kind != _HAIR else 0.012
                    free = _lit_share(shadow, shadow_matrix, light, px + 0.002 * nx, py + 0.002 * ny, pz + 0.002 * nz, bias, lights[light, 6])
                else:
                    free = 0.35 + 0.65 * openness
                if free <= 0:
                    continue
                hx, hy, hz = lx + vx, ly + vy, lz + vz
                inverse = 1 / (math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9)
                hx, hy, hz = hx * inverse, hy * inverse, hz * inverse
                if kind == _HAIR:
                    diffuse = math.sqrt(max(1 - cosine * cosine, 0.0)) * 0.55
                    half = nx * hx + ny * hy + nz * hz
                    sheen = math.sqrt(max(1 - half * half, 0.0)) ** 60 * gloss * 0.35
                    dr = dg = db = diffuse
                else:
                    wrap = 0.25 if kind == _SKIN else 0.0
                    db = max(cosine, 0.0)
                    dg = max((cosine + 0.3 * wrap) / (1 + 0.3 * wrap), 0.0)
                    dr = max((cosine + wrap) / (1 + wrap), 0.0)
                    half = max(nx * hx + ny * hy + nz * hz, 0.0)
                    power = 18.0 if kind == _SKIN else 300.0 if kind == _EYE else 90.0 if kind == _PLASTIC else 8.0
                    fresnel = 0.04 + 0.96 * (1 - max(facing, 0.0)) ** 5
                    sheen = half**power * gloss * (0.25 + fresnel) * (2.0 if kind == _EYE else 0.5) if cosine > 0 else 0.0
                if reflects:
                    sheen = 0.0
                if scatter > 0 and kind == _SKIN and free < 1:  # red light goes furthest under the skin, into the shadow's edge
                    dr *= 1 + scatter * 0.5 * (1 - free)
                    db *= 1 - scatter * 0.25 * (1 - free)
                r += free * lights[light, 3] * (red * dr + sheen)
                g += free * lights[light, 4] * (green * dg + sheen)
                bl += free * lights[light, 5] * (blue * db + sheen)
            out[row, column, 0] = r
            out[row, column, 1] = g
            out[row, column, 2] = bl
