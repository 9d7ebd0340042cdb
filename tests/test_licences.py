import pytest

from longalign_core.corpora.repositories.licences import is_licence_file, licence_of_metadata, licence_of_text


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        (
            "                                 Apache License\n                           Version 2.0, January 2004",
            "Apache-2.0",
        ),
        (
            "Version 2.0, January 2004\nhttp://www.apache.org/licenses/\n"
            "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION",
            "Apache-2.0",
        ),
        ("Permission is hereby granted,\nfree of charge, to any person", "MIT"),
        ("Redistribution and use in source and binary forms ... Neither the name of", "BSD-3-Clause"),
        ("Redistribution and use in source and binary forms, with or without", "BSD-2-Clause"),
        ("GNU GENERAL PUBLIC LICENSE\n Version 3, 29 June 2007 ... GNU Affero General Public License", "GPL-3.0"),
        ("GNU AFFERO GENERAL PUBLIC LICENSE\n Version 3, 19 November 2007", "AGPL-3.0"),
        ("GNU LESSER GENERAL PUBLIC LICENSE Version 3, 29 June 2007 GNU General Public License", "LGPL-3.0"),
        ("SPDX-License-Identifier: MIT OR Apache-2.0\n", "MIT OR Apache-2.0"),
        ("All rights reserved.", None),
    ],
)
def test_licence_of_text_common_licences_are_recognised(text, identifier):
    assert licence_of_text(text) == identifier


@pytest.mark.parametrize(
    ("path", "text", "licence"),
    [
        ("pyproject.toml", '[project]\nlicense = "MIT"\n', "MIT"),
        ("pyproject.toml", '[project]\nlicense = {text = "Apache 2.0"}\n', "Apache-2.0"),
        ("a/package.json", '{"license": "ISC"}', "ISC"),
        ("Cargo.toml", 'license = "MIT OR Apache-2.0"\n', "MIT OR Apache-2.0"),
        ("PKG-INFO", "Name: x\nLicense: UNKNOWN\n", None),
        ("setup.cfg", "[metadata]\nname = x\n", None),
    ],
)
def test_licence_of_metadata_stated_field_is_found(path, text, licence):
    assert licence_of_metadata(path, text) == licence


@pytest.mark.parametrize(("name", "expected"), [("LICENSE", True), ("COPYING.LESSER", True), ("licenses.py", False)])
def test_is_licence_file_by_name(name, expected):
    assert is_licence_file(name) is expected
