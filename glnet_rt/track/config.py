"""How people are followed: every number the tracker goes by."""

from __future__ import annotations

from dataclasses import dataclass

from glnet_rt.errors import ContractError


@dataclass(frozen=True)
class TrackConfig:
    """How people are followed.

    Attributes:
        every: frames between two runs of a detector that need not see all. Fewer finds newcomers
            sooner and costs time.
        every_lost: the same while somebody is lost, or nobody is there.
        overlap: least IoU of a track's box with a detection of the same person.
        likeness: largest cost, 0 to 1, of a person and a track that are one; half of it is the
            boxes' lack of overlap, half the distance of the keypoints over `reach`.
        reach: body sizes that keypoints move between two frames at the most. After a gap of t
            seconds it is larger by t.
        hint: how much less it costs to be who one was looked for as.
        duplicate: keypoint distance, in body sizes, below which two are one person seen twice.
        birth: times the detector must find somebody before they get an identity. More loses the
            first frames of everybody, and noise.
        sure: score of a detection that counts as all of these.
        unseen: runs of the detector that may miss somebody who is still followed.
        unseen_s, still: for how many seconds it may miss somebody slower than `still` body sizes a
            second. Longer keeps people who stand still before a motion detector, and phantoms.
        swallowed: share of a track's box within a detection of somebody else, from which the two
            are taken to have been found as one.
        memory_s: seconds for which somebody lost keeps the identity. Longer bridges longer
            occlusions, and may give it to somebody else who comes along.
        least_score: of the network's `person`; below, there is nobody.
        least_agreement: IoU of the box of the keypoints with the box looked in; below, the network
            saw somebody else or nobody, and only the detector's word counts.
        box_inertia: share of the old box's size in the next; the keypoints' alone trembles.
        velocity_inertia: share of the old velocity in the next.
        most_people: looked for in one frame; who was seen first goes first.
    """

    every: int = 10
    every_lost: int = 3
    overlap: float = 0.3
    likeness: float = 0.8
    reach: float = 0.5
    hint: float = 0.15
    duplicate: float = 0.12
    birth: int = 3
    sure: float = 0.95
    unseen: int = 3
    unseen_s: float = 3.0
    still: float = 0.15
    swallowed: float = 0.6
    memory_s: float = 1.5
    least_score: float = 0.05
    least_agreement: float = 0.3
    box_inertia: float = 0.6
    velocity_inertia: float = 0.8
    most_people: int = 16

    def __post_init__(self) -> None:
        for name in ("every", "every_lost", "birth", "unseen", "most_people"):
            if getattr(self, name) < 1:
                raise ContractError(
                    f"TrackConfig.{name} is too small",
                    got=getattr(self, name),
                    expected="at least 1",
                    fix="leave it out for the default",
                )
