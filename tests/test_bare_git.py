import random
import shutil
import tarfile
import zlib
from pathlib import Path

import pytest
from dulwich.object_format import SHA1
from dulwich.objects import Blob
from dulwich.pack import deltify_pack_objects, write_pack_data, write_pack_index_v2
from dulwich.repo import Repo

from longalign_core.source_files import list_files
from tests.bare_repositories import bare_repository
from tests.corpora_inputs import corpus, in_memory, read_all, reasons, tar_gz


def packed_with_deltas(repository: Repo) -> None:
    """Put all loose objects into one pack, most of them as differences from others."""
    store = repository.object_store
    objects = [store[one] for one in store]
    names = [(one, b"same") for one in objects]
    deltas = list(deltify_pack_objects(iter(names), window_size=2))
    assert any(one.delta_base for one in deltas)
    folder = Path(store.path) / "pack"
    with (folder / "pack-test.pack").open("wb+") as stream:
        entries, checksum = write_pack_data(stream, iter(deltas), num_records=len(deltas), object_format=SHA1)
    index = sorted((name, offset, crc) for name, (offset, crc) in entries.items())
    with (folder / "pack-test.idx").open("wb") as stream:
        write_pack_index_v2(stream, index, checksum)
    for one in objects:
        (Path(store.path) / one.id[:2].decode() / one.id[2:].decode()).unlink()
    store.close()


@pytest.fixture
def real_files(test_data) -> dict[str, bytes]:
    with tarfile.open(test_data / "corpora" / "github" / "warcio-1.8.1.tar.gz") as archive:
        files = {one.name.partition("/")[2]: archive.extractfile(one).read() for one in archive if one.isfile()}
    # dulwich finds differences slowly
    return {path: data for path, data in files.items() if len(data) < 8_000 or path == "LICENSE"}


@pytest.mark.parametrize("storage", ["loose", "packed", "packed, not on a disk"])
def test_repository_reader_bare_git_gives_what_the_archive_gives(storage, real_files, tmp_path):
    older = {path: data + b"\n# older\n" for path, data in real_files.items()}
    repository = bare_repository(tmp_path / "warcio.git", [older, real_files])
    if storage != "loose":
        packed_with_deltas(repository)
    repository.close()
    files = list_files(tmp_path).files
    if storage == "packed, not on a disk":
        files = [in_memory(file.relative_path, file.open().read()) for file in files]
    (from_git,), git_rejects = read_all(files, corpus("repository"))
    (from_archive,), archive_rejects = read_all(
        [in_memory("warcio.tar.gz", tar_gz({f"warcio/{path}": data for path, data in real_files.items()}))],
        corpus("repository"),
    )
    assert from_git.text == from_archive.text
    assert (from_git.id, from_git.title, from_git.licence) == ("sample:warcio.git", "warcio", "Apache-2.0")
    assert from_git.created == "2023-11-14T22:13:20+00:00"
    assert reasons(git_rejects) == reasons(archive_rejects)


def test_repository_reader_bare_git_address_is_taken_without_credentials(tmp_path):
    for name, url in {
        "open": "https://example.org/owner/open",
        "secret": "https://user:pass@example.org/owner/secret",
        "shell": "git@example.org:owner/shell",
    }.items():
        repository = bare_repository(tmp_path / f"{name}.git", [{"a.py": b"a = 1\n"}])
        config = repository.get_config()
        config.set((b"remote", b"origin"), b"url", url.encode())
        config.write_to_path()
        repository.close()
    documents, _ = read_all(list_files(tmp_path).files, corpus("repository"))
    assert {one.id: one.url for one in documents} == {
        "sample:open.git": "https://example.org/owner/open",
        "sample:secret.git": None,
        "sample:shell.git": None,
    }


def test_repository_reader_bare_git_links_and_submodules_are_refused(tmp_path):
    special = {"link.py": (0o120000, b"/etc/passwd"), "module": (0o160000, b"a" * 40)}
    bare_repository(tmp_path / "r.git", [{"a.py": b"a = 1\n"}], special=special).close()
    documents, rejects = read_all(list_files(tmp_path).files, corpus("repository"))
    assert [one.text for one in documents] == ["===== a.py =====\n\na = 1"]
    assert [(one.id, one.reason, one.detail) for one in rejects] == [
        ("sample:r.git/link.py", "files left out: unsafe", "not a regular file"),
        ("sample:r.git/module", "files left out: unsafe", "submodule"),
    ]


def test_repository_reader_bare_git_big_files_are_left_out_unread(tmp_path):
    bare_repository(tmp_path / "r.git", [{"a.py": b"a = 1\n", "big.sql": b"x" * (1 << 20) + b"y"}]).close()
    documents, rejects = read_all(list_files(tmp_path).files, corpus("repository"))
    assert [one.text for one in documents] == ["===== a.py =====\n\na = 1"]
    assert reasons(rejects) == ["files left out: oversized"]


@pytest.mark.parametrize(("branch", "num_documents"), [(b"refs/heads/master", 1), (b"refs/heads/other", 0)])
def test_repository_reader_bare_git_with_a_dangling_head_gives_the_default_branch(branch, num_documents, tmp_path):
    bare_repository(tmp_path / "r.git", [{"a.py": b"a = 1\n"}], branch=branch).close()
    documents, rejects = read_all(list_files(tmp_path).files, corpus("repository"))
    assert len(documents) == num_documents
    assert reasons(rejects) == ["broken git repository"] * (1 - num_documents)


def test_repository_reader_bare_git_layouts_are_told_apart(tmp_path):
    for path in ("top", "owner/one.git", "owner/two.git"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        bare_repository(tmp_path / path, [{"a.py": b"a = 1\n"}]).close()
    documents, rejects = read_all(list_files(tmp_path).files, corpus("repository"))
    assert [one.id for one in documents] == ["sample:owner/one.git", "sample:owner/two.git", "sample:top"]
    assert rejects == []
    (alone,), _ = read_all(list_files(tmp_path / "top").files, corpus("repository"))
    assert (alone.id, alone.text) == ("sample:.", "===== a.py =====\n\na = 1")


def test_repository_reader_clone_gives_its_working_tree(tmp_path):
    repository = Repo.init(tmp_path / "clone", mkdir=True)
    repository.object_store.add_object(Blob.from_string(b"committed"))
    repository.close()
    (tmp_path / "clone" / "a.py").write_text("a = 2\n")
    (document,), rejects = read_all(list_files(tmp_path).files, corpus("repository"))
    assert (document.id, document.text, rejects) == ("sample:clone", "===== a.py =====\n\na = 2", [])


def test_repository_reader_alternates_are_not_followed(tmp_path):
    """Objects that lie in another repository are missing: an alternate may lead to any folder."""
    bare_repository(tmp_path / "full", [{"a.py": b"1\n"}]).close()
    thin = tmp_path / "in" / "thin.git"
    shutil.copytree(tmp_path / "full", thin)
    shutil.rmtree(thin / "objects")
    (thin / "objects" / "info").mkdir(parents=True)
    (thin / "objects" / "info" / "alternates").write_text(str(tmp_path / "full" / "objects"))
    documents, rejects = read_all(list_files(tmp_path / "in").files, corpus("repository"))
    assert documents == []
    assert reasons(rejects) == ["broken git repository"]
    assert "is missing" in rejects[0].detail


@pytest.mark.parametrize("storage", ["loose", "packed"])
def test_repository_reader_damaged_bare_git_is_rejected_and_the_next_read(storage, tmp_path):
    """Every byte of the commit, trees and blobs counts: what is read is whole, or the repository is rejected."""
    versions = [{f"src/{n}.py": f"x = {n}{version}\n".encode() * 40 for n in range(6)} for version in range(2)]
    repository = bare_repository(tmp_path / "r.git", versions)
    if storage == "packed":
        packed_with_deltas(repository)
    repository.close()
    whole = {file.relative_path: file.open().read() for file in list_files(tmp_path).files}
    expected, _ = read_all([in_memory(path, data) for path, data in whole.items()], corpus("repository"))
    draw = random.Random(5)
    next_one = in_memory("s.tar.gz", tar_gz({"s/a.py": "a\n"}))
    objects = [path for path in whole if "/objects/" in path]
    num_rejected = 0
    for number in range(150):
        files = dict(whole)
        path = draw.choice(objects)
        data = bytearray(files[path])
        match number % 3:
            case 0:
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            case 1:
                del data[draw.randrange(len(data)) :]
            case 2:
                data[draw.randrange(len(data))] = draw.randrange(256)
        files[path] = bytes(data)
        documents, rejects = read_all([next_one, *(in_memory(*one) for one in files.items())], corpus("repository"))
        assert documents[0].id == "sample:s.tar.gz"
        assert documents[1:] in (expected, [])
        assert reasons(rejects) == ["broken git repository"] * (not documents[1:])
        num_rejected += not documents[1:]
    assert num_rejected > 20


def test_repository_reader_bare_git_without_objects_is_rejected():
    documents, rejects = read_all([in_memory("r.git/HEAD", "ref: refs/heads/main\n")], corpus("repository"))
    assert documents == []
    assert [(one.id, one.reason) for one in rejects] == [("sample:r.git", "broken git repository")]
    assert "no commit" in rejects[0].detail


def test_repository_reader_bare_git_blob_that_unpacks_without_end_is_left_out(tmp_path):
    """A loose object of a few bytes that states and holds 200 MB is never unpacked."""
    repository = bare_repository(tmp_path / "r.git", [{"a.py": b"a = 1\n", "zeros.py": b"0\n"}])
    bomb = Blob.from_string(b"0\n").id.decode()
    repository.close()
    path = tmp_path / "r.git" / "objects" / bomb[:2] / bomb[2:]
    path.chmod(0o644)
    packer = zlib.compressobj(1)
    path.write_bytes(packer.compress(b"blob 200000000\0" + bytes(200_000_000)) + packer.flush())
    documents, rejects = read_all(list_files(tmp_path).files, corpus("repository"))
    assert [one.text for one in documents] == ["===== a.py =====\n\na = 1"]
    assert reasons(rejects) == ["files left out: oversized"]
