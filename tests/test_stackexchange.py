import bz2
import gzip
import io
import lzma
import random
import struct
import zlib
from functools import partial
from pathlib import Path
from xml.sax.saxutils import quoteattr

import py7zr
import pytest

from longalign_core.corpora.cleaning import MAX_TEXT_BYTES
from longalign_core.corpora.markup.post_html import html_text
from longalign_core.corpora.readers import READERS
from longalign_core.corpora.reading import Cursor, RawDocument
from longalign_core.errors import DataError
from longalign_core.source_files import SourceFile, list_files
from tests.corpora_inputs import corpus, in_memory, read_all, read_raw, reasons

SITE = "cats.example.org"


def row(post_id, **attributes) -> str:
    written = "".join(f" {name}={quoteattr(str(value))}" for name, value in {"Id": post_id, **attributes}.items())
    return f"  <row{written} />\n"


def question(post_id, title="Why?", body="<p>Why so?</p>", tags="<cats>", **more) -> str:
    fields = {"Score": 1, "Title": title, "Tags": tags, "CreationDate": "2020-01-01T00:00:00.000", "Body": body}
    return row(post_id, PostTypeId=1, **{"ContentLicense": "CC BY-SA 4.0", **fields, **more})


def answer(post_id, parent, score=0, body=None, **more) -> str:
    body = f"<p>answer {post_id}</p>" if body is None else body
    return row(post_id, PostTypeId=2, ParentId=parent, Score=score, Body=body, **more)


def dump(*rows: str) -> bytes:
    return ('<?xml version="1.0" encoding="utf-8"?>\n<posts>\n' + "".join(rows) + "</posts>").encode()


def seven_zip(members: dict[str, bytes], **options) -> bytes:
    stream = io.BytesIO()
    with py7zr.SevenZipFile(stream, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(data, name)
    return stream.getvalue()


def posts(*rows: str, path: str = f"{SITE}/Posts.xml", **config):
    return read_all([in_memory(path, dump(*rows))], corpus("stackexchange", **config))


def test_stackexchange_reader_real_sample_joins_questions_with_answers(test_data):
    documents, rejects = read_all(
        list_files(test_data / "corpora" / "stackexchange").files, corpus("stackexchange", name="se")
    )
    assert len(documents) == 169
    assert [(one.id, one.reason) for one in rejects] == [
        ("se:python.example/1000000001", "fabricated row"),
        ("se:python.example/1000000010", "fabricated row"),
    ]
    first = documents[0]
    assert first.id == "se:python.example/1"
    assert first.url == "https://python.example/questions/1"
    assert first.title == "Why does Python use indentation for grouping of statements?"
    assert (first.licence, first.created) == ("CC-BY-SA-4.0", "2023-01-01T00:00:00.000")
    assert first.text.startswith(f"# {first.title}\n\nTags: python, design\n\n{first.title}\n\n## Accepted answer")
    assert "Guido van Rossum believes" in first.text
    assert not any("not a real post" in document.text for document in documents)


def test_stackexchange_reader_answers_come_accepted_first_then_by_score_whatever_the_order_of_rows():
    rows = [answer(5, 1, 7), answer(2, 1, 3), question(1, AcceptedAnswerId=4), answer(3, 1, 7), answer(4, 1, -1)]
    (document,), rejects = posts(*rows)
    (turned,), _ = posts(*reversed(rows))
    assert document.text == turned.text and rejects == []
    assert document.text == (
        "# Why?\n\nTags: cats\n\nWhy so?"
        "\n\n## Accepted answer (score -1)\n\nanswer 4\n\n## Answer (score 7)\n\nanswer 3"
        "\n\n## Answer (score 7)\n\nanswer 5\n\n## Answer (score 3)\n\nanswer 2"
    )


def test_stackexchange_reader_rows_left_out_are_counted_by_reason():
    documents, rejects = posts(
        question(1),
        answer(2, 1, 5),
        answer(3, 1, 1),
        answer(4, 1, 2),
        question(5),
        answer(6, 5, 1),
        answer(7, 99, 9),
        row(8, PostTypeId=5, Body="wiki"),
        row(9, PostTypeId=4, Body="wiki"),
        row(10, PostTypeId=5, Body="wiki"),
        row("x", PostTypeId=1),
        row(11, PostTypeId=2, Body="no parent"),
        answer(2, 1, 5),
        question(12, DeletionDate="2021-01-01"),
        question(1000000001),
        answer(1000000010, 1000000001, 99),
        min_score=3,
    )
    assert [one.id for one in documents] == [f"sample:{SITE}/1"]
    assert "answer 2" in documents[0].text and "answer 3" not in documents[0].text
    assert sorted((one.reason, one.id.removeprefix("sample:")) for one in rejects) == [
        ("answer without question", f"{SITE}/99"),
        ("answers below min_score", f"{SITE}/Posts.xml"),
        ("broken row", f"{SITE}/11"),
        ("broken row", f"{SITE}/x"),
        ("deleted post", f"{SITE}/12"),
        ("fabricated row", f"{SITE}/1000000001"),
        ("fabricated row", f"{SITE}/1000000010"),
        ("other post type", f"{SITE}/Posts.xml"),
        ("other post type", f"{SITE}/Posts.xml"),
        ("question without answer", f"{SITE}/5"),
        ("repeated row", f"{SITE}/2"),
    ]
    details = {one.reason: one.detail for one in rejects}
    assert "3 answers with a score below 3" in details["answers below min_score"]


def test_stackexchange_reader_licences_of_all_posts_are_stated():
    rows = [
        question(1, ContentLicense="CC BY-SA 3.0"),
        answer(2, 1, ContentLicense="CC BY-SA 4.0"),
        question(3),
        answer(4, 3),
    ]
    documents, _ = posts(*rows, licence="CC-BY-SA-2.5")
    assert [one.licence for one in documents] == [
        "CC-BY-SA-3.0 AND CC-BY-SA-4.0",
        "CC-BY-SA-2.5 AND CC-BY-SA-4.0",
    ]


@pytest.mark.parametrize(
    ("path", "site"),
    [
        ("Cats.example.org/Posts.xml", SITE),
        ("dumps/cats.example.org/posts.xml.gz", SITE),
        ("cats.example.org-Posts.xml", SITE),
        ("cats.example.org/old/Posts.xml", SITE),
        ("cats.example.org.7z", SITE),
        ("2024/cats.example.org-Posts.7z", SITE),
        ("Posts.xml", None),
        ("dump.7z", None),
    ],
)
def test_stackexchange_reader_site_comes_from_folder_or_archive(path, site):
    data = dump(question(1, tags="|cats|dogs|"), answer(2, 1))
    data = seven_zip({"Posts.xml": data}) if path.endswith(".7z") else data
    data = gzip.compress(data) if path.endswith(".gz") else data
    (document,), _ = read_all([in_memory(path, data)], corpus("stackexchange"))
    assert document.url == (f"https://{site}/questions/1" if site else None)
    assert document.id == f"sample:{site or path}/1"
    assert "Tags: cats, dogs\n" in document.text


def test_stackexchange_reader_other_dump_files_are_left_out():
    files = [
        in_memory("a.org/Users.xml", b"<users/>"),
        in_memory("a.org/PostHistory.xml.gz", b""),
        in_memory("a.org-Votes.7z", b""),
        in_memory("b.org.7z", seven_zip({"Comments.xml": b"<comments/>"})),
        in_memory("readme.txt", b""),
    ]
    documents, rejects = read_all(files, corpus("stackexchange"))
    assert documents == []
    assert reasons(rejects) == ["other dump file"] * 4 + ["other file type"]


@pytest.mark.parametrize(
    "filters",
    [
        [{"id": py7zr.FILTER_BZIP2}],
        [{"id": py7zr.FILTER_LZMA2, "preset": 1}],
        [{"id": py7zr.FILTER_PPMD, "order": 6, "mem": 24}],
    ],
)
def test_stackexchange_reader_seven_zip_gives_what_the_plain_file_gives(test_data, filters):
    plain = (test_data / "corpora" / "stackexchange" / "python.example" / "Posts.xml").read_bytes()
    members = {"Badges.xml": b"<badges/>" * 999, "Posts.xml": plain, "Votes.xml": b"<votes/>"}
    archive = in_memory("python.example.7z", seven_zip(members, filters=filters))
    found, _ = read_all([archive], corpus("stackexchange"))
    expected, _ = read_all([in_memory("python.example/Posts.xml", plain)], corpus("stackexchange"))
    assert [(one.id, one.text) for one in found] == [(one.id, one.text) for one in expected]


def test_stackexchange_reader_archive_members_that_lead_out_are_refused(tmp_path):
    (tmp_path / "target").write_bytes(dump(question(1), answer(2, 1)))
    (tmp_path / "Posts.xml").symlink_to("target")
    stream = io.BytesIO()
    with py7zr.SevenZipFile(stream, "w") as archive:
        archive.write(tmp_path / "Posts.xml", "Posts.xml")
    linked = in_memory("a.org.7z", stream.getvalue())
    # The writer refuses such names; one of the same length is put in its place in the open header.
    stream = io.BytesIO()
    with py7zr.SevenZipFile(stream, "w") as archive:
        archive.set_encoded_header_mode(False)
        archive.writestr(dump(question(1), answer(2, 1)), "ab/Posts.xml")
    data = stream.getvalue().replace("ab/Posts".encode("utf-16-le"), "../Posts".encode("utf-16-le"))
    outside = in_memory("b.org.7z", _with_header_checksum(data))
    documents, rejects = read_all([linked, outside], corpus("stackexchange"))
    assert documents == []
    assert reasons(rejects) == ["other dump file"] * 2 + ["unsafe archive member"] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Posts.xml", "target"]


def _with_header_checksum(data: bytes) -> bytes:
    offset, size = struct.unpack("<QQ", data[12:28])
    header = data[32 + offset : 32 + offset + size]
    start = struct.pack("<QQL", offset, size, zlib.crc32(header))
    return data[:8] + struct.pack("<L", zlib.crc32(start)) + start + data[32:]


def test_stackexchange_reader_archives_that_cannot_be_read_are_rejected():
    whole = seven_zip({"Posts.xml": dump(question(1), answer(2, 1))})
    archives = {
        "cut.7z": whole[: len(whole) // 2],
        "start.7z": whole[:3],
        "locked.7z": seven_zip({"Posts.xml": dump(question(1), answer(2, 1))}, password="secret"),
        "hidden.7z": seven_zip(
            {"Posts.xml": dump(question(1), answer(2, 1))}, password="secret", header_encryption=True
        ),
        "other.7z": b"PK\3\4 no such archive",
        "whole.7z": whole,
    }
    files = [in_memory(name, data) for name, data in archives.items()]
    documents, rejects = read_all(files, corpus("stackexchange"))
    assert [one.id for one in documents] == ["sample:whole.7z/1"]
    assert [(one.id, one.reason) for one in rejects] == [
        (f"sample:{name}", "unreadable archive") for name in sorted(archives) if name != "whole.7z"
    ]
    assert all("encrypted" in one.detail for one in rejects if one.id in ("sample:locked.7z", "sample:hidden.7z"))


def test_stackexchange_reader_archive_damaged_in_the_middle_keeps_what_came_before():
    noise = random.Random(0)
    rows = [question(2 * n + 1) + answer(2 * n + 2, 2 * n + 1, body=noise.randbytes(4_000).hex()) for n in range(1_000)]
    data = bytearray(seven_zip({"Posts.xml": dump(*rows)}, filters=[{"id": py7zr.FILTER_BZIP2}]))
    data[len(data) // 2] ^= 0xFF
    documents, rejects = read_all([in_memory("a.org.7z", bytes(data))], corpus("stackexchange"))
    assert "damaged archive" in reasons(rejects)
    assert set(reasons(rejects)) <= {"damaged archive", "question without answer"}
    assert 100 < len(documents) < 800
    assert [one.id for one in documents] == [f"sample:a.org/{2 * index + 1}" for index in range(len(documents))]


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("", bytes), (".gz", gzip.compress), (".bz2", partial(bz2.compress, compresslevel=1)), (".xz", lzma.compress)],
)
def test_stackexchange_reader_truncated_file_keeps_a_prefix_and_says_so(suffix, pack):
    rows = [line for number in range(1, 9_000, 2) for line in (question(number), answer(number + 1, number))]
    packed = pack(dump(*rows))
    cut = in_memory(f"a.org/Posts.xml{suffix}", packed[: int(len(packed) * 0.7)])
    documents, rejects = read_all([cut], corpus("stackexchange"))
    assert reasons(rejects).count("truncated file") == 1
    assert set(reasons(rejects)) <= {"truncated file", "question without answer"}
    assert [one.id for one in documents] == [f"sample:a.org/{2 * index + 1}" for index in range(len(documents))]
    assert documents


@pytest.mark.parametrize(
    "broken",
    [
        b'  <row Id="3" PostTypeId="1" Body="a &#x0; b" />\n',
        b'  <row Id="3" PostTypeId="1" Body="never closed />\n',
        b'  <row Id="3" PostTypeId="1" Body="&nothing;" />\n',
        b'  <row Id="3" PostTypeId="1" Body="\xff\xfe" />\n',
        b'  <row Id="3" Id="3" />\n',
        b"  </row>\n",
        b"  <row Id=3 \n",
    ],
)
@pytest.mark.parametrize("num_before", [1, 1_500])
def test_stackexchange_reader_broken_row_costs_that_row_alone(broken, num_before):
    before = "".join(question(2 * n) + answer(2 * n + 1, 2 * n) for n in range(10, 10 + num_before))
    data = dump(before, "BROKEN", question(4), answer(5, 4), question(6), answer(7, 6)).replace(b"BROKEN", broken)
    documents, rejects = read_all([in_memory("a.org/Posts.xml", data)], corpus("stackexchange"))
    assert reasons(rejects) == ["broken row"]
    assert len(documents) == num_before + 2
    assert f"at byte {data.index(broken)}"[:-2] in rejects[0].detail


def test_stackexchange_reader_endless_row_and_long_text_are_rejected_and_the_next_read():
    endless = f'  <row Id="3" PostTypeId="1" Body="{"x" * (4 * MAX_TEXT_BYTES + 2_000_000)}" />\n'
    too_long = question(8, body="y" * (MAX_TEXT_BYTES + 1))
    documents, rejects = posts(question(1), answer(2, 1), endless, question(4), answer(5, 4), too_long)
    assert [one.id for one in documents] == [f"sample:{SITE}/1", f"sample:{SITE}/4"]
    assert reasons(rejects) == ["too large", "too large"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (
            b'<!DOCTYPE p [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><posts><row Id="1" Body="&b;"/></posts>',
            "document type",
        ),
        (
            b'<!DOCTYPE p [<!ENTITY a SYSTEM "file:///etc/passwd">]><posts><row Id="1" Body="&a;"/></posts>',
            "document type",
        ),
        (b"  ", "no root element"),
        (b"no xml at all", "not XML"),
        (b"<users><row/></users>", "<users>"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_stackexchange_reader_other_xml_is_refused_as_a_whole(data, why, packed):
    file = in_memory("a.org.7z", seven_zip({"Posts.xml": data})) if packed else in_memory("a.org/Posts.xml", data)
    documents, rejects = read_all([file], corpus("stackexchange"))
    assert documents == [] and reasons(rejects) == ["not a Posts.xml"]
    assert why in rejects[0].detail


def many_threads() -> list[str]:
    rows = [row("x"), question(1000000001), row(900, PostTypeId=5)]
    for number in range(1, 60):
        tag = ("cats", "dogs", "birds")[number * number % 3]
        body = f"<p>{'words ' * (number * 37 % 50)}</p>" + ("<p>long</p>" * 400 if number % 9 == 0 else "")
        rows.append(question(number, f"T{number}", body, f"<{tag}><other>"))
        rows += [answer(100 + number, number, 1), answer(200 + number, number, 5)] if number % 7 else []
    return [*rows, answer(999, 998)]


@pytest.mark.parametrize("aggregate_characters", [None, 1_500])
def test_stackexchange_reader_goes_on_at_every_position(aggregate_characters):
    config = corpus("stackexchange", aggregate_characters=aggregate_characters)
    file = in_memory("a.org/Posts.xml", dump(*many_threads()))
    whole = list(read_raw([file], config))
    starts = sorted({position for _, position in whole})
    assert len(starts) > 10
    for start in starts:
        last = next(index for index, (_, position) in enumerate(whole) if position == start)
        assert list(read_raw([file], config, position=start)) == whole[last + 1 :]


def test_stackexchange_reader_killed_one_uses_what_it_put_aside_and_else_makes_it_again(tmp_path):
    config = corpus("stackexchange")
    data = dump(*many_threads())
    num_opened = 0

    def opened():
        nonlocal num_opened
        num_opened += 1
        return io.BytesIO(data)

    file = SourceFile("a.org/Posts.xml", len(data), opened)
    reader = READERS["stackexchange"]
    (unit,) = reader.units([file], config)
    whole = list(reader.read(unit, config, Cursor(tmp_path / "a")))
    (tmp_path / "a" / "posts.part").write_bytes(b"half made")
    assert list(reader.read(unit, config, Cursor(tmp_path / "a", 20))) == whole[20:]
    assert num_opened == 1
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "posts.part").write_bytes(b"half made")
    assert list(reader.read(unit, config, Cursor(tmp_path / "b", 20))) == whole[20:]
    assert num_opened == 2


def test_stackexchange_reader_threads_of_a_tag_are_joined_until_long_enough_and_none_is_lost():
    rows = many_threads()
    single, _ = posts(*rows)
    joined, rejects = posts(*rows, aggregate_characters=1_500)
    aggregated = [one for one in joined if one.origin.startswith("aggregated: ")]
    assert len(aggregated) > 3
    pieces = "\n\n".join(one.text for one in joined)
    assert sorted(pieces.split("# T")) == sorted("\n\n".join(one.text for one in single).split("# T"))
    assert reasons(rejects) == reasons(posts(*rows)[1])
    assert aggregated[0].id.startswith(f"sample:{SITE}/aggregated/")
    by_tag = {tag: [one for one in aggregated if one.title == f"Questions tagged {tag}"] for tag in ("cats", "dogs")}
    for tag, documents in by_tag.items():
        assert all(one.text.count("\nTags: ") == one.text.count(f"\nTags: {tag}, other") > 1 for one in documents)
        assert all(len(one.text) >= 1_500 for one in documents[:-1])
        assert all(one.url == f"https://{SITE}/questions/tagged/{tag}" for one in documents)
    alone = [one for one in joined if one not in aggregated]
    assert {one.id for one in alone} >= {f"sample:{SITE}/9", f"sample:{SITE}/18"}


def test_stackexchange_reader_failing_disk_is_not_taken_for_damage():
    class Failing(io.BytesIO):
        def read(self, *_):
            raise OSError(5, "Input/output error")

        read1 = readinto = read

    for path in ("a.org.7z", "a.org/Posts.xml", "a.org/Posts.xml.gz"):
        with pytest.raises(OSError, match="Input/output"):
            read_all([SourceFile(path, 9, Failing)], corpus("stackexchange"))


def test_stackexchange_reader_leaves_nothing_outside_scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = seven_zip({"Posts.xml": dump(question(1), answer(2, 1))})
    records = list(read_raw([in_memory("a.org.7z", data)], corpus("stackexchange")))
    assert [type(record) for record, _ in records] == [RawDocument]
    assert list(Path(tmp_path).iterdir()) == []


def test_html_text_blocks_lists_quotes_and_code_stay_readable():
    html = (
        "<h2>Head</h2><p>Some <b>bold</b>\n<a href='x'>link</a>, <code>f(x)</code><br>next &amp; last</p>"
        '<pre class="lang-py"><code>def f():\n\n    return "```"  &lt;\n</code></pre>'
        "<ul><li>one</li><li>two<ol><li>in</li></ol></li></ul><ol start='3'><li><p>a</p><pre>b</pre></li></ol>"
        "<blockquote><p>said</p><p>so</p></blockquote><script>no</script>tail"
    )
    assert html_text(html) == (
        "#### Head\n\nSome bold link, `f(x)`\nnext & last\n\n"
        '````py\ndef f():\n\n    return "```"  <\n````\n\n'
        "- one\n- two\n  1. in\n\n3. a\n\n   ```\n   b\n   ```\n\n> said\n>\n> so\n\ntail"
    )


@pytest.mark.parametrize(("html", "text"), [("", ""), ("<!-- no -->", ""), ("a</div>b", "ab"), ("x < y", "x < y")])
def test_html_text_odd_pieces_keep_their_words(html, text):
    assert html_text(html) == text


def test_html_text_nested_too_deep_is_said_not_cut():
    with pytest.raises(DataError, match="nested"):
        html_text("<div>" * 5_000 + "words")
