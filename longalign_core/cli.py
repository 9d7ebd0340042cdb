"""The command line: `longalign run | plan | spending | show | trace | verify | push | batches`.

Exit codes: 0 done, 1 the work failed, 2 the input is wrong, 3 a gate failed, 4 batches are under way.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from longalign_core import __version__
from longalign_core.config.loading import load_recipe, load_runtime
from longalign_core.errors import DataError, InputError, LongAlignError, WaitingError

if TYPE_CHECKING:
    from longalign_core.execution import Context

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Teach a language model to follow instructions over long documents.\n\n"
    "A recipe (YAML) says what is made; LONGALIGN_* variables and options say where and how. "
    "Start with: longalign plan deployments/recipes/demo.yaml",
    epilog="Exit codes: 0 done, 1 the work failed, 2 the input is wrong, 3 a gate failed, 4 batches are under way.",
)
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


@app.command()
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    store: StoreUrl = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE", help="Last stage to carry out: ingest, clean, select, instruct, …, as `plan` lists them."
        ),
    ] = None,
) -> None:
    """Carry a recipe out; what is in the store already is used, not made again.

    Without PREFECT_API_URL everything runs in this process. With it, the run is a Prefect flow run
    and shows in that server's UI.
    """
    if os.environ.get("PREFECT_API_URL"):
        from longalign_core.running import run_flow

        raise typer.Exit(run_flow(recipe, overrides or [], store, until))
    from longalign_core.running import run_here

    run_here(load_recipe(recipe, overrides or []), load_runtime(store=store), until, console)


@app.command()
def plan(recipe: RecipeFile, overrides: Overrides = None, store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Show every stage: its address or what it waits for, done or not, and what it comes to.

    Needs no GPU, no key and no corpora: what is not there is named. Figures are counted from
    finished artifacts, else estimated from the recipe's targets.

    Model calls are priced by LONGALIGN_PRICES, else by the dated price file that comes with the package: one by
    one, with the provider's cache, and in batches. LONGALIGN_BUDGET_DOLLARS and LONGALIGN_BUDGET_TOKENS cap them.
    """
    from longalign_core.execution import open_store
    from longalign_core.plan_table import plan_table, price_lines
    from longalign_core.planning import plan_rows

    runtime = load_runtime(store=store)
    rows = plan_rows(load_recipe(recipe, overrides or []), runtime)
    if as_json:
        console.print_json(json.dumps(rows))
    else:
        console.print(f"store {open_store(runtime).url}", highlight=False, soft_wrap=True)
        console.print(plan_table(rows))
        for line in price_lines(rows):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def spending(
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP",
            help="product, stage, role, model, task_type, corpus or purpose; may be repeated. "
            "[default: product, task_type, corpus, purpose]",
        ),
    ] = None,
    product: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Only what this artifact, finished or not, has cost.")
    ] = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show what model calls have cost: by product, task type, corpus and purpose.

    Read from the ledger of this machine (in LONGALIGN_SCRATCH), which holds every call that was sent, with the
    tokens that the provider counted and the prices at that time. Calls without a reply, and replies without a
    count, are in it by estimate. The store tells which products are finished.
    """
    from longalign_core.plan_table import spending_table
    from longalign_core.spending_view import spending_groups

    groups = spending_groups(_open(store), by, None if product is None else _checked(product))
    if as_json:
        console.print_json(json.dumps(groups))
        return
    if not any(groups.values()):
        console.print("the ledger of this machine holds no such calls; LONGALIGN_SCRATCH says where it lies")
        return
    for name, rows in groups.items():
        console.print(spending_table(f"by {name}", rows))


@app.command()
def show(address: Address, store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Show one artifact: what it is made of and from, its counts, its files."""
    from longalign_core.inspection import show_artifact

    context = _open(store)
    manifest = context.store.require(_checked(address))
    if as_json:
        console.print_json(manifest.to_bytes().decode())
    else:
        console.print(show_artifact(manifest, f"{context.store.url}/{manifest.folder}"))


@app.command()
def verify(address: Address, store: StoreUrl = None) -> None:
    """Read every file of an artifact, and of all it was made from, and check size and sha256."""
    from longalign_core.inspection import verify_artifact

    for line in verify_artifact(_open(store), _checked(address)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def trace(
    document_id: Annotated[
        str, typer.Argument(metavar="DOCUMENT_ID", help="Id of a document, such as books:emma.txt.")
    ],
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Walk one document's way: read, kept, drawn, asked about, encoded, placed in a step."""
    from longalign_core.inspection import similar_documents, trace_document, trace_table

    context = _open(store)
    rows = trace_document(context, document_id)
    if not rows:
        near = similar_documents(context, document_id)
        hint = f"; did you mean {', '.join(near)}?" if near else "; only documents of a corpus can be traced"
        raise InputError(f"no artifact in the store {context.store.url} knows a document {document_id!r}{hint}")
    if as_json:
        console.print_json(json.dumps(rows))
    else:
        console.print(trace_table(document_id, rows))


@app.command()
def batches(
    lengths: Annotated[Path, typer.Argument(metavar="LENGTHS.npy", help="Integer array, tokens per sequence.")],
    capacity: Annotated[int, typer.Option(min=1, help="Tokens a pack holds.")],
    packs_per_step: Annotated[int, typer.Option(min=1, help="Slots that make one optimizer step.")],
    ranks: Annotated[int, typer.Option(min=1, help="Data-parallel ranks, for the idle share.")],
    strategy: Annotated[str | None, typer.Option(help="One strategy; without it all of them.")] = None,
    alike: Annotated[int | None, typer.Option(min=1, help="Consecutive slots that cost alike.")] = None,
    model: Annotated[Path | None, typer.Option(help="config.json of the model, for its cost. [default: 7B]")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the plan here; needs --strategy.")] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate packing on anyone's lengths, one epoch, with one strategy or all of them.

    naive and sorted hold one sequence a slot; longalign is the paper's reference packing (next fit), bfd
    packs longest first, balanced (the default of recipes) evens out counts and costs.

    utilisation: tokens over room. idle: share of rank time lost waiting for the slowest rank.
    ess: evenness of the sequences' weights in the loss, 1 is even.
    """
    from longalign_core.batching.simulate import simulate_batches
    from longalign_core.plan_table import simulation_table

    try:
        rows = simulate_batches(
            lengths,
            capacity=capacity,
            packs_per_step=packs_per_step,
            ranks=ranks,
            strategy=strategy,
            alike=alike,
            model=model,
            out=out,
        )
    except DataError as error:  # here the lengths are what the user gave
        raise InputError(str(error)) from error
    if as_json:
        console.print_json(json.dumps(rows))
    else:
        console.print(simulation_table(rows))


@app.command()
def keys(
    section: Annotated[str | None, typer.Argument(help="A section of the recipe, such as batching.")] = None,
    runtime: Annotated[bool, typer.Option("--runtime", help="The LONGALIGN_* variables instead.")] = False,
) -> None:
    """Explain every key of a recipe, or of one section, with its default."""
    from longalign_core.reference import recipe_keys, reference_table, runtime_variables

    console.print(reference_table(runtime_variables() if runtime else recipe_keys(section)))


@app.command()
def push(
    address: Address,
    hub_id: Annotated[str, typer.Argument(metavar="HUB_ID", help="Repository of the hub: organisation/name.")],
    store: StoreUrl = None,
    private: Annotated[bool, typer.Option("--private", help="A private repository; a public one is refused.")] = False,
    branch: Annotated[str, typer.Option("--revision", "--branch", help="Branch that the commit goes to.")] = "main",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list files, sizes and licences.")] = False,
    with_json_lines: Annotated[bool, typer.Option("--jsonl", help="Add conversations.jsonl.")] = False,
    with_rejects: Annotated[bool, typer.Option("--with-rejects", help="Add what was left out, and why.")] = False,
    despite: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help="Push texts of this source, which may not be passed on, with --private."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of a model, such as apache-2.0; for checkpoints.")
    ] = None,
) -> None:
    """Push conversations (mixture, instruct) or a checkpoint to the Hugging Face hub.

    The key comes from HF_TOKEN. Texts that may not be passed on are refused; texts without a stated
    licence go to a private repository only.
    """
    from longalign_core.hub_push import PushOptions, prepare_push, push_table
    from longalign_core.hub_upload import upload
    from longalign_core.terminal import showing_progress

    options = PushOptions(
        private=private,
        branch=branch,
        with_json_lines=with_json_lines,
        with_rejects=with_rejects,
        despite=tuple(despite or ()),
        licence=licence,
    )
    prepared = prepare_push(_open(store), _checked(address), hub_id, options)
    console.print(push_table(prepared), highlight=False)
    if dry_run:
        console.print(f"nothing was pushed to {hub_id} (--dry-run)", highlight=False, soft_wrap=True)
        return
    with nullcontext() if console.is_terminal else showing_progress(console):
        commit = upload(prepared, options, bars=console.is_terminal)
    console.print(f"pushed: {commit}", highlight=False, soft_wrap=True)


@app.command()
def gc(
    store: StoreUrl = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted.")] = False,
) -> None:
    """Delete what interrupted commits left in the store; addresses that are worked at are left alone."""
    num_attempts = 0
    for attempt in _open(store).store.collect_garbage(delete=not dry_run):
        num_attempts += 1
        console.print(attempt, highlight=False, soft_wrap=True)
    console.print(f"{num_attempts} attempts without a manifest{', kept' if dry_run else ' deleted'}", highlight=False)


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


def _checked(address: str) -> str:
    if address.count("/") != 1:
        raise InputError(f"{address!r} is not an address; write stage/key as `longalign plan` prints it")
    return address


def _open(store: str | None) -> Context:
    from longalign_core.execution import open_context

    return open_context(load_runtime(store=store), resolve_hub=False)


if __name__ == "__main__":
    main()
