"""Writing MP4 videos."""

from __future__ import annotations

from pathlib import Path

import cv2

from glnet_rt._closing import Closing
from glnet_rt.contracts import Array, check_image
from glnet_rt.errors import ContractError, SourceError


class VideoWriter(Closing):
    """An MP4 file, MPEG-4 part 2: the codec that every OpenCV wheel has. Opened at the first frame.

    The codec has even sizes alone: of a frame with an odd one, the last row or column is left out.

    Args:
        path: where to write; an existing file is replaced.
        fps: frames per second.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        if not 0 < fps <= 1000:
            raise ContractError(
                "fps is out of range",
                got=fps,
                expected="0 < fps <= 1000",
                fix="give the frames per second of what is written",
            )
        self.path = Path(path)
        self._fps = fps
        self._size: tuple[int, int] | None = None
        self._writer: cv2.VideoWriter | None = None

    def write(self, image: Array) -> None:
        """Append one frame.

        Args:
            image: [H, W, 3] uint8 BGR, the same size every time.

        Raises:
            ContractError: it is no image, or of another size than the first.
            SourceError: the file cannot be opened for writing.
        """
        check_image(image)
        size = (image.shape[1], image.shape[0])
        if self._writer is None or self._size is None:
            self._writer, self._size = self._open(size), size
        if size != self._size:
            raise ContractError(
                "all frames of a video have one size",
                got=f"{size[0]} x {size[1]} px",
                expected=f"{self._size[0]} x {self._size[1]} px",
                fix="resize the frame, or write pictures instead",
            )
        if not self._writer.isOpened():
            raise ContractError(
                "the video is closed",
                got=str(self.path),
                expected="an open one",
                fix="write every frame before close(), or open another VideoWriter",
            )
        self._writer.write(image)

    def _open(self, size: tuple[int, int]) -> cv2.VideoWriter:
        fourcc = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(self.path), fourcc, self._fps, size)
        if not writer.isOpened():
            raise SourceError(
                f"cannot write the video {self.path}",
                got=f"OpenCV did not open it for {size[0]} x {size[1]} px, {self._fps:g} fps",
                expected="a name ending in .mp4 in a folder that exists and may be written to",
                fix="check the folder, its permissions and the free space of the disk",
            )
        return writer

    def close(self) -> None:
        """Finish the file. Calling it again does nothing."""
        if self._writer is not None:
            self._writer.release()
