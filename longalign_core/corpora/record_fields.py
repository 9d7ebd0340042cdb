"""Rows with named fields to documents. Stand-in until the one of branch `web` is merged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from longalign_core.config.corpus_formats import RecordFields
from longalign_core.corpora.cleaning import reject
from longalign_core.corpora.reading import RawDocument
from longalign_core.records import Reject


def document_of_row(row: Mapping[str, Any], name: str, origin: str, config: RecordFields) -> RawDocument | Reject:
    """A row as a document, or why not."""

    def words(field: str | None) -> str | None:
        value: Any = row
        for step in (field or "").split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        return value if isinstance(value, str) and value else None

    if config.pile_set and words("meta.pile_set_name") != config.pile_set:
        return reject(config, name, "other Pile subset")
    text = words(config.text_field)
    if text is None:
        return reject(config, name, "no text", f"expected a string `{config.text_field}`")
    return RawDocument(
        name,
        text,
        origin,
        url=words(config.url_field),
        title=words(config.title_field),
        licence=words(config.licence_field),
        created=words(config.created_field),
    )
