"""Exact duplicates across corpora, by a hash of the text that ignores case and white space."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from longalign_core.records import Document, Reject

_DIGEST_BYTES = 16
_CHUNK = 65_536


def text_digest(text: str) -> bytes:
    """Digest that texts share which are equal but for case and white space, 16 bytes."""
    folded = " ".join(text.casefold().split())
    return hashlib.blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()


def find_duplicates(documents: Iterable[Document]) -> Iterator[str | Reject]:
    """Give of every document, in the order of ids, its id if it is kept, else a reject.

    Of equal documents the one with the smallest id is kept, so nothing depends on the order of
    `documents`. Memory holds ids and digests (about 100 bytes a document), no texts.
    """
    table = _digest_table(documents).sort_by("id")
    first = table.group_by("digest").aggregate([("id", "min")])
    place = pc.index_in(table["digest"], value_set=first["digest"].combine_chunks())
    for batch in table.append_column("kept", first["id_min"].take(place)).to_batches(max_chunksize=_CHUNK):
        for document_id, source, kept_id in zip(
            *(batch[name].to_pylist() for name in ("id", "source", "kept")), strict=True
        ):
            if document_id == kept_id:
                yield document_id
            else:
                yield Reject(
                    id=document_id,
                    source=source,
                    stage="clean",
                    reason="exact duplicate",
                    detail=f"equal to {kept_id} but for case and white space",
                )


def _digest_table(documents: Iterable[Document]) -> pa.Table:
    schema = pa.schema([("id", pa.string()), ("source", pa.string()), ("digest", pa.binary())])
    rows = ({"id": one.id, "source": one.source, "digest": text_digest(one.text)} for one in documents)
    batches = []
    while chunk := list(islice(rows, _CHUNK)):
        batches.append(pa.RecordBatch.from_pylist(chunk, schema))
    return pa.Table.from_batches(batches, schema)
