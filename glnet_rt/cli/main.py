"""The command `glnet-rt`: its subcommands, and what an error becomes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from glnet_rt._version import __version__
from glnet_rt.cli import common
from glnet_rt.cli.demo import demo
from glnet_rt.cli.doctor import doctor
from glnet_rt.cli.info import info
from glnet_rt.cli.live import live
from glnet_rt.cli.run import run
from glnet_rt.cli.verify import verify
from glnet_rt.errors import GlnetError, SourceError

app = typer.Typer(
    help="Real-time human mesh recovery: from pictures to posed 3-D bodies.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (demo, run, live, info, verify, doctor):
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"glnet-rt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Real-time human mesh recovery: from pictures to posed 3-D bodies."""


def main(args: list[str] | None = None) -> None:
    """Run the command line; always leaves through SystemExit.

    Args:
        args: without the program's name; None takes the process's own.
    """
    given = sys.argv[1:] if args is None else args
    as_json = "--json" in given
    try:
        app(args=given, prog_name="glnet-rt")
    except GlnetError as error:
        sys.exit(common.report_error(error, as_json))
    except OSError as error:  # ours are SourceErrors: this is a folder that cannot be written to
        where = error.filename or "a file"
        problem = SourceError(
            f"cannot use {where}",
            got=error.strerror or str(error),
            expected="a place that can be read and written",
            fix="check the path, its permissions and the free space of the disk",
        )
        sys.exit(common.report_error(problem, as_json))
