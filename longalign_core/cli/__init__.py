"""The command line: `longalign run | plan | spending | show | trace | verify | publish | push |
batches | …`.

Exit codes: 0 done, 1 the work failed, 2 the input is wrong, 3 a gate failed, 4 batches are under way.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer
from rich.logging import RichHandler

from longalign_core import __version__
from longalign_core.cli import look, work
from longalign_core.cli.options import console, errors
from longalign_core.errors import LongAlignError, WaitingError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Teach a language model to follow instructions over long documents.\n\n"
    "A recipe (YAML) says what is made; LONGALIGN_* variables and options say where and how. "
    "Start with: longalign plan deployments/recipes/demo.yaml",
    epilog="Exit codes: 0 done, 1 the work failed, 2 the input is wrong, 3 a gate failed, 4 batches are under way.",
)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the log of every stage.")] = False,
) -> None:
    if version:
        console.print(f"longalign {__version__}", highlight=False)
        raise typer.Exit
    handler = RichHandler(console=errors, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("longalign_core").setLevel(logging.INFO if verbose else logging.WARNING)


app.command()(work.run)
app.command()(work.plan)
app.command()(look.spending)
app.command()(look.show)
app.command()(look.verify)
app.command()(look.trace)
app.command()(work.batches)
app.command()(look.keys)
app.command()(work.publish)
app.command()(work.push)
app.command()(work.gc)


def main() -> None:
    """Entry point of the console script: errors of the user become one sentence and an exit code."""
    try:
        app(standalone_mode=True)
    except LongAlignError as error:
        style = "yellow" if isinstance(error, WaitingError) else "red"
        errors.print(f"{error.label}: {error}", style=style, highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        errors.print("stopped; run the same command again to go on where it was")
        sys.exit(130)
