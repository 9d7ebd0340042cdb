"""Addresses of shipped recipes and products of deterministic stages stay what they were.

`LONGALIGN_UPDATE_GOLDENS=1 pytest tests/test_goldens.py` writes them anew: a changed address is said in
the changelog, a changed product demands a higher version of its stage.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from longalign_core.config import Runtime
from longalign_core.config.loading import load_recipe
from longalign_core.execution import Context, open_context
from longalign_core.pipeline import run_pipeline
from longalign_core.runner import LocalRunner, PlanRunner
from tests.fake_chat_server import FakeChatServer, generic_reply
from tests.small_recipe import small_recipe

REPOSITORY = Path(__file__).resolve().parent.parent
RECIPES = REPOSITORY / "deployments" / "recipes"
GOLDENS = Path(__file__).resolve().parent / "goldens"


class NamedSources:
    """Stands for data that is not here: a source is what its name says."""

    def fingerprint(self, source: str) -> str:
        path = Path(source)
        name = path.relative_to(REPOSITORY).as_posix() if path.is_absolute() else source
        return hashlib.sha256(name.encode()).hexdigest()


def check_golden(name: str, found: dict[str, Any]) -> None:
    path = GOLDENS / name
    if os.environ.get("LONGALIGN_UPDATE_GOLDENS"):
        path.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(path.read_text())


def test_addresses_of_shipped_recipes_stay(tmp_path: Path) -> None:
    runtime = Runtime(store=str(tmp_path / "store"), scratch=tmp_path / "scratch")
    context = Context(open_context(runtime).store, runtime, NamedSources())  # type: ignore[arg-type]
    found = {}
    for path in sorted(RECIPES.rglob("*.yaml")):
        runner = PlanRunner(context)
        run_pipeline(runner, load_recipe(path))
        found[path.stem] = [f"{one.address} {one.label}".strip() for one in runner.artifacts]
    check_golden("addresses.json", found)


def content_digest(folder: Path) -> str:
    """Digest of what a product says: tables by their rows, other files by their bytes."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            rows = orjson.dumps(pq.read_table(file).to_pylist()) if file.suffix == ".parquet" else file.read_bytes()
            digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + hashlib.sha256(rows).digest())
    return digest.hexdigest()[:16]


@pytest.mark.slow
def test_products_of_deterministic_stages_stay_while_their_version_does(tmp_path: Path, test_data: Path) -> None:
    recipe = load_recipe(small_recipe(tmp_path, test_data))
    with FakeChatServer(generic_reply) as server:
        endpoints = {"generator": server.url}
        runtime = Runtime(store=str(tmp_path / "store"), scratch=tmp_path / "scratch", endpoints=endpoints)
        context = open_context(runtime)
        runner = LocalRunner(context, until="batches")
        run_pipeline(runner, recipe)
    found = {}
    for artifact in runner.artifacts:
        manifest = context.store.require(artifact.address)
        name = f"{artifact.stage} {artifact.label}".strip()
        found[f"{name} v{manifest.version}"] = content_digest(context.store.fetch(manifest))
    check_golden("products.json", found)
