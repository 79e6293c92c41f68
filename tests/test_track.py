"""Identities over time: the assignment against SciPy, and people who cross, hide and leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from glnet_rt.contracts import Array, Frame, Person, Result
from glnet_rt.detect.base import Detections, GivenBoxes
from glnet_rt.detect.boxes import iou
from glnet_rt.errors import ContractError, GlnetError
from glnet_rt.finder import WholePicture
from glnet_rt.track import PeopleTracker, TrackConfig
from glnet_rt.track.assignment import assign
from glnet_rt.track.finder import choose_finder
from glnet_rt.track.likeness import keypoint_box, pose_distance

WIDTH, HEIGHT, FPS = 640, 480, 25
_BODY = np.random.default_rng(3).uniform(0, 1, (36, 2))
_BODY = (_BODY - _BODY.min(0)) / (_BODY.max(0) - _BODY.min(0))


@pytest.mark.parametrize("seed", range(40))
def test_assignment_is_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 9, 2)
    cost = rng.integers(0, 6, (rows, columns)) / 5 if seed % 2 else rng.random((rows, columns))
    limit = rng.uniform(0.2, 1.2)
    pairs = assign(cost, limit)
    row, column = linear_sum_assignment(np.where(cost < limit, cost, 1e6))
    made = cost[row, column] < limit
    assert len(pairs) == made.sum()
    assert len({r for r, _ in pairs}) == len({c for _, c in pairs}) == len(pairs)
    assert sum(cost[r, c] for r, c in pairs) == pytest.approx(cost[row, column][made].sum())


def test_assignment_of_nothing() -> None:
    assert assign(np.zeros((0, 3)), 1.0) == []
    assert assign(np.ones((2, 2)), 1.0) == []


def skeleton(box: Array) -> Array:
    """[36, 2] keypoints of somebody who fills a box; `keypoint_box` finds it again."""
    margin = 0.04 / 1.08 * (box[3] - box[1])
    low, high = box[:2] + margin, box[2:] - margin
    return low + _BODY * (high - low) - 0.5


class World:
    """People with known boxes; a detector and a network that see who is not hidden.

    Each crop shows the network the visible person who fills it best, with keypoints that tremble by
    1 % of the person's height.

    Args:
        paths: one function per person, from seconds to a box [4], or None where they are not there
            or cannot be seen.
        every_frame: of the detector.
    """

    name, exhaustive = "world", False

    def __init__(
        self, paths: Sequence[Callable[[float], Array | None]], *, every_frame: bool = True
    ) -> None:
        self.paths, self.every_frame = paths, every_frame
        self.blind = False
        self._rng = np.random.default_rng(0)

    def boxes(self, time_s: float) -> list[Array | None]:
        return [path(time_s) for path in self.paths]

    def __call__(self, frame: Frame) -> Detections:
        seen = [box for box in self.boxes(frame.timestamp_ns / 1e9) if box is not None]
        seen = [] if self.blind else seen
        return Detections(np.array(seen, float).reshape(-1, 4), np.full(len(seen), 0.7))

    def look(self, frame: Frame, boxes: Array) -> Result:
        visible = [b for b in self.boxes(frame.timestamp_ns / 1e9) if b is not None]
        people = []
        for box in boxes:
            shares = iou(box[None], np.array(visible).reshape(-1, 4))[0]
            there = visible[int(shares.argmax())] if shares.max(initial=0) > 0.1 else box
            tremble = self._rng.normal(0, 0.01 * (there[3] - there[1]), (36, 2))
            score = 0.5 if shares.max(initial=0) > 0.1 else 0.01
            people.append(person(box, skeleton(there) + tremble, score))
        return result_of(frame, people)

    def run(
        self, tracker: PeopleTracker, seconds: float, fps: float = FPS
    ) -> list[list[int | None]]:
        """For each frame, the id told for each person of the world, None where none was."""
        told = []
        for number in range(round(seconds * fps)):
            frame = frame_at(number, number / fps)
            result = tracker.accept(self.look(frame, tracker.propose(frame).boxes))
            told.append([self._id_of(box, result) for box in self.boxes(number / fps)])
            assert len({p.track_id for p in result.people}) == len(result.people)
        return told

    def _id_of(self, box: Array | None, result: Result) -> int | None:
        if box is None or not result.people:
            return None
        boxes = np.stack([keypoint_box(p.keypoints_px) for p in result.people])
        shares = iou(box[None], boxes)[0]
        return result.people[int(shares.argmax())].track_id if shares.max() > 0.5 else None


def frame_at(number: int, time_s: float) -> Frame:
    return Frame(np.zeros((HEIGHT, WIDTH, 3), np.uint8), number, round(time_s * 1e9))


def person(box: Array, keypoints: Array, score: float) -> Person:
    still = np.eye(3, dtype=np.float32)
    return Person(
        vertices=np.zeros((1, 3), np.float32),
        joints=np.zeros((24, 3), np.float32),
        keypoints_px=keypoints.astype(np.float32),
        global_orient=still,
        body_pose=np.tile(still, (23, 1, 1)),
        betas=np.zeros(10, np.float32),
        transl=np.zeros(3, np.float32),
        bbox_xyxy=np.asarray(box, np.float32),
        score=score,
        K=np.eye(3),
    )


def result_of(frame: Frame, people: Sequence[Person]) -> Result:
    faces = np.zeros((1, 3), np.int32)
    return Result(tuple(people), frame.frame_id, frame.timestamp_ns, (WIDTH, HEIGHT), faces)


def walker(start: float, speed: float, top: float = 100.0) -> Callable[[float], Array | None]:
    """Somebody 60 x 180 px walking across at `speed` px/s, as long as they are in the picture."""

    def at(time_s: float) -> Array | None:
        left = start + speed * time_s
        box = np.array([max(left, 0), top, min(left + 60, WIDTH), top + 180])
        return box if box[2] - box[0] > 30 else None

    return at


def ids_of(told: list[list[int | None]], who: int) -> set[int]:
    return {row[who] for row in told if row[who] is not None}


@pytest.mark.parametrize("every_frame", [True, False])
def test_two_who_cross_keep_their_ids(every_frame: bool) -> None:
    world = World([walker(40, 120), walker(540, -120, top=130)], every_frame=every_frame)
    tracker = PeopleTracker(world)
    told = world.run(tracker, 4.0)
    first, second = ids_of(told, 0), ids_of(told[:40], 1)
    assert (len(first), len(second)) == (1, 1)
    assert told[-1] == [*first, *second]
    assert tracker.identities == 2


def test_the_detector_runs_rarely() -> None:
    world = World([walker(40, 60)], every_frame=False)
    tracker = PeopleTracker(world, TrackConfig(every=10))
    told = world.run(tracker, 8.0)
    assert tracker.detections < 30  # of 200 frames
    assert sum(row[0] is not None for row in told) > 190


def test_a_short_occlusion_keeps_the_id() -> None:
    seen = walker(100, 60)
    world = World([lambda t: None if 1.5 < t < 2.3 else seen(t)])
    tracker = PeopleTracker(world)
    told = world.run(tracker, 4.0)
    assert told[-1][0] == told[20][0] == 0
    assert tracker.identities == 1


def test_a_long_absence_gives_a_new_id() -> None:
    seen = walker(100, 20)
    world = World([lambda t: None if 1.0 < t < 4.0 else seen(t)])
    tracker = PeopleTracker(world)
    told = world.run(tracker, 6.0)
    assert (told[20][0], told[-1][0]) == (0, 1)


def test_who_leaves_is_not_told_any_more_and_ids_are_not_used_again() -> None:
    world = World([walker(400, 150), lambda t: walker(40, 0)(t) if t > 3 else None])
    tracker = PeopleTracker(world)
    told = world.run(tracker, 6.0)
    assert told[-1] == [None, 1]


def test_who_stands_still_outlives_a_blind_detector_for_a_while() -> None:
    world = World([walker(100, 0)])
    tracker = PeopleTracker(world, TrackConfig(unseen_s=2.0))
    world.run(tracker, 2.0)
    world.blind = True
    kept = 0
    for number in range(50, 150):
        frame = frame_at(number, number / FPS)
        kept += len(tracker.accept(world.look(frame, tracker.propose(frame).boxes)).people)
    assert 45 <= kept <= 55


def test_one_person_found_twice_is_one() -> None:
    box = np.array([100.0, 100, 160, 280])
    twice = GivenBoxes(lambda frame: [box, box + np.array([4, 2, 4, 2])])
    tracker = PeopleTracker(twice)
    for number in range(10):
        frame = frame_at(number, number / FPS)
        boxes = tracker.propose(frame).boxes
        people = [person(b, skeleton(box), 0.5) for b in boxes]
        result = tracker.accept(result_of(frame, people))
    assert [p.track_id for p in result.people] == [0]
    assert tracker.identities == 1


def test_the_network_may_refuse_what_the_detector_found() -> None:
    nobody = GivenBoxes(lambda frame: [[100, 100, 160, 280]])
    tracker = PeopleTracker(nobody)
    for number in range(10):
        frame = frame_at(number, number / FPS)
        boxes = tracker.propose(frame).boxes
        people = [person(b, skeleton(b), 0.01) for b in boxes]
        assert tracker.accept(result_of(frame, people)).people == ()
    assert tracker.identities == 0


def test_the_same_frames_give_the_same_ids() -> None:
    paths = [walker(40, 120), walker(540, -120, top=130), walker(300, 10, top=200)]
    first, second = (World(paths).run(PeopleTracker(World(paths)), 3.0) for _ in range(2))
    assert first == second


def test_time_that_runs_backwards_starts_anew() -> None:
    world = World([walker(100, 0)])
    tracker = PeopleTracker(world)
    world.run(tracker, 1.0)
    told = world.run(tracker, 1.0)
    assert told[-1] == [1]


def test_results_of_other_frames_are_refused(
    assert_helpful: Callable[[GlnetError], None],
) -> None:
    tracker = PeopleTracker(World([walker(100, 0)]))
    frame = frame_at(0, 0.0)
    tracker.propose(frame)
    for result in (result_of(frame_at(7, 0.1), []), result_of(frame, [])):
        with pytest.raises(ContractError) as caught:
            tracker.accept(result)
        assert_helpful(caught.value)
    with pytest.raises(ContractError) as bad:
        TrackConfig(every=0)
    assert_helpful(bad.value)


def test_pose_distance_counts_in_body_sizes() -> None:
    box = np.array([0.0, 0, 50, 100])
    first, moved = skeleton(box)[None], skeleton(box)[None] + (0, 46)
    assert pose_distance(first, first)[0, 0] == 0
    assert pose_distance(first, moved)[0, 0] == pytest.approx(0.5, abs=0.01)
    np.testing.assert_allclose(keypoint_box(skeleton(box)), box, atol=1.0)


def test_who_finds_people_is_said_once(assert_helpful: Callable[[GlnetError], None]) -> None:
    with pytest.raises(ContractError) as both:
        choose_finder(None, "video", "whole", False, WholePicture())  # type: ignore[arg-type]
    assert_helpful(both.value)
    with pytest.raises(ContractError) as nobody:
        choose_finder(None, "video", None, True, None)  # type: ignore[arg-type]
    assert_helpful(nobody.value)
    assert isinstance(choose_finder(None, "video", None, False, None), WholePicture)  # type: ignore[arg-type]
