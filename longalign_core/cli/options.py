"""What the commands share: consoles, options that several have, and addresses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from longalign_core.config.loading import load_runtime
from longalign_core.errors import InputError

if TYPE_CHECKING:
    from longalign_core.execution import Context

# Tables that go into a file or a pipe are not squeezed into 80 columns.
console = Console(width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True, width=None if sys.stderr.isatty() else 160)

RecipeFile = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="Recipe file, such as deployments/recipes/demo.yaml.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Override one recipe value; may be repeated."),
]
StoreUrl = Annotated[
    str | None,
    typer.Option("--store", help="Folder or s3://bucket/prefix of the artifacts. [default: LONGALIGN_STORE]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Address = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="An artifact: stage/key, as `run` and `plan` print it.")
]


def checked(address: str) -> str:
    """An address as it was given. Raises InputError when it has not the form of one."""
    if address.count("/") != 1:
        raise InputError(f"{address!r} is not an address; write stage/key as `longalign plan` prints it")
    return address


def opened(store: str | None) -> Context:
    """The store that an option or the runtime names."""
    from longalign_core.execution import open_context

    return open_context(load_runtime(store=store), resolve_hub=False)
