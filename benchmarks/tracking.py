"""`python -m benchmarks.tracking`: who is found and followed, without any boxes.

Recall and precision are counted at IoU 0.5: on hand-labelled frames of a street video, of each
detector alone and of the people that come out of the whole chain, whose box is the one looked in;
the same while the camera pans, which is made of the video by cutting; and on photographs, of the
detector in the package. Nothing was ever trained on any of these. Where the video is not there,
nothing is written, and the reason is told.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import glnet_rt
from benchmarks._record import RESULTS, ROOT, write
from glnet_rt.contracts import Array, Frame, Result
from glnet_rt.detect import Detector, open_detector
from glnet_rt.detect.boxes import area, clip
from glnet_rt.detect.own import OwnDetector
from glnet_rt.image import read_image
from glnet_rt.stream import open_source
from glnet_rt.track import PeopleTracker
from train.detector.evaluate import Found, count_found
from train.detector.scenes import LEAST_VISIBLE

VIDEO = ROOT.parent / "shared" / "data" / "real" / "video" / "vtest.avi"
PHOTOS = VIDEO.parents[1] / "coco"
RECALL, PRECISION = 0.8, 0.8  # what `auto` should reach
PAN_PX, PAN_SPEED = 128, 1.0  # how far the camera pans, and at most how fast, px per frame
SMALLEST_PX = 30.0  # people in photographs who are less high need not be found


@dataclass
class Run:
    """What one detector did.

    Attributes:
        detector: its own boxes on the labelled frames. people: those of the whole chain.
        frames, seconds: of the whole chain, reading included. detect_ms: per frame.
        identities: how many there were. lives: id -> frames it was told in.
        pictures: some frames with what was told.
    """

    detector: Found = field(default_factory=Found)
    people: Found = field(default_factory=Found)
    frames: int = 0
    seconds: float = 0.0
    detect_ms: float = 0.0
    identities: int = 0
    lives: dict[int, int] = field(default_factory=dict)
    pictures: list[Array] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """As plain JSON types."""
        lives = sorted(self.lives.values())
        return {
            "detector_alone": rounded(self.detector),
            "followed": rounded(self.people),
            "frames": self.frames,
            "identities": self.identities,
            "median_frames_per_identity": lives[len(lives) // 2] if lives else 0,
            "frames_per_second": round(self.frames / self.seconds, 2),
            "detect_ms_per_frame": round(self.detect_ms / self.frames, 2),
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracking", description=__doc__)
    parser.add_argument("--video", type=Path, default=VIDEO)
    parser.add_argument("--detectors", nargs="+", default=["auto", "motion", "own", "whole"])
    parser.add_argument("--frames", type=int, help="default: up to the last labelled one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    parser.add_argument("--sheet", type=Path, help="folder for pictures of some frames")
    arguments = parser.parse_args()
    labels_path = arguments.video.with_name(f"{arguments.video.stem}_person_boxes.json")
    if not (arguments.video.is_file() and labels_path.is_file()):
        print(f"skipped: {arguments.video.name} and its labels are not there")
        return
    labels = read_labels(labels_path)
    count = arguments.frames or max(labels) + 1
    cv2.setNumThreads(1)
    rows: dict[str, Any] = {}
    with glnet_rt.load(threads=arguments.threads) as estimator:
        backend = f"{estimator.backend.name} {estimator.backend.precision}"
        for name in arguments.detectors:
            run = follow(estimator, open_detector(name), arguments.video, labels, count)
            panned = pan(open_detector(name), arguments.video, labels, count)
            rows[Path(name).name] = {**run.figures(), "alone_while_panning": rounded(panned)}
            print(f"{name}: {json.dumps(rows[Path(name).name])}", flush=True)
            if arguments.sheet:
                write_pictures(arguments.sheet, Path(name).stem, run.pictures)
    values = {
        "video": arguments.video.name,
        "labelled_frames": sorted(labels),
        "people_labelled": sum(map(len, labels.values())),
        "backend": backend,
        "threads": arguments.threads,
        "target": {"recall": RECALL, "precision": PRECISION},
        "detectors": rows,
        "photographs": photographs(PHOTOS) if PHOTOS.is_dir() else None,
    }
    print(f"photographs: {json.dumps(values['photographs'])}")
    print(f"wrote {write('tracking', values, arguments.results)}")


def read_labels(path: Path) -> dict[int, Array]:
    """Frame -> [N, 4] edges in px."""
    boxes = json.loads(path.read_text())["boxes"]
    corners = {int(frame): np.array(rows, np.float64) for frame, rows in boxes.items()}
    return {f: np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], 1) for f, b in corners.items()}


def follow(
    estimator: glnet_rt.Estimator,
    detector: Detector,
    video: Path,
    labels: dict[int, Array],
    count: int,
) -> Run:
    """The whole chain on the first `count` frames, and the detector alone where it ran anyway."""
    listening = _Listening(detector)
    tracker, run = PeopleTracker(listening), Run()
    step = max(1, count // 12)
    started = time.perf_counter()
    for frame in first(video, count):
        listening.last = None
        asked = time.perf_counter()
        proposal = tracker.propose(frame)
        run.detect_ms += (time.perf_counter() - asked) * 1000
        result = tracker.accept(estimator(frame, boxes=proposal.boxes))
        run.frames += 1
        for person in result.people:
            assert person.track_id is not None
            run.lives[person.track_id] = run.lives.get(person.track_id, 0) + 1
        if frame.frame_id in labels:
            judge(run, listening, frame, result, labels[frame.frame_id])
        if frame.frame_id in labels or frame.frame_id % step == 0:
            run.pictures.append(drawn(frame, result))
    run.seconds, run.identities = time.perf_counter() - started, tracker.identities
    return run


def judge(run: Run, detector: _Listening, frame: Frame, result: Result, people: Array) -> None:
    found = detector.last if detector.last is not None else detector.inner(frame).boxes
    run.detector = run.detector + count_found(found, people)
    told = np.array([p.bbox_xyxy for p in result.people], np.float64).reshape(-1, 4)
    run.people = run.people + count_found(told, people)


def pan(detector: Detector, video: Path, labels: dict[int, Array], count: int) -> Found:
    """The detector alone on a window of the frames that goes to and fro."""
    total = Found()
    for frame in first(video, count):
        height, width = frame.image.shape[:2]
        window = width - PAN_PX
        left = round(PAN_PX / 2 * (1 - np.cos(2 * PAN_SPEED * frame.frame_id / PAN_PX)))
        image = np.ascontiguousarray(frame.image[:, left : left + window])
        told = detector(Frame(image, frame.frame_id, frame.timestamp_ns)).boxes
        if frame.frame_id in labels:
            people = labels[frame.frame_id] - np.array([left, 0, left, 0])
            seen = clip(people, (window, height))
            inside = area(seen) >= LEAST_VISIBLE * area(people)
            total = total + count_found(told, seen[inside], seen[~inside])
    return total


def photographs(folder: Path) -> dict[str, Any]:
    """The detector in the package on photographs with COCO's boxes, and on who is near alone."""
    detector, found, near = OwnDetector(), Found(), Found()
    pictures = [row for split in ("train2017", "val2017") for row in read_photos(folder, split)]
    for image, people, free in pictures:
        frame = Frame(image)
        told = detector(frame).boxes
        found = found + count_found(told, people, free)
        big, told_big = detector.near(people, frame), detector.near(told, frame)
        rest = np.concatenate([free, people[~big]])
        near = near + count_found(told[told_big], people[big], rest)
    return {
        "pictures": len(pictures),
        "all": {"people": found.people, "boxes": found.boxes, **rounded(found)},
        "near": {"people": near.people, "boxes": near.boxes, **rounded(near)},
    }


def read_photos(folder: Path, split: str) -> Iterator[tuple[Array, Array, Array]]:
    """Pictures [H, W, 3], people [N, 4], and people and crowds [M, 4] who need not be found."""
    path = folder / "annotations" / f"person_keypoints_{split}.json"
    listed = json.loads(path.read_text())
    for picture in listed["images"]:
        rows = [row for row in listed["annotations"] if row["image_id"] == picture["id"]]
        boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
        must = np.array([not row["iscrowd"] for row in rows], bool) & (boxes[:, 3] >= SMALLEST_PX)
        boxes[:, 2:] += boxes[:, :2]
        yield read_image(folder / split / picture["file_name"]), boxes[must], boxes[~must]


class _Listening:
    """A detector whose last answer can be looked up."""

    def __init__(self, inner: Detector) -> None:
        self.inner, self.name = inner, inner.name
        self.every_frame, self.exhaustive = inner.every_frame, inner.exhaustive
        self.last: Array | None = None

    def __call__(self, frame: Frame) -> Any:
        found = self.inner(frame)
        self.last = found.boxes
        return found


def first(video: Path, count: int) -> Iterator[Frame]:
    with open_source(video) as source:
        for frame in source:
            if frame.frame_id >= count:
                return
            yield frame


def drawn(frame: Frame, result: Result) -> Array:
    """The frame with boxes, ids and keypoints, a colour for each id."""
    picture = frame.image.copy()
    for person in result.people:
        hue = np.array([[[(37 * (person.track_id or 0)) % 180, 230, 255]]], np.uint8)
        colour = tuple(int(v) for v in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0])
        x0, y0, x1, y1 = (round(float(v)) for v in person.bbox_xyxy)
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, 2)
        cv2.putText(picture, str(person.track_id), (x0, y0 - 4), 0, 0.6, colour, 2)
        for x, y in person.keypoints_px:
            cv2.circle(picture, (round(float(x)), round(float(y))), 1, colour, -1)
    cv2.putText(picture, str(frame.frame_id), (6, 22), 0, 0.7, (255, 255, 255), 2)
    return picture


def write_pictures(folder: Path, name: str, pictures: list[Array]) -> None:
    """Four frames to a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    blank = np.zeros_like(pictures[0])
    for start in range(0, len(pictures), 4):
        four = [*pictures[start : start + 4], blank, blank, blank][:4]
        sheet = np.vstack([np.hstack(four[:2]), np.hstack(four[2:])])
        cv2.imwrite(str(folder / f"{name}-{start // 4}.jpg"), sheet)


def rounded(found: Found) -> dict[str, float]:
    return {key: round(value, 3) for key, value in found.figures().items()}


if __name__ == "__main__":
    main()
