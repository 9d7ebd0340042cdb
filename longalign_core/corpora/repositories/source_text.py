"""The text of one repository: which of its members are kept, and the licence they state."""

from __future__ import annotations

from pathlib import PurePosixPath

from longalign_core.corpora.archives import Member
from longalign_core.corpora.cleaning import decode_text
from longalign_core.corpora.repositories.kept_files import unwanted_by_content, unwanted_by_name
from longalign_core.corpora.repositories.licences import (
    is_licence_file,
    is_licence_metadata,
    licence_of_metadata,
    licence_of_text,
)


class SourceText:
    """Collects the members of one repository.

    Attributes:
        texts: Text of each kept file by path.
        num_characters: Of all kept texts.
        left_out: Cause -> (number of files, path of the first).
    """

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.num_characters = 0
        self.left_out: dict[str, tuple[int, str]] = {}
        self._top_folders: set[str] = set()
        self._licences: list[_StatedLicence] = []

    def add(self, member: Member) -> None:
        """Take a file in, or count why not."""
        path = member.path
        self._top_folders.add(path.split("/")[0] if "/" in path else "")
        cause = unwanted_by_name(path, member.size)
        if cause is None:
            text = decode_text(member.read())
            cause = unwanted_by_content(path, text)
            if text is not None:
                self._note_licence(path, text)
            if cause is None and is_licence_file(path):
                cause = "licence"
            if cause is None and text is not None:
                self.num_characters += len(text) - len(self.texts.get(path, ""))
                self.texts[path] = text
                return
        assert cause is not None, "a file was left out without a cause"
        num_files, first = self.left_out.get(cause, (0, path))
        self.left_out[cause] = (num_files + 1, min(first, path))

    def drop_only_top_folder(self) -> None:
        """Take the one folder in which archives hold everything off the paths, when there is just one."""
        if len(self._top_folders) != 1 or "" in self._top_folders:
            return
        start = len(next(iter(self._top_folders))) + 1
        self.texts = {path[start:]: text for path, text in self.texts.items()}
        self._licences = [(is_metadata, path[start:], found) for is_metadata, path, found in self._licences]

    def licence(self, folder: str = "") -> str | None:
        """The licence that holds for a folder, else the repository's.

        The one stated nearest above the folder's files counts, licence texts before metadata. The
        repository's is the one stated nearest its top.
        """
        above = [one for one in self._licences if f"{folder}/".startswith(f"{_folder_of(one[1])}/")]
        if folder and above:
            return min(above, key=lambda one: (-one[1].count("/"), one))[-1]
        return min(self._licences, key=lambda one: (one[0], one[1].count("/"), one[1]))[-1] if self._licences else None

    def _note_licence(self, path: str, text: str) -> None:
        is_text = is_licence_file(path)
        found = None
        if is_text:
            found = licence_of_text(text)
        elif is_licence_metadata(path):
            found = licence_of_metadata(path, text)
        if found:
            self._licences.append((not is_text, path, found))


_StatedLicence = tuple[bool, str, str]
"""Whether it stands in metadata, the file's path, the licence."""


def is_readme(path: str) -> bool:
    """Whether a file is a README by its name."""
    return PurePosixPath(path).name.lower().split(".")[0] == "readme"


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]
