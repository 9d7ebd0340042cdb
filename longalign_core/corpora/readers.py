"""The table of readers: a format is one module with a `read` function, named here."""

from __future__ import annotations

from collections.abc import Mapping

from longalign_core.corpora import hub, json_lines, mediawiki, repository, text
from longalign_core.corpora.reading import Reader

READERS: Mapping[str, Reader] = {
    "hub": Reader(hub.read, hub.units),
    "json_lines": Reader(json_lines.read),
    "mediawiki": Reader(mediawiki.read),
    "repository": Reader(repository.read, repository.units),
    "text": Reader(text.read),
}
"""Reader of each format a recipe can name."""
