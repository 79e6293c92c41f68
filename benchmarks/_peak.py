"""What one core of this machine can do at most, by counting multiplications and additions."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("_peak.c")


def peaks() -> dict[str, float]:
    """Precision -> 1e9 operations per second; without what the core or its compiler lacks."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peak"
        try:
            subprocess.run(["cc", "-O2", "-o", program, SOURCE], check=True, capture_output=True)
            done = subprocess.run([program], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"the core's peak is not measured, without cc and x86: {error}", file=sys.stderr)
            return {}
    return {name: value for name, value in json.loads(done.stdout).items() if value}
