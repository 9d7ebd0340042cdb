"""Which files of a source tree are its text, and why the others are left out."""

# ruff: noqa: SIM905 (lists of words read better as words)
from __future__ import annotations

import re
from pathlib import PurePosixPath

MAX_FILE_BYTES = 1 << 20
"""Larger files of a source tree are data or generated."""

_MAX_FOLDERS = 64
_VENDORED = frozenset(
    "node_modules bower_components vendor vendors third_party third-party thirdparty site-packages "
    "_vendor venv virtualenv Pods Carthage".split()
)
_GENERATED_FOLDERS = frozenset("__pycache__ build dist htmlcov".split())
_GENERATED_SUFFIXES = (
    ".egg-info", ".dist-info", "_pb2.py", "_pb2_grpc.py", ".pb.go", ".pb.cc", ".pb.h", ".g.dart",
    ".designer.cs", ".map",
)  # fmt: skip
_LOCKS = frozenset(
    "package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lockb composer.lock Gemfile.lock "
    "Cargo.lock poetry.lock Pipfile.lock pdm.lock uv.lock go.sum flake.lock mix.lock pubspec.lock".split()
)
_BINARY_SUFFIXES = frozenset(
    ".png .jpg .jpeg .gif .bmp .ico .webp .tif .tiff .pdf .zip .gz .tgz .bz2 .xz .7z .rar .tar .whl .jar .class .o "
    ".a .so .dylib .dll .exe .pyc .pyd .wasm .woff .woff2 .ttf .otf .eot .mp3 .mp4 .wav .ogg .avi .mov .npy .npz "
    ".pkl .parquet .sqlite .db .bin .pt .onnx .gguf .safetensors".split()
)
_MINIFIED_SUFFIXES = (".min.js", ".min.css", ".min.mjs", "-min.js")
_MAYBE_MINIFIED = frozenset(".js .mjs .cjs .css .svg .json .html".split())
_MINIFIED_LINE = 500
_GENERATED_HEAD = re.compile(
    r"@generated|\bgenerated\b.*\bdo not (?:edit|modify)\b|\bdo not (?:edit|modify)\b.*\bgenerated\b", re.I | re.S
)
_GENERATED_HEAD_CHARACTERS = 600


def unwanted_by_name(path: str, size: int) -> str | None:
    """Why a file is left out whatever it holds; None when its content decides."""
    *folders, name = path.split("/")
    if len(folders) > _MAX_FOLDERS:
        return "too many folders"
    if any(folder in _VENDORED for folder in folders):
        return "vendored"
    if any(folder in _GENERATED_FOLDERS or folder.endswith(_GENERATED_SUFFIXES) for folder in folders):
        return "generated"
    if any(part.startswith(".") for part in (*folders, name)):
        return "hidden"
    if name in _LOCKS:
        return "lock file"
    if name.endswith(_MINIFIED_SUFFIXES):
        return "minified"
    if name.endswith(_GENERATED_SUFFIXES):
        return "generated"
    if PurePosixPath(name).suffix.lower() in _BINARY_SUFFIXES:
        return "binary"
    if size > MAX_FILE_BYTES:
        return "oversized"
    return None


def unwanted_by_content(path: str, text: str | None) -> str | None:
    """Why a file is left out for what it holds; None when it belongs to the document.

    Args:
        path: Below the repository.
        text: As decoded; None when it is binary.
    """
    if text is None:
        return "binary"
    if not text.strip():
        return "empty"
    if text.startswith("version https://git-lfs.github.com/spec/"):  # stands for a file kept elsewhere
        return "binary"
    if PurePosixPath(path).suffix.lower() in _MAYBE_MINIFIED and len(text) > _MINIFIED_LINE * (1 + text.count("\n")):
        return "minified"
    if path.split("/")[-1] == "PKG-INFO":  # the README again, under a head made by the build tool
        return "generated"
    if _GENERATED_HEAD.search(text[:_GENERATED_HEAD_CHARACTERS]):
        return "generated"
    return None
