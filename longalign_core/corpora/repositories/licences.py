"""Which licence a repository states, as an SPDX identifier, by the plain signs of common licences."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_LICENCE_NAMES = ("license", "licence", "copying", "unlicense")
_METADATA = {
    "pyproject.toml": re.compile(
        r"^license\s*=\s*[\"']([^\"'\n]+)[\"']|^license\s*=\s*\{\s*text\s*=\s*[\"']([^\"'\n]+)", re.M
    ),
    "Cargo.toml": re.compile(r"^license\s*=\s*\"([^\"\n]+)\"", re.M),
    "package.json": re.compile(r"\"license\"\s*:\s*\"([^\"\n]+)\""),
    "composer.json": re.compile(r"\"license\"\s*:\s*\"([^\"\n]+)\""),
    "setup.cfg": re.compile(r"^license\s*=\s*([^\n]+)$", re.M),
    "PKG-INFO": re.compile(r"^License(?:-Expression)?:[ \t]*([^\n]+)$", re.M),
}
_SPDX_TAG = re.compile(r"SPDX-License-Identifier:\s*([A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*)")
_SPDX_EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*")
# In order: a licence that quotes another stands before the one it quotes.
_SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("AGPL-3.0", ("gnu affero general public license version 3, 19 november 2007",)),
    ("LGPL-3.0", ("gnu lesser general public license version 3, 29 june 2007",)),
    ("LGPL-2.1", ("gnu lesser general public license version 2.1, february 1999",)),
    ("GPL-3.0", ("gnu general public license version 3, 29 june 2007",)),
    ("GPL-2.0", ("gnu general public license version 2, june 1991",)),
    ("MPL-2.0", ("mozilla public license", "2.0")),
    ("Apache-2.0", ("apache license", "version 2.0")),
    ("Apache-2.0", ("www.apache.org/licenses", "terms and conditions for use, reproduction, and distribution")),
    ("BSL-1.0", ("boost software license", "version 1.0")),
    ("CC0-1.0", ("cc0 1.0 universal",)),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("PSF-2.0", ("python software foundation license version 2",)),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "neither the name")),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms",)),
    ("ISC", ("permission to use, copy, modify, and/or distribute this software",)),
    ("MIT", ("permission is hereby granted, free of charge",)),
)
_WORDS = {
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "mit license": "MIT",
    "the mit license": "MIT",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd 2-clause": "BSD-2-Clause",
    "isc license": "ISC",
    "gplv2": "GPL-2.0",
    "gplv3": "GPL-3.0",
}


def is_licence_file(path: str) -> bool:
    """Whether a file of a repository is, by its name, the text of a licence."""
    name = PurePosixPath(path).name.lower()
    return any(name == one or name.startswith((f"{one}.", f"{one}-", f"{one}_")) for one in _LICENCE_NAMES)


def is_licence_metadata(path: str) -> bool:
    """Whether a file of a repository may state its licence in a field."""
    return PurePosixPath(path).name in _METADATA


def licence_of_text(text: str) -> str | None:
    """SPDX identifier of a licence's full text; None when it is none of those known.

    The GNU licences are given without `-only` or `-or-later`: their text does not say which.
    """
    if tag := _SPDX_TAG.search(text):
        return tag.group(1)
    folded = " ".join(text.lower().split())
    for identifier, signs in _SIGNS:
        if all(sign in folded for sign in signs):
            return identifier
    return None


def licence_of_metadata(path: str, text: str) -> str | None:
    """Licence stated in a metadata file: an SPDX expression, or the file's own words; None when none is."""
    found = _METADATA[PurePosixPath(path).name].search(text)
    stated = next((group.strip() for group in found.groups() if group), None) if found else None
    if stated is None or stated.upper() == "UNKNOWN" or stated.lower().startswith("file:"):
        return None
    if identifier := _WORDS.get(stated.lower()):
        return identifier
    return stated if _SPDX_EXPRESSION.fullmatch(stated) or len(stated) <= 60 else licence_of_text(stated)
