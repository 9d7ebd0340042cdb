"""The licences of the texts in a product, carried from the corpora to whatever is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from longalign_core.records import SourceLicence
from longalign_core.stage import Counts

LICENCES, CORPUS = "licences.json", "corpus.json"
NOT_REDISTRIBUTABLE, NOT_STATED = "not redistributable", "not stated"


def read_licences(folder: Path) -> list[SourceLicence]:
    """What a product says of its sources; nothing where it was made before products said it.

    An `ingest` product says it in `corpus.json`.
    """
    if (file := folder / LICENCES).is_file():
        return [SourceLicence(**one) for one in orjson.loads(file.read_bytes())]
    if (file := folder / CORPUS).is_file():
        about = orjson.loads(file.read_bytes())
        return [SourceLicence(source=about["name"], licence=about["licence"], redistributable=about["redistributable"])]
    return []


def carry_licences(
    inputs: Iterable[Path], records: Path, out_dir: Path, *, stated: Iterable[SourceLicence] = ()
) -> Counts:
    """Write `licences.json` for a product.

    Args:
        inputs: What it was made from.
        records: Its parquet file; has a column `source`, and maybe `licence`.
        out_dir: The product's folder.
        stated: What the recipe says of sources that are no product's.

    Returns:
        The mark that a product bears when texts in it may not be passed on; empty otherwise.
    """
    known = {one.source: one for folder in inputs for one in read_licences(folder)}
    known |= {one.source: one for one in stated}
    licences = [
        SourceLicence(
            source=source,
            licence=known[source].licence if source in known else None,
            redistributable=known[source].redistributable if source in known else None,
            records=sum(by_licence.values()),
            by_licence={name: number for name, number in sorted(by_licence.items()) if name},
        )
        for source, by_licence in sorted(_count(records).items())
    ]
    rows = [asdict(one) for one in licences]
    (out_dir / LICENCES).write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    return mark(licences)


def mark(licences: Sequence[SourceLicence]) -> Counts:
    """Names of the sources whose texts may not be passed on."""
    names = [one.source for one in licences if one.redistributable is False]
    return {NOT_REDISTRIBUTABLE: ", ".join(names)} if names else {}


def _count(records: Path) -> dict[str, dict[str, int]]:
    """Records by source and licence; "" where records have no licence of their own."""
    file = pq.ParquetFile(records)
    columns = [name for name in ("source", "licence") if name in file.schema_arrow.names]
    counts: dict[str, dict[str, int]] = {}
    for batch in file.iter_batches(columns=columns, batch_size=65_536):
        table = pa.Table.from_batches([batch]).group_by(columns).aggregate([([], "count_all")])
        for row in table.to_pylist():
            licence = (row["licence"] or NOT_STATED) if "licence" in row else ""
            of_source = counts.setdefault(row["source"], {})
            of_source[licence] = of_source.get(licence, 0) + row["count_all"]
    return counts
