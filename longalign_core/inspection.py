"""Looking into the store: one artifact, its soundness, one document's way."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
from rich.console import Group, RenderableType
from rich.table import Table

from longalign_core.execution import Context, describe
from longalign_core.store import Manifest

TraceRow = dict[str, Any]
# Which table of a stage's product knows documents, and by which column.
_TABLES = (
    ("ingest", "documents", "id", "read"),
    ("ingest", "rejects.parquet", "id", "rejected"),
    ("clean", "kept.parquet", "id", "kept"),
    ("clean", "rejects.parquet", "id", "rejected"),
    ("select", "documents.parquet", "id", "drawn"),
    ("select", "rejects.parquet", "id", "not drawn"),
    ("instruct", "conversations.parquet", "document_id", "conversation written"),
    ("instruct", "rejects.parquet", "id", "rejected"),
    ("mixture", "conversations.parquet", "document_id", "in the training set"),
    ("mixture", "rejects.parquet", "id", "rejected"),
    ("encode", "sequences.parquet", "document_id", "encoded"),
    ("encode", "rejects.parquet", "id", "rejected"),
)
_SHOWN = (
    "origin",
    "url",
    "licence",
    "language",
    "num_tokens",
    "reason",
    "detail",
    "task_type",
    "sequence",
    "length",
    "targets",
    "cut_tokens",
)


def show_artifact(manifest: Manifest, folder: str) -> RenderableType:
    """An artifact for people: facts, then files; `folder` is where they lie."""
    facts = Table(show_header=False, box=None)
    made = manifest.provenance
    inputs = [address for addresses in manifest.inputs.values() for address in addresses]
    for name, value in (
        ("address", manifest.address),
        ("label", manifest.label),
        ("folder", folder),
        ("version", manifest.version),
        ("made from", ", ".join(inputs) or "sources"),
        ("counts", describe(manifest.counts)),
        ("made", f"{made.get('time')} on {made.get('host')} in {made.get('seconds')} s, commit {made.get('commit')}"),
        ("config", str(manifest.config)),
    ):
        facts.add_row(name, str(value))
    files = Table("file", "bytes", "sha256")
    for entry in manifest.files:
        files.add_row(entry.path, f"{entry.size:,}", entry.sha256[:16] + "…")
    return Group(facts, files)


def verify_artifact(context: Context, address: str) -> Iterator[str]:
    """Check an artifact and everything it was made from; yields a line for each.

    Raises:
        MissingArtifactError: One of them is not there.
        ManifestError: A file is gone or is not what its manifest says.
    """
    todo, seen = [address], set()
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        manifest = context.store.require(current)
        context.store.check_files(manifest)
        context.store.fetch(manifest)
        size = sum(entry.size for entry in manifest.files)
        yield f"sound  {current:<28} {len(manifest.files)} files, {size:,} bytes"
        todo += [one for addresses in manifest.inputs.values() for one in addresses]


def trace_document(context: Context, document_id: str) -> list[TraceRow]:
    """Everything the store knows of one document, in the order of the stages.

    Returns:
        Keys: address, label, what, and the columns that say more.
    """
    rows = []
    sequences: dict[str, list[int]] = {}
    for stage, name, column, what in _TABLES:
        for address in context.store.addresses(stage):
            manifest = context.store.require(address)
            if not any(entry.path == name or entry.path.startswith(f"{name}/") for entry in manifest.files):
                continue
            table = pq.read_table(context.store.fetch(manifest) / name, filters=[(column, "==", document_id)])
            for found in table.to_pylist():
                more = {key: found[key] for key in _SHOWN if found.get(key) not in (None, "")}
                rows.append({"address": address, "label": manifest.label, "what": what, **more})
                if "sequence" in found:
                    sequences.setdefault(address, []).append(found["sequence"])
    return rows + list(_placements(context, sequences))


def similar_documents(context: Context, document_id: str, most: int = 3) -> list[str]:
    """Ids of documents that were read and are spelled like the given one."""
    found: set[str] = set()
    for address in context.store.addresses("ingest"):
        folder = context.store.fetch(context.store.require(address))
        files = sorted((folder / "documents").glob("*.parquet"))
        ids = [one for file in files for one in pq.read_table(file, columns=["id"])["id"].to_pylist()]
        found |= {one for one in ids if document_id.lower() in one.lower()} or set(
            difflib.get_close_matches(document_id, ids, n=most)
        )
    return difflib.get_close_matches(document_id, sorted(found), n=most, cutoff=0.0)


def _placements(context: Context, sequences: dict[str, list[int]]) -> Iterator[TraceRow]:
    for address in context.store.addresses("batches"):
        manifest = context.store.require(address)
        wanted = [one for tokens in manifest.inputs["tokens"] for one in sequences.get(tokens, [])]
        if not wanted:
            continue
        table = pq.read_table(context.store.fetch(manifest) / "plan.parquet", filters=[("sequence", "in", wanted)])
        for place in table.to_pylist():
            where = {key: place[key] for key in ("epoch", "step", "slot", "offset", "sequence")}
            where["step"] += 1  # as training's metrics count: optimizer steps done
            yield {"address": address, "label": manifest.label, "what": "placed in a step", **where}


def trace_table(document_id: str, rows: list[TraceRow]) -> Table:
    """The rows for people."""
    table = Table("what", "artifact", "details", title=document_id, title_justify="left")
    for row in rows:
        details = ", ".join(f"{key} {value}" for key, value in row.items() if key not in ("address", "label", "what"))
        table.add_row(row["what"], f"{row['address']} {row['label']}".strip(), details)
    return table
