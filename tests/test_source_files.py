import bz2
import io
import lzma

import pytest

from longalign_core.corpora.unpacking import DAMAGE, open_unpacked
from longalign_core.errors import InputError
from longalign_core.source_files import SourceFile, list_files


def test_list_files_folder_sorts_by_relative_path(tmp_path):
    for name in ("b.txt", "a/z.txt", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    listing = list_files(tmp_path)
    assert [file.relative_path for file in listing.files] == ["a.txt", "a/z.txt", "b.txt"]
    assert [file.size for file in listing.files] == [5, 7, 5]
    with listing.files[1].open() as stream:
        assert stream.read() == b"a/z.txt"


def test_list_files_single_file_is_named_without_its_folder(tmp_path):
    (tmp_path / "book.txt").write_text("x")
    assert [file.relative_path for file in list_files(tmp_path / "book.txt").files] == ["book.txt"]


def test_list_files_links_are_never_followed_and_hidden_names_left_out(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    (outside / "deep").mkdir(parents=True)
    (outside / "secret.txt").write_text("secret")
    (inside / "own.txt").write_text("own")
    (inside / ".git").mkdir()
    (inside / ".git" / "config.txt").write_text("hidden")
    (inside / ".hidden.txt").write_text("hidden")
    (inside / "file.txt").symlink_to(outside / "secret.txt")
    (inside / "folder").symlink_to(outside)
    (inside / "circle").symlink_to(inside)
    (inside / "dangling.txt").symlink_to(outside / "nothing")
    listing = list_files(inside)
    assert [file.relative_path for file in listing.files] == ["own.txt"]
    assert listing.links == ("circle", "dangling.txt", "file.txt", "folder")
    assert listing.num_hidden == 2


def test_list_files_location_that_is_a_link_is_read(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").write_text("a")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert [file.relative_path for file in list_files(tmp_path / "link").files] == ["a.txt"]


def test_list_files_missing_location_raises_input_error(tmp_path):
    with pytest.raises(InputError, match="no file or folder 'nowhere'"):
        list_files(tmp_path / "nowhere")


def test_list_files_name_that_is_not_utf8_is_written_with_escapes(tmp_path):
    for name in (b"caf\xe9.txt", b"caf\xe8.txt"):
        (tmp_path / name.decode("utf-8", "surrogateescape")).write_bytes(name)
    listing = list_files(tmp_path)
    assert len({file.relative_path.encode() for file in listing.files}) == 2
    for file in listing.files:
        with open_unpacked(file) as stream:
            assert stream.read().startswith(b"caf")


@pytest.mark.parametrize(("suffix", "compress"), [(".bz2", bz2.compress), (".xz", lzma.compress)])
def test_open_unpacked_later_stream_that_is_damaged_is_not_taken_for_the_end(suffix, compress):
    first, second = compress(b"first\n" * 1_000), compress(b"second\n" * 1_000)

    def unpacked(data: bytes) -> bytes:
        file = SourceFile(f"a{suffix}", len(data), lambda: io.BytesIO(data))
        with open_unpacked(file) as stream:
            return stream.read()

    assert unpacked(first + second) == b"first\n" * 1_000 + b"second\n" * 1_000
    for broken in (first + second[:6] + b"damage" + second[12:], first + second[:-4], first + b"not a stream", b""):
        with pytest.raises(DAMAGE):
            unpacked(broken)
