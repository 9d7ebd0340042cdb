import logging
import shutil

import orjson
import pyarrow.parquet as pq
import pytest

from longalign_core.config.cleaning import CleaningConfig
from longalign_core.config.mixture import InstructionSet, MixtureConfig
from longalign_core.config.runtime import Runtime
from longalign_core.config.selection import SelectionConfig
from longalign_core.errors import DataError, InputError
from longalign_core.record_files import read_records, write_records
from longalign_core.records import Conversation, Document, Message, Reject
from longalign_core.stages.clean import clean
from longalign_core.stages.documents import chosen_documents
from longalign_core.stages.ingest import ingest
from longalign_core.stages.licences import carry_licences
from longalign_core.stages.mixture import mixture
from longalign_core.stages.select import select
from tests.corpora_inputs import corpus
from tests.test_lengths import byte_level_tokenizer
from tests.test_mediawiki import dump, page

RUNTIME = Runtime()


def ingested(location, out, name="books", format="text", **fields) -> dict:
    config = corpus(format, name=name, location=str(location), **fields)
    return ingest.function(config, {}, out, RUNTIME)


def documents_of(folder) -> list[Document]:
    """Of `ingest`, in parts, or of `select`, in one file."""
    if (folder / "documents.parquet").exists():
        return list(read_records(folder / "documents.parquet", Document))
    return [one for file in sorted(folder.glob("documents/*.parquet")) for one in read_records(file, Document)]


def rejects_of(folder) -> list[Reject]:
    return list(read_records(folder / "rejects.parquet", Reject))


def product_of(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def kept_ids(folder) -> list[str]:
    return pq.read_table(folder / "kept.parquet")["id"].to_pylist()


@pytest.fixture
def tokenizer(tmp_path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    return str(folder)


def write_texts(folder, texts: dict[str, str]):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return folder


def test_ingest_writes_documents_and_rejects_and_counts_both(tmp_path):
    folder = write_texts(tmp_path / "texts", {"a.txt": "long enough", "b.txt": "no", "c.pdf": "x", ".d.txt": "hidden"})
    (folder / "link.txt").symlink_to(folder / "a.txt")
    counts = ingested(folder, tmp_path / "out", min_characters=5)
    assert [document.id for document in documents_of(tmp_path / "out")] == ["books:a.txt"]
    assert {reject.id: reject.reason for reject in rejects_of(tmp_path / "out")} == {
        "books:b.txt": "too short",
        "books:c.pdf": "other file type",
        "books:link.txt": "link",
    }
    assert (counts["documents"], counts["rejects"], counts["rejects: link"], counts["hidden files"]) == (1, 3, 1, 1)
    assert product_of(tmp_path / "out") == ["corpus.json", "documents", "rejects.parquet"]


def test_ingest_started_again_after_a_kill_gives_the_same(tmp_path):
    folder = write_texts(tmp_path / "texts", {"a.txt": "first", "b.pdf": "x"})
    out = tmp_path / "out"
    (out / ".shards/00000").mkdir(parents=True)
    (out / ".shards/00000/documents-00000.parquet.part").write_bytes(b"half")
    (out / ".rejects.jsonl").write_bytes(b'{"id":')
    ingested(folder, out)
    assert len(documents_of(out)) == len(rejects_of(out)) == 1
    assert product_of(out) == ["corpus.json", "documents", "rejects.parquet"]


def test_ingest_max_documents_stops_there(tmp_path):
    folder = write_texts(tmp_path / "texts", {f"{number}.txt": f"text {number}" for number in range(5)})
    ingested(folder, tmp_path / "out", max_documents=2)
    assert [document.id for document in documents_of(tmp_path / "out")] == ["books:0.txt", "books:1.txt"]


def test_ingest_title_in_two_dumps_is_taken_once(tmp_path):
    (tmp_path / "dumps").mkdir()
    (tmp_path / "dumps/a.xml").write_bytes(dump(page("A", "one")))
    (tmp_path / "dumps/b.xml").write_bytes(dump(page("A", "two"), page("B", "three")))
    ingested(tmp_path / "dumps", tmp_path / "out", "sample", "mediawiki")
    assert [(one.id, one.text) for one in documents_of(tmp_path / "out")] == [
        ("sample:A", "one"),
        ("sample:B", "three"),
    ]
    assert [(one.id, one.reason) for one in rejects_of(tmp_path / "out")] == [("sample:A", "id seen before")]


def test_chosen_documents_of_many_row_groups_are_those_with_the_ids(tmp_path):
    texts = write_texts(tmp_path / "texts", {f"{number:03}.txt": f"text {number}" for number in range(100)})
    ingested(texts, tmp_path / "books")
    ingested(write_texts(tmp_path / "more", {"a.txt": "other"}), tmp_path / "web", name="web")
    folders = [tmp_path / "books", tmp_path / "web"]
    every = documents_of(folders[0]) + documents_of(folders[1])
    for chosen in ([], [0], [31, 32, 99], [5, 70, 71, 100], range(101)):
        ids = {every[place].id for place in chosen} | {"books:absent"}
        assert list(chosen_documents(folders, ids)) == [every[place] for place in chosen]


def test_ingest_location_missing_or_without_files_raises_one_sentence(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        ingested(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file"):
        ingested(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out" / "documents").exists()


def test_ingest_without_any_document_warns(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        counts = ingested(write_texts(tmp_path / "texts", {"a.txt": "x"}), tmp_path / "out", min_characters=5)
    assert (counts["documents"], counts["rejects: too short"]) == (0, 1)
    assert any(record.levelno == logging.WARNING for record in caplog.records)


def test_ingest_of_nothing_but_other_file_types_names_format_and_location(tmp_path):
    with pytest.raises(DataError, match=r"no file of format text: books:a.pdf .* correct its format or its location"):
        ingested(write_texts(tmp_path / "texts", {"a.pdf": "x", "b.doc": "y"}), tmp_path / "out")


def test_clean_duplicates_across_corpora_are_independent_of_input_order(tmp_path):
    texts = {"books": {"a.txt": "Same  text", "b.txt": "own"}, "web": {"c.txt": "same text\n", "d.txt": "other"}}
    folders = []
    for name, files in texts.items():
        ingested(write_texts(tmp_path / f"{name}_texts", files), tmp_path / name, name=name)
        folders.append(tmp_path / name)
    counts = clean.function(CleaningConfig(), {"documents": tuple(folders)}, tmp_path / "one", RUNTIME)
    clean.function(CleaningConfig(), {"documents": tuple(reversed(folders))}, tmp_path / "two", RUNTIME)
    assert counts == {"kept": 3, "rejects": 1, "rejects: exact duplicate": 1}
    assert kept_ids(tmp_path / "one") == kept_ids(tmp_path / "two") == ["books:a.txt", "books:b.txt", "web:d.txt"]
    assert rejects_of(tmp_path / "one") == rejects_of(tmp_path / "two")
    assert "books:a.txt" in rejects_of(tmp_path / "one")[0].detail
    off = CleaningConfig(exact_duplicates=False)
    assert clean.function(off, {"documents": tuple(folders)}, tmp_path / "off", RUNTIME)["kept"] == 4


def test_clean_near_duplicates_and_parts_of_a_book_leave_the_whole(tmp_path, test_data):
    book = sorted((test_data / "corpora" / "books").glob("*.txt"))[0].read_text()[20_000:320_000]
    texts = {
        "books": {"a.txt": book[:100_000], "b.txt": "own words"},
        "web": {"c.txt": book, "d.txt": book.replace("Emma", "Anna")[:-500]},
    }
    folders = []
    for name, files in texts.items():
        ingested(write_texts(tmp_path / f"{name}_texts", files), tmp_path / name, name=name)
        folders.append(tmp_path / name)
    config = CleaningConfig(near_duplicates=0.8, containment=0.8)
    counts = clean.function(config, {"documents": tuple(folders)}, tmp_path / "one", RUNTIME)
    assert counts == {"kept": 2, "rejects": 2, "rejects: near-duplicate": 1, "rejects: within another document": 1}
    assert kept_ids(tmp_path / "one") == ["books:b.txt", "web:c.txt"]
    assert product_of(tmp_path / "one") == ["kept.parquet", "rejects.parquet"]
    clean.function(config, {"documents": tuple(reversed(folders))}, tmp_path / "two", RUNTIME)
    for name in product_of(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_clean_killed_while_it_compared_goes_on_without_the_documents(tmp_path):
    ingested(write_texts(tmp_path / "texts", {"a.txt": "one", "b.txt": "One"}), tmp_path / "books")
    (part,) = (tmp_path / "books" / "documents").glob("*.parquet")
    config = CleaningConfig(near_duplicates=0.8, containment=0.8)
    clean.function(config, {"documents": (tmp_path / "books",)}, tmp_path / "clean", RUNTIME)
    for name in product_of(tmp_path / "clean"):
        (tmp_path / "clean" / name).unlink()
    (tmp_path / "clean/.sketches/00001.part").write_bytes(b"half")
    write_records(part, [], Document)
    clean.function(config, {"documents": (tmp_path / "books",)}, tmp_path / "clean", RUNTIME)
    assert kept_ids(tmp_path / "clean") == ["books:a.txt"]


def test_clean_without_any_document_keeps_none(tmp_path):
    ingested(write_texts(tmp_path / "texts", {"a.txt": " "}), tmp_path / "books")
    config = CleaningConfig(near_duplicates=0.8, containment=0.8)
    assert clean.function(config, {"documents": (tmp_path / "books",)}, tmp_path / "clean", RUNTIME) == {
        "kept": 0,
        "rejects": 0,
    }


def selected(tmp_path, folders, tokenizer, out="selected", **fields):
    config = SelectionConfig(tokenizer=tokenizer, **{"min_tokens": 5, "max_tokens": 400, "num_buckets": 4, **fields})
    inputs = {"documents": tuple(folders), "kept": (tmp_path / "clean",)}
    return select.function(config, inputs, tmp_path / out, RUNTIME)


def cleaned(tmp_path, *folders):
    clean.function(CleaningConfig(), {"documents": folders}, tmp_path / "clean", RUNTIME)
    return folders


def test_select_draws_kept_documents_of_the_range_with_their_lengths(tmp_path, tokenizer, caplog):
    texts = {f"{size:03}.txt": "zebra " * size for size in (10, 20, 30, 40, 200)} | {"001.txt": "z"}
    texts["copy.txt"] = "Zebra " * 20
    ingested(write_texts(tmp_path / "texts", texts), tmp_path / "books")
    folders = cleaned(tmp_path, tmp_path / "books")
    with caplog.at_level(logging.WARNING):
        counts = selected(tmp_path, folders, tokenizer, num_documents=50)
    count = byte_level_tokenizer()
    expected = {f"books:{size:03}.txt": len(count.encode(("zebra " * size).strip()).ids) for size in (10, 20, 30, 40)}
    assert {document.id: document.num_tokens for document in documents_of(tmp_path / "selected")} == expected
    reasons = {reject.id: reject.reason for reject in rejects_of(tmp_path / "selected")}
    assert reasons == {"books:001.txt": "too short", "books:200.txt": "too long"}
    assert (counts["documents"], counts["wanted"], counts["missing"]) == (4, 50, 46)
    assert counts["tokens"] == sum(expected.values())
    assert any(record.levelno == logging.WARNING for record in caplog.records)
    summary = orjson.loads((tmp_path / "selected" / "selection.json").read_bytes())
    assert sum(cell["drawn"] for cell in summary["cells"]) == 4
    assert {name: one["eligible"] for name, one in summary["corpora"].items()} == {"books": 4}


def test_select_draw_does_not_depend_on_the_order_of_corpora(tmp_path, tokenizer):
    folders = []
    for name in ("books", "web"):
        texts = {f"{size}.txt": f"{name} " * size for size in range(5, 40)}
        ingested(write_texts(tmp_path / f"{name}_texts", texts), tmp_path / name, name=name)
        folders.append(tmp_path / name)
    cleaned(tmp_path, *folders)
    selected(tmp_path, folders, tokenizer, out="one", num_documents=20)
    selected(tmp_path, folders[::-1], tokenizer, out="two", num_documents=20)
    drawn = [{document.id for document in documents_of(tmp_path / out)} for out in ("one", "two")]
    assert drawn[0] == drawn[1] and len(drawn[0]) == 20


def test_select_lengths_counted_before_a_kill_are_used(tmp_path, tokenizer):
    ingested(write_texts(tmp_path / "texts", {"a.txt": "zebra " * 10}), tmp_path / "books")
    folders = cleaned(tmp_path, tmp_path / "books")
    selected(tmp_path, folders, tokenizer)
    first = documents_of(tmp_path / "selected")
    for name in ("documents.parquet", "selection.json"):
        (tmp_path / "selected" / name).unlink()
    (tmp_path / "selected" / ".lengths" / "000-00000-00001.parquet.part").write_bytes(b"half")
    selected(tmp_path, folders, tokenizer)
    assert documents_of(tmp_path / "selected") == first


def test_select_goes_on_after_the_last_part_that_was_counted(tmp_path, tokenizer):
    folder = write_texts(tmp_path / "texts", {"a.txt": "zebra " * 10})
    ingested(folder, tmp_path / "books")
    more = write_texts(tmp_path / "more", {"b.txt": "otter " * 20})
    ingested(more, tmp_path / "other", name="other")
    folders = cleaned(tmp_path, tmp_path / "books", tmp_path / "other")
    selected(tmp_path, folders, tokenizer, out="whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    first, second = sorted((tmp_path / "killed" / ".lengths").iterdir())
    second.unlink()
    (tmp_path / "killed" / "documents.parquet").unlink()
    before = first.stat().st_mtime_ns
    selected(tmp_path, folders, tokenizer, out="killed")
    assert first.stat().st_mtime_ns == before
    for name in product_of(tmp_path / "whole"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_licences_and_the_mark_go_from_the_corpora_to_the_token_store(tmp_path, tokenizer):
    for name, open_to_all in (("books", False), ("web", True), ("unused", False)):
        words = "z" if name == "unused" else f"{name} " * 20
        texts = write_texts(tmp_path / f"{name}_texts", {"a.txt": words})
        ingested(texts, tmp_path / name, name=name, redistributable=open_to_all, licence=f"{name} licence")
    folders = cleaned(tmp_path, *(tmp_path / name for name in ("books", "web", "unused")))
    counts = selected(tmp_path, folders, tokenizer)
    assert counts["not redistributable"] == "books"
    told = orjson.loads((tmp_path / "selected" / "licences.json").read_bytes())
    assert [(one["source"], one["redistributable"], one["by_licence"]) for one in told] == [
        ("books", False, {"books licence": 1}),
        ("web", True, {"web licence": 1}),
    ]
    conversations = [
        Conversation(id=one.id, messages=(), source=one.source, task_type="chat", language="en", licence=one.licence)
        for one in documents_of(tmp_path / "selected")
    ]
    for step, before, drawn, mark in (
        ("instruct", "selected", conversations, "books"),
        ("encode", "instruct", conversations, "books"),
        ("without", "selected", [one for one in conversations if one.source == "web"], None),
    ):
        write_records(tmp_path / step / "conversations.parquet", drawn, Conversation)
        marked = carry_licences([tmp_path / before], tmp_path / step / "conversations.parquet", tmp_path / step)
        assert marked.get("not redistributable") == mark


def test_mixture_of_marked_conversations_is_marked_unless_it_takes_none(tmp_path):
    folder = tmp_path / "long"
    messages = (Message(role="user", content="ask"), Message(role="assistant", content="reply"))
    long = Conversation(id="a", messages=messages, source="books", task_type="chat", language="en")
    write_records(folder / "conversations.parquet", [long], Conversation)
    rows = [{"source": "books", "licence": None, "redistributable": False, "records": 1, "by_licence": {}}]
    (folder / "licences.json").write_bytes(orjson.dumps(rows))
    short = tmp_path / "short.jsonl"
    short.write_text('{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n')
    sets = (InstructionSet(name="short", location=str(short), licence="MIT"),)
    inputs = {"conversations": (folder,)}
    counts = mixture.function(MixtureConfig(suite="all", sets=sets), inputs, tmp_path / "all", RUNTIME)
    assert counts["not redistributable"] == "books"
    told = orjson.loads((tmp_path / "all" / "licences.json").read_bytes())
    assert [(one["source"], one["redistributable"]) for one in told] == [("books", False), ("short", None)]
    none = mixture.function(MixtureConfig(suite="0k", sets=sets), inputs, tmp_path / "none", RUNTIME)
    assert "not redistributable" not in none


def test_select_nothing_of_the_range_raises_one_sentence(tmp_path, tokenizer):
    ingested(write_texts(tmp_path / "texts", {"a.txt": "zebra"}), tmp_path / "books")
    with pytest.raises(DataError, match="no document has between 100 and 400 tokens"):
        selected(tmp_path, cleaned(tmp_path, tmp_path / "books"), tokenizer, min_tokens=100)


def test_corpora_stages_real_samples_go_through_evenly(tmp_path, test_data, tokenizer):
    folders = []
    for name, format, limit in (("books", "text", 1), ("c4", "json_lines", 60), ("github", "repository", None)):
        location = test_data / "corpora" / name
        counts = ingested(location, tmp_path / name, name=name, format=format, max_documents=limit)
        assert counts["documents"]
        folders.append(tmp_path / name)
    cleaned(tmp_path, *folders)
    range_ = {"min_tokens": 8_192, "max_tokens": 65_536, "num_buckets": 7}
    counts = selected(tmp_path, folders, tokenizer, num_documents=14, **range_)
    assert counts["documents"] == 14
    for document in documents_of(tmp_path / "selected"):
        assert 8_192 <= document.num_tokens <= 65_536
    total = sum(len(documents_of(folder)) for folder in folders)
    assert counts["documents"] + counts["rejects"] == total - len(rejects_of(tmp_path / "clean"))
