"""The table of readers: a format is one module with a `read` function, named here."""

from __future__ import annotations

from collections.abc import Mapping

from longalign_core.corpora import json_lines, mediawiki, repository, text, warc
from longalign_core.corpora.reading import Reader

READERS: Mapping[str, Reader] = {
    "json_lines": Reader(json_lines.read),
    "mediawiki": Reader(mediawiki.read),
    "repository": Reader(repository.read, repository.units),
    "text": Reader(text.read),
    "warc": Reader(warc.read),
}
"""Reader of each format a recipe can name."""
