import random

import pytest

from longalign_core.corpora.repositories.import_order import order_by_imports
from longalign_core.corpora.repositories.imports import SourceIndex, imports_of
from longalign_core.source_files import list_files
from tests.corpora_inputs import corpus, in_memory, read_all


def imported(texts: dict[str, str], path: str) -> list[str]:
    return sorted(imports_of(path, texts[path], SourceIndex(texts)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import pkg.core", ["src/pkg/core.py"]),
        ("import os, pkg.core as c", ["src/pkg/core.py"]),
        ("from pkg import core, Name", ["src/pkg/__init__.py", "src/pkg/core.py"]),
        ("from pkg.core import run", ["src/pkg/core.py"]),
        ("def f():\n    from pkg.sub.deep import x", ["src/pkg/sub/deep.py"]),
        ("import core", []),
        (
            "try:\n import pkg.core\nexcept E:\n if x:\n  pass\n else:\n  match x:\n   case 1:\n    import pkg.sub\n",
            ["src/pkg/core.py", "src/pkg/sub/__init__.py"],
        ),
        ("'from pkg.core import run'", []),
        ("print 'old'\nfrom pkg.core import run\nimport pkg.sub.deep", ["src/pkg/core.py", "src/pkg/sub/deep.py"]),
        ("(" * 100_000, []),
        ("x = " + "-" * 100_000 + "1", []),
        ("import pkg.core\0", ["src/pkg/core.py"]),
    ],
)
def test_imports_of_python_file_outside_the_package(text, expected):
    others = ["src/pkg/__init__.py", "src/pkg/core.py", "src/pkg/sub/__init__.py", "src/pkg/sub/deep.py"]
    assert imported({**dict.fromkeys(others, ""), "tests/test_it.py": text}, "tests/test_it.py") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from . import deep", ["pkg/sub/deep.py"]),
        ("from . import Name", ["pkg/sub/__init__.py"]),
        ("from .deep import *", ["pkg/sub/deep.py"]),
        ("from ..core import x", ["pkg/core.py"]),
        ("from .. import core, Name", ["pkg/__init__.py", "pkg/core.py"]),
        ("from ........ import core", []),
    ],
)
def test_imports_of_python_file_relative_imports(text, expected):
    others = ["pkg/__init__.py", "pkg/core.py", "pkg/sub/__init__.py", "pkg/sub/deep.py"]
    assert imported({**dict.fromkeys(others, ""), "pkg/sub/me.py": text}, "pkg/sub/me.py") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('import x from "./a"', ["web/a.ts"]),
        ('import {\n  one,\n  two as b,\n} from "./a.js";', ["web/a.ts"]),
        ("export * from '../lib'", ["lib/index.js"]),
        ('import "./style.css"', ["web/style.css"]),
        ('const a = require("./a"), b = await import("../lib/index.js")', ["lib/index.js", "web/a.ts"]),
        ('import { q } from "@org/queue"', ["packages/queue/src/index.ts"]),
        ('import { q } from "@org/queue/deep"', ["packages/queue/src/deep.ts"]),
        ('import React from "react"', []),
    ],
)
def test_imports_of_javascript_file(text, expected):
    texts = {
        "web/a.ts": "",
        "web/style.css": "",
        "lib/index.js": "",
        "packages/queue/package.json": '{"name": "@org/queue"}',
        "packages/queue/src/index.ts": "",
        "packages/queue/src/deep.ts": "",
        "broken/package.json": "{",
        "web/main.tsx": text,
    }
    assert imported(texts, "web/main.tsx") == expected


def test_imports_of_go_file_are_the_files_of_packages():
    texts = {
        "go.mod": "module example.org/app\n\ngo 1.22\n",
        "store/a.go": "",
        "store/b.go": "",
        "store/a_test.go": "",
        "store/deep/c.go": "",
        "util.go": "",
        "main.go": 'import (\n\t"fmt"\n\ts "example.org/app/store"\n)\nimport "example.org/application"\n',
    }
    assert imported(texts, "main.go") == ["store/a.go", "store/b.go"]


def test_imports_of_c_file_are_headers_beside_it_then_anywhere():
    texts = {
        "src/main.c": '#include "util.h"\n#  include "net/socket.h"\n#include <app/api.h>\n#include <stdio.h>\n',
        "src/util.h": "",
        "other/util.h": "",
        "src/net/socket.h": "",
        "include/app/api.h": "",
        "compat/stdio.h": "",
    }
    assert imported(texts, "src/main.c") == ["include/app/api.h", "src/net/socket.h", "src/util.h"]


def test_imports_of_java_file_follow_classes_members_and_packages():
    texts = {
        "src/main/java/org/app/Main.java": (
            "import org.app.model.User;\nimport static org.app.Text.trim;\nimport org.app.io.*;\nimport java.util.List;"
        ),
        "src/main/java/org/app/model/User.java": "",
        "src/main/java/org/app/Text.java": "",
        "src/main/java/org/app/io/Reader.kt": "",
        "src/main/java/org/app/io/deep/Writer.java": "",
        "src/main/java/org/app/List.java": "",
    }
    assert imported(texts, "src/main/java/org/app/Main.java") == [
        "src/main/java/org/app/Text.java",
        "src/main/java/org/app/io/Reader.kt",
        "src/main/java/org/app/model/User.java",
    ]


def test_imports_of_rust_file_follow_modules_and_crates():
    texts = {
        "app/src/main.rs": "mod cli;\npub(crate) mod net;\nuse help_er::{text::Trim, Name as Other};\nuse std::io;\n",
        "app/src/cli.rs": "use crate::net::{self, socket::{Socket, open}};\nuse super::config;\nmod inner { }\n",
        "app/src/net/mod.rs": "pub mod socket;\n",
        "app/src/net/socket.rs": "use super::super::config::Config;\n",
        "app/src/config.rs": "",
        "help/Cargo.toml": '[package]\nname = "help-er"\n',
        "help/src/lib.rs": "",
        "help/src/text.rs": "",
    }
    assert imported(texts, "app/src/main.rs") == [
        "app/src/cli.rs",
        "app/src/net/mod.rs",
        "help/src/lib.rs",
        "help/src/text.rs",
    ]
    assert imported(texts, "app/src/cli.rs") == ["app/src/config.rs", "app/src/net/mod.rs", "app/src/net/socket.rs"]
    assert imported(texts, "app/src/net/mod.rs") == ["app/src/net/socket.rs"]
    assert imported(texts, "app/src/net/socket.rs") == ["app/src/config.rs"]


def test_order_by_imports_puts_the_imported_first_and_keeps_path_order_elsewhere():
    texts = {
        "a.py": "import z",
        "b.py": "",
        "m.py": "import b",
        "y.py": "",
        "z.py": "import y",
        "notes.txt": "import a",
    }
    assert order_by_imports(texts) == ["y.py", "z.py", "a.py", "b.py", "m.py", "notes.txt"]


def test_order_by_imports_circles_are_broken_the_same_way_each_time():
    texts = {"a.py": "import b", "b.py": "import c", "c.py": "import a\nimport d", "d.py": "", "self.py": "import self"}
    expected = ["d.py", "c.py", "b.py", "a.py", "self.py"]
    for seed in range(5):
        paths = list(texts)
        random.Random(seed).shuffle(paths)
        assert order_by_imports({path: texts[path] for path in paths}) == expected


def test_order_by_imports_long_chain_needs_no_recursion():
    texts = {f"m{number:05d}.py": f"import m{number + 1:05d}" for number in range(3_000)}
    assert order_by_imports(texts) == sorted(texts, reverse=True)


def test_order_by_imports_every_import_of_a_real_package_stands_before(test_data):
    files = [one for one in list_files(test_data / "corpora" / "github").files if "goose3" in one.relative_path]
    (by_path,), _ = read_all(files, corpus("repository"))
    (by_import,), _ = read_all(files, corpus("repository", order="dependency"))
    assert len(by_import.text) == len(by_path.text)
    places = [by_import.text.index(f"===== {path} =====") for path in (
        "README.rst", "goose3/utils/constants.py", "goose3/text.py", "goose3/parsers.py", "goose3/crawler.py",
        "goose3/__init__.py", "tests/test_article.py",
    )]  # fmt: skip
    assert places == sorted(places)
    assert by_path.text.index("===== goose3/__init__.py") < by_path.text.index("===== goose3/text.py")


def test_repository_reader_dependency_order_keeps_the_readme_first():
    files = {"r/README.md": "# R\n", "r/a.py": "import b\n", "r/b.py": "b = 1\n"}
    (document,), _ = read_all(
        [in_memory(path, data) for path, data in files.items()], corpus("repository", order="dependency")
    )
    heads = [line for line in document.text.splitlines() if line.startswith("=====")]
    assert heads == [f"===== {path} =====" for path in ("README.md", "b.py", "a.py")]
