"""Dynamic matching against the Hungarian algorithm, and what its cost is made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from train.matching import MatchingConfig, center_pixels, match, matching_cost
from train.model.pixel_head import pixel_grid

linear_sum_assignment = pytest.importorskip("scipy.optimize").linear_sum_assignment


def random_case(seed: int, pixels: int = 60) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    seen = (torch.rand(3, 36, generator=g) > 0.3).float()
    return {
        "score_logits": torch.randn(3, pixels, generator=g) * 2,
        "keypoints_uvd": torch.randn(3, pixels, 36, 3, generator=g) * 0.2,
        "rotation": torch.randn(3, pixels, 46, generator=g),
        "target_uvd": torch.randn(3, 36, 3, generator=g) * 0.2,
        "seen": seen,
        "target_rotation": torch.randn(3, 46, generator=g),
        "known": torch.ones(3, 23),
    }


@pytest.mark.parametrize("positives", [1, 7, 20, 60])
@pytest.mark.parametrize("seed", range(3))
def test_top_t_is_the_optimal_bipartite_matching(positives: int, seed: int) -> None:
    config = MatchingConfig(positives=positives)
    case = random_case(seed)
    chosen = match(config, **case)
    cost = matching_cost(config, **case).double().numpy()
    no_object = float(cost.max()) + 3.0
    for b in range(3):
        count = cost.shape[1]
        square = np.full((count, count), no_object)
        square[:positives] = cost[b]
        rows, columns = linear_sum_assignment(square)
        hungarian = set(columns[rows < positives].tolist())
        assert set(chosen[b].tolist()) == hungarian


def test_hidden_keypoints_do_not_count() -> None:
    case = random_case(0)
    before = match(MatchingConfig(), **case)
    hidden = case["seen"][:, None, :, None] == 0
    case["keypoints_uvd"] = torch.where(hidden, torch.tensor(99.0), case["keypoints_uvd"])
    assert torch.equal(match(MatchingConfig(), **case), before)


def test_depth_and_rotation_count_only_when_asked() -> None:
    case = random_case(1)
    before = matching_cost(MatchingConfig(), **case)
    moved = {**case, "rotation": case["rotation"] + 1.0}
    moved["keypoints_uvd"] = case["keypoints_uvd"] + torch.tensor([0.0, 0.0, 0.5])
    assert torch.equal(matching_cost(MatchingConfig(), **moved), before)
    for option in ({"depth_weight": 70.0}, {"rotation_weight": 0.1}):
        config = MatchingConfig(**option)
        assert not torch.equal(matching_cost(config, **moved), matching_cost(config, **case))


def test_rotations_that_are_not_told_cost_nothing() -> None:
    config = MatchingConfig(rotation_weight=0.1)
    case = random_case(1)
    case["known"] = case["known"].clone()
    case["known"][0, 4] = 0
    before = matching_cost(config, **case)
    moved = case["target_rotation"].clone()
    moved[0, 8:10] = 50.0
    assert torch.equal(matching_cost(config, **{**case, "target_rotation": moved}), before)
    moved[1, 8:10] = 50.0
    after = matching_cost(config, **{**case, "target_rotation": moved})
    assert torch.equal(after[0], before[0])
    assert (after[1] > before[1]).all()


def test_focal_cost_by_hand() -> None:
    case = random_case(2)
    case["seen"] = torch.zeros_like(case["seen"])
    case["score_logits"] = torch.zeros_like(case["score_logits"])
    # p = 0.5: 2 * 0.25 * 0.25 * ln 2
    expected = torch.tensor(2 * 0.25 * 0.25 * np.log(2), dtype=torch.float32)
    torch.testing.assert_close(
        matching_cost(MatchingConfig(), **case), expected.expand(3, 60), rtol=1e-6, atol=0
    )


def test_nothing_seen_leaves_a_finite_cost() -> None:
    case = random_case(3)
    case["seen"] = torch.zeros_like(case["seen"])
    assert torch.isfinite(matching_cost(MatchingConfig(), **case)).all()


def test_center_positives_surround_the_center() -> None:
    grid = pixel_grid(8, 8, torch.device("cpu")).reshape(-1, 2)
    chosen = grid[center_pixels(grid, 8, 8, 4)]
    assert {tuple(p) for p in chosen.int().tolist()} == {(3, 3), (4, 3), (3, 4), (4, 4)}
