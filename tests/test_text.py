from longalign_core.corpora.cleaning import MAX_TEXT_BYTES
from longalign_core.records import text_sha256
from longalign_core.source_files import SourceFile, list_files
from tests.corpora_inputs import corpus, in_memory, read_all, reasons

GUTENBERG = """The Project Gutenberg eBook of Emma

Title: Emma
Author: Jane Austen

*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***

Emma Woodhouse, handsome, clever, and rich

*** END OF THE PROJECT GUTENBERG EBOOK EMMA ***
Licence text
"""


def test_text_reader_real_books_gives_one_document_a_file(test_data):
    documents, rejects = read_all(list_files(test_data / "corpora" / "books").files, corpus("text", name="books"))
    assert [document.id for document in documents] == [
        "books:emma_by_jane_austen_volume_i_c.txt",
        "books:mansfield_park_by_jane_austen.txt",
        "books:northanger_abbey_by_jane_auste.txt",
    ]
    assert rejects == []
    raw = (test_data / "corpora" / "books" / "northanger_abbey_by_jane_auste.txt").read_text("utf-8")
    assert documents[2].text.split() == raw.split()
    assert all(document.sha256 == text_sha256(document.text) for document in documents)


def test_text_reader_ids_do_not_depend_on_where_the_folder_lies(tmp_path):
    seen = []
    for place in ("one", "two/deeper"):
        folder = tmp_path / place
        (folder / "shelf").mkdir(parents=True)
        (folder / "shelf" / "a.md").write_text("some text")
        (folder / "b.rst").write_text("other text")
        seen.append(read_all(list_files(folder).files, corpus("text")))
    assert seen[0] == seen[1]
    assert [document.id for document in seen[0][0]] == ["sample:b.rst", "sample:shelf/a.md"]


def test_text_reader_gutenberg_frame_is_taken_off():
    (document,), _ = read_all([in_memory("emma.txt", GUTENBERG.replace("\n", "\r\n"))], corpus("text"))
    assert document.text == "Emma Woodhouse, handsome, clever, and rich"
    assert document.title == "Emma"


def test_text_reader_unusable_files_are_rejected_and_others_kept():
    files = [
        in_memory("empty.txt", b""),
        in_memory("picture.txt", b"\x89PNG\r\n\x1a\n\x00\x00\x00"),
        in_memory("cover.jpg", b"jpeg"),
        in_memory("latin.TXT", b"caf\xe9"),
        SourceFile("huge.txt", MAX_TEXT_BYTES + 1, lambda: 1 / 0),
    ]
    documents, rejects = read_all(files, corpus("text"))
    assert [(document.id, document.text) for document in documents] == [("sample:latin.TXT", "café")]
    assert {(reject.id.split(":")[1], reject.reason) for reject in rejects} == {
        ("cover.jpg", "other file type"),
        ("empty.txt", "empty file"),
        ("huge.txt", "too large"),
        ("picture.txt", "binary file"),
    }
    assert len(reasons(rejects)) == 4
