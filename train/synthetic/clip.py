"""The demo clip: one synthetic person walks in, turns, waves and walks off, in a procedural room.

World frame: y up, floor at y = 0, the camera looks along -z. Seconds and metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array
from glnet_rt.errors import SourceError
from train.synthetic.anatomy import JOINT, X, Y, clip_to_limits, turn
from train.synthetic.appearance import Outfit, sample_lights, sample_outfit
from train.synthetic.background import Stage, sample_room
from train.synthetic.limbs import gait, place_wrist
from train.synthetic.people import Person, Wardrobe
from train.synthetic.poses import Pose
from train.synthetic.render import Canvas
from train.synthetic.scenery import paint_room
from train.synthetic.shading import Lens

FRAMES_PER_SECOND = 25
SECONDS = 6.0
WIDTH, HEIGHT = 640, 360
# Two numbers each: streams that no data set uses, since those are seeded with four.
_PERSON_SEED, _ROOM_SEED, _LIGHT_SEED = (2, 47), (2, 47), (2, 47)
_FOCAL = 1.35  # over the frame's width
_PITCH_DEG = 6.0
_CAMERA = np.array([0.0, 1.5, 5.6])
_STRIDE, _STEPS_PER_SECOND = 0.85, 1.85
_TARGET_BRIGHTNESS = 0.5


@dataclass(frozen=True)
class _Keys:
    """A script: values at times (s), eased between them, held outside."""

    times: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, time: float) -> float:
        """Value at `time`."""
        k = int(np.clip(np.searchsorted(self.times, time) - 1, 0, len(self.times) - 2))
        share = np.clip((time - self.times[k]) / (self.times[k + 1] - self.times[k]), 0, 1)
        eased = share * share * (3 - 2 * share)
        return float(self.values[k] + eased * (self.values[k + 1] - self.values[k]))


_WALK = _Keys((0.0, 1.7, 2.4, 4.4, 4.9, 6.0), (1.0, 1.0, 0.0, 0.0, 1.0, 1.0))
_YAW = _Keys((0.0, 1.2, 2.4, 4.2, 5.2), (78.0, 70.0, 0.0, 0.0, -84.0))
_WAVE = _Keys((0.0, 2.0, 2.7, 4.1, 4.6), (0.0, 0.0, 1.0, 1.0, 0.0))


@dataclass(frozen=True, eq=False)
class _Shot:
    """One frame: a person in camera orientation, root-relative; and the pelvis in the world."""

    person: Person
    pelvis: Array


def write_clip(path: Path, body: BodyModel) -> None:
    """Render the clip to an `.mp4` file, and the person's boxes to `NAME_boxes.json` beside it.

    The boxes hold what is seen of the person, as those of the training pictures do, in the form
    that `glnet-rt run --boxes` reads: {"frame": [[x0, y0, x1, y1]]}, edges in px.

    Raises:
        SourceError: the file cannot be written.
    """
    wardrobe = Wardrobe(body)
    rng = np.random.default_rng(_PERSON_SEED)
    outfit = sample_outfit(rng, wardrobe.landmarks, "heldout")
    betas = np.clip(rng.normal(0, 0.6, 10), -1.2, 1.2).astype(np.float32)
    camera = turn(X, _PITCH_DEG) @ turn(X, 180.0)
    shots = _animate(body, wardrobe, outfit, betas, camera)
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*"mp4v"), FRAMES_PER_SECOND, (WIDTH, HEIGHT)
    )
    if not writer.isOpened():
        raise SourceError("the clip cannot be opened for writing", got=str(path))
    frames, boxes = _film(shots, outfit, camera)
    for frame in frames:
        writer.write(frame)
    writer.release()
    rows = ",\n".join(f'"{i}": [{box}]' for i, box in enumerate(boxes))
    path.with_name(f"{path.stem}_boxes.json").write_text(f"{{\n{rows}\n}}\n", encoding="ascii")


def _animate(
    body: BodyModel, wardrobe: Wardrobe, outfit: Outfit, betas: Array, camera: Array
) -> list[_Shot]:
    """Pose every frame; the foot on the ground carries the pelvis, so it does not slide."""
    rest = body.rest_skeleton(betas[None])[0, :24].astype(np.float64)
    people, feet, heights, on_left = [], [], [], []
    phase = 0.6
    for time in np.arange(0, SECONDS, 1 / FRAMES_PER_SECOND):
        phase += np.pi * _STEPS_PER_SECOND / FRAMES_PER_SECOND * _WALK.at(time)
        on_left.append(1 / (1 + np.exp(8 * np.cos(phase))))  # the leg that swings back stands
        rotmats = _pose(time, phase, rest).rotmats
        rotmats[0] = camera @ rotmats[0]
        rotmats = rotmats.astype(np.float32)
        output = body(betas[None], rotmats[None])
        people.append(wardrobe.dress(output, betas, wardrobe.joint_maps(betas, rotmats), outfit))
        relative = (output.joints[0] - output.joints[0, 0]) @ camera  # world axes
        feet.append(relative[[JOINT["left_ankle"], JOINT["right_ankle"]]])
        heights.append(-float((people[-1].vertices @ camera[:, 1]).min()))
    pelvis = np.zeros((len(people), 3))
    for i in range(1, len(people)):
        moved = feet[i - 1] - feet[i]
        pelvis[i] = pelvis[i - 1] + on_left[i] * moved[0] + (1 - on_left[i]) * moved[1]
    pelvis[:, 1] = heights
    pelvis = cv2.GaussianBlur(pelvis, (1, 9), 0, sigmaY=1.6, borderType=cv2.BORDER_REPLICATE)
    waving = slice(int(2.5 * FRAMES_PER_SECOND), int(4.0 * FRAMES_PER_SECOND))
    pelvis[:, [0, 2]] -= pelvis[waving].mean(0)[[0, 2]] - np.array([0.4, 0.2])
    return [_Shot(person, place) for person, place in zip(people, pelvis, strict=True)]


def _pose(time: float, phase: float, rest: Array) -> Pose:
    """The script at one moment, in world axes."""
    walk, yaw, wave = _WALK.at(time), _YAW.at(time), _WAVE.at(time)
    angles = gait(phase, _STRIDE * walk, 0.0)
    for side in ("left", "right"):
        angles[JOINT[f"{side}_hand"], 0] = 14.0
        angles[JOINT[f"{side}_hip"], 1] = 2.0 + 3.0 * (1 - walk)
    waving = angles.copy()
    sway = float(np.sin(2 * np.pi * 1.7 * time))
    target, pole = np.array([0.50 + 0.10 * sway, 0.52, 0.26]), np.array([1.0, -1.0, -0.3])
    place_wrist(waving, "right", target, pole, rest)
    waving[JOINT["right_wrist"], 1] = -12.0 * sway
    waving[JOINT["right_hand"], 0] = 2.0
    waving[JOINT["right_elbow"], 1] = -30.0
    waving[JOINT["spine3"], 2] = -3.0
    angles += wave * (waving - angles)
    for joint in ("neck", "head"):  # the face keeps turned to the camera, as far as it goes
        angles[JOINT[joint], 0] += float(np.clip(-0.3 * yaw, -18, 18))
    angles[JOINT["spine2"], 1] += 1.2 * float(np.sin(2 * np.pi * 0.3 * time))
    return Pose(clip_to_limits(angles), turn(Y, yaw) @ turn(X, 2.0 * walk), kind=0)


def _film(shots: list[_Shot], outfit: Outfit, camera: Array) -> tuple[list[Array], list[list[int]]]:
    """Frames [HEIGHT, WIDTH, 3] uint8 BGR of all shots in one room under one light, and boxes."""
    lights, strength = sample_lights(np.random.default_rng(_LIGHT_SEED), camera[:, 1])
    lens = Lens(_FOCAL, 0.0, 0.0)
    border = np.array([-0.5, -0.5 * HEIGHT / WIDTH, 0.5, 0.5 * HEIGHT / WIDTH], np.float32)
    canvas = Canvas(WIDTH)
    placed = [
        (shot.person.vertices + camera @ (shot.pelvis - _CAMERA)).astype(np.float32)
        for shot in shots
    ]
    nobody = canvas.shadow(placed[0], shots[0].person.mesh.faces, lights, 0.0)
    everywhere = np.concatenate([vertices[::50] for vertices in placed])
    stage = Stage(lens, border, camera[:, 1], everywhere, lights, nobody, None)
    room = sample_room(np.random.default_rng(_ROOM_SEED), stage, outdoor=False)
    top = (WIDTH - HEIGHT) // 2
    frames: list[Array] = []
    boxes: list[list[int]] = []
    gain = 0.0
    for shot, vertices in zip(tqdm(shots, unit="frames"), placed, strict=True):
        shadow = canvas.shadow(vertices, shot.person.mesh.faces, lights, strength)
        layer = canvas.draw(shot.person, vertices, outfit, lights, lens, shadow)
        boxes.append(_seen_box(layer.alpha[top : top + HEIGHT]))
        rgb = np.zeros((WIDTH, WIDTH, 3), np.float32)
        paint_room(room, lights, lens, shadow, border, np.zeros_like(layer.alpha), rgb)
        rgb += layer.rgb - layer.alpha[..., None] * rgb
        rgb = cv2.GaussianBlur(rgb[top : top + HEIGHT], (0, 0), 0.5)
        gain = gain or _TARGET_BRIGHTNESS / float(rgb.mean())
        frames.append(cv2.convertScaleAbs(np.clip(gain * rgb[..., ::-1], 0, 1), alpha=255.0))
    return frames, boxes


def _seen_box(alpha: Array) -> list[int]:
    """[x0, y0, x1, y1], edges in px, of what a layer [HEIGHT, WIDTH] covers; never nothing here."""
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
