"""Recipe section `corpora`: one of the formats, told apart by `format`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from longalign_core.config.corpus_formats import (
    ArxivCorpus,
    BooksCorpus,
    ClueCorpus,
    HubCorpus,
    JsonArrayCorpus,
    JsonLinesCorpus,
    MediawikiCorpus,
    ParquetCorpus,
    RepositoryCorpus,
    StackExchangeCorpus,
    TextCorpus,
    WarcCorpus,
)

Corpus = Annotated[
    ArxivCorpus
    | BooksCorpus
    | ClueCorpus
    | HubCorpus
    | JsonArrayCorpus
    | JsonLinesCorpus
    | MediawikiCorpus
    | ParquetCorpus
    | RepositoryCorpus
    | StackExchangeCorpus
    | TextCorpus
    | WarcCorpus,
    Field(discriminator="format"),
]
