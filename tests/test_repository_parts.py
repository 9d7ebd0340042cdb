import re

import pytest

from longalign_core.corpora.reading import RawDocument
from longalign_core.records import Reject
from longalign_core.source_files import list_files
from tests.corpora_inputs import corpus, in_memory, read_all, read_raw, reasons, tar_gz

MIT = "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy"
BSD = "Redistribution and use in source and binary forms, with or without"


def headed(text: str) -> list[str]:
    return re.findall(r"^===== (.+) =====$", text, re.M)


def kept(text: str) -> list[str]:
    return [path for path in headed(text) if not path.endswith(" (beginning)")]


@pytest.mark.parametrize("max_characters", [1_000, 5_000, 30_000, 100_000])
def test_repository_parts_real_repositories_keep_every_file_once_and_within_the_limit(max_characters, test_data):
    files = list_files(test_data / "corpora" / "github").files
    whole, _ = read_all(files, corpus("repository"))
    parts, _ = read_all(files, corpus("repository", max_characters=max_characters))
    for one in whole:
        mine = [part for part in parts if part.id.startswith(f"{one.id}//")]
        assert sorted(path for part in mine for path in kept(part.text)) == sorted(kept(one.text))
        assert len({part.id for part in mine}) == len(mine) > 2
        for part in mine:
            assert len(part.text) <= max_characters or len(kept(part.text)) == 1
            assert part.licence == one.licence
            assert headed(part.text)[0] in ("README.rst", "README.rst (beginning)")
            assert not part.text.startswith("===== README.rst (beginning)") or one.text.startswith(
                "===== README.rst =====\n\n" + part.text.split("\n\n")[1]
            )


def test_repository_parts_folders_stay_whole_and_small_neighbours_come_together():
    files = {
        "r/README.md": "# The repository\n\n" + "About it. " * 30,
        "r/LICENSE": MIT,
        "r/setup.py": "setup()\n",
        "r/crates/big/README.md": "# Big\n",
        "r/crates/big/LICENSE": BSD,
        "r/crates/big/one.rs": "1" * 500,
        "r/crates/big/two.rs": "2" * 200,
        "r/crates/left/a.rs": "l" * 100,
        "r/crates/right/b.rs": "r" * 100,
        "r/docs/only.txt": "d" * 1_500,
    }
    documents, rejects = read_all(
        [in_memory(path, data) for path, data in files.items()], corpus("repository", max_characters=1_000)
    )
    assert [(one.id, one.title, one.licence, kept(one.text)) for one in documents] == [
        ("sample:r//README.md", "r/README.md … setup.py", "MIT", ["README.md", "setup.py"]),
        (
            "sample:r//crates/big",
            "r/crates/big",
            "BSD-2-Clause",
            ["crates/big/README.md", "crates/big/one.rs", "crates/big/two.rs"],
        ),
        (
            "sample:r//crates/left",
            "r/crates/left … crates/right",
            "MIT",
            ["crates/left/a.rs", "crates/right/b.rs"],
        ),
        ("sample:r//docs/only.txt", "r/docs/only.txt", "MIT", ["docs/only.txt"]),
    ]
    assert documents[1].text.startswith(
        "===== README.md (beginning) =====\n\n# The repository\n\n===== crates/big/READ"
    )
    assert reasons(rejects) == ["files left out: licence"]
    (whole,), _ = read_all(
        [in_memory(path, data) for path, data in files.items()], corpus("repository", max_characters=10_000)
    )
    assert whole.id == "sample:r"


def test_repository_parts_reading_in_two_goes_gives_the_same(test_data):
    files = [one for one in list_files(test_data / "corpora" / "github").files if "warcio" in one.relative_path]
    config = corpus("repository", max_characters=20_000, order="dependency")
    records = list(read_raw(files, config))
    documents = [(one, behind) for one, behind in records if isinstance(one, RawDocument)]
    assert [behind for _, behind in documents] == list(range(1, len(documents) + 1))
    for position in range(len(documents) + 1):
        again = [one for one, _ in read_raw(files, config, position=position)]
        before = [one for one, behind in records if behind <= position]
        expected = [one for one, _ in records] if position == 0 else [one for one, _ in records][len(before) :]
        assert again == expected


def test_repository_parts_more_than_one_document_may_hold_is_cut_only_when_asked():
    archive = tar_gz({f"r/{top}/{number}.py": "# text\n" * 100_000 for top in "ab" for number in range(8)})
    documents, rejects = read_all([in_memory("r.tar.gz", archive)], corpus("repository"))
    assert (documents, reasons(rejects)) == ([], ["too large"])
    documents, rejects = read_all([in_memory("r.tar.gz", archive)], corpus("repository", max_characters=6_000_000))
    assert [one.id for one in documents] == ["sample:r.tar.gz//a", "sample:r.tar.gz//b"]
    assert rejects == []


def test_repository_parts_more_than_memory_should_hold_is_rejected():
    archive = tar_gz({f"r/{number}.py": "# text\n" * 140_000 for number in range(70)})
    documents, rejects = read_all([in_memory("r.tar.gz", archive)], corpus("repository", max_characters=1_000_000))
    assert (documents, reasons(rejects)) == ([], ["too large"])


def test_repository_parts_folders_without_end_are_left_out():
    archive = tar_gz({"r/a.py": "a\n" * 600, "r/" + "d/" * 20_000 + "x.py": "x\n" * 600})
    documents, rejects = read_all([in_memory("r.tar.gz", archive)], corpus("repository", max_characters=1_000))
    assert [one.text[:10] for one in documents] == ["===== a.py"]
    assert reasons(rejects) == ["files left out: too many folders"]


def test_repository_reader_folder_of_images_is_rejected_with_what_it_holds():
    files = [in_memory(f"pictures/{number}.png", b"\x89PNG") for number in range(3)]
    documents, rejects = read_all(files, corpus("repository"))
    assert documents == []
    assert [(one.id, one.reason, one.detail) for one in rejects if isinstance(one, Reject)] == [
        ("sample:pictures", "files left out: binary", "3 files, the first 0.png"),
        ("sample:pictures", "no source files", "no text file is left; left out: 3 binary"),
    ]
