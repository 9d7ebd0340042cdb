import bz2
import gzip

import pytest

from longalign_core.corpora.markup.wikitext import plain_text
from longalign_core.source_files import list_files
from tests.corpora_inputs import corpus, in_memory, read_all, read_raw, reasons

HEAD = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10" xml:lang="de"><siteinfo>'
    "<sitename>W</sitename><base>https://de.example.org/wiki/Hauptseite</base><namespaces>"
    '<namespace key="0" /><namespace key="1">Diskussion</namespace><namespace key="6">Datei</namespace>'
    "</namespaces></siteinfo>"
)


def page(title: str, text: str, *, ns: int = 0, more: str = "", revisions: str = "") -> str:
    return (
        f"<page><title>{title}</title><ns>{ns}</ns><id>1</id>{more}{revisions}<revision><id>9</id>"
        f"<timestamp>2020-05-01T00:00:00Z</timestamp><contributor><ip>::1</ip></contributor>"
        f'<model>wikitext</model><format>text/x-wiki</format><text xml:space="preserve">{text}</text></revision></page>'
    )


def dump(*pages: str, head: str = HEAD) -> bytes:
    return (head + "".join(pages) + "</mediawiki>").encode()


@pytest.fixture(scope="module")
def sample(test_data):
    return (test_data / "corpora" / "wikipedia" / "enwiki-pages-articles1.xml.bz2").read_bytes()


@pytest.fixture(scope="module")
def real(test_data):
    return read_all(
        list_files(test_data / "corpora" / "wikipedia").files,
        corpus("mediawiki", name="wikipedia", licence="CC-BY-SA-3.0"),
    )


def test_mediawiki_reader_real_dump_gives_its_106_articles(real, sample):
    documents, rejects = real
    pages = bz2.decompress(sample).decode().split("<page>")[1:]
    num_articles = sum("<ns>0</ns>" in one and "<redirect" not in one for one in pages)
    assert len(documents) == num_articles == 106
    assert len(documents) + len(rejects) == len(pages)
    assert set(reasons(rejects)) == {"redirect", "other namespace"}
    by_id = {document.id: document for document in documents}
    anarchism = by_id["wikipedia:Anarchism"]
    assert anarchism.url == "https://en.wikipedia.org/wiki/Anarchism"
    assert anarchism.created == "2016-04-22T10:19:33Z"
    assert anarchism.text.startswith("Anarchism is a political philosophy that advocates self-governed societies")
    assert not any(mark in anarchism.text for mark in ("[[", "{{", "<ref", "'''", "Category:", "File:"))
    assert sum(len(document.text) > 30_000 for document in documents) > 40


def test_mediawiki_reader_dump_cut_in_a_page_gives_what_it_has_and_says_so(real, sample):
    whole, _ = real
    xml = bz2.decompress(sample)
    inside_a_page = xml.index(b"<title>Academy Award", xml.index(b"<title>Albedo")) + 4_000
    cut = in_memory("cut.xml.gz", gzip.compress(xml[:inside_a_page]))
    documents, rejects = read_all([cut], corpus("mediawiki", name="wikipedia"))
    assert [one.text for one in documents] == [one.text for one in whole[: len(documents)]]
    assert any(one.title == "Albedo" for one in documents)
    assert rejects[-1].reason == "truncated dump"
    assert reasons(rejects).count("truncated dump") == 1


@pytest.mark.parametrize("fraction", [0.0001, 0.001, 0.6])
def test_mediawiki_reader_cut_compressed_file_gives_a_prefix_and_says_so(sample, fraction):
    packed = bz2.compress(dump(*(page(f"T{n}", f"text {n} {n * 7919 % 9973} " * 3) for n in range(6_000))), 1)
    documents, rejects = read_all([in_memory("a.xml.bz2", packed[: int(len(packed) * fraction)])], corpus("mediawiki"))
    assert [document.title for document in documents] == [f"T{number}" for number in range(len(documents))]
    assert len(rejects) == 1 and rejects[0].reason in ("truncated dump", "not a MediaWiki dump")
    assert (len(documents) > 1_000) == (fraction > 0.5)


def test_mediawiki_reader_redirects_and_other_namespaces_are_left_out():
    pages = [
        page("A", "kept"),
        page("B", "#REDIRECT [[A]]", more='<redirect title="A" />'),
        page("C", "#redirect [[A]]"),
        page("Diskussion:A", "talk", ns=1),
    ]
    documents, rejects = read_all([in_memory("a.xml", dump(*pages))], corpus("mediawiki"))
    assert [(document.id, document.url) for document in documents] == [("sample:A", "https://de.example.org/wiki/A")]
    assert [(reject.id, reject.reason) for reject in rejects] == [
        ("sample:B", "redirect"),
        ("sample:C", "redirect"),
        ("sample:Diskussion:A", "other namespace"),
    ]


def test_mediawiki_reader_full_history_gives_the_latest_text():
    older = (
        "<revision><id>3</id><timestamp>2001-01-01T00:00:00Z</timestamp><text>old</text></revision>"
        "<revision><id>4</id><timestamp>2024-01-01T00:00:00Z</timestamp><text>newest</text></revision>"
    )
    (document,), _ = read_all([in_memory("a.xml", dump(page("A", "middle", revisions=older)))], corpus("mediawiki"))
    assert (document.text, document.created) == ("newest", "2024-01-01T00:00:00Z")


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE m [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>',
        '<!DOCTYPE m [<!ENTITY c SYSTEM "file:///etc/passwd">]>',
    ],
)
def test_mediawiki_reader_entities_are_refused_not_unfolded(doctype):
    bomb = b'<?xml version="1.0"?>' + doctype.encode() + dump(page("A", "&c;"))
    documents, rejects = read_all(
        [in_memory("a.xml", bomb), in_memory("b.xml", dump(page("B", "b")))], corpus("mediawiki")
    )
    assert [document.id for document in documents] == ["sample:B"]
    assert reasons(rejects) == ["not a MediaWiki dump"]
    assert "document type" in rejects[0].detail


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.xml", b" ", "not a MediaWiki dump"),
        ("a.xml", b"<html><body/></html>", "not a MediaWiki dump"),
        ("a.xml", b"no xml at all", "not a MediaWiki dump"),
        ("a.xml.bz2", b"not bz2", "not a MediaWiki dump"),
        ("a.txt", b"text", "other file type"),
        ("a.xml", dump("<page><title>A</title></wrong>"), "malformed dump"),
        ("a.xml", dump("<page><ns>x</ns></page>", page("B", "b")), "malformed dump"),
    ],
)
def test_mediawiki_reader_other_input_is_rejected_with_a_reason(name, data, reason):
    documents, rejects = read_all([in_memory(name, data)], corpus("mediawiki"))
    assert documents == []
    assert reasons(rejects) == [reason]


def test_plain_text_markup_leaves_the_words():
    wikitext = (
        "{{Infobox|a=1}}'''Bold''' [[Target|shown]] and [[plain]]<ref>note</ref>.\n"
        "[[Datei:x.png|thumb|caption with [[link]]]][[Category:Things]]\n== Head ==\n* item<!-- no -->\n"
        "{| class='wikitable'\n|-\n| cell\n|}\n''unbalanced <ref>stray</ref>\nthe ''Iliad'''s hero"
    )
    text = plain_text(wikitext, ("datei", "category"))
    assert text.split() == ["Bold", "shown", "and", "plain.", "Head", "item", "unbalanced", "the", "Iliad's", "hero"]


def multi_stream(pages: list[str], per_stream: int) -> list[bytes]:
    """The streams of a multi-stream dump: the head, some pages each, the end."""
    groups = ["".join(pages[start : start + per_stream]) for start in range(0, len(pages), per_stream)]
    return [bz2.compress(part.encode()) for part in (HEAD, *groups, "</mediawiki>")]


@pytest.mark.parametrize("place", ["between streams", "inside a stream", "in a stream's first bytes"])
def test_mediawiki_reader_cut_multi_stream_dump_gives_the_streams_before(place):
    pages = [page(f"T{number}", f"text {number}") for number in range(200)]
    streams = multi_stream(pages, 20)
    before = b"".join(streams[:6])
    more = {"between streams": b"", "inside a stream": streams[6][: len(streams[6]) // 2]}.get(place, streams[6][:3])
    documents, rejects = read_all([in_memory("a.xml.bz2", before + more)], corpus("mediawiki"))
    assert [one.title for one in documents] == [f"T{number}" for number in range(100)]
    assert reasons(rejects) == ["truncated dump"]
    assert "'T99'" in rejects[0].detail
    whole, none = read_all([in_memory("a.xml.bz2", b"".join(streams))], corpus("mediawiki"))
    assert len(whole) == 200 and none == []


def test_mediawiki_reader_damaged_middle_of_a_dump_gives_what_stands_before():
    streams = multi_stream([page(f"T{number}", f"text {number}") for number in range(200)], 20)
    damaged = bytearray(streams[6])
    damaged[len(damaged) // 2] ^= 0xFF
    file = in_memory("a.xml.bz2", b"".join((*streams[:6], bytes(damaged), *streams[7:])))
    documents, rejects = read_all([file], corpus("mediawiki"))
    assert [one.title for one in documents] == [f"T{number}" for number in range(100)]
    assert reasons(rejects) == ["truncated dump"]


@pytest.mark.parametrize("fraction", [0.1, 0.45])
def test_mediawiki_reader_cut_real_dump_gives_a_prefix_and_says_so(real, sample, fraction):
    cut = in_memory("enwiki-pages-articles1.xml.bz2", sample[: int(len(sample) * fraction)])
    documents, rejects = read_all([cut], corpus("mediawiki", name="wikipedia", licence="CC-BY-SA-3.0"))
    assert documents == real[0][: len(documents)]
    if documents:
        assert reasons(rejects).count("truncated dump") == 1
    else:
        assert len(rejects) == 1  # nothing of the first block can be unpacked
    assert bool(documents) == (fraction > 0.4)


def test_mediawiki_reader_goes_on_at_every_position():
    pages = [page("A", "a"), page("B", "#REDIRECT [[A]]"), page("C", "c", ns=1), page("D", "d"), page("E", "e")]
    cut = dump(*pages, "<page><title>F</title>")[:-20]
    whole = list(read_raw([in_memory("a.xml", cut)], corpus("mediawiki")))
    assert [position for _, position in whole] == [1, 2, 3, 4, 5, 5]
    for start in range(6):
        assert list(read_raw([in_memory("a.xml", cut)], corpus("mediawiki"), position=start)) == whole[start:]


def test_mediawiki_reader_page_too_large_is_rejected_and_the_next_read():
    pages = [page("A", "a"), page("B", "word " * 2_000_000), page("C", "c")]
    documents, rejects = read_all([in_memory("a.xml", dump(*pages))], corpus("mediawiki"))
    assert [one.title for one in documents] == ["A", "C"]
    assert [(one.id, one.reason) for one in rejects] == [("sample:B", "too large")]


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("a {{b|{{c}}|[[d]]<ref>e</ref>}} f", "a  f"),
        ("a<ref name='x'>{{cite|[[b]]}}<br/></ref> c<ref name=x /> d", "a c d"),
        ("[[File:a.png|thumb|see [[b|c]] and {{d}}]]e", "e"),
        ("[[:Category:Things|shown]] [[ category : Things]]end", "shown end"),
        ("<!-- [[a]] {{b}} -->c&nbsp;d", "c\xa0d"),
        ("{{a|b", "{{a|b"),
        ("<ref>{{open</ref>rest", "rest"),
    ],
)
def test_plain_text_nested_and_broken_markup_leaves_what_shows(wikitext, text):
    assert plain_text(wikitext) == text


@pytest.mark.parametrize("mark", ["<b>", "<ref>x ", "{|\n", "<ref "])
def test_mediawiki_reader_page_of_marks_that_never_close_is_rejected_in_time(mark):
    wikitext = (mark * 100_000).replace("<", "&lt;").replace(">", "&gt;")
    file = in_memory("a.xml", dump(page("A", "a"), page("B", wikitext), page("C", "c")))
    documents, rejects = read_all([file], corpus("mediawiki"))
    assert [one.title for one in documents] == ["A", "C"]
    assert [(one.id, one.reason) for one in rejects] == [("sample:B", "unreadable mark-up")]


def test_mediawiki_reader_dump_behind_another_in_one_file_is_told_of():
    two = dump(page("A", "one")) + dump(page("B", "two"))
    documents, rejects = read_all([in_memory("a.xml", two)], corpus("mediawiki"))
    assert ([document.text for document in documents], reasons(rejects)) == (["one"], ["malformed dump"])
    blank = dump(page("A", "one")) + b"\n\n"
    assert reasons(read_all([in_memory("a.xml", blank)], corpus("mediawiki"))[1]) == []
