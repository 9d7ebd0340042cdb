"""The documents of all corpora compared with one another, from their sketches alone.

What is contaminated goes first, so that it takes no other document with it; of what is left, exact
duplicates; then near-duplicates and what lies within another document. Nothing depends on the order of
the sketches. Memory holds about 250 bytes a document and what documents share (see
`sketch_index`); signatures, 512 bytes a document, are in a file that is mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from longalign_core.config.cleaning import CleaningConfig
from longalign_core.corpora.comparing.duplicates import first_equals
from longalign_core.corpora.comparing.minhash import NUM_BINS, SAMPLING
from longalign_core.corpora.comparing.near_duplicates import Compared, LeftOut, leave_out
from longalign_core.corpora.comparing.part_sketches import samples_of
from longalign_core.corpora.comparing.sketch_index import Ranks, nothing_shared, shared_bands, shared_samples
from longalign_core.records import Reject
from longalign_core.word_hashes import Hashes

_CHUNK = 65_536
_SAMPLES_AT_ONCE = 1 << 23
_FACTS = ["id", "source", "digest", "length", "num_samples", "contamination"]


def compare(
    tables: Sequence[Path], config: CleaningConfig, scratch: Path, look: Callable[[int], None]
) -> Iterator[str | Reject]:
    """Give of every document, in the order of ids, its id if it is kept, else a reject.

    Args:
        tables: What `sketch_part` wrote.
        config: What is left out.
        scratch: Folder for the signatures.
        look: Told how many documents were compared since it was told the last time.
    """
    # Strings of Arrow hold 2 GiB a column: the ids of some ten million documents.
    facts = [_wide(pq.read_table(file, columns=_FACTS)) for file in tables]
    parts = np.repeat(np.arange(len(tables)), [len(one) for one in facts])
    table = pa.concat_tables(facts).append_column("place", pa.array(np.arange(len(parts)))).sort_by("id")
    place = table["place"].to_numpy()
    is_left = table["contamination"].is_null().to_numpy()
    # By document in the order of ids: the one that it equals, itself where it equals none.
    equal_to = np.arange(len(table))
    if config.exact_duplicates and is_left.any():
        left = np.flatnonzero(is_left)
        equal_to[left] = left[first_equals(table["digest"].filter(pa.array(is_left)).combine_chunks())]
    remaining = np.flatnonzero(is_left & (equal_to == np.arange(len(table))))
    alike = {}
    look(len(table) - len(remaining))
    if config.near_duplicates is not None or config.containment is not None:
        length = table["length"].to_numpy()
        by_rank = remaining[np.lexsort((remaining, -length[remaining]))]
        ranks = np.full(len(parts), -1, np.int32)
        ranks[place[by_rank]] = np.arange(len(by_rank), dtype=np.int32)
        documents = _compared(tables, config, ranks, length[by_rank], table["num_samples"].to_numpy()[by_rank], scratch)
        alike = {int(by_rank[one.rank]): (one, int(by_rank[one.kept])) for one in leave_out(documents, look)}
    else:
        look(len(remaining))
    yield from _outcomes(table, equal_to, alike)


def _wide(table: pa.Table) -> pa.Table:
    return table.cast(
        pa.schema([(one.name, pa.large_string() if one.type == pa.string() else one.type) for one in table.schema])
    )


def _compared(
    tables: Sequence[Path],
    config: CleaningConfig,
    ranks: Ranks,
    lengths: NDArray[np.int64],
    num_samples: NDArray[np.int64],
    scratch: Path,
) -> Compared:
    """The documents as they are compared; `ranks` are those of all rows of the tables, -1 for one that is out."""
    count = len(lengths)
    signatures = _signatures(tables, ranks, count, scratch)
    nothing = nothing_shared(count)
    near, within = config.near_duplicates, config.containment
    return Compared(
        signatures=signatures,
        bands=nothing if near is None else shared_bands(signatures, lengths > 0, near),
        similar=1.0 if near is None else near,
        num_samples=num_samples,
        samples=nothing if within is None else shared_samples(_sample_slices(tables, ranks), count),
        contained=1.0 if within is None else within,
    )


def _signatures(tables: Sequence[Path], ranks: Ranks, count: int, scratch: Path) -> NDArray[np.uint16]:
    """Signatures by rank, in a file that is mapped: the machine may take its memory back."""
    if not count:
        return np.empty((0, NUM_BINS), np.uint16)
    signatures = np.lib.format.open_memmap(scratch / "signatures.npy", "w+", np.uint16, (count, NUM_BINS))
    first = 0
    for file in tables:
        for batch in pq.ParquetFile(file).iter_batches(_CHUNK, columns=["signature"]):
            rows = np.frombuffer(b"".join(batch["signature"].to_pylist()), np.uint16).reshape(-1, NUM_BINS)
            rank = ranks[first : first + len(rows)]
            signatures[rank[rank >= 0]] = rows[rank >= 0]
            first += len(rows)
    return np.asarray(signatures)


def _sample_slices(tables: Sequence[Path], ranks: Ranks) -> Iterator[tuple[Hashes, Ranks]]:
    """All samples, a range of hashes at a time, with the ranks of their documents."""
    parts = [samples_of(file) for file in tables]
    first_rows = np.cumsum([0, *(pq.read_metadata(file).num_rows for file in tables)])
    num_slices = sum(len(hashes) for hashes, _ in parts) // _SAMPLES_AT_ONCE + 1
    limits = [(1 << 64) // SAMPLING * number // num_slices for number in range(1, num_slices)]
    ends = [[0, *np.searchsorted(hashes, np.array(limits, np.uint64)).tolist(), len(hashes)] for hashes, _ in parts]
    for number in range(num_slices):
        cuts = [slice(end[number], end[number + 1]) for end in ends]
        hashes = np.concatenate([hashes[cut] for (hashes, _), cut in zip(parts, cuts, strict=True)])
        rank = np.concatenate(
            [ranks[first + rows[cut]] for (_, rows), cut, first in zip(parts, cuts, first_rows[:-1], strict=True)]
        )
        yield hashes[rank >= 0], rank[rank >= 0]


def _outcomes(
    table: pa.Table, equal_to: NDArray[np.int64], alike: dict[int, tuple[LeftOut, int]]
) -> Iterator[str | Reject]:
    ids = table["id"]
    start = 0
    for batch in table.select(["id", "source", "contamination"]).to_batches(max_chunksize=_CHUNK):
        columns = (batch[name].to_pylist() for name in ("id", "source", "contamination"))
        for number, (document_id, source, contamination) in enumerate(zip(*columns, strict=True), start):
            equal = int(equal_to[number])
            if contamination is not None:
                reason, detail = "contaminated", contamination
            elif equal != number:
                reason, detail = "exact duplicate", f"equal to {ids[equal]} but for case and white space"
                if equal in alike:
                    detail += f", which is left out for {ids[alike[equal][1]]}"
            elif number in alike:
                found, kept = alike[number]
                reason = "within another document" if found.is_within else "near-duplicate"
                detail = (
                    f"{found.value:.0%} of it is in {ids[kept]}"
                    if found.is_within
                    else f"similarity {found.value:.2f} to {ids[kept]}"
                )
            else:
                yield document_id
                continue
            yield Reject(id=document_id, source=source, stage="clean", reason=reason, detail=detail)
        start += batch.num_rows
