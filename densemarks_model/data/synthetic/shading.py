"""Light on triangles: one compiled pass over the pixels of a rasterised picture.

Skin has wrapped diffuse light with a red fringe (a cheap stand-in for scattering) and a broad highlight; hair follows
Kajiya and Kay (*Rendering fur with three dimensional textures*, SIGGRAPH 1989); the first light casts soft shadows.
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
    i, j, k = int(fx) % size, int(fy) % size, int(fz) % size
    i1, j1, k1 = (i + 1) % size, (j + 1) % size, (k + 1) % size
    a = volume[i, j, k, channel] * (1 - tx) + volume[i1, j, k, channel] * tx
    b = volume[i, j1, k, channel] * (1 - tx) + volume[i1, j1, k, channel] * tx
    c = volume[i, j, k1, channel] * (1 - tx) + volume[i1, j, k1, channel] * tx
    d = volume[i, j1, k1, channel] * (1 - tx) + volume[i1, j1, k1, channel] * tx
    return (a * (1 - ty) + b * ty) * (1 - tz) + (c * (1 - ty) + d * ty) * tz


@inline
def _lit_share(shadow, matrix, x, y, z, bias, softness):
    """Share of the light that arrives: 1 free, 0 in shadow; percentage-closer filtering."""
    size = shadow.shape[0]
    u = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3]
    v = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3]
    depth = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3]
    column, row = (u * 0.5 + 0.5) * size, (v * 0.5 + 0.5) * size
    free = 0.0
    for a in range(-2, 3):
        for b in range(-2, 3):
            i, j = int(row + a * softness), int(column + b * softness)
            if i < 0 or j < 0 or i >= size or j >= size or depth - bias < shadow[i, j]:
                free += 1.0
    return free / 25.0


@fast_kernel
def shade(rast, tri, material, position, direction, rest, albedo, details, volume, shifts, look, lights, ambient, shadow, shadow_matrix, out):
    """Colour every covered pixel of ``out`` (H, W, 3), linear light; row 0 at the bottom as in ``rast``.

    Args:
        rast: (H, W, 4) of the rasteriser. tri: (F, 3). material: (F,). position, direction, rest, albedo: (V, 3); camera
            space, metres. details: (V, 4), see ``Mesh``.
        volume: noise. shifts: (3,) offset of the noise.
        look: (8,): strength of blotches, freckles, pores, wrinkles; RGB of short hairs; frequency of cloth patterns.
        lights: (L, 7): unit direction towards the light, RGB, size of shadows' soft edge in texels (the first light's).
        ambient: (2, 3): light from above and from below.
        shadow: (S, S) depths seen from the first light. shadow_matrix: (3, 4) camera space to its clip space.
    """
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

            up = 0.5 + 0.5 * ny
            if kind == _HAIR:
                up = 0.6
            r = red * (ambient[1, 0] + (ambient[0, 0] - ambient[1, 0]) * up) * openness
            g = green * (ambient[1, 1] + (ambient[0, 1] - ambient[1, 1]) * up) * openness
            bl = blue * (ambient[1, 2] + (ambient[0, 2] - ambient[1, 2]) * up) * openness
            for light in range(lights.shape[0]):
                lx, ly, lz = lights[light, 0], lights[light, 1], lights[light, 2]
                free = 1.0
                if light == 0:
                    bias = 0.004 if kind != _HAIR else 0.012
                    free = _lit_share(shadow, shadow_matrix, px + 0.002 * nx, py + 0.002 * ny, pz + 0.002 * nz, bias, lights[0, 6])
                else:
                    free = 0.35 + 0.65 * openness
                if free <= 0:
                    continue
                hx, hy, hz = lx + vx, ly + vy, lz + vz
                inverse = 1 / (math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9)
                hx, hy, hz = hx * inverse, hy * inverse, hz * inverse
                if kind == _HAIR:
                    along = nx * lx + ny * ly + nz * lz
                    diffuse = math.sqrt(max(1 - along * along, 0.0)) * 0.55
                    half = nx * hx + ny * hy + nz * hz
                    sheen = math.sqrt(max(1 - half * half, 0.0)) ** 60 * gloss * 0.35
                    dr = dg = db = diffuse
                else:
                    cosine = nx * lx + ny * ly + nz * lz
                    wrap = 0.25 if kind == _SKIN else 0.0
                    db = max(cosine, 0.0)
                    dg = max((cosine + 0.3 * wrap) / (1 + 0.3 * wrap), 0.0)
                    dr = max((cosine + wrap) / (1 + wrap), 0.0)
                    half = max(nx * hx + ny * hy + nz * hz, 0.0)
                    power = 18.0 if kind == _SKIN else 300.0 if kind == _EYE else 90.0 if kind == _PLASTIC else 8.0
                    fresnel = 0.04 + 0.96 * (1 - max(facing, 0.0)) ** 5
                    sheen = half**power * gloss * (0.25 + fresnel) * (2.0 if kind == _EYE else 0.5) if cosine > 0 else 0.0
                r += free * lights[light, 3] * (red * dr + sheen)
                g += free * lights[light, 4] * (green * dg + sheen)
                bl += free * lights[light, 5] * (blue * db + sheen)
            out[row, column, 0] = r
            out[row, column, 1] = g
            out[row, column, 2] = bl
