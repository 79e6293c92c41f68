"""Who is who from frame to frame."""

from __future__ import annotations

from glnet_rt.track.config import TrackConfig
from glnet_rt.track.tracker import PeopleTracker, Proposal

__all__ = ["PeopleTracker", "Proposal", "TrackConfig"]
