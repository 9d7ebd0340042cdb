"""Commands that make something, or say what it would be."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from longalign_core.cli.options import (
    Address,
    AsJson,
    Overrides,
    RecipeFile,
    StoreUrl,
    checked,
    console,
    opened,
)
from longalign_core.config.loading import load_recipe, load_runtime
from longalign_core.errors import DataError, InputError


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
    prepared = prepare_push(opened(store), checked(address), hub_id, options)
    console.print(push_table(prepared), highlight=False)
    if dry_run:
        console.print(f"nothing was pushed to {hub_id} (--dry-run)", highlight=False, soft_wrap=True)
        return
    with nullcontext() if console.is_terminal else showing_progress(console):
        commit = upload(prepared, options, bars=console.is_terminal)
    console.print(f"pushed: {commit}", highlight=False, soft_wrap=True)


def gc(
    store: StoreUrl = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted.")] = False,
) -> None:
    """Delete what interrupted commits left in the store; addresses that are worked at are left alone."""
    num_attempts = 0
    for attempt in opened(store).store.collect_garbage(delete=not dry_run):
        num_attempts += 1
        console.print(attempt, highlight=False, soft_wrap=True)
    console.print(f"{num_attempts} attempts without a manifest{', kept' if dry_run else ' deleted'}", highlight=False)
