import io
import random
import re
import zipfile
from itertools import pairwise

import pytest

from longalign_core.corpora.cleaning import clean_text
from longalign_core.corpora.markup import epub as epub_module
from longalign_core.corpora.markup.chapters import Chapter, cut_windows, find_chapters
from longalign_core.corpora.reading import RawDocument
from longalign_core.source_files import list_files
from tests.corpora_inputs import corpus, in_memory, read_all, read_raw, reasons

CONTAINER = """<?xml version="1.0"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="OPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
PACKAGE = """<?xml version="1.0"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:identifier id="id">https://example.org/books/7</dc:identifier>
<dc:title>The &amp; Sea</dc:title><dc:creator>Ann Author</dc:creator><dc:creator>Bo Writer</dc:creator>
<dc:language>en-GB</dc:language><dc:rights>CC-BY-4.0</dc:rights><dc:date>1999-05-01T00:00:00Z</dc:date>
</metadata>
<manifest>
<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>
<item id="two" href="text/c%20two.xhtml" media-type="application/xhtml+xml"/>
<item id="one" href="text/one.xhtml" media-type="application/xhtml+xml"/>
<item id="gone" href="text/gone.xhtml" media-type="application/xhtml+xml"/>
</manifest>
<spine><itemref idref="nav"/><itemref idref="one"/><itemref idref="two"/>{more}</spine>
</package>"""
PAGE = (
    '<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE html>\n<html xmlns="http://www.w3.org/1999/xhtml">'
    "<head><title>Not read</title><style>p {{}}</style></head><body>{}</body></html>"
)
ONE = PAGE.format("<h1>One</h1>\n<p>First\n  line with <i>stress</i> and caf\u00e9.</p><p>Second<br/>line.</p>")
TWO = PAGE.format("<h1>Two</h1><ul><li>a</li><li>b</li></ul><pre>x\n  y</pre><!-- unseen --><p>End.</p>")
TEXT = "One\n\nFirst line with stress and café.\n\nSecond\nline.\n\nTwo\n\na\nb\n\nx\n  y\n\nEnd."


def epub(more: str = "", **changed: str | bytes | None) -> bytes:
    files: dict[str, str | bytes | None] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OPS/book.opf": PACKAGE.replace("{more}", more),
        "OPS/nav.xhtml": PAGE.format("<nav><ol><li>One</li><li>Two</li></ol></nav>"),
        "OPS/text/one.xhtml": ONE,
        "OPS/text/c two.xhtml": TWO,
        "OPS/cover.jpg": b"\xff\xd8\xff",
    }
    return zipped({**files, **changed})


def zipped(files: dict[str, str | bytes | None]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            if content is not None:
                archive.writestr(name, content)
    return stream.getvalue()


def raw_texts(path: str, data: str | bytes, **config) -> list[RawDocument]:
    records = [record for record, _ in read_raw([in_memory(path, data)], corpus("books", **config))]
    assert all(isinstance(record, RawDocument) for record in records), records
    return records


@pytest.mark.parametrize(
    ("name", "num_chapters", "title", "num_windows"),
    [("emma", 55, "EMMA", 5), ("mansfield", 48, "MANSFIELD PARK", 5), ("northanger", 31, "NORTHANGER ABBEY", 3)],
)
def test_books_reader_real_novel_is_cut_into_even_windows_of_whole_chapters(
    test_data, name, num_chapters, title, num_windows
):
    (file,) = [file for file in list_files(test_data / "corpora" / "books").files if name in file.relative_path]
    with file.open() as stream:
        text = stream.read().decode().replace("\r\n", "\n")
    windows = raw_texts(file.relative_path, text)
    assert "".join(window.text for window in windows) == text
    assert [window.name for window in windows] == [
        f"{file.relative_path}#{number}-of-{num_windows}" for number in range(1, num_windows + 1)
    ]
    lengths = [len(window.text) for window in windows]
    assert max(lengths) <= 200_000
    assert min(lengths) > 0.8 * max(lengths)
    starts = [re.match(r"(?:VOLUME [IV]+\s+)?CHAPTER", window.text) for window in windows[1:]]
    assert all(starts)
    assert (
        sum(heading.startswith("CHAPTER") for heading in (one.heading for one in find_chapters(text))) == num_chapters
    )
    assert {window.title for window in windows} == {title}
    assert "Jane Austen" in windows[0].origin
    assert "part 2 of" in windows[1].origin and "CHAPTER" in windows[1].origin


def test_books_reader_short_or_uncut_book_is_one_document(test_data):
    files = list_files(test_data / "corpora" / "books").files
    documents, rejects = read_all(files, corpus("books", max_window_characters=None))
    assert rejects == []
    assert [document.id for document in documents] == [f"sample:{file.relative_path}" for file in files]


def test_books_reader_going_on_at_any_position_gives_the_rest(test_data):
    files = list_files(test_data / "corpora" / "books").files[:1]
    config = corpus("books", max_window_characters=60_000)
    whole = list(read_raw(files, config))
    assert [position for _, position in whole] == list(range(1, len(whole) + 1))
    for _, position in whole:
        assert list(read_raw(files, config, position=position)) == whole[position:]


@pytest.mark.parametrize("seed", range(40))
def test_cut_windows_any_book_keeps_every_character_once_within_the_limit(seed):
    draw = random.Random(seed)
    text, chapters = "", []
    for number in range(draw.randrange(12)):
        chapters.append(Chapter(len(text), f"C{number}"))
        for _ in range(draw.randrange(1, 8)):
            text += "word " * draw.randrange(1, 60) + draw.choice(["\n\n", "\n", ". ", ""])
    limit = draw.choice([250, 700, 2_000])
    windows = cut_windows(text, chapters, limit)
    assert "".join(text[window.start : window.end] for window in windows) == text
    assert all(0 < window.end - window.start <= limit for window in windows)
    bounds = [chapter.start for chapter in chapters] + [len(text)]
    if all(end - start <= limit for start, end in pairwise(bounds)):
        assert {window.start for window in windows} <= set(bounds)


@pytest.mark.parametrize("seed", range(25))
def test_cut_windows_whole_chapters_are_joined_as_trying_every_way_does(seed):
    draw = random.Random(seed)
    limit = draw.randrange(1_000, 3_000)
    lengths = [draw.randrange(250, 1_000) for _ in range(draw.randrange(1, 10))]
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    windows = cut_windows("x" * sum(lengths), [Chapter(start, str(start)) for start in starts], limit)
    ways = []
    for chosen in range(2 ** (len(lengths) - 1)):
        bounds = [0, *(start for number, start in enumerate(starts[1:]) if chosen >> number & 1), sum(lengths)]
        sizes = [end - start for start, end in pairwise(bounds)]
        if max(sizes) <= limit:
            ways.append((len(sizes), sum(size**2 for size in sizes)))
    assert (len(windows), sum((window.end - window.start) ** 2 for window in windows)) == min(ways)


def test_cut_windows_chapters_of_known_lengths_are_joined_evenly():
    text = "".join(letter * length for letter, length in zip("abcdef", (300, 300, 300, 300, 300, 500), strict=True))
    chapters = [Chapter(text.index(letter), letter) for letter in "abcdef"]
    windows = cut_windows(text, chapters, 1_000)
    # Greedy would leave 900, 600 + 500: too long, so 900, 600, 500. Two windows hold at most 2,000.
    assert [(window.first, window.last) for window in windows] == [("a", "b"), ("c", "d"), ("e", "f")]


def test_cut_windows_long_chapter_is_cut_at_paragraph_ends():
    paragraphs = [f"{number} " + "x" * 300 + "\n\n" for number in range(20)]
    text = "".join(paragraphs)
    windows = cut_windows(text, [Chapter(0, "only")], 1_000)
    assert len(windows) == 7
    assert all(text[: window.end].endswith("\n\n") for window in windows)
    assert {window.first for window in windows} == {"only"}


@pytest.mark.parametrize("text", ["x" * 5_000, "x y " * 1_500, "\n" * 5_000, "一句话。" * 1_200])
def test_cut_windows_text_without_paragraphs_stays_within_the_limit(text):
    windows = cut_windows(text, (), 1_000)
    assert "".join(text[window.start : window.end] for window in windows) == text
    assert max(window.end - window.start for window in windows) <= 1_000
    assert len(windows) <= -(-len(text) // 1_000) + 1


@pytest.mark.parametrize(
    "heading",
    [
        "CHAPTER IV",
        "Chapter 12. The Sea",
        "BOOK THE SECOND",
        "Part One",
        "第一章",
        "第十二回 雪夜",
        "PROLOGUE",
        "LETTER 4",
    ],
)
def test_find_chapters_heading_after_an_empty_line_is_found(heading):
    text = f"Title\n\nWords.\n\n{heading}\n\nMore words.\n\n{heading}\nEnd."
    assert [chapter.heading for chapter in find_chapters(text)] == [heading, heading]


def test_find_chapters_prose_is_no_heading():
    text = "Start.\n\nPart I of this is said.\n\nChapter and verse.\nCHAPTER I\n\nLetter I wrote.\n\nThe book 1 of.\n"
    assert find_chapters(text) == ()


def test_find_chapters_bare_numbers_count_where_there_is_nothing_else():
    assert [one.heading for one in find_chapters("T\n\nI\n\nWords\n\nII.\n\nMore\n")] == ["I", "II."]


def test_books_reader_gutenberg_file_loses_its_frame_and_gives_its_fields():
    text = (
        "The Project Gutenberg eBook of Sea\r\n\r\nTitle: Sea\r\nAuthor: A. Hand\r\n"
        "Release date: May 1, 2000 [eBook #77]\r\nLanguage: English\r\n\r\n"
        "*** START OF THE PROJECT GUTENBERG EBOOK SEA ***\r\nCHAPTER I\r\n\r\nWords.\r\n"
        "*** END OF THE PROJECT GUTENBERG EBOOK SEA ***\r\nLicence"
    )
    (book,) = raw_texts("sea.txt", text)
    assert clean_text(book.text) == "CHAPTER I\n\nWords."
    assert (book.title, book.url) == ("Sea", "https://www.gutenberg.org/ebooks/77")
    assert book.origin == "sea.txt: by A. Hand"


@pytest.mark.parametrize(
    "data",
    [b"caf\xc3\xa9 \xe2\x80\x9cx\xe2\x80\x9d", "caf\u00e9 “x”".encode("cp1252"), "caf\u00e9 “x”".encode("utf-16")],
)
def test_books_reader_encodings_give_the_same_text(data):
    (book,) = raw_texts("a.txt", data)
    assert book.text == "café “x”"


def test_books_reader_unusable_files_are_counted():
    files = [in_memory("a.txt", b"\0\1\2"), in_memory("b.pdf", b"%PDF"), in_memory("c.txt", b"")]
    documents, rejects = read_all(files, corpus("books"))
    assert documents == []
    assert reasons(rejects) == ["binary file", "empty file", "other file type"]


def test_books_reader_epub_gives_text_in_spine_order_and_what_it_says_of_itself():
    (book,) = raw_texts("sea.epub", epub())
    assert book.text == TEXT
    assert (book.title, book.licence, book.created) == ("The & Sea", "CC-BY-4.0", "1999-05-01")
    assert book.url == "https://example.org/books/7"
    assert book.origin == "sea.epub: by Ann Author, Bo Writer"
    assert book.name == "sea.epub"


def test_books_reader_long_epub_is_cut_at_its_chapters():
    pages = {
        "OPS/text/one.xhtml": PAGE.format("<h1>One</h1>" + "<p>word word</p>" * 80),
        "OPS/text/c two.xhtml": PAGE.format("<h2>Two</h2>" + "<p>word word</p>" * 80),
    }
    (whole,) = raw_texts("sea.epub", epub(**pages))
    windows = raw_texts("sea.epub", epub(**pages), max_window_characters=1_000)
    assert "".join(window.text for window in windows) == whole.text
    assert [window.text[:3] for window in windows] == ["One", "Two"]
    assert windows[1].origin == "sea.epub: part 2 of 2 (Two), by Ann Author, Bo Writer"


def test_books_reader_epub_entities_of_html_and_broken_xml_are_read():
    doctype = '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.1//EN" "http://www.w3.org/TR/xhtml11/DTD/xhtml11.dtd">'
    page = f"{doctype}<html xmlns='http://www.w3.org/1999/xhtml'><body><p>a&mdash;b&eacute; c</p></body></html>"
    broken = "<html><body><p>left open<p>caf\u00e9 &amp; more</body>"
    (book,) = raw_texts("a.epub", epub(**{"OPS/text/one.xhtml": page, "OPS/text/c two.xhtml": broken}))
    assert book.text == "a—bé c\n\nleft open\n\ncafé & more"


def test_books_reader_epub_missing_chapter_is_told_and_the_rest_kept():
    documents, rejects = read_all([in_memory("a.epub", epub('<itemref idref="gone"/>'))], corpus("books"))
    assert [document.text for document in documents] == [TEXT]
    assert [(reject.reason, "gone.xhtml" in reject.detail) for reject in rejects] == [("missing chapter", True)]


def test_books_reader_epub_member_that_leads_out_is_refused_and_the_rest_kept():
    documents, rejects = read_all([in_memory("a.epub", epub(**{"../evil.xhtml": ONE}))], corpus("books"))
    assert [document.text for document in documents] == [TEXT]
    assert reasons(rejects) == ["unsafe archive member"]


@pytest.mark.parametrize("where", ["OPS/text/one.xhtml", "OPS/book.opf", "META-INF/container.xml"])
def test_books_reader_epub_entity_bomb_is_refused(where):
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "lol">{levels}]><x>&l11;</x>'
    documents, rejects = read_all([in_memory("a.epub", epub(**{where: bomb}))], corpus("books"))
    assert documents == []
    assert reasons(rejects) == ["unreadable epub"]


def test_books_reader_epub_external_entity_is_not_read(tmp_path):
    (tmp_path / "secret").write_text("secret words")
    page = f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{tmp_path}/secret">]><html><body><p>&e;</p></body></html>'
    documents, rejects = read_all([in_memory("a.epub", epub(**{"OPS/text/one.xhtml": page}))], corpus("books"))
    assert documents == []
    assert reasons(rejects) == ["unreadable epub"]


def test_books_reader_epub_that_unpacks_too_far_is_refused():
    page = b"<html><body>" + b" " * epub_module.MAX_MARKUP_BYTES + b"</body></html>"
    documents, rejects = read_all([in_memory("a.epub", epub(**{"OPS/text/one.xhtml": page}))], corpus("books"))
    assert documents == []
    assert reasons(rejects) == ["unreadable epub"]


ENCRYPTED = """<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><EncryptedData
xmlns="http://www.w3.org/2001/04/xmlenc#"><EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>
</EncryptedData></encryption>"""


@pytest.mark.parametrize(
    "data",
    [
        b"no zip at all",
        epub()[:-200],
        epub()[: len(epub()) // 2],
        zipped({"a.txt": "no book"}),
        zipped({"META-INF/container.xml": "<broken"}),
        epub(**{"OPS/book.opf": None}),
        epub(**{"META-INF/encryption.xml": ENCRYPTED}),
    ],
)
def test_books_reader_file_that_is_no_epub_is_one_reject(data):
    documents, rejects = read_all([in_memory("a.epub", data)], corpus("books"))
    assert documents == []
    assert reasons(rejects) == ["unreadable epub"]
    assert "a.epub" in rejects[0].detail


def test_books_reader_epub_without_text_is_told():
    pages = {"OPS/text/one.xhtml": PAGE.format(""), "OPS/text/c two.xhtml": b""}
    assert reasons(read_all([in_memory("a.epub", epub(**pages))], corpus("books"))[1]) == ["no text"]


@pytest.mark.parametrize("seed", range(30))
def test_books_reader_damaged_epub_never_raises(seed):
    draw = random.Random(seed)
    data = bytearray(epub())
    for _ in range(draw.randrange(1, 6)):
        data[draw.randrange(len(data))] = draw.randrange(256)
    documents, rejects = read_all([in_memory("a.epub", bytes(data))], corpus("books"))
    assert documents or rejects
