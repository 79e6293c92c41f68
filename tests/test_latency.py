"""The benchmark's arithmetic, and that its named alternatives compute the same."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import _alternatives as alternatives
from benchmarks._peak import peaks
from benchmarks.latency import (
    finish,
    interleaved,
    noise,
    person_boxes,
    plot,
    regressions,
    save,
    spread,
    table,
)
from benchmarks.w32 import multiplications
from glnet_rt.crop import cut_crops, normalise
from glnet_rt.spec import NetSpec


def row(p50_ms: float, **facts: object) -> dict[str, object]:
    values = {"backend": "openvino", "precision": "fp32", "threads": 1, "people": 1, **facts}
    return {"table": "frames", **values, **spread([p50_ms]), "fps": 1000 / p50_ms,
            "crop_ms": 0.1, "infer_ms": 1.0, "decode_ms": 0.1, "cold_start_s": 0.5,
            "peak_memory_mb": 100.0}  # fmt: skip


def test_the_spread_is_percentiles() -> None:
    told = spread(list(range(101)))
    assert told == {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "max_ms": 100.0}


def test_ways_run_in_turns_and_are_told_as_ratios() -> None:
    order: list[str] = []

    def work(name: str, count: int) -> None:
        order.append(name)
        sum(range(count))

    rows = interleaved(
        {"ours": lambda: work("a", 20_000), "theirs": lambda: work("b", 400_000)}, runs=5
    )
    assert order == ["a", "b"] * 7
    assert [r["name"] for r in rows] == ["ours", "theirs"]
    assert rows[0]["times"] == pytest.approx(1.0)
    assert rows[1]["times"] > 5
    assert rows[1]["times"] == pytest.approx(rows[1]["p50_ms"] / rows[0]["p50_ms"])


def test_what_became_slower_is_named() -> None:
    old = [row(10.0), row(10.0, people=2), row(10.0, precision="int8")]
    new = [row(10.4), row(10.6, people=2), row(3.0, precision="fp16")]
    (slower,), compared = regressions(new, old, 5.0)
    assert compared == 2
    assert "openvino fp32 1 2" in slower
    assert "10.000 -> 10.600 ms (+6.0 %)" in slower
    assert regressions([row(math.nan)], old, 5.0)[0], "no number is no pass"


@pytest.mark.parametrize("new", [[row(11.0)], [row(10.0, people=64)]])
def test_slower_or_nothing_to_compare_ends_with_exit_code_3(new: list[dict[str, object]]) -> None:
    with pytest.raises(SystemExit) as caught:
        finish(new, [row(10.0)], 5.0)
    assert caught.value.code == 3


def test_as_fast_as_before_passes(capsys: pytest.CaptureFixture[str]) -> None:
    finish([row(9.0)], [row(10.0)], 5.0)
    assert "1 rows compared, 0 slower" in capsys.readouterr().out


def test_results_are_written_as_json_csv_markdown_and_a_plot(tmp_path) -> None:
    rows = [row(10.0, people=n) for n in (1, 2, 4)]
    save({"rows": rows}, table(rows, "frames"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "latency.csv", "latency.json", "latency.md", "latency.png",
    ]  # fmt: skip
    assert len((tmp_path / "latency.csv").read_text().splitlines()) == 4
    assert "| openvino | fp32 | 1 | 4 | 10.00 |" in (tmp_path / "latency.md").read_text()
    plot([], tmp_path / "empty.png")


def test_the_usual_crop_is_ours_where_nothing_aliases() -> None:
    """At one picture pixel per crop pixel both read the same pixels."""
    spec = NetSpec(input_size=96)
    image = noise(0)[:400, :500]
    side = 96 / spec.box_scale
    boxes = np.array([[100.0, 80.0, 100.0 + side, 80.0 + side]])
    ours = normalise(cut_crops(image, boxes, spec)[0], spec)
    theirs = alternatives.warp_whole(image, boxes, spec)
    assert np.abs(ours - theirs).max() < 0.1  # OpenCV 4 rounds coordinates to 1/32 px
    np.testing.assert_allclose(
        alternatives.normalised_by_numpy(noise(1)[None, :96, :96], spec),
        normalise(noise(1)[None, :96, :96], spec),
        atol=2e-6,
    )


def test_every_stage_runs_for_one_and_for_several() -> None:
    for people in (1, 3):
        for ways in alternatives.stages(None, noise(0), person_boxes(people)).values():
            for work in ways.values():
                work()


@pytest.mark.parametrize("stage", ["skinning", "skinning of a dense body"])
def test_smplx_is_posed_like_ours(stage: str) -> None:
    pytest.importorskip("smplx")
    ways = alternatives.stages(None, noise(0), person_boxes(2))[stage]
    ours, theirs = ways["numba"](), ways["smplx"]()
    apart = np.abs(ours.vertices - theirs.vertices.numpy())  # type: ignore[attr-defined]
    assert apart.max() < 2e-5


def test_pyrender_draws_what_ours_does() -> None:
    image = noise(0) // 4
    ways = alternatives.stages(None, image, person_boxes(2))["overlay"]
    if "pyrender" not in ways:
        pytest.skip("pyrender or OSMesa is missing")
    ours, theirs = ((way() != image).any(-1) for way in ways.values())
    assert (ours & theirs).sum() > 0.99 * (ours | theirs).sum()


def test_decoding_is_timed_without_skinning_and_does_the_rest() -> None:
    stages = alternatives.stages(None, noise(0), person_boxes(3))
    direct, solved = (way() for way in stages["kinematics and decoding"].values())
    posed = stages["skinning"]["numba"]()
    for i, (told, other) in enumerate(zip(direct, solved, strict=True)):  # type: ignore[call-overload]
        np.testing.assert_array_equal(told.vertices, posed.vertices[i])  # type: ignore[attr-defined]
        assert told.body_pose.shape == other.body_pose.shape
        assert not np.array_equal(told.body_pose, other.body_pose)


def test_warm_runs_follow_their_own_and_cold_ones_do_not() -> None:
    order: list[str] = []
    ways = {name: (lambda name=name: order.append(name)) for name in "ab"}
    for caches, wanted in (("warm", "a" * 7 + "b" * 7), ("cold", "ab"), ("as they are", "ab")):
        order.clear()
        interleaved(ways, 3, caches)
        assert "".join(order) == wanted * 5


def test_another_system_is_timed_by_its_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.py").write_text(
        "def of_all():\n    return lambda image, boxes: [image.mean()] * len(boxes)\n"
        "def of_one():\n    return lambda image, boxes: [image.mean()]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    picture, boxes = noise(0)[:100, :100], person_boxes(2)
    assert len(alternatives.open_system("other:of_all")(picture, boxes)) == 2
    with pytest.raises(SystemExit, match="1 bodies for 2 boxes"):
        alternatives.open_system("other:of_one")(picture, boxes)


def test_the_peak_is_above_what_numpy_reaches() -> None:
    found = peaks()
    if not found:
        pytest.skip("no C compiler, or no x86")
    side = 256
    a = np.ones((side, side), np.float32)
    taken = min(clocked(lambda: a @ a) for _ in range(20))
    assert found.get("fp32", math.inf) > 0.7 * 2 * side**3 / taken / 1e9


def clocked(work: Callable[[], object]) -> float:
    """CPU seconds."""
    started = time.process_time()
    work()
    return time.process_time() - started


def test_operations_of_a_convolution_are_counted() -> None:
    """[8, 3, 3, 3] kernels over a map of 16x16: 27 multiplications for each of 2,048 values."""
    shapes = {"image": [1, 3, 16, 16], "out": [1, 8, 16, 16]}
    image, out = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    )
    weights = numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["image", "w"], ["out"], pads=[1, 1, 1, 1])
    proto = helper.make_model(helper.make_graph([node], "one", [image], [out], [weights]))
    assert multiplications(proto) == 27 * 8 * 16 * 16
