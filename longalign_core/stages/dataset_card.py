"""The dataset card of a product of conversations: `README.md` as the hub reads it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from longalign_core.records import SourceLicence
from longalign_core.stages.licences import NOT_STATED, read_licences

CARD, CONVERSATIONS, REPORT = "README.md", "conversations.parquet", "mixture.json"
# Identifiers of the hub, as its own client library for JavaScript lists them (ApiSpaceMetadata); SPDX in
# lower case, as far as SPDX knows them.
_HUB_LICENCES = frozenset((
    "apache-2.0", "mit", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear",
    "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0",
    "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl",
    "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "agpl-3.0", "gfdl", "gpl-2.0", "gpl-3.0", "lgpl-2.1",
    "lgpl-3.0", "isc", "lppl-1.3c", "ms-pl", "mpl-2.0", "odc-by", "odbl", "osl-3.0", "postgresql", "ofl-1.1", "ncsa",
    "unlicense", "zlib", "pddl",
))  # fmt: skip
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGER = ((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))
_COLUMNS = ("source", "task_type", "language", "licence", "model")
_LOADING = """```python
from datasets import load_dataset

conversations = load_dataset("{where}", split="train")
conversations[0]["messages"]  # [{{"role": "user", "content": …}}, {{"role": "assistant", "content": …}}]
```"""
_USE = (
    "For supervised fine-tuning of language models on long inputs, the loss on the assistant's turns alone. "
    "A conversation about a document carries the whole document in its first user turn."
)
_LIMITS = (
    "Answers that a model wrote were checked by rules, not by people: they may be wrong, and they have the manners "
    "and the gaps of the model that wrote them. Its provider's terms may restrict what may be trained on them. "
    "Documents are as their corpora hold them, with whatever personal data or prejudice is in them. "
    "Each text stays under the licence of its source: see the table, and `licences.json`."
)


def write_dataset_card(folder: Path, *, title: str) -> Path:
    """Write `README.md` for a folder that holds `conversations.parquet`, and `licences.json` where it is known.

    What is in `mixture.json`, where there is one, becomes a table. The texts are not read.

    Args:
        folder: The product's folder.
        title: Heading of the card, and the name that the hub shows.
    """
    path = folder / CARD
    path.write_text(dataset_card(folder, title=title), encoding="utf-8")
    return path


def dataset_card(folder: Path, *, title: str) -> str:
    """The card's text; see `write_dataset_card`."""
    counts = _counts(folder / CONVERSATIONS)
    licences = read_licences(folder)
    total = sum(counts["source"].values())
    front = {
        "pretty_name": title,
        **_licence_field(licences),
        "language": sorted(counts["language"]),
        "size_categories": [_size_category(total)],
        "task_categories": _task_categories(counts["task_type"]),
        "tags": ["long-context", "instruction-tuning", "longalign"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": CONVERSATIONS}]}],
    }
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {title}",
        f"{total:,} conversations, made with LongAlign: documents and instruction sets in, conversations out.",
        "## How to load it\n\n" + _LOADING.format(where="this folder, or its id on the hub"),
        "## Sources and licences\n\n" + _sources(licences, counts["source"]),
        "## Numbers\n\n" + "\n\n".join(_table_of(counts[name], name.replace("_", " "), total) for name in _COLUMNS[1:]),
    ]
    if (report := folder / REPORT).is_file():
        parts.append("## How it was mixed\n\n" + _mixing(orjson.loads(report.read_bytes())))
    parts += [f"## Intended use\n\n{_USE}", f"## Limits\n\n{_LIMITS}"]
    return "\n\n".join(parts) + "\n"


def _counts(conversations: Path) -> dict[str, dict[str, int]]:
    """Conversations by value of each column, the most frequent first."""
    counts: dict[str, dict[str, int]] = {name: {} for name in _COLUMNS}
    for batch in pq.ParquetFile(conversations).iter_batches(columns=list(_COLUMNS), batch_size=65_536):
        table = pa.Table.from_batches([batch])
        for name in _COLUMNS:
            of_column = counts[name]
            for row in table[name].value_counts().to_pylist():
                value = row["values"] or NOT_STATED
                of_column[value] = of_column.get(value, 0) + row["counts"]
    return {name: dict(sorted(of.items(), key=lambda one: (-one[1], one[0]))) for name, of in counts.items()}


def _licence_field(licences: Sequence[SourceLicence]) -> dict[str, Any]:
    """The hub's field: its own identifiers where every text has one, else `other` or `unknown`."""
    names = {name for one in licences for name in stated_licences(one)}
    if not any(name for name in names):
        return {"license": "unknown"}
    known = sorted(name.lower() for name in names if name)
    if None in names or not set(known) <= _HUB_LICENCES:
        return {"license": "other", "license_name": "mixed"}
    return {"license": known[0] if len(known) == 1 else known}


def stated_licences(one: SourceLicence) -> set[str | None]:
    """The licences of a source's records; None among them where some have none stated."""
    by_record: set[str | None] = {None if name == NOT_STATED else name for name in one.by_licence} or {None}
    return {one.licence if name is None else name for name in by_record}


def _size_category(total: int) -> str:
    return next((name for limit, name in (*_SIZES, *_LARGER) if total < limit), "n>1B")


def _task_categories(task_types: Iterable[str]) -> list[str]:
    found = set(task_types)
    summaries = ["summarization"] if "summary" in found else []
    return ["text-generation", "question-answering", *summaries] if found - {"chat"} else ["text-generation"]


def _sources(licences: Sequence[SourceLicence], by_source: dict[str, int]) -> str:
    known = {one.source: one for one in licences}
    rows = []
    for source, number in sorted(by_source.items()):
        one = known.get(source, SourceLicence(source=source))
        names = sorted(name or NOT_STATED for name in stated_licences(one))
        passed_on = {True: "yes", False: "no", None: NOT_STATED}[one.redistributable]
        rows.append((source, f"{number:,}", ", ".join(names), passed_on))
    return markdown_table(("source", "conversations", "licence", "may be passed on"), rows)


def _table_of(counts: dict[str, int], heading: str, total: int) -> str:
    rows = [(value, f"{number:,}", f"{number / total:.1%}") for value, number in counts.items()]
    return markdown_table((heading, "conversations", "share"), rows)


def _mixing(report: dict[str, Any]) -> str:
    names = ("name", "read", "available", "wanted", "drawn", "missing")
    more = ("empty_turns_dropped", "unanswered_turns_dropped")
    rows = [(*(_shown(group[name]) for name in (*names, *more)), _reasons(group["rejected"]))
            for group in report["groups"]]  # fmt: skip
    headings = (*names[:-1], "missing", "empty turns dropped", "unanswered turns dropped", "rejected")
    said = (
        f"Suite `{report['suite']}`, seed {report['seed']}: what is drawn and its order depend on both and on content."
    )
    return f"{said}\n\n{markdown_table(headings, rows)}"


def _reasons(rejected: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in rejected.items()) or "none"


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of a card."""
    cells = [headings, ["---"] * len(headings), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in cells
    )
