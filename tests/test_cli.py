"""The command line as a person meets it: help, and every mistake one sentence with its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from longalign_core.chat_client.ledger import Ledger
from longalign_core.chat_client.spending import ledger_file
from longalign_core.reference import recipe_keys
from tests.test_ledger import answer, sent
from tests.tiny_model import tiny_tokenizer

REPOSITORY = Path(__file__).resolve().parent.parent
DEMO = "deployments/recipes/demo.yaml"
PAPER = "deployments/recipes/longalign_7b_64k.yaml"


def longalign(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return subprocess.run(
        [sys.executable, "-m", "longalign_core.cli", *arguments],
        cwd=REPOSITORY,
        env={**given, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def refused(done: subprocess.CompletedProcess[str], code: int, *expected: str) -> None:
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    for part in expected:
        assert part in errors[0]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe over two small books; only its first three stages need no model."""
    folder = tmp_path_factory.mktemp("recipe")
    books = folder / "books"
    books.mkdir()
    for name in ("one", "two"):
        (books / f"{name}.txt").write_text(f"The book called {name} says little. " * 200)
    tiny_tokenizer(folder / "tokenizer")
    sections = yaml.safe_load((REPOSITORY / DEMO).read_text())
    sections["name"] = "books"
    sections["corpora"] = [{"name": "books", "format": "text", "location": "books", "licence": "CC0-1.0"}]
    sections["selection"] |= {"tokenizer": "tokenizer", "min_tokens": 100, "max_tokens": 10_000}
    sections["instruct"]["generator"] |= {"checkpoint": None}
    sections["mixture"]["sets"] = []
    sections["encoding"]["tokenizer"] = sections["training"]["base_model"] = "tokenizer"
    sections["evaluation"] = {"suites": []}
    path = folder / "books.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


@pytest.fixture
def here(tmp_path: Path) -> dict[str, str]:
    return {"LONGALIGN_STORE": str(tmp_path / "store"), "LONGALIGN_SCRATCH": str(tmp_path / "scratch")}


@pytest.mark.parametrize(
    "command",
    ["", "run", "plan", "spending", "show", "trace", "verify", "push", "batches", "keys", "gc"],
)
def test_help_teaches_every_command(command: str) -> None:
    done = longalign(*command.split(), "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout
    assert len(done.stdout.splitlines()) > 8


def test_spending_without_a_ledger_says_where_it_would_lie(here: dict[str, str]) -> None:
    done = longalign("spending", **here)
    assert done.returncode == 0, done.stderr
    assert "LONGALIGN_SCRATCH" in done.stdout
    assert json.loads(longalign("spending", "--by", "corpus", "--json", **here).stdout) == {"corpus": []}


def test_spending_by_something_unknown_names_what_is_allowed(here: dict[str, str]) -> None:
    refused(longalign("spending", "--by", "corpora", **here), 2, "'corpora'", "task_type", "did you mean 'corpus'")


def test_spending_shows_dollars_by_corpus_and_whether_the_product_is_finished(here: dict[str, str]) -> None:
    with Ledger(ledger_file(Path(here["LONGALIGN_SCRATCH"]))) as ledger:
        answer(ledger, sent(ledger, corpus="books"))
        answer(ledger, sent(ledger, corpus="arxiv"), dollars=0.25)
        sent(ledger, corpus="arxiv", product="instruct/bb")
    done = longalign("spending", "--json", **here)
    assert done.returncode == 0, done.stderr
    groups = json.loads(done.stdout)
    assert list(groups) == ["product", "task_type", "corpus", "purpose"]
    assert [(row["group"], row["dollars"], row["num_open"]) for row in groups["corpus"]] == [
        ("arxiv", 0.75, 1),
        ("books", 0.125, 0),
    ]
    assert {row["group"]: row["artifact"] for row in groups["product"]} == dict.fromkeys(
        ("instruct/aa", "instruct/bb"), "not in the store"
    )
    shown = longalign("spending", "--product", "instruct/aa", "--by", "corpus", **here).stdout
    assert "0.2500" in shown
    assert "0.7500" not in shown


def test_plan_with_a_wrong_price_file_says_so(here: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("schema: 1\ndate: 2026-01-31\nmodels: {m: {input: -1, output: 1, seen: x}}")
    done = longalign("plan", PAPER, LONGALIGN_PRICES=str(tmp_path / "prices.yaml"), **here)
    refused(done, 2, "prices.yaml", "models.m.input", "found -1")


def test_plan_of_the_paper_needs_no_gpu_key_or_corpora(here: dict[str, str]) -> None:
    done = longalign("plan", PAPER, "--json", **here)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    waits = {f"{row['stage']} {row['label']}".strip(): row["waits_for"] for row in rows}
    assert "does not exist" in waits["ingest arxiv"]
    assert waits["clean"] == "ingest arxiv"
    figures = {row["stage"]: row["figures"] for row in rows}
    assert figures["instruct"]["calls"] == 20_000
    # 20,000 calls, each 36,864 tokens of document, 150 of request and 400 of reply, at 8 and 24 dollars a million.
    assert next(row for row in rows if row["stage"] == "instruct")["dollars"] == 6114.24


def test_run_until_select_then_show_trace_and_verify(recipe: Path, here: dict[str, str]) -> None:
    done = longalign("run", str(recipe), "--until", "select", **here)
    assert done.returncode == 0, done.stderr
    address = next(word for word in done.stdout.split() if word.startswith("select/"))
    shown = json.loads(longalign("show", address, "--json", **here).stdout)
    assert shown["counts"]["documents"] == 2
    assert "sound" in longalign("verify", address, **here).stdout
    rows = json.loads(longalign("trace", "books:one.txt", "--json", **here).stdout)
    assert [row["what"] for row in rows] == ["read", "kept", "drawn"]
    assert (rows[0]["language"], rows[0]["licence"]) == ("en", "CC0-1.0")
    planned = json.loads(longalign("plan", str(recipe), "--json", **here).stdout)
    figures = {row["stage"]: row["figures"] for row in planned}
    assert figures["instruct"]["prompt_tokens"] == 2 * shown["counts"]["tokens"]  # of what was drawn, no estimate
    refused(longalign("trace", "one.txt", **here), 2, "did you mean books:one.txt")
    assert "rejects.parquet" in longalign("show", address, **here).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["run", DEMO, "--set", "selection.num_document=3"], 2, ["did you mean 'num_documents'?"]),
        (["run", "no/such.yaml"], 2, ["there is no recipe no/such.yaml"]),
        (["run", DEMO, "--until", "dream"], 2, ["no stage 'dream'", "ingest, protect, clean, select"]),
        (["run", PAPER], 2, ["does not exist", "put them there"]),
        (["run", DEMO, "--store", "s3://key:hunter2@bucket"], 2, ["carries a secret inside its URL"]),
        (["run", DEMO, "--set", "instruct.api_key=hunter2"], 2, ["put keys into the environment"]),
        (["show", "nonsense"], 2, ["is not an address"]),
        (["show", "select/0000000000000000"], 1, ["no artifact select/0000000000000000"]),
        (["trace", "books:none.txt"], 2, ["knows a document 'books:none.txt'"]),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else str(value),
)
def test_mistake_is_one_sentence(arguments: list[str], code: int, expected: list[str], here: dict[str, str]) -> None:
    done = longalign(*arguments, **here)
    refused(done, code, *expected)
    assert "hunter2" not in done.stdout + done.stderr


def test_secret_inside_an_endpoint_is_refused_and_not_repeated(recipe: Path, here: dict[str, str]) -> None:
    endpoints = '{"generator": "http://user:hunter2@127.0.0.1:9/v1"}'
    done = longalign("run", str(recipe), LONGALIGN_ENDPOINTS=endpoints, **here)
    refused(done, 2, "carries a secret inside its URL")
    assert "hunter2" not in done.stdout + done.stderr


def test_file_of_a_later_stage_is_missed_before_any_work(recipe: Path, here: dict[str, str]) -> None:
    done = longalign("run", str(recipe), "--set", "training.base_model=nowhere", **here)
    refused(done, 2, "training.base_model names", "nowhere, which does not exist")
    assert not list(Path(here["LONGALIGN_STORE"]).glob("ingest/*"))


def test_provider_without_a_key_is_missed_before_any_work(recipe: Path, here: dict[str, str]) -> None:
    endpoints = json.dumps({"generator": "anthropic", "judge": "http://127.0.0.1:9/v1"})
    without_keys = {"LONGALIGN_GENERATOR_API_KEY": "", "ANTHROPIC_API_KEY": ""}
    done = longalign("run", str(recipe), LONGALIGN_ENDPOINTS=endpoints, **without_keys, **here)
    refused(done, 2, "there is no key for the generator at anthropic", "ANTHROPIC_API_KEY")
    assert not list(Path(here["LONGALIGN_STORE"]).glob("ingest/*"))


def test_model_without_endpoint_or_checkpoint_is_missed_before_any_work(recipe: Path, here: dict[str, str]) -> None:
    refused(longalign("run", str(recipe), **here), 2, "the generator has neither an endpoint nor a checkpoint")
    assert not list(Path(here["LONGALIGN_STORE"]).glob("ingest/*"))
    assert longalign("run", str(recipe), "--until", "select", **here).returncode == 0


def test_until_a_stage_the_recipe_does_not_have_is_refused(recipe: Path, here: dict[str, str]) -> None:
    refused(longalign("run", str(recipe), "--until", "extend", **here), 2, "set extension.enabled=true")
    refused(longalign("run", str(recipe), "--until", "selct", **here), 2, "did you mean 'select'?")


def test_scratch_that_cannot_be_used_is_one_sentence(recipe: Path, here: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    here["LONGALIGN_SCRATCH"] = str(tmp_path / "a file" / "scratch")
    refused(longalign("plan", str(recipe), **here), 1, "cannot use the scratch folder", "LONGALIGN_SCRATCH")


def test_prefect_server_that_is_not_there_is_one_sentence(recipe: Path, here: dict[str, str]) -> None:
    done = longalign("run", str(recipe), "--until", "clean", PREFECT_API_URL="http://127.0.0.1:9/api", **here)
    refused(done, 1, "no Prefect server answers at PREFECT_API_URL, host 127.0.0.1:9", "make serve")


def test_keys_explains_every_key_of_a_section_and_every_variable() -> None:
    shown = longalign("keys", "evaluation").stdout
    for key in ("evaluation.gate", "evaluation.judge.model", "evaluation.suites[](needle).depths"):
        assert key in shown
    assert "LONGALIGN_STORE" in longalign("keys", "--runtime").stdout
    assert "[email]" in longalign("keys", "corpora").stdout, "square brackets are text, not markup"
    corpora = {key: meaning for key, _, meaning in recipe_keys("corpora")}
    assert "arxiv, books, clue" in corpora["corpora[].format"]
    assert corpora["corpora[].scrub"].endswith("Allowed: email, ip_address, phone.")
    assert not [key for key, _, meaning in recipe_keys(None) if not meaning and not key.endswith((".kind", ".format"))]
    refused(longalign("keys", "dreams"), 2, "no section 'dreams'; allowed: name, description, corpora")


def test_gc_lists_then_deletes_what_no_manifest_names(recipe: Path, here: dict[str, str]) -> None:
    longalign("run", str(recipe), "--until", "clean", **here)
    left = Path(here["LONGALIGN_STORE"]) / "select" / "0123456789abcdef" / "attempt"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    assert "select/0123456789abcdef/attempt" in longalign("gc", "--dry-run", **here).stdout
    assert left.exists()
    assert "1 left-overs deleted" in longalign("gc", **here).stdout
    assert not left.exists()


def test_unreachable_endpoint_keeps_what_was_done(recipe: Path, here: dict[str, str]) -> None:
    endpoints = '{"generator": "http://127.0.0.1:9/v1"}'
    refused(longalign("run", str(recipe), LONGALIGN_ENDPOINTS=endpoints, **here), 1, "127.0.0.1:9")
    rows = json.loads(longalign("plan", str(recipe), "--json", **here).stdout)
    assert [row["stage"] for row in rows if row["done"]] == ["ingest", "clean", "select"]


def test_store_that_cannot_be_written_is_said_before_any_work(
    recipe: Path, here: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "a file").write_text("")
    store = str(tmp_path / "a file" / "store")
    done = longalign("run", str(recipe), "--until", "clean", "--store", store, **here)
    refused(done, 1, "cannot write to the store")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: path.write_text("{"), "is not JSON"),
        (lambda path: path.write_text('{"schema": 99}'), "schema 99"),
        (lambda path: next(path.parent.glob("*/kept.parquet")).unlink(), "is gone"),
    ],
    ids=["corrupt", "newer schema", "file gone"],
)
def test_damaged_artifact_stops_the_run(damage, expected: str, recipe: Path, here: dict[str, str]) -> None:
    assert longalign("run", str(recipe), "--until", "clean", **here).returncode == 0
    (manifest,) = Path(here["LONGALIGN_STORE"]).glob("clean/*/manifest.json")
    damage(manifest)
    refused(longalign("run", str(recipe), "--until", "select", **here), 1, expected)


def test_batches_simulates_one_strategy_on_given_lengths(tmp_path: Path) -> None:
    np.save(tmp_path / "lengths.npy", np.array([50, 50, 100, 25, 75, 100], dtype=np.int32))
    options = ["--capacity", "100", "--packs-per-step", "2", "--ranks", "2", "--json"]
    (row,) = json.loads(longalign("batches", str(tmp_path / "lengths.npy"), "--strategy", "bfd", *options).stdout)
    assert {"strategy", "packs", "utilisation", "idle", "ess", "steps", "sequences_per_step"} <= set(row)
    assert (row["packs"], row["utilisation"], row["steps"]) == (4, 1.0, 2)
    refused(longalign("batches", str(tmp_path / "none.npy"), *options), 2, "none.npy")


def test_batches_shows_all_strategies_and_draws_them(tmp_path: Path) -> None:
    (tmp_path / "lengths.txt").write_text("50\n50\n100\n25\n75\n100\n")
    options = ["--capacity", "100", "--packs-per-step", "2", "--ranks", "2", "--tflops", "100", "--epochs", "2"]
    done = longalign("batches", str(tmp_path / "lengths.txt"), *options, "--picture", str(tmp_path / "p.html"))
    assert done.returncode == 0, done.stderr
    tables, _, notes = done.stdout.partition("long tokens: ")
    for name in ("naive", "sorted", "longalign", "bfd", "balanced"):
        rows = [line.rstrip() for line in tables.splitlines() if line.split()[:1] == [name]]
        assert len(rows) == 3, "one in each table"
        assert max(map(len, rows)) <= 100
    assert "naive and sorted: one sequence a slot, so a step is 4 slots" in notes
    assert "2 epochs on 2 GPUs of 100 TFLOP/s" in notes
    assert f"picture: {tmp_path / 'p.html'}" in notes
    assert (tmp_path / "p.html").read_text().count("<svg") == 2


@pytest.mark.parametrize(
    ("lengths", "options", "expected"),
    [
        ("5\n0\n", [], "sequence 1 of lengths.txt"),
        ("5\n7\n101\n", [], "sequence 2 of lengths.txt, counted from 0, has 101 tokens"),
        ("5\nx\n", [], "line 2 of"),
        ("5\n", ["--packs-per-step", "0"], "--packs-per-step is 0"),
        ("5\n", ["--alike", "3"], "--alike 3 does not divide --packs-per-step 4"),
        ("5\n", ["--ranks", "3"], "--ranks 3 does not divide --packs-per-step 4"),
        ("5\n", ["--capacity", "-1"], "--capacity is -1"),
        ("5\n", ["--tflops", "-1"], "--tflops is -1"),
        ("5\n", ["--picture", "p.gif"], "p.gif is none of .png, .svg, .html"),
    ],
)
def test_batches_wrong_input_is_one_sentence(tmp_path: Path, lengths: str, options: list[str], expected: str) -> None:
    (tmp_path / "lengths.txt").write_text(lengths)
    given = ["--capacity", "100", "--packs-per-step", "4", "--ranks", "2", *options]
    refused(longalign("batches", str(tmp_path / "lengths.txt"), *given), 2, expected)
