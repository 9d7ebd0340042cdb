"""One recipe section for each native format of a corpus: what they share, and what a format adds."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from longalign_core.config.base import Section, Source
from longalign_core.config.credentials import refuse_secret_in_url

_HUB_DATASET = re.compile(r"hub:datasets/[\w.-]+/[\w.-]+(@[0-9a-f]{40})?")


class CorpusConfig(Section):
    """One corpus. Its `ingest` depends on this section and on the files alone."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Name of the corpus, unique in the recipe.")
    format: str = Field(description="Native format of its files; says which reader is used.")
    location: Source = Field(description="File, folder or fsspec URL (s3://…); a path starts at the recipe file.")
    language: str = Field(default="en", description="ISO 639-1 code of its texts.")
    languages: tuple[str, ...] = Field(
        default=(),
        description="Identify each text's language and reject those not in this list; empty trusts `language`.",
    )
    licence: str | None = Field(default=None, description="SPDX identifier of its texts; null when not known.")
    redistributable: bool = Field(
        default=True, description="Whether its texts may be passed on; false marks everything made from them."
    )
    min_characters: int = Field(default=200, ge=1, description="Shorter documents are rejected, in characters.")
    max_documents: int | None = Field(default=None, ge=1, description="Stop after so many documents; null reads all.")
    quality: tuple[Literal["gopher", "c4"], ...] = Field(
        default=(),
        description="Rule sets that prose must pass: gopher (length, symbols, repetition), c4 (web pages, by line).",
    )
    scrub: tuple[Literal["email", "ip_address", "phone"], ...] = Field(
        default=(), description="Personal data to replace by a placeholder, such as [email]."
    )

    @field_validator("language", "languages")
    @classmethod
    def _are_language_codes(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for code in (value,) if isinstance(value, str) else value:
            # Languages without two letters are identified by three.
            if not code.isascii() or not code.islower() or len(code) not in (2, 3):
                raise ValueError(f"{code!r} is no language code; write the letters of ISO 639, such as en or zh")
        return value

    @field_validator("location")
    @classmethod
    def _can_be_read(cls, location: str, info: ValidationInfo) -> str:
        if "://" in location:
            refuse_secret_in_url(location, "the location of a corpus")
        if location.startswith("hub:") and "format" in info.data and info.data["format"] != "hub":
            raise ValueError(f"{location!r} lies on the hub, and {info.data['format']} reads files; use format: hub")
        return location


class RecordFields(CorpusConfig):
    """What formats share whose records have named fields; a dot leads inside: `meta.url`."""

    text_field: str = Field(default="text", description="Field that holds the text.")
    title_field: str | None = Field(default="title", description="Field of the title; null: none.")
    url_field: str | None = Field(default="url", description="Field of the address on the web; null: none.")
    created_field: str | None = Field(default="timestamp", description="Field of the date; null: none.")
    licence_field: str | None = Field(default=None, description="Field of the record's own licence; null: none.")
    pile_set: str | None = Field(
        default=None, description="Keep only rows of this subset of The Pile, by `meta.pile_set_name`; null keeps all."
    )

    @field_validator("pile_set")
    @classmethod
    def _not_books3(cls, pile_set: str | None) -> str | None:
        if pile_set is not None:
            _refuse_books3(pile_set)
        return pile_set


class TextCorpus(CorpusConfig):
    """Plain text: one document a .txt, .md or .rst file."""

    format: Literal["text"] = "text"


class BooksCorpus(CorpusConfig):
    """Books as .txt or .epub, long ones cut at chapter boundaries."""

    format: Literal["books"] = "books"
    max_window_characters: int | None = Field(
        default=200_000,
        ge=1_000,
        description="A longer book becomes several documents of whole chapters, each at most so long; null never cuts.",
    )


class ClueCorpus(CorpusConfig):
    """CLUECorpus text files: a sentence a line, a blank line between documents."""

    format: Literal["clue"] = "clue"


class JsonLinesCorpus(RecordFields):
    """JSON lines (C4, The Pile), plain, .gz, .bz2, .xz or .zst: one document a line."""

    format: Literal["json_lines"] = "json_lines"


class JsonArrayCorpus(RecordFields):
    """Files of one JSON array of objects (WuDaoCorpora): one document an object."""

    format: Literal["json_array"] = "json_array"
    text_field: str = Field(default="content", description="Field that holds the text.")


class ParquetCorpus(RecordFields):
    """Parquet files: one document a row."""

    format: Literal["parquet"] = "parquet"


class HubCorpus(RecordFields):
    """A dataset of the hub (`hub:datasets/org/name@revision`), streamed: one document a row."""

    format: Literal["hub"] = "hub"
    config_name: str | None = Field(default=None, description="Configuration (subset) of the dataset; null: its only.")
    split: str = Field(default="train", description="Split of the dataset.")

    @field_validator("location")
    @classmethod
    def _is_hub_dataset(cls, location: str) -> str:
        _refuse_books3(location)
        if not _HUB_DATASET.fullmatch(location):
            raise ValueError(
                f"{location!r} names no dataset of the hub; write hub:datasets/org/name, or "
                "hub:datasets/org/name@ and the 40 hex digits of a revision"
            )
        return location

    @field_validator("config_name")
    @classmethod
    def _no_books3_in_config_name(cls, config_name: str | None) -> str | None:
        if config_name is not None:
            _refuse_books3(config_name)
        return config_name


class WarcCorpus(CorpusConfig):
    """CommonCrawl: WARC (main text of HTML responses) and WET (text as it is), .gz or plain."""

    format: Literal["warc"] = "warc"


class ArxivCorpus(CorpusConfig):
    """arXiv bulk source: tar files of one .gz a paper, LaTeX to text."""

    format: Literal["arxiv"] = "arxiv"
    bibliography: bool = Field(default=False, description="Keep the list of references.")


class RepositoryCorpus(CorpusConfig):
    """Source trees as folders, archives or bare git repositories: their files joined."""

    format: Literal["repository"] = "repository"
    order: Literal["path", "dependency"] = Field(
        default="path", description="Order of files: by path, or what is imported before what imports it."
    )
    max_characters: int | None = Field(
        default=None,
        ge=1_000,
        description="A larger repository becomes one document a sub-package of at most so many characters; "
        "null: one document a repository.",
    )


class StackExchangeCorpus(CorpusConfig):
    """Posts.xml of a Stack Exchange dump, plain or in .7z: a question with its answers a document."""

    format: Literal["stackexchange"] = "stackexchange"
    min_score: int | None = Field(default=None, description="Leave out answers with a lower score; null keeps all.")
    aggregate_characters: int | None = Field(
        default=None,
        ge=1_000,
        description="Join threads of one tag, marked `aggregated`, until they have so many characters; "
        "null: each thread is a document.",
    )


class MediawikiCorpus(CorpusConfig):
    """MediaWiki XML dump: one document an article."""

    format: Literal["mediawiki"] = "mediawiki"


def _refuse_books3(name: str) -> None:
    if "books3" in name.lower():
        raise ValueError(
            f"{name!r} names Books3, which is not obtainable: it was taken down because its books are under copyright; "
            "use Project Gutenberg's (hub:datasets/common-pile/project_gutenberg_filtered), or your own .txt and .epub "
            "files with format: books"
        )
