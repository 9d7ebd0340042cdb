"""Commands that look at what is there."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from longalign_core.cli.options import (
    Address,
    AsJson,
    StoreUrl,
    checked,
    console,
    opened,
)
from longalign_core.errors import InputError


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

    groups = spending_groups(opened(store), by, None if product is None else checked(product))
    if as_json:
        console.print_json(json.dumps(groups))
        return
    if not any(groups.values()):
        console.print("the ledger of this machine holds no such calls; LONGALIGN_SCRATCH says where it lies")
        return
    for name, rows in groups.items():
        console.print(spending_table(f"by {name}", rows))


def show(address: Address, store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Show one artifact: what it is made of and from, its counts, its files."""
    from longalign_core.inspection import show_artifact

    context = opened(store)
    manifest = context.store.require(checked(address))
    if as_json:
        console.print_json(manifest.to_bytes().decode())
    else:
        console.print(show_artifact(manifest, f"{context.store.url}/{manifest.folder}"))


def verify(address: Address, store: StoreUrl = None) -> None:
    """Read every file of an artifact, and of all it was made from, and check size and sha256."""
    from longalign_core.inspection import verify_artifact

    for line in verify_artifact(opened(store), checked(address)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def trace(
    document_id: Annotated[
        str, typer.Argument(metavar="DOCUMENT_ID", help="Id of a document, such as books:emma.txt.")
    ],
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Walk one document's way: read, kept, drawn, asked about, encoded, placed in a step."""
    from longalign_core.inspection import similar_documents, trace_document, trace_table

    context = opened(store)
    rows = trace_document(context, document_id)
    if not rows:
        near = similar_documents(context, document_id)
        hint = f"; did you mean {', '.join(near)}?" if near else "; only documents of a corpus can be traced"
        raise InputError(f"no artifact in the store {context.store.url} knows a document {document_id!r}{hint}")
    if as_json:
        console.print_json(json.dumps(rows))
    else:
        console.print(trace_table(document_id, rows))


def keys(
    section: Annotated[str | None, typer.Argument(help="A section of the recipe, such as batching.")] = None,
    runtime: Annotated[bool, typer.Option("--runtime", help="The LONGALIGN_* variables instead.")] = False,
) -> None:
    """Explain every key of a recipe, or of one section, with its default."""
    from longalign_core.reference import recipe_keys, reference_table, runtime_variables

    console.print(reference_table(runtime_variables() if runtime else recipe_keys(section)))
