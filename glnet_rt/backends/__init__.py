"""Ways to run the network. `base` states the promise, `registry` chooses."""

from glnet_rt.backends.base import Backend
from glnet_rt.backends.registry import BACKENDS, GREY, Attempt, open_each, select

__all__ = ["BACKENDS", "GREY", "Attempt", "Backend", "open_each", "select"]
