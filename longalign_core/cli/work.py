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
    errors,
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
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Only evaluate this checkpoint of the store, by its address or its name, with the recipe's suites.",
        ),
    ] = None,
) -> None:
    """Carry a recipe out; what is in the store already is used, not made again.

    Without PREFECT_API_URL everything runs in this process. With it, the run is a Prefect flow run
    and shows in that server's UI.
    """
    if os.environ.get("PREFECT_API_URL"):
        from longalign_core.running import run_flow

        raise typer.Exit(run_flow(recipe, overrides or [], store, until, checkpoint))
    from longalign_core.running import run_here

    run_here(load_recipe(recipe, overrides or []), load_runtime(store=store), until, console, checkpoint)


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
    lengths: Annotated[
        Path,
        typer.Argument(
            metavar="LENGTHS",
            help="Tokens per sequence: .npy of integers, .txt or .csv with one a line, or .parquet.",
        ),
    ],
    capacity: Annotated[int, typer.Option(help="Tokens a pack holds.")],
    packs_per_step: Annotated[int, typer.Option(help="Packs that make one optimizer step.")],
    ranks: Annotated[
        int, typer.Option(help="Data-parallel ranks (GPUs ÷ GPUs that share a sequence); divides packs-per-step.")
    ],
    strategy: Annotated[str | None, typer.Option(help="One strategy; without it all of them.")] = None,
    alike: Annotated[
        int | None,
        typer.Option(
            help="Neighbouring slots that cost alike, a divisor of packs-per-step: up to so many ranks do not wait for "
            "one another; fewer mix lengths more within a step. (default: packs-per-step)"
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="config.json of the model, for its cost. (default: a round 7B)")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of a .parquet or .csv that holds the lengths. (default: length)")
    ] = None,
    tflops: Annotated[
        float | None,
        typer.Option(
            help="TFLOP/s that one GPU sustains in your training, to predict hours. Measure it: time some steps; "
            "'cost' in the JSON ÷ its 'steps' is the FLOPs of one; divide by seconds and GPUs. Or: the MFU that your "
            "trainer logs × the GPU's peak."
        ),
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs to predict hours for. (default: one a rank)")] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            help='Measured packs instead of --tflops and --gpus, one a line: {"lengths": [40210, 12080], '
            '"seconds": 21.4}, the time of one forward and backward pass on your machines.'
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs to predict hours for.")] = 1,
    picture: Annotated[
        Path | None,
        typer.Option(help="Draw the first packs and the timeline of ranks: FILE.png, .svg, or .html with the tables."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the plan here as parquet; needs --strategy.")] = None,
    as_json: AsJson = False,
) -> None:
    """Try packing strategies on your own lengths: one epoch, side by side. Needs no model and no GPU.

    Example: longalign batches lengths.npy --capacity 65536 --packs-per-step 8 --ranks 8 --picture p.html

    Strategies:

    - naive: one sequence a slot, in any order.
    - sorted: one sequence a slot, neighbours in length side by side.
    - longalign: the paper's reference packing, next fit.
    - bfd: longest first, each into the fullest pack with room.
    - balanced: full packs with counts and costs evened out; the default of recipes.

    Columns:

    - utilisation: tokens ÷ room of the packs; 1 is full.
    - micro-steps: rounds in which every rank takes one pack and waits for the slowest.
    - idle: share of rank time spent waiting; 0 is best.
    - time ÷ ideal: an epoch's time over that of ranks that never wait.
    - slots: places of a step; naive and sorted get as many as make steps alike in sequences.
    - long tokens: share of a step's tokens in long sequences; a small ± means that steps are alike.
    - ess: how evenly sequences weigh in the loss, by its divisor (step, epoch, pack); 1 is even.
    """
    from longalign_core.batching.simulate import simulate_batches
    from longalign_core.batching.tables import comparison_view
    from longalign_core.terminal import showing_progress

    try:
        with showing_progress(errors):  # on stderr, so that JSON can be piped
            rows = simulate_batches(
                lengths,
                capacity=capacity,
                packs_per_step=packs_per_step,
                ranks=ranks,
                strategy=strategy,
                alike=alike,
                model=model,
                out=out,
                column=column,
                gpus=gpus,
                tflops=tflops,
                epochs=epochs,
                profile=profile,
                picture=picture,
            )
    except DataError as error:  # here the lengths are what the user gave
        raise InputError(str(error)) from error
    if as_json:
        console.print_json(json.dumps(rows))
        return
    console.print(comparison_view(rows), highlight=False)
    for name, file in (("picture", picture), ("plan", out)):
        if file is not None:
            console.print(f"{name}: {file}", highlight=False, markup=False, soft_wrap=True)


def publish(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="Folder of the model, or hub:organisation/name of the hub's.")
    ],
    store: StoreUrl = None,
    name: Annotated[
        str | None, typer.Option(help="Name in the store that points at it from now on, for --checkpoint.")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="Chat template of a model without one: a jinja file, or a name as encoding.template takes it."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring in a checkpoint that was trained elsewhere, as an artifact that can be evaluated and pushed.

    Takes weights in safetensors with config, tokenizer and chat template, and runs no code of theirs. The same
    files have the same address, wherever they lie. Prints the address.
    """
    from longalign_core.publishing import publish_checkpoint

    done = publish_checkpoint(opened(store), path, template=template, name=name)
    address = done.manifest.address
    if as_json:
        console.print_json(json.dumps({"address": address, "found": done.found, "name": name}))
    else:
        console.print(address, highlight=False, soft_wrap=True)


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
    """Delete what interrupted commits, and trainings that are done, left in the store; not where work goes on."""
    num_found = 0
    for found in opened(store).store.collect_garbage(delete=not dry_run):
        num_found += 1
        console.print(found, highlight=False, soft_wrap=True)
    console.print(f"{num_found} left-overs{', kept' if dry_run else ' deleted'}", highlight=False)
