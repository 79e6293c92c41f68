"""`python -m benchmarks.parity`: what every precision of the shipped weights is off float32.

What `python -m export` judges an artifact by, on more people, and without writing one. Where the
crops that are named are not there the results stay as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks._record import name_here, write
from export.__main__ import add_source_options, read_source
from export.build import build
from export.graph import build_graph
from export.parity import markdown
from glnet_rt.errors import GlnetError, SourceError

WEIGHTS = Path("weights/tiny.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__)
    add_source_options(parser, WEIGHTS)
    parser.set_defaults(judged=1000)
    arguments = parser.parse_args()
    try:
        source = read_source(arguments)
        source.check(arguments.precisions)
        name = arguments.random or arguments.weights.stem
        graph = build_graph(source.model)
        _, report = build(source, graph, arguments.precisions, source.manifest(name, "unnamed"))
    except SourceError as error:
        print(f"nothing was judged: {error}")
        return
    except GlnetError as error:
        raise SystemExit(str(error)) from error
    path = write(name_here("parity"), {"network": name, **report})
    table = path.with_suffix(".md")
    table.write_text(markdown(report))
    print(table.read_text())
    print(f"wrote {path} and {table}")


if __name__ == "__main__":
    main()
