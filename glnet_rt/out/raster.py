"""A z-buffer for triangle meshes, in numba. Draws the overlay, and the training pictures too."""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from glnet_rt.contracts import Array

NEAR_M = 0.05  # triangles with a corner nearer than this are skipped, not clipped
# A pixel centre on the edge that two triangles share must fall into one of them, whichever way
# float32 rounds: a symmetric body facing the camera has such an edge all along its middle.
EDGE_SLACK = 1e-5  # of a barycentric weight


@nb.njit(cache=True, nogil=True, fastmath={"contract", "arcp", "nsz"})
def rasterize(
    faces: Array, xy_px: Array, depth: Array, zbuffer: Array, face_id: Array, bary: Array
) -> None:
    """Draw triangles into caller-owned buffers; nearer pixels win. Call again to add meshes.

    Args:
        faces: [F, 3] int32.
        xy_px: [V, 2] float32, image px, pixel centres on integers.
        depth: [V] float32, m along the optical axis.
        zbuffer: [H, W] float32, in and out: 1 / depth of what is seen; start from zeros.
        face_id: [H, W] int32, in and out; start from -1.
        bary: [H, W, 2] float32, out: perspective-correct weights of corners 1 and 2.

    Faces seen from outside the mesh are drawn (area < 0 with y down); back faces are skipped.
    """
    height, width = zbuffer.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if depth[a] < NEAR_M or depth[b] < NEAR_M or depth[c] < NEAR_M:
            continue
        x0, y0 = xy_px[a, 0], xy_px[a, 1]
        x1, y1 = xy_px[b, 0] - x0, xy_px[b, 1] - y0
        x2, y2 = xy_px[c, 0] - x0, xy_px[c, 1] - y0
        area = x1 * y2 - x2 * y1
        if area >= -1e-9:
            continue
        left = max(0, math.ceil(x0 + min(0.0, x1, x2)))
        right = min(width - 1, math.floor(x0 + max(0.0, x1, x2)))
        top = max(0, math.ceil(y0 + min(0.0, y1, y2)))
        bottom = min(height - 1, math.floor(y0 + max(0.0, y1, y2)))
        if left > right or top > bottom:  # between pixel centres
            continue
        inv_area = 1.0 / area
        iz0 = 1.0 / depth[a]
        iz1 = 1.0 / depth[b]
        iz2 = 1.0 / depth[c]
        for y in range(top, bottom + 1):
            py = y - y0
            for x in range(left, right + 1):
                px = x - x0
                w1 = (px * y2 - x2 * py) * inv_area
                w2 = (x1 * py - px * y1) * inv_area
                w0 = 1.0 - w1 - w2
                if w0 < -EDGE_SLACK or w1 < -EDGE_SLACK or w2 < -EDGE_SLACK:
                    continue
                # 1/z, not z, is linear on the screen.
                iz = w0 * iz0 + w1 * iz1 + w2 * iz2
                if iz > zbuffer[y, x]:
                    zbuffer[y, x] = iz
                    face_id[y, x] = f
                    bary[y, x, 0] = w1 * iz1 / iz
                    bary[y, x, 1] = w2 * iz2 / iz


@nb.njit(cache=True, nogil=True, fastmath={"contract", "arcp", "nsz"})
def vertex_normals(vertices: Array, faces: Array) -> Array:
    """[V, 3] float32 unit normals, area-weighted, pointing out of the mesh."""
    normals = np.zeros(vertices.shape, np.float32)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux = vertices[b, 0] - vertices[a, 0]
        uy = vertices[b, 1] - vertices[a, 1]
        uz = vertices[b, 2] - vertices[a, 2]
        wx = vertices[c, 0] - vertices[a, 0]
        wy = vertices[c, 1] - vertices[a, 1]
        wz = vertices[c, 2] - vertices[a, 2]
        nx = uy * wz - uz * wy
        ny = uz * wx - ux * wz
        nz = ux * wy - uy * wx
        for v in (a, b, c):
            normals[v, 0] += nx
            normals[v, 1] += ny
            normals[v, 2] += nz
    for v in range(normals.shape[0]):
        norm = math.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2) + 1e-12
        for k in range(3):
            normals[v, k] /= norm
    return normals
