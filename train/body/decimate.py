"""Thin a symmetric mesh by half-edge collapses that keep it symmetric, closed and in its vertices.

A collapse moves one vertex onto a neighbour, so the vertices that stay are MakeHuman's own and take
their targets and weights along. Each collapse is made on both sides at once, or not at all.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import numpy as np

from glnet_rt.contracts import Array

MIN_NORMAL_COSINE = 0.3  # a face may not turn further than this in one collapse
MIN_SHAPE = 0.06  # area over longest edge squared: refuses slivers
COST_PER_WEIGHT = 3e-7  # keeps vertices where skinning weights change
COST_PER_METRE = 2e-8  # prefers short edges on flat ground


def triangulate(quads: Array, mirror: Array) -> Array:
    """[n, 4] quads -> [2n, 3] triangles whose diagonals mirror each other."""
    done: dict[frozenset[int], tuple[int, int]] = {}
    triangles = []
    for quad in quads.tolist():
        a, b, c, d = quad
        twin = frozenset(int(mirror[v]) for v in quad)
        diagonal = done.get(twin)
        start = diagonal is not None and {int(mirror[v]) for v in diagonal} == {b, d}
        if start:
            triangles += [[b, c, d], [b, d, a]]
            done[frozenset(quad)] = (b, d)
        else:
            triangles += [[a, b, c], [a, c, d]]
            done[frozenset(quad)] = (a, c)
    return np.array(triangles)


class SymmetricDecimator:
    """Quadric-error half-edge collapse on a closed, mirror-symmetric triangle mesh.

    Args:
        vertices: [N, 3] float64, m, symmetric.
        triangles: [F, 3], closed surface.
        lbs_weights: [N, 24].
        mirror: [N], left/right counterparts.
        locked: vertices that must stay.
    """

    def __init__(
        self,
        vertices: Array,
        triangles: Array,
        lbs_weights: Array,
        mirror: Array,
        locked: Iterable[int] = (),
    ) -> None:
        self._vertices = vertices
        self._weights = lbs_weights
        self._mirror = mirror.tolist()
        self._locked = set(locked) | {self._mirror[v] for v in locked}
        self._faces = {i: tuple(face) for i, face in enumerate(triangles.tolist())}
        used = np.unique(triangles).tolist()
        self._faces_of: dict[int, set[int]] = {v: set() for v in used}
        self._neighbours: dict[int, set[int]] = {v: set() for v in used}
        self._quadric = np.zeros((len(vertices), 4, 4))
        for i, face in self._faces.items():
            plane = self._plane_quadric(face)
            for v in face:
                self._faces_of[v].add(i)
                self._neighbours[v].update(set(face) - {v})
                self._quadric[v] += plane
        self._version = dict.fromkeys(used, 0)
        self._heap: list[tuple[float, int, int, int, int]] = []

    def run(self, target: int) -> tuple[Array, Array]:
        """Collapse until at most `target` vertices are left.

        Returns:
            (kept vertex ids [V] int64 ascending, triangles [F, 3] int64 in the old ids).
        """
        for v in self._neighbours:
            self._push(v)
        while self._heap and len(self._neighbours) > target:
            _, u, v, version_u, version_v = heapq.heappop(self._heap)
            if self._version.get(u) != version_u or self._version.get(v) != version_v:
                continue
            if not self._allowed(u, v):
                continue
            touched = self._collapse(u, v)
            if self._mirror[u] != u:
                touched |= self._collapse(self._mirror[u], self._mirror[v])
            for x in touched:
                if x in self._neighbours:
                    self._push(x)
        kept = np.array(sorted(self._neighbours))
        return kept, np.array(list(self._faces.values()))

    def _allowed(self, u: int, v: int) -> bool:
        if u in self._locked or not self._sound(u, v):
            return False
        twin_u, twin_v = self._mirror[u], self._mirror[v]
        if twin_u == u:
            return bool(twin_v == v)  # the midline collapses along itself
        # The two collapses must not disturb each other's ring.
        ring = self._neighbours[u]
        if twin_u in ring or (twin_v != v and twin_v in ring):
            return False
        if twin_v == v and (ring & self._neighbours[twin_u]) - self._neighbours[v] - {v}:
            return False
        return self._sound(twin_u, twin_v)

    def _sound(self, u: int, v: int) -> bool:
        """Whether moving u onto v keeps a manifold, turns no face over and makes no sliver."""
        if len(self._neighbours[u] & self._neighbours[v]) != 2:
            return False
        for i in self._faces_of[u]:
            face = self._faces[i]
            if v in face:
                continue
            before = self._vertices[list(face)]
            after = self._vertices[[v if x == u else x for x in face]]
            n0 = np.cross(before[1] - before[0], before[2] - before[0])
            n1 = np.cross(after[1] - after[0], after[2] - after[0])
            size0, size1 = float(np.sqrt(n0 @ n0)), float(np.sqrt(n1 @ n1))
            if size1 < 1e-12 or float(n0 @ n1) < MIN_NORMAL_COSINE * size0 * size1:
                return False
            edges = after - after[[1, 2, 0]]
            if size1 < MIN_SHAPE * float((edges * edges).sum(1).max()):
                return False
        return True

    def _collapse(self, u: int, v: int) -> set[int]:
        """Move u onto v; gives the vertices whose costs changed."""
        for i in list(self._faces_of[u]):
            face = self._faces[i]
            if v in face:
                for x in face:
                    self._faces_of[x].discard(i)
                del self._faces[i]
            else:
                self._faces[i] = tuple(v if x == u else x for x in face)
                self._faces_of[v].add(i)
        ring = self._neighbours.pop(u)
        for x in ring:
            self._neighbours[x].discard(u)
            if x != v:
                self._neighbours[x].add(v)
                self._neighbours[v].add(x)
        del self._faces_of[u], self._version[u]
        for x in (*self._neighbours[v], v):
            self._version[x] += 1
        self._quadric[v] += self._quadric[u]
        return ring | self._neighbours[v]

    def _push(self, u: int) -> None:
        costs = {v: self._cost(u, v) for v in self._neighbours[u]}
        limit = 3 * min(costs.values()) + 1e-15
        for v, cost in costs.items():
            if cost <= limit:
                heapq.heappush(self._heap, (cost, u, v, self._version[u], self._version[v]))

    def _cost(self, u: int, v: int) -> float:
        at = np.append(self._vertices[v], 1.0)
        surface = float(at @ (self._quadric[u] + self._quadric[v]) @ at)
        edge = self._vertices[u] - self._vertices[v]
        length = float(np.sqrt(edge @ edge))
        skin = float(np.abs(self._weights[u] - self._weights[v]).sum())
        return surface + length * (COST_PER_WEIGHT * skin + COST_PER_METRE + 1e-7 * length)

    def _plane_quadric(self, face: tuple[int, ...]) -> Array:
        a, b, c = self._vertices[list(face)]
        normal = np.cross(b - a, c - a)
        area = float(np.linalg.norm(normal))
        if area < 1e-14:
            return np.zeros((4, 4))
        normal = normal / area
        plane = np.append(normal, -normal @ a)
        return np.asarray(np.outer(plane, plane) * area)
