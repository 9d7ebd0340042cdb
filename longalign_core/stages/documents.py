"""Reading the documents of `ingest` artifacts, for the stages that come after."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from longalign_core.record_files import Record, read_records
from longalign_core.records import Document
from longalign_core.stages.outcomes import LONG_BATCH

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DOCUMENTS, KEPT = "documents", "kept.parquet"


def part_files(folder: Path) -> list[Path]:
    """The document files of one corpus, in reading order; none where it gave no document."""
    return sorted((folder / DOCUMENTS).glob("*.parquet"))


def chosen_documents(folders: Iterable[Path], ids: Collection[str]) -> Iterator[Document]:
    """Those documents of several corpora that have one of the ids, corpus by corpus. Few other texts are read."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = pa.array(sorted(ids), pa.string())
    for folder in folders:
        for file in part_files(folder):
            rows = np.flatnonzero(pc.is_in(pq.read_table(file, columns=["id"])["id"], value_set=wanted).to_numpy())
            if len(rows):
                about = pq.read_metadata(file)
                ends = np.cumsum([about.row_group(group).num_rows for group in range(about.num_row_groups)])
                groups = np.unique(np.searchsorted(ends, rows, side="right")).tolist()
                documents = read_records(file, Document, batch=LONG_BATCH, row_groups=groups)
                yield from (document for document in documents if document.id in ids)


class KeptDocuments:
    """The documents that `clean` kept, file by file. Holds 8 bytes for each of them."""

    def __init__(self, clean_folder: Path) -> None:
        import numpy as np

        self._hashes = np.sort(id_hashes(clean_folder / KEPT))

    def read(self, file: Path, kind: type[Record]) -> Iterator[Record]:
        """Records of the kept documents of one part; `kind` has those fields of a Document that are needed."""
        import numpy as np

        hashes = id_hashes(file)
        # One table of all ids would be made anew for each part. That an id of another document has the same
        # hash as a kept one happens once in two thousand times among a hundred million of both.
        places = np.searchsorted(self._hashes, hashes)
        is_kept = np.zeros(len(hashes), np.bool_)
        is_inside = places < len(self._hashes)
        is_kept[is_inside] = self._hashes[places[is_inside]] == hashes[is_inside]
        documents = read_records(file, kind, batch=LONG_BATCH)
        yield from (document for document, keep in zip(documents, is_kept, strict=True) if keep)


def read_ids(file: Path) -> Iterator[str]:
    """The ids of a parquet file of records."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(file).iter_batches(columns=["id"]):
        yield from batch["id"].to_pylist()


def id_hashes(file: Path) -> NDArray[np.uint64]:
    """Hashes of the ids of a parquet file of records, row by row."""
    from hashlib import blake2b

    import numpy as np

    digests = b"".join(blake2b(one.encode(), digest_size=8).digest() for one in read_ids(file))
    return np.frombuffer(digests, np.uint64)


def num_documents(folders: Iterable[Path]) -> int:
    """How many documents the corpora have."""
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for folder in folders for file in part_files(folder))


def watched(documents: Iterable[Record], step: Callable[..., None]) -> Iterator[Record]:
    """The same documents, each told to `step`."""
    for document in documents:
        yield document
        step(1)
