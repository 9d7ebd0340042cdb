"""Stage `protect`: the texts of the evaluation that no training document may hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from longalign_core.config.cleaning import ProtectedSource, ProtectionConfig
from longalign_core.config.runtime import Runtime
from longalign_core.errors import DataError
from longalign_core.progress import track
from longalign_core.source_files import SourceFile, list_files
from longalign_core.sources import local_path, source_location
from longalign_core.stage import Counts, Inputs, stage

if TYPE_CHECKING:
    from longalign_core.corpora.comparing.contamination import Kind, ProtectedText

PROTECTED = "protected.parquet"


@stage("protect", version=1)
def protect(config: ProtectionConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Gather the texts: `protected.parquet`, hashes of their runs of words. The texts themselves are not in it.

    Raises:
        DataError: A source holds no text, or is not of its form.
    """
    from longalign_core.corpora.comparing.contamination import protect_text, write_protected

    counts = {"texts": 0, "runs": 0, "texts too short": 0}

    def hashed() -> Iterator[ProtectedText]:
        with track("protect", total=None, unit="texts") as step:
            for source in config.sources:
                for name, text, kind in _texts_of(source, runtime):
                    protected = protect_text(f"{source.name}:{name}", text, config.words, kind)
                    step(1)
                    if protected is None:
                        counts["texts too short"] += 1
                    else:
                        counts["runs"] += len(protected.runs)
                        yield protected

    counts["texts"] = write_protected(out_dir / PROTECTED, hashed())
    return dict(counts)


def _texts_of(source: ProtectedSource, runtime: Runtime) -> Iterator[tuple[str, str, Kind | None]]:
    """Name, text and kind of each text; a kind of None is for its length to decide."""
    if source.form == "questions":
        yield from _questions_of(local_path(source.location, runtime))
        return
    yield from ((f"phrase {number}", phrase, "short") for number, phrase in enumerate(source.phrases, start=1))
    num_texts = 0
    for file in list_files(source_location(source.location, runtime)).files:
        for name, text in _file_texts(file, source.form == "texts"):
            num_texts += 1
            yield name, text, "long" if source.form == "haystack" else None
    if not num_texts:
        kinds = "*.txt, *.json or *.jsonl" if source.form == "texts" else "*.txt"
        raise DataError(f"{source.name} holds no text to protect; put {kinds} files there, or drop it from the recipe")


def _file_texts(file: SourceFile, json_too: bool) -> Iterator[tuple[str, str]]:
    from longalign_core.corpora.cleaning import decode_text

    if file.relative_path.endswith(".txt"):
        text = decode_text(_read(file))
        if text is None:
            raise DataError(f"{file.relative_path} is binary; take it out of the protected texts")
        yield file.relative_path, text
    elif json_too and file.relative_path.endswith((".json", ".jsonl")):
        for number, text in enumerate(_strings_of(file), start=1):
            yield f"{file.relative_path}#{number}", text


def _questions_of(file: Path) -> Iterator[tuple[str, str, Kind]]:
    from longalign_core.evaluation.longbench_chat import document_of, read_questions

    for question in read_questions(file):
        yield f"question {question.id}", question.query, "short"
        yield f"reference {question.id}", question.reference, "short"
        yield f"document {question.id}", document_of(question), "long"


def _strings_of(file: SourceFile) -> Iterator[str]:
    """Every string of a JSON file, or of each line of it, in order; names of fields are none."""
    data = _read(file)
    pieces = [line for line in data.splitlines() if line.strip()] if file.relative_path.endswith(".jsonl") else [data]
    for number, piece in enumerate(pieces, start=1):
        try:
            todo = [orjson.loads(piece)]
        except orjson.JSONDecodeError as error:
            raise DataError(f"{file.relative_path}, line {number}, is not JSON: {error}; correct the file") from None
        while todo:
            value = todo.pop()
            if isinstance(value, str):
                yield value
            elif isinstance(value, dict | list):
                todo += reversed(list(value.values()) if isinstance(value, dict) else value)


def _read(file: SourceFile) -> bytes:
    with file.open() as stream:
        return stream.read()
