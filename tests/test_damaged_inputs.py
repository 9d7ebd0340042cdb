"""Whatever happens to the bytes of an input, a reader ends with documents and rejects."""

import bz2
import gzip
import io
import json
import lzma
import random
import tarfile
import zipfile

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_core.source_files import list_files
from tests.corpora_inputs import corpus, in_memory, read_all, reasons

PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd.compress, "": bytes}
TEXTS = [" ".join(random.Random(number).choices("abcdefgh", k=40)) for number in range(60)]
LINES = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()


def damaged(data: bytes, cut: float | None, flips: list[tuple[float, int]]) -> bytes:
    """Bytes up to a share of them, at least one, then some of these changed; `flips` are (share, what to xor)."""
    kept = bytearray(data if cut is None else data[: max(1, int(cut * len(data)))])
    for place, bits in flips:
        if kept:
            kept[int(place * len(kept))] ^= bits
    return bytes(kept)


SHARES = st.floats(0, 1, exclude_max=True)
FLIPS = st.lists(st.tuples(SHARES, st.integers(1, 255)), max_size=3)


@pytest.mark.parametrize("suffix", PACK)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(cut=st.none() | SHARES, flips=FLIPS)
def test_json_lines_reader_any_damage_ends_in_documents_and_rejects(suffix, cut, flips):
    data = damaged(PACK[suffix](LINES), cut, flips)
    documents, rejects = read_all([in_memory(f"a.jsonl{suffix}", data)], corpus("json_lines"))
    if flips or suffix == "":
        return
    assert [one.text for one in documents] == TEXTS[: len(documents)]
    assert reasons(rejects) == ([] if cut is None else ["truncated file"])


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(cut=st.none() | SHARES, flips=FLIPS)
def test_repository_reader_any_damage_of_a_real_archive_gives_it_whole_or_rejects_it(test_data, cut, flips):
    (file,) = [one for one in list_files(test_data / "corpora" / "github").files if "warcio" in one.relative_path]
    with file.open() as stream:
        whole = stream.read()
    expected, _ = read_all([file], corpus("repository"))
    data = damaged(whole, cut, flips)
    documents, rejects = read_all([in_memory(file.relative_path, data)], corpus("repository"))
    assert documents in (expected, [])
    if not documents:
        assert reasons(rejects)[0] == "broken archive"


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(cut=st.none() | SHARES, flips=FLIPS)
def test_repository_reader_any_damage_of_a_plain_archive_ends_in_documents_and_rejects(suffix, cut, flips):
    stream = io.BytesIO()
    members = {f"r/{number}.py": text.encode() for number, text in enumerate(TEXTS)}
    if suffix == ".tar":
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for path, content in members.items():
                info = tarfile.TarInfo(path)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    else:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
            for path, content in members.items():
                packed.writestr(path, content)
    documents, rejects = read_all(
        [in_memory(f"r{suffix}", damaged(stream.getvalue(), cut, flips))], corpus("repository")
    )
    assert documents or rejects


@pytest.mark.parametrize("kind", ["header", "no end", "checksum", "endless header"])
def test_repository_reader_tar_damage_that_tarfile_passes_over_is_seen(kind):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for number, text in enumerate(TEXTS):
            info = tarfile.TarInfo(f"r/{number}.py")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    data = bytearray(stream.getvalue())
    match kind:
        case "header":
            data[10 * 1024] ^= 1
        case "no end":
            del data[len(TEXTS) * 1024 :]
        case "checksum":
            data = bytearray(gzip.compress(data))
            data[-6] ^= 1
        case "endless header":
            info = tarfile.TarInfo("long")
            info.type, info.size = tarfile.XHDTYPE, 1 << 40
            data = bytearray(info.tobuf()) + data
    documents, rejects = read_all([in_memory("r.tar", bytes(data))], corpus("repository"))
    assert (documents, reasons(rejects)) == ([], ["broken archive"])


def test_repository_reader_zip_member_before_the_file_is_no_broken_disk(tmp_path):
    path = tmp_path / "r.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("r/a.py", "a = 1\n")
    data = bytearray(path.read_bytes())
    data[-6:-2] = (1_000_000).to_bytes(4, "little")  # where the directory is said to begin
    path.write_bytes(data)
    documents, rejects = read_all(list_files(tmp_path).files, corpus("repository"))
    assert (documents, reasons(rejects)) == ([], ["broken archive"])


def test_repository_reader_tar_with_a_hole_of_zeros_is_no_whole_one():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for number, text in enumerate(TEXTS):
            info = tarfile.TarInfo(f"r/{number}.py")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    data = bytearray(stream.getvalue())
    data[30 * 1024 : 34 * 1024] = bytes(4 * 1024)  # a header and a content have 512 bytes each
    documents, rejects = read_all([in_memory("r.tar", bytes(data))], corpus("repository"))
    assert (documents, reasons(rejects)) == ([], ["broken archive"])


@pytest.mark.parametrize("junk", [b"WARC/1.0\r\n", b"\x1f\x8b\x08\x00", b"WARC/1.0\r\nA: b\r\n"])
def test_warc_reader_behind_damage_many_false_starts_end_in_a_reject(junk):
    documents, rejects = read_all([in_memory("a.warc", junk * 20_000)], corpus("warc"))
    assert (documents, reasons(rejects)) == ([], ["truncated file"])


def test_stackexchange_reader_second_dump_in_one_file_is_told():
    rows = (
        '<row Id="1" PostTypeId="1" Title="t" Body="q" Score="1"/>\n<row Id="2" PostTypeId="2" ParentId="1" Body="a"/>'
    )
    data = f'<?xml version="1.0"?>\n<posts>\n{rows}\n</posts>\n'
    documents, rejects = read_all([in_memory("Posts.xml", data * 2)], corpus("stackexchange"))
    assert (len(documents), reasons(rejects)) == (1, ["data behind the end"])
