"""Records with named fields, from whatever file or service: which fields make a document."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from longalign_core.config.corpus_formats import RecordFields
from longalign_core.corpora.cleaning import MAX_TEXT_BYTES, reject
from longalign_core.corpora.reading import RawDocument
from longalign_core.records import Reject

PILE_SET_FIELD = "meta.pile_set_name"
Values = tuple[Any, str | None, str | None, str | None, str | None]
_SURELY_FITS = MAX_TEXT_BYTES // 4
"""Characters that cannot take more than `MAX_TEXT_BYTES` in UTF-8."""


def document_of_row(row: Mapping[str, Any], name: str, origin: str, config: RecordFields) -> RawDocument | Reject:
    """Make a raw document of a record, or say why not.

    Args:
        row: The record. A dot in a field's name leads into nested mappings, unless the row has a
            field of the very name.
        name: What names the record in the corpus.
        origin: Where it was found, for people.
        config: Says which fields are which. Any but the text may be missing, or be no string.
    """
    return document_of_values(
        (
            _value(row, config.text_field),
            _words(row, config.url_field),
            _words(row, config.title_field),
            _words(row, config.licence_field),
            _words(row, config.created_field),
        ),
        name,
        origin,
        config,
    )


def document_of_values(values: Values, name: str, origin: str, config: RecordFields) -> RawDocument | Reject:
    """The same of values in the order of `document_fields`, for formats that hold columns and no rows."""
    text, url, title, licence, created = values
    if not isinstance(text, str):
        return reject(config, name, "no text", f"expected an object with a string `{config.text_field}`")
    if len(text) > _SURELY_FITS and (num_bytes := len(text.encode("utf-8", "surrogatepass"))) > MAX_TEXT_BYTES:
        return reject(config, name, "too large", f"{num_bytes} bytes of text, more than {MAX_TEXT_BYTES}")
    return RawDocument(name, text, origin, url or None, title or None, licence or None, created or None)


def document_fields(config: RecordFields) -> tuple[str | None, ...]:
    """Fields of text, address, title, licence and date; None for those not wanted."""
    return config.text_field, config.url_field, config.title_field, config.licence_field, config.created_field


def is_other_pile_set(row: Mapping[str, Any], config: RecordFields) -> bool:
    """Whether `pile_set` leaves the record out. To be asked before a document is made of it."""
    return config.pile_set is not None and _value(row, PILE_SET_FIELD) != config.pile_set


def pile_sets_left_out(num_rows: int, path: str, config: RecordFields) -> Reject:
    """The one reject that stands for all records of a file that `pile_set` leaves out.

    It is a file's last record but for one that tells of damage. A reader that goes on inside a file
    counts what was left out before as well, so the number is the same however often it was killed.
    """
    name = f"{path}#other-pile-sets"
    return reject(config, name, "other Pile sets left out", f"{num_rows} rows that are not of {config.pile_set!r}")


def wanted_fields(config: RecordFields) -> tuple[str, ...]:
    """All fields that are looked at, the text's first, each once."""
    fields = document_fields(config)
    pile = PILE_SET_FIELD if config.pile_set is not None else None
    return tuple(dict.fromkeys(field for field in (*fields, pile) if field is not None))


def _value(row: Mapping[str, Any], field: str) -> Any:
    value = row.get(field)
    if value is None and "." in field:
        value = row
        for part in field.split("."):
            if not isinstance(value, Mapping):
                return None
            value = value.get(part)
    return value


def _words(row: Mapping[str, Any], field: str | None) -> str | None:
    if field is None:
        return None
    value = _value(row, field)
    if value is None or isinstance(value, str):
        return value
    return value.isoformat() if isinstance(value, date) else None
