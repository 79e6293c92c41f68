"""People over time: where to look for them next, and who each of them is.

A frame passes twice. `propose` says where to look, before the network runs: where the last
keypoints lead, and now and then where the detector finds somebody new. `accept` takes what the
network saw there, drops what is nobody or somebody twice, and names everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from glnet_rt.contracts import Array, Frame, Person, Result
from glnet_rt.crop import MIN_BOX_PX
from glnet_rt.detect.base import Detections, Detector
from glnet_rt.detect.boxes import clip, covered, iou
from glnet_rt.errors import ContractError
from glnet_rt.track.assignment import assign
from glnet_rt.track.config import TrackConfig
from glnet_rt.track.likeness import keypoint_box, person_size, pose_distance

_NS = 1e9
_MOST_PENDING = 64  # proposals whose results are still on their way


@dataclass(frozen=True, eq=False)
class Proposal:
    """Where to look for people in one frame.

    Attributes:
        boxes: [N, 4] float64, edges in image px; each fit for the estimator.
        track_ids: who is looked for in each box, None for somebody new.
        detected: whether the detector ran on this frame.
    """

    boxes: Array
    track_ids: tuple[int | None, ...]
    detected: bool


@dataclass(eq=False)
class _Track:
    """Somebody, as of the last time they were seen."""

    box: Array  # [4], edges in px
    keypoints: Array  # [36, 2], px
    seen_ns: int
    sure: float
    found_ns: int  # when the detector last saw them
    velocity: Array = field(default_factory=lambda: np.zeros(2))  # px/s
    track_id: int | None = None
    hits: int = 1
    found: int = 1
    unseen: int = 0
    lost: bool = False

    def shift(self, now_ns: int, most_s: float) -> Array:
        """[2] px, how far they should have moved; not further than in `most_s`."""
        return self.velocity * min((now_ns - self.seen_ns) / _NS, most_s)

    def box_at(self, now_ns: int) -> Array:
        return self.box + np.tile(self.shift(now_ns, _MOST_EXTRAPOLATED_S), 2)

    def keypoints_at(self, now_ns: int) -> Array:
        return self.keypoints + self.shift(now_ns, _MOST_EXTRAPOLATED_S)


_MOST_EXTRAPOLATED_S = 1.0  # nobody keeps a velocity for longer
_UNSURE = 0.7  # of the velocity that is still believed after the detector missed somebody


@dataclass(frozen=True, eq=False)
class _Look:
    """One box of a proposal: whose it is, None for nobody known, and the detection's score."""

    box: Array
    track: _Track | None
    score: float


class PeopleTracker:
    """Follows the people of one stream. Deterministic: the same frames give the same identities.

    Identities are 0, 1, 2 ... in the order in which people were first confirmed, and never used
    twice. Not safe for several threads.

    Args:
        detector: finds people.
        config: see `TrackConfig`.

    Attributes:
        detections: runs of the detector so far.
        identities: how many there have been.
    """

    def __init__(self, detector: Detector, config: TrackConfig | None = None) -> None:
        self.detector = detector
        self.config = TrackConfig() if config is None else config
        self.detections = 0
        self.identities = 0
        self._tracks: list[_Track] = []
        self._since_detection: int | None = None
        self._now_ns = -1
        self._pending: dict[int, list[_Look]] = {}

    def propose(self, frame: Frame) -> Proposal:
        """Where to look for people in the next frame.

        Raises:
            ContractError: the detector cannot use the frame.
            BackendError: the detector failed.
        """
        height, width = frame.image.shape[:2]
        now = frame.timestamp_ns
        self._forget(now)
        due = self._detector_is_due()
        found = self._detect(frame) if due else None
        active = [track for track in self._tracks if not track.lost]
        looks = self._looks(active, found, now)
        looks = [replace(look, box=clip(look.box[None], (width, height))[0]) for look in looks]
        looks = [look for look in looks if _is_usable(look.box)][: self.config.most_people]
        self._pending[frame.frame_id] = looks
        while len(self._pending) > _MOST_PENDING:
            self._pending.pop(next(iter(self._pending)))
        boxes = np.array([look.box for look in looks], np.float64).reshape(-1, 4)
        ids = tuple(None if look.track is None else look.track.track_id for look in looks)
        return Proposal(boxes, ids, due)

    def accept(self, result: Result) -> Result:
        """Name the people that were seen where `propose` had said.

        Args:
            result: of the estimator, one person per proposed box, in that order.

        Returns:
            The same frame with those who are somebody, each with a `track_id`.

        Raises:
            ContractError: no proposal was made for this frame, or of another number of boxes.
        """
        looks = self._pending.pop(result.frame_id, None)
        if looks is None or len(looks) != len(result.people):
            raise ContractError(
                "the result does not belong to a proposal",
                got=f"frame {result.frame_id} with {len(result.people)} people",
                expected="no such frame" if looks is None else f"{len(looks)} people",
                fix="call propose(frame), run the estimator on its boxes, then accept(result)",
            )
        now = result.timestamp_ns
        rows = self._real(result.people, looks)
        rows = self._once(rows, result.people, looks)
        named = self._name(rows, result.people, looks, now)
        for track in self._tracks:
            track.lost = track.seen_ns != now
        people = tuple(
            replace(person, track_id=named[row])
            for row, person in enumerate(result.people)
            if named.get(row) is not None
        )
        return replace(result, people=people)

    def _forget(self, now: int) -> None:
        """Drop whom nobody has seen for too long; everybody where time ran backwards."""
        if now < self._now_ns:
            self._tracks.clear()
        self._now_ns = now
        memory = self.config.memory_s * _NS
        self._tracks = [t for t in self._tracks if now - t.seen_ns <= memory]
        # Somebody without an identity has nothing that is worth keeping.
        self._tracks = [t for t in self._tracks if not (t.lost and t.track_id is None)]

    def _detector_is_due(self) -> bool:
        since = self._since_detection
        if self.detector.every_frame or since is None:
            return True
        self._since_detection = since + 1
        return since + 1 >= self._patience()

    def _patience(self) -> int:
        """Frames from one run of the detector to the next, as things stand."""
        if any(track.track_id is None for track in self._tracks):
            return 1
        anxious = not self._tracks or any(track.lost for track in self._tracks)
        return self.config.every_lost if anxious else self.config.every

    def _detect(self, frame: Frame) -> Detections:
        self._since_detection = 0
        self.detections += 1
        return self.detector(frame)

    def _looks(self, active: list[_Track], found: Detections | None, now: int) -> list[_Look]:
        """Everybody known where they should be, or where the detector found them; then the new."""
        boxes = np.array([t.box_at(now) for t in active]).reshape(-1, 4)
        if found is None:
            return [_Look(box, t, 0.0) for box, t in zip(boxes, active, strict=True)]
        pairs = dict(assign(1 - iou(boxes, found.boxes), 1 - self.config.overlap))
        merged = self._merged(boxes, found.boxes, pairs)
        looks = []
        for row, track in enumerate(active):
            column = pairs.get(row, merged.get(row))
            if column is None:
                track.unseen += 1
                track.velocity *= _UNSURE
                if self._is_believed(track, now):
                    looks.append(_Look(boxes[row], track, 0.0))
                continue
            track.unseen, track.found_ns, track.found = 0, now, track.found + 1
            box = boxes[row] if row in merged else found.boxes[column]
            looks.append(_Look(box, track, float(found.scores[column])))
        new = set(range(len(found))) - set(pairs.values())
        looks += [_Look(found.boxes[c], None, float(found.scores[c])) for c in sorted(new)]
        return looks

    def _merged(self, boxes: Array, found: Array, pairs: dict[int, int]) -> dict[int, int]:
        """Track -> detection, of those whom the detector found as one; their own boxes are better.

        Args:
            boxes: [T, 4] of the tracks. found: [D, 4]. pairs: track -> detection.
        """
        merged: dict[int, int] = {}
        inside = covered(boxes, found)
        for row in set(range(len(boxes))) - set(pairs):
            for other, column in pairs.items():
                if inside[row, column] >= self.config.swallowed:
                    merged.update({row: column, other: column})
        return merged

    def _is_believed(self, track: _Track, now: int) -> bool:
        """Whether somebody is followed although the detector did not find them."""
        if self.detector.exhaustive:
            return False
        speed = float(np.linalg.norm(track.velocity)) / max(float(_sides(track.box).max()), 1.0)
        stands = speed < self.config.still and track.track_id is not None
        silent_s = (now - track.found_ns) / _NS
        return track.unseen < self.config.unseen or (stands and silent_s < self.config.unseen_s)

    def _real(self, people: Sequence[Person], looks: list[_Look]) -> list[int]:
        """Rows of those who are somebody, in the box where they were looked for."""
        rows = []
        for row, (person, look) in enumerate(zip(people, looks, strict=True)):
            seen = keypoint_box(person.keypoints_px)
            agrees = iou(seen[None], look.box[None])[0, 0] >= self.config.least_agreement
            known = look.track is not None and look.score > 0
            if person.score >= self.config.least_score and (agrees or known):
                rows.append(row)
        return rows

    def _once(self, rows: list[int], people: Sequence[Person], looks: list[_Look]) -> list[int]:
        """Of people seen twice, the row of who has been known for longest, then the surest."""

        def seniority(row: int) -> tuple[int, float, int]:
            track = looks[row].track
            known = 0 if track is None else -track.hits
            return known, -people[row].score, row

        if not rows:
            return rows
        points = np.stack([person.keypoints_px for person in people])
        apart = pose_distance(points, points)
        kept: list[int] = []
        for row in sorted(rows, key=seniority):
            if all(apart[row, other] >= self.config.duplicate for other in kept):
                kept.append(row)
        return sorted(kept)

    def _name(
        self, rows: list[int], people: Sequence[Person], looks: list[_Look], now: int
    ) -> dict[int, int | None]:
        """The identity of each row's person; None for those who may still be noise."""
        costs = self._costs(rows, people, looks, now)
        pairs = dict(assign(costs, 1.0))
        claimed = set(pairs.values())
        unclaimed = [track for i, track in enumerate(self._tracks) if i not in claimed]
        named: dict[int, int | None] = {}
        for position, row in enumerate(rows):
            look, keypoints = looks[row], people[row].keypoints_px.astype(np.float64)
            if position in pairs:
                track = self._tracks[pairs[position]]
                self._follow(track, look, keypoints, now)
            elif look.track in unclaimed:
                # The detector says that they are still there; alone, an old box that shows
                # somebody else now is no reason for anything.
                if look.score == 0:
                    continue
                track = look.track
                self._follow(track, look, keypoints, now)
            else:
                track = self._begin(look, keypoints, now)
            named[row] = self._identity(track)
        return named

    def _costs(
        self, rows: list[int], people: Sequence[Person], looks: list[_Look], now: int
    ) -> Array:
        """[rows, tracks] cost over what is allowed: below 1 they may be one person."""
        config, tracks = self.config, self._tracks
        if not rows or not tracks:
            return np.zeros((len(rows), len(tracks)))
        seen = np.stack([people[row].keypoints_px for row in rows]).astype(np.float64)
        known = np.stack([track.keypoints_at(now) for track in tracks])
        gap_s = np.array([(now - track.seen_ns) / _NS for track in tracks])
        lost = np.array([track.lost for track in tracks])
        reach = config.reach + np.where(lost, gap_s, 0.0)
        far = pose_distance(seen, known) / reach
        boxes = np.stack([self._box(looks[row], p) for row, p in zip(rows, seen, strict=True)])
        apart = 1 - iou(boxes, np.stack([track.box_at(now) for track in tracks]))
        hints = np.array([[looks[row].track is track for track in tracks] for row in rows])
        cost = 0.5 * (apart + np.minimum(far, 1)) - config.hint * hints
        # Whoever was lost may have gone out of the old box: only the distance counts then.
        cost = np.where(lost, far * config.likeness, cost)
        ratio = person_size(seen)[:, None] / np.maximum(person_size(known)[None], 1e-6)
        alike = (ratio > 0.5) & (ratio < 2.0)
        return np.where(alike, np.maximum(cost, 0) / config.likeness, np.inf).clip(max=1e3)

    def _follow(self, track: _Track, look: _Look, keypoints: Array, now: int) -> None:
        """Note a sighting of somebody known."""
        config = self.config
        seconds = (now - track.seen_ns) / _NS
        if seconds > 0:
            moved = _middle(self._box(look, keypoints)) - _middle(track.box)
            old = config.velocity_inertia if track.hits > 1 else 0.0
            track.velocity = old * track.velocity + (1 - old) * moved / seconds
        track.box = self._box(look, keypoints)
        track.keypoints, track.seen_ns = keypoints, now
        track.hits += 1
        track.sure = max(track.sure, look.score)

    def _box(self, look: _Look, keypoints: Array) -> Array:
        """[4], around the keypoints and of a size that changes slowly; else as looked in."""
        seen = keypoint_box(keypoints)
        if iou(seen[None], look.box[None])[0, 0] < self.config.least_agreement:
            return look.box
        inertia = self.config.box_inertia
        size = inertia * _sides(look.box) + (1 - inertia) * _sides(seen)
        middle = _middle(seen)
        return np.concatenate([middle - size / 2, middle + size / 2])

    def _begin(self, look: _Look, keypoints: Array, now: int) -> _Track:
        track = _Track(self._box(look, keypoints), keypoints, now, look.score, now)
        self._tracks.append(track)
        return track

    def _identity(self, track: _Track) -> int | None:
        """The track's id, given now if it has been seen often enough."""
        confirmed = track.found >= self.config.birth or track.sure >= self.config.sure
        if track.track_id is None and confirmed:
            track.track_id = self.identities
            self.identities += 1
        return track.track_id


def _middle(box: Array) -> Array:
    return np.asarray((box[:2] + box[2:]) / 2)


def _sides(box: Array) -> Array:
    return np.asarray(box[2:] - box[:2])


def _is_usable(box: Array) -> bool:
    return bool((_sides(box) >= MIN_BOX_PX).all())
