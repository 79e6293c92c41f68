"""People before the camera: drawn, posed, dressed, seen by a tilted camera, not yet placed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array
from glnet_rt.skeleton import NUM_JOINTS
from train.synthetic.appearance import Outfit, sample_outfit
from train.synthetic.people import Person, Wardrobe
from train.synthetic.poses import FAMILY_NAMES, Pose, sample_pose
from train.synthetic.things import Stance, Thing, build_things, plan_things, strap_for
from train.synthetic.view import bounds, sample_yaw

Rng = np.random.Generator

NUM_BETAS = 10
_BETA_LIMIT = 3.0
_UNUSUAL_SHARE = 0.2  # of people, whose first betas are level up to the limit
_BYSTANDERS_SHARES = (0.78, 0.13, 0.06, 0.03)  # of pictures with 0, 1, 2, 3 of them
_IN_FRONT_SHARE = 0.2
_NEAREST_M = 0.6


@dataclass(frozen=True, eq=False)
class Actor:
    """One person with everything that does not depend on where the camera stands.

    Attributes:
        pose: before the camera's turn.
        betas: [10] float32. rest: [1, 29, 3] float32, m.
        rotmats: [24, 3, 3] float32 local rotations, index 0 camera-from-body.
        keypoints: [36, 3] float32, camera orientation, relative to the pelvis, m.
        outfit: the clothes. things: indices into `THING_NAMES`.
        person: the dressed mesh in the frame of `keypoints`.
    """

    pose: Pose
    betas: Array
    rest: Array
    rotmats: Array
    keypoints: Array
    outfit: Outfit
    things: tuple[int, ...]
    person: Person


@dataclass(frozen=True, eq=False)
class Bystander:
    """Somebody else in the picture: the mesh, its clothes, and its vertices in the camera frame."""

    person: Person
    outfit: Outfit
    vertices: Array
    in_front: bool


def sample_betas(rng: Rng) -> Array:
    """[10] float32: a normal draw, cut; some people lie anywhere in the range of the first four."""
    betas = rng.standard_normal(NUM_BETAS)
    if rng.random() < _UNUSUAL_SHARE:
        betas[:4] = rng.uniform(-0.85, 0.85, 4) * _BETA_LIMIT
    return np.clip(betas, -_BETA_LIMIT, _BETA_LIMIT).astype(np.float32)


class Casting:
    """Draws actors of one split who share a body model."""

    def __init__(self, body: BodyModel, split: str) -> None:
        self.body, self.split = body, split
        self.wardrobe = Wardrobe(body)

    def draw(self, rng: Rng, tilt: Array) -> Actor:
        """A random person seen by a camera with `tilt` [3, 3], camera from world."""
        betas = sample_betas(rng)
        rest = self.body.rest_skeleton(betas[None])
        pose = sample_pose(rng, rest[0], self.split)
        rotmats = pose.rotmats
        rotmats[0] = tilt @ sample_yaw(rng) @ rotmats[0]
        rotmats = rotmats.astype(np.float32)
        wanted = plan_things(rng, self.split, FAMILY_NAMES[pose.kind])
        outfit = sample_outfit(rng, self.wardrobe.landmarks, self.split, strap_for(wanted))
        output = self.body(betas[None], rotmats[None])
        keypoints = self.body.keypoints(output)[0] - output.joints[0, 0]
        maps = self.wardrobe.joint_maps(betas, rotmats)
        things: list[Thing] = []
        if wanted:
            joints = output.joints[0, :NUM_JOINTS] - output.joints[0, 0]
            up = tilt[:, 1]
            lowest = float(((output.vertices[0] - output.joints[0, 0]) @ up).min())
            stance = Stance(maps, rest[0, :NUM_JOINTS], joints.astype(np.float64), up, lowest)
            things = build_things(rng, wanted, stance)
        person = self.wardrobe.dress(output, betas, maps, outfit, things)
        return Actor(
            pose,
            betas,
            rest,
            rotmats,
            keypoints,
            outfit,
            tuple(thing.kind for thing in things),
            person,
        )

    def bystanders(
        self, rng: Rng, tilt: Array, root: Array, floor: float, focal: float
    ) -> list[Bystander]:
        """People around the subject on the same floor, the farthest first.

        Args:
            tilt: [3, 3] camera from world.
            root: [3] the subject's pelvis in the camera frame, m.
            floor: height of the floor along the world's up through the camera, m.
            focal: focal length over the image's longer side; decides what is still in view.
        """
        count = int(rng.choice(len(_BYSTANDERS_SHARES), p=_BYSTANDERS_SHARES))
        up, ahead = tilt[:, 1], -tilt[:, 2]
        found = []
        for _ in range(count):
            actor = self.draw(rng, tilt)
            in_front = bool(rng.random() < _IN_FRONT_SHARE)
            away = -rng.uniform(0.25, 0.45) * root[2] if in_front else rng.uniform(0.3, 5.0)
            place = root + away * ahead
            sideways = rng.choice((-1, 1)) * rng.uniform(0.35, 1.0 + 0.1 * abs(away))
            reach = 0.45 * place[2] / focal  # keeps them near the image
            place = place + tilt[:, 0] * min(max(sideways, -reach), reach)
            lowest = float((actor.person.vertices @ up).min())
            place = place + up * (floor - lowest - place @ up)
            vertices = (actor.person.vertices + place).astype(np.float32)
            if bounds(vertices)[0][2] > _NEAREST_M:
                found.append(Bystander(actor.person, actor.outfit, vertices, in_front))
        return sorted(found, key=lambda one: -float(one.vertices[0, 2]))
