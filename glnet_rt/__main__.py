"""`python -m glnet_rt` is `glnet-rt`."""

from __future__ import annotations

from glnet_rt.cli.main import main

main()
