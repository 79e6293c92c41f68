"""Paint what stands behind a person: flat fills, photographs, rooms, open ground, clutter."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from glnet_rt.contracts import Array
from train.synthetic.appearance import cloth_color
from train.synthetic.scenery import (
    BACK,
    BARE,
    COURT,
    CROWD,
    FIRST_BOX,
    GRAIN,
    LEAVES,
    RIPPLES,
    TILES,
    Room,
    paint_flat,
    paint_room,
)
from train.synthetic.shading import Lens, Lights, Shadow
from train.synthetic.view import bounds

Rng = np.random.Generator

BACKGROUND_NAMES = (
    "gradient", "clouds", "chequers", "waves", "blocks", "photo", "room", "outdoor", "thicket",
)  # fmt: skip
HELD_OUT_BACKGROUNDS = ("waves",)
_SHARES = {
    "train": (0.05, 0.06, 0.02, 0.0, 0.04, 0.15, 0.34, 0.19, 0.15),
    "heldout": (0.04, 0.05, 0.02, 0.06, 0.03, 0.15, 0.33, 0.18, 0.14),
}
_INDOORS = (0.34, 0.14, 0.14, 0.2, 0.1, 0.08)  # the first of `TEXTURE_NAMES`
_GROUNDS: dict[str, tuple[tuple[float, ...], tuple[float, ...], int]] = {  # two tones and texture
    "grass": ((0.30, 0.42, 0.18), (0.20, 0.30, 0.12), GRAIN),
    "asphalt": ((0.45, 0.45, 0.44), (0.36, 0.36, 0.36), GRAIN),
    "sand": ((0.72, 0.64, 0.48), (0.60, 0.52, 0.38), GRAIN),
    "earth": ((0.38, 0.31, 0.24), (0.27, 0.22, 0.17), GRAIN),
    "snow": ((0.86, 0.88, 0.92), (0.76, 0.80, 0.88), GRAIN),
    "water": ((0.16, 0.30, 0.38), (0.62, 0.72, 0.76), RIPPLES),
    "paving": ((0.55, 0.52, 0.49), (0.42, 0.40, 0.38), TILES),
    "lawn court": ((0.28, 0.42, 0.20), (0.92, 0.93, 0.90), COURT),
    "clay court": ((0.66, 0.38, 0.26), (0.93, 0.92, 0.90), COURT),
    "hard court": ((0.22, 0.38, 0.52), (0.94, 0.94, 0.94), COURT),
}
_GROUND_SHARES = (0.27, 0.12, 0.10, 0.09, 0.10, 0.07, 0.09, 0.06, 0.05, 0.05)
# Pictures without people that come with scikit-image; each split has its own.
PHOTOGRAPHS = {
    "train": ("coffee.png", "rocket.jpg", "grass.png", "ihc.png", "motorcycle_left.png",
              "page.png", "coins.png", "hubble_deep_field.jpg"),
    "heldout": ("chelsea.png", "brick.png", "gravel.png", "retina.jpg", "moon.png"),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Stage:
    """Where the person stands, for scenery that must agree with the camera.

    Attributes:
        lens: pinhole of the picture.
        border: [4] float32, uv edges of the imaginary image: nothing is painted beyond.
        up: [3] world's up in the camera frame.
        vertices: [V, 3] float32, camera frame, m, of the dressed person.
        lights, shadow: what falls on floor and walls.
        seat: [3] pelvis in the camera frame if a seat should stand under it, else None.
    """

    lens: Lens
    border: Array
    up: Array
    vertices: Array
    lights: Lights
    shadow: Shadow
    seat: Array | None


def load_photographs(split: str) -> tuple[Array, ...]:
    """The split's photographs, [H, W, 3] uint8 RGB; empty where scikit-image is not installed."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        return ()
    folder = Path(spec.origin).parent / "data"
    images = [cv2.imread(str(folder / name), cv2.IMREAD_COLOR) for name in PHOTOGRAPHS[split]]
    return tuple(np.ascontiguousarray(im[..., ::-1]) for im in images if im is not None)


def paint_background(
    rng: Rng, split: str, photographs: tuple[Array, ...], stage: Stage, alpha: Array, rgb: Array
) -> int:
    """Paint rgb [R, R, 3] float32 sRGB behind a layer with `alpha`; returns the background kind."""
    kind = int(rng.choice(len(BACKGROUND_NAMES), p=_SHARES[split]))
    name = BACKGROUND_NAMES[kind]
    if name == "photo" and not photographs:
        name = "room"
        kind = BACKGROUND_NAMES.index(name)
    if name in ("room", "outdoor"):
        room = sample_room(rng, stage, outdoor=name == "outdoor")
        _paint_room(rng, room, stage, alpha, rgb)
        if rng.random() < 0.45:
            return kind
        if rng.random() < 0.5:
            _paint_thicket(rng, rgb, int(rng.integers(10, 60)))
            return kind
    elif name == "photo":
        paste_photograph(rng, photographs, rgb)
    elif name == "thicket":
        paint_fill(rng, 0, rgb)
        _paint_thicket(rng, rgb, int(rng.integers(120, 400)))
        return kind
    else:
        paint_fill(rng, kind, rgb)
    _clutter(rng, photographs, rgb)
    return kind


def _paint_room(rng: Rng, room: Room, stage: Stage, alpha: Array, rgb: Array) -> None:
    """Sharp, or traced with half the pixels: then it looks out of focus, and costs a quarter."""
    if rng.random() < 0.45:
        paint_room(room, stage.lights, stage.lens, stage.shadow, stage.border, alpha, rgb)
        return
    half = rgb.shape[0] // 2
    small = np.zeros((half, half, 3), np.float32)
    clear = np.zeros((half, half), np.float32)
    edge = np.array([-1, -1, 1, 1], np.float32) * np.float32(2 / half)  # for the interpolation
    paint_room(room, stage.lights, stage.lens, stage.shadow, stage.border + edge, clear, small)
    cv2.resize(small, (rgb.shape[1], rgb.shape[0]), dst=rgb, interpolation=cv2.INTER_LINEAR)


def paint_fill(rng: Rng, kind: int, rgb: Array) -> None:
    """One flat pattern in two colours at a random scale and angle."""
    colors = np.stack([cloth_color(rng), cloth_color(rng)]).astype(np.float32)
    if rng.random() < 0.5:
        colors[1] = np.clip(colors[0] * rng.uniform(0.6, 1.5), 0, 1)
    frequency = float(rng.choice((1.5, 3.0, 6.0, 12.0)))
    seed, angle = int(rng.integers(1 << 20)), float(rng.uniform(0, 2 * np.pi))
    paint_flat(rgb, kind, frequency, seed, colors, angle)


def paste_photograph(rng: Rng, photographs: tuple[Array, ...], rgb: Array) -> None:
    """Fill rgb with a random cut of a random photograph, perhaps mirrored and tinted."""
    source = photographs[int(rng.integers(len(photographs)))]
    height, width = source.shape[:2]
    side = rng.uniform(0.25, 1.0) * min(height, width)
    x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
    cut = source[int(y) : int(y + side), int(x) : int(x + side)]
    size = (rgb.shape[1], rgb.shape[0])
    cut = cv2.resize(
        cut, size, interpolation=cv2.INTER_AREA if side > size[0] else cv2.INTER_LINEAR
    )
    if rng.random() < 0.5:
        cut = cut[:, ::-1]
    rgb[:] = cut
    rgb *= np.float32(1 / 255)
    if rng.random() < 0.5:
        rgb *= rng.uniform(0.5, 1.3, 3).astype(np.float32)


def _paint_thicket(rng: Rng, rgb: Array, count: int) -> None:
    """Overlapping things of all sizes in a few colours: the dead-leaves model of natural pictures.

    A few dozen of them gather around one place; hundreds fill the picture.
    """
    size = rgb.shape[0]
    palette = np.stack([cloth_color(rng) for _ in range(int(rng.integers(3, 7)))])
    spread = 0.16 if count < 80 else 0.6
    centres = (rng.uniform(0.1, 0.9, 2) + spread * rng.uniform(-1, 1, (count, 2))) * size
    radii = (
        size * 0.017 * rng.uniform(0.01, 1, (count, 1)) ** -0.55 * rng.uniform(0.3, 1.6, (count, 2))
    )
    colors = palette[rng.integers(len(palette), size=count)] * rng.uniform(0.5, 1.3, (count, 1))
    angles = rng.normal(90 * rng.integers(2), rng.choice((4.0, 50.0)), count)
    shapes = rng.random(count) < rng.random()
    for centre, radius, color, angle, round_ in zip(
        centres.tolist(), radii.tolist(), np.clip(colors, 0, 1).tolist(), angles.tolist(), shapes,
        strict=True,
    ):  # fmt: skip
        if round_:
            axes = (max(1, round(radius[0])), max(1, round(radius[1])))
            cv2.ellipse(rgb, (round(centre[0]), round(centre[1])), axes, angle, 0, 360, color, -1)
        else:
            corners = cv2.boxPoints((centre, (2 * radius[0] + 1, 2 * radius[1] + 1), angle))
            cv2.fillConvexPoly(rgb, corners.astype(np.int32), color)


def _clutter(rng: Rng, photographs: tuple[Array, ...], rgb: Array) -> None:
    """Up to four flat things standing about."""
    size = rgb.shape[0]
    for _ in range(int(rng.integers(0, 5))):
        width, height = (rng.uniform(0.06, 0.5, 2) * size).astype(int) + 2
        x, y = int(rng.uniform(-0.2, 1) * size), int(rng.uniform(-0.2, 1) * size)
        x0, x1, y0, y1 = max(x, 0), min(x + width, size), max(y, 0), min(y + height, size)
        if x1 <= x0 or y1 <= y0:
            continue
        patch = np.empty((y1 - y0, x1 - x0, 3), np.float32)
        if photographs and rng.random() < 0.3:
            paste_photograph(rng, photographs, patch)
        else:
            paint_fill(rng, (0, 1, 4)[rng.integers(3)], patch)
        if rng.random() < 0.4:
            mask = np.zeros(patch.shape[:2], np.uint8)
            axes = (max(1, (x1 - x0) // 2), max(1, (y1 - y0) // 2))
            cv2.ellipse(mask, (axes[0], axes[1]), axes, 0, 0, 360, 1, -1)
            rgb[y0:y1, x0:x1][mask > 0] = patch[mask > 0]
        else:
            rgb[y0:y1, x0:x1] = patch


def sample_room(rng: Rng, stage: Stage, outdoor: bool) -> Room:
    """A room (or open ground) around the person whose floor is under the lowest vertex."""
    up = np.asarray(stage.up, np.float64)
    back = np.array([0.0, 0.0, -1.0])
    out = back - (back @ up) * up
    out /= np.linalg.norm(out)
    turn = rng.normal(0, 0.45)
    out = np.cos(turn) * out + np.sin(turn) * np.cross(up, out)
    axes = np.stack([out, up, np.cross(out, up)])
    body = stage.vertices[::7] @ axes.T  # in room coordinates
    low, high = bounds(body)
    floor = -float(low[1]) + (0.0 if rng.random() < 0.85 else abs(rng.normal(0, 0.15)))
    ceiling = 0.0 if outdoor else max(0.6, rng.uniform(2.2, 3.6) - floor, float(high[1]) + 0.1)
    wall = -float(low[0]) + rng.choice((0.15, 0.8, 2.5)) + rng.uniform(0, 1.5)
    left = max(0.3, -float(low[2]) + rng.uniform(0.2, 3.5))
    right = max(0.3, float(high[2]) + rng.uniform(0.2, 3.5))
    boxes = _sample_boxes(rng, low, high, floor, axes, stage.seat)
    surfaces = FIRST_BOX + len(boxes)
    color = np.stack([[cloth_color(rng) for _ in range(2)] for _ in range(surfaces)])
    related = rng.random(surfaces) < 0.75  # mostly two tones of one colour
    color[related, 1] = color[related, 0] * rng.uniform(0.55, 1.25, (int(related.sum()), 1))
    texture = rng.choice(len(_INDOORS), surfaces, p=_INDOORS)
    frequency = np.exp(rng.uniform(np.log(1.2), np.log(9), surfaces))
    color[:5] += 0.5 * (color[:5].mean(-1, keepdims=True) - color[:5])  # loud rooms are rare
    color[2:5] = 0.25 * color[2:5] + 0.75 * rng.uniform(0.3, 1.0)  # walls are pale
    if outdoor:
        _paint_outdoors(rng, color, texture, frequency)
    elif rng.random() < 0.12:  # a gymnasium
        texture[0], color[0, 1] = COURT, 0.92
    if rng.random() < 0.07:
        texture[BACK] = CROWD
    return Room(
        axes.astype(np.float32), floor, ceiling, wall, left, right, boxes,
        _sample_panels(rng, floor, outdoor), (np.clip(color, 0, 1) ** 2).astype(np.float32),
        texture.astype(np.int32), rng.integers(1 << 16, size=surfaces).astype(np.int32),
        frequency.astype(np.float32),
    )  # fmt: skip


def _paint_outdoors(rng: Rng, color: Array, texture: Array, frequency: Array) -> None:
    """A ground with its texture, sky above, trees or houses between. sRGB, in place."""
    names = tuple(_GROUNDS)
    tone, other, texture[0] = _GROUNDS[names[rng.choice(len(names), p=_GROUND_SHARES)]]
    color[0] = np.array([tone, other]) * rng.uniform(0.7, 1.25) * (1 + rng.normal(0, 0.05, 3))
    frequency[0] *= 2.0
    blue = rng.random()
    color[1] = (1 - blue) * 0.85 + blue * np.array([0.45, 0.65, 0.92]), np.array([0.9, 0.9, 0.92])
    if rng.random() < 0.12:  # the sun is low
        color[1] = np.array([[0.95, 0.66, 0.42], [0.62, 0.45, 0.5]]) * rng.uniform(0.8, 1.1)
    texture[BACK] = BARE
    if rng.random() < 0.6:
        color[2] = np.array([0.20, 0.30, 0.14]) * rng.uniform(0.6, 1.5)
        color[2, 1] *= 0.4
        texture[BACK] = LEAVES
    else:
        color[2] = color[2] * 0.8
        color[2, 1] = color[2, 0] * rng.uniform(0.4, 0.8)


def _sample_boxes(
    rng: Rng, low: Array, high: Array, floor: float, axes: Array, seat: Array | None
) -> Array:
    """[N, 6] furniture: behind or beside the person, and a seat where one is needed."""
    boxes = []
    if seat is not None:
        o, u, s = axes @ seat
        depth, half = rng.uniform(0.35, 0.6), rng.uniform(0.2, 0.6)
        boxes.append([o - depth, -floor, s - half, o + 0.12, u - 0.10, s + half])
        if rng.random() < 0.5:  # a back rest
            top = u + rng.uniform(0.2, 0.6)
            boxes.append([o - depth, -floor, s - half, o - depth + 0.08, top, s + half])
    for _ in range(int(rng.choice(4, p=(0.35, 0.3, 0.2, 0.15)))):
        size = rng.uniform(0.2, 1.3, 3)
        centre = (low[2] + high[2]) / 2 + rng.normal(0, 1.3)
        behind = low[0] - rng.uniform(0.05, 1.5)
        boxes.append(
            [behind - size[0], -floor, centre - size[2] / 2, behind, -floor + 1.2 * size[1],
             centre + size[2] / 2]
        )  # fmt: skip
    return np.array(boxes, np.float32).reshape(-1, 6)


def _sample_panels(rng: Rng, floor: float, outdoor: bool) -> Array:
    """[P, 5] windows, pictures and doors on the back wall."""
    panels = []
    for _ in range(0 if outdoor else int(rng.choice(4, p=(0.4, 0.3, 0.2, 0.1)))):
        left, width = rng.uniform(-2.5, 2.0), rng.uniform(0.3, 1.5)
        low = rng.choice((0.0, 0.9)) + rng.uniform(0, 0.3)
        panels.append([left, low, left + width, low + rng.uniform(0.4, 1.5), rng.uniform(0.3, 2.2)])
    return np.array(panels, np.float32).reshape(-1, 5)
