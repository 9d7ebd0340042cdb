"""The files of a bare git repository as they are at its HEAD, without a checkout."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from dulwich.config import ConfigFile
from dulwich.object_format import get_object_format
from dulwich.objects import S_ISGITLINK, Blob, Commit, Tag, Tree, valid_hexsha

from longalign_core.corpora.archives import MAX_MEMBERS, DamagedSourceError, Member, UnsafeMember
from longalign_core.corpora.repositories.git_objects import GitObjects, open_objects, reporting_git_damage
from longalign_core.source_files import SourceFile, printable

_DEFAULT_BRANCHES = ("refs/heads/main", "refs/heads/master")
_MAX_REFERENCE_BYTES = 64 << 20
_MAX_SYMBOLIC_STEPS = 5


@dataclass(frozen=True, slots=True)
class Head:
    """What a repository's HEAD stands for.

    Attributes:
        members: The files, of which nothing can be read once the repository is closed.
        created: When it was committed, ISO 8601 in UTC; None when the date is impossible.
        url: Where it was cloned from, if that is on the web.
    """

    members: Iterator[Member | UnsafeMember]
    created: str | None
    url: str | None


def is_bare_repository(paths: Iterable[str], *, is_named_so: bool) -> bool:
    """Whether a folder is a bare git repository, by the paths in it.

    Args:
        paths: Below the folder.
        is_named_so: Its name ends in `.git`; then a part of what makes one is enough, so that one
            that lost files is not taken for a source tree.
    """
    found = {path if path in ("HEAD", "packed-refs") else path.split("/")[0] for path in paths}
    if is_named_so:
        return bool(found & {"HEAD", "objects"})
    return {"HEAD", "objects"} <= found and bool(found & {"refs", "packed-refs"})


@contextmanager
def open_head(files: Iterable[SourceFile], folder: str, scratch: Path) -> Iterator[Head]:
    """Open a bare repository.

    Args:
        files: All files of the repository.
        folder: Its path, with a `/` at its end; empty for the location itself.
        scratch: Folder that may be made for packs.

    Raises:
        DamagedSourceError: Damaged, or without a commit.
    """
    by_path = {file.relative_path.removeprefix(folder): file for file in files}
    config = _config(by_path)
    with reporting_git_damage("the configuration"):
        object_format = get_object_format(_setting(config, (b"extensions",), b"objectformat") or "sha1")
    with open_objects(by_path, object_format, scratch) as objects:
        commit = _head_commit(by_path, objects)
        with reporting_git_damage("the commit at HEAD"):
            seconds, tree_id = commit.commit_time, commit.tree
        yield Head(_tree_members(objects, tree_id), _iso(seconds), _web_address(config))


def _head_commit(files: dict[str, SourceFile], objects: GitObjects) -> Commit:
    references = _packed_references(files)
    tried = [_reference("HEAD", files, references), *(_reference(one, files, references) for one in _DEFAULT_BRANCHES)]
    object_id = next((one for one in tried if one), None)
    if object_id is None:
        raise DamagedSourceError("there is no commit: HEAD leads to none, nor does a branch main or master")
    found = objects.get(object_id)
    for _ in range(_MAX_SYMBOLIC_STEPS):
        if not isinstance(found, Tag):
            break
        with reporting_git_damage("a tag"):
            target = found.object[1]
        found = objects.get(target)
    if not isinstance(found, Commit):
        raise DamagedSourceError("HEAD is no commit")
    return found


def _reference(name: str, files: dict[str, SourceFile], packed: dict[str, bytes]) -> bytes | None:
    """Id that a reference leads to; None where it leads nowhere."""
    for _ in range(_MAX_SYMBOLIC_STEPS):
        content = _head_bytes(files[name]).strip() if name in files else packed.get(name)
        if content is None or not content.startswith(b"ref:"):
            return content if content and valid_hexsha(content) else None
        name = printable(content[4:].strip().decode("utf-8", "replace"))
    return None


def _packed_references(files: dict[str, SourceFile]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    if "packed-refs" in files:
        with files["packed-refs"].open() as stream:
            for line in io.BytesIO(stream.read(_MAX_REFERENCE_BYTES)):
                object_id, _, name = line.strip().partition(b" ")
                if valid_hexsha(object_id):
                    found[printable(name.decode("utf-8", "replace"))] = object_id
    return found


def _tree_members(objects: GitObjects, tree_id: bytes) -> Iterator[Member | UnsafeMember]:
    waiting = [("", tree_id)]
    num_entries = 0
    while waiting:
        folder, tree_id = waiting.pop()
        tree = objects.get(tree_id)
        if not isinstance(tree, Tree):
            raise DamagedSourceError(f"{folder or 'the top'} is no tree")
        with reporting_git_damage(f"the tree {folder or 'of the top'}"):
            entries = [(entry.path.decode("utf-8", "surrogateescape"), entry.mode, entry.sha) for entry in tree.items()]
        num_entries += len(entries)
        if num_entries > MAX_MEMBERS:  # a tree may hold another one many times over
            raise DamagedSourceError(f"the repository holds more than {MAX_MEMBERS} files and folders")
        deeper = []
        for name, mode, object_id in entries:
            path = folder + printable(name)
            if "/" in name or name in ("", ".", ".."):
                yield UnsafeMember(path, "path with ..")
            elif stat.S_ISDIR(mode):
                deeper.append((f"{path}/", object_id))
            elif S_ISGITLINK(mode):
                yield UnsafeMember(path, "submodule")
            elif not stat.S_ISREG(mode):
                yield UnsafeMember(path, "not a regular file")
            else:
                yield Member(path, objects.size(object_id), partial(_content, objects, object_id, path))
        waiting += reversed(deeper)


def _content(objects: GitObjects, object_id: bytes, path: str) -> bytes:
    blob = objects.get(object_id)
    if not isinstance(blob, Blob):
        raise DamagedSourceError(f"{path} is no file")
    return blob.data


def _config(files: dict[str, SourceFile]) -> ConfigFile:
    if "config" not in files:
        return ConfigFile()
    try:
        return ConfigFile.from_file(io.BytesIO(_head_bytes(files["config"])), expand_includes=False)
    except ValueError:
        return ConfigFile()


def _setting(config: ConfigFile, section: tuple[bytes, ...], name: bytes) -> str | None:
    try:
        return config.get(section, name).decode("utf-8", "replace")
    except KeyError:
        return None


def _web_address(config: ConfigFile) -> str | None:
    remotes = sorted(section for section in config.sections() if section[0] == b"remote" and len(section) == 2)
    for section in sorted(remotes, key=lambda section: section[1] != b"origin"):
        address = _setting(config, section, b"url")
        try:
            parts = urlsplit(address or "")
        except ValueError:
            continue
        if parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc and not parts.query:
            return parts.geturl()
    return None


def _iso(seconds: int) -> str | None:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return None


def _head_bytes(file: SourceFile) -> bytes:
    with file.open() as stream:
        return stream.read(1 << 20)
