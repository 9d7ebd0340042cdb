import json
from pathlib import Path

import pytest

from longalign_core.config import Runtime
from longalign_core.config.cleaning import CleaningConfig, ProtectedSource, ProtectionConfig
from longalign_core.config.loading import load_recipe
from longalign_core.config.recipe import Recipe
from longalign_core.corpora.comparing.contamination import read_protected
from longalign_core.errors import DataError, InputError
from longalign_core.execution import open_context
from longalign_core.pipeline import run_pipeline
from longalign_core.recipe_checks import check_inputs
from longalign_core.record_files import read_records
from longalign_core.records import Reject
from longalign_core.runner import LocalRunner, PlanRunner
from longalign_core.stages.protect import protect
from tests.small_recipe import small_recipe

RUNTIME = Runtime()
LONG_QUESTION = "How would you explain to a patient friend what the third essay says about writing code at night?"


def protected(tmp_path: Path, *sources: ProtectedSource) -> dict[str, tuple[str, int]]:
    protect.function(ProtectionConfig(words=13, sources=sources), {}, tmp_path, RUNTIME)
    return {one.id: (one.kind, len(one.runs)) for one in read_protected(tmp_path / "protected.parquet")}


def texts(location: Path, **fields) -> ProtectedSource:
    return ProtectedSource(**{"name": "own", "form": "texts", "location": str(location), **fields})


def test_protect_questions_references_and_documents_of_a_suite(tmp_path):
    document = " ".join(f"word{number}" for number in range(500))
    cases = [{"idx": 1, "prompt": f"{document}\n\n{LONG_QUESTION}", "query": LONG_QUESTION, "answer": "Too short."}]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    found = protected(tmp_path, texts(tmp_path / "cases.json", name="chat", form="questions"))
    assert found == {"chat:question 1": ("short", 6), "chat:document 1": ("long", 488)}


def test_protect_haystack_and_its_needle(tmp_path):
    (tmp_path / "essays").mkdir()
    (tmp_path / "essays/a.txt").write_text(
        "An essay, short as it is, counts as a document for all that, being a hay straw."
    )
    (tmp_path / "essays/.hidden.txt").write_text(LONG_QUESTION)
    needle = "The password of the lighthouse keeper is marmalade."
    source = texts(tmp_path / "essays", name="needle", form="haystack", phrases=(needle, "What is it?"))
    assert protected(tmp_path, source) == {"needle:a.txt": ("long", 5), "needle:phrase 1": ("short", 1)}


def test_protect_listed_files_of_each_form(tmp_path, test_data):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text(LONG_QUESTION)
    (folder / "b.json").write_text(json.dumps([{"turns": ["tiny", LONG_QUESTION]}, {"deep": {"er": LONG_QUESTION}}]))
    (folder / "c.jsonl").write_text(json.dumps({"q": LONG_QUESTION}) + "\n\n" + json.dumps([LONG_QUESTION]) + "\n")
    (folder / "d.pdf").write_bytes(b"x")
    assert sorted(protected(tmp_path, texts(folder))) == [
        "own:a.txt", "own:b.json#2", "own:b.json#3", "own:c.jsonl#1", "own:c.jsonl#2",
    ]  # fmt: skip
    real = protected(tmp_path, texts(test_data / "mt_bench"))
    assert len(real) > 150
    assert {kind for kind, _ in real.values()} >= {"short"}


def test_protect_source_without_texts_or_not_json_raises_one_sentence(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"x")
    with pytest.raises(DataError, match="own holds no text to protect"):
        protected(tmp_path / "out", texts(tmp_path / "a.pdf"))
    (tmp_path / "b.jsonl").write_text('{"a": 1}\n{"b"')
    with pytest.raises(DataError, match=r"b\.jsonl, line 2, is not JSON"):
        protected(tmp_path / "out", texts(tmp_path / "b.jsonl"))


def recipe_with(tmp_path: Path, test_data: Path, *overrides: str) -> Recipe:
    path = tmp_path / "small.yaml"
    return load_recipe(path if path.exists() else small_recipe(tmp_path, test_data, tmp_path / "no-model"), overrides)


def plan(tmp_path: Path, recipe: Recipe) -> dict[str, str]:
    context = open_context(Runtime(store=str(tmp_path / "store"), scratch=tmp_path / "scratch"))
    runner = PlanRunner(context, until="clean")
    run_pipeline(runner, recipe)
    return {one.stage: one.address if one.key else "unknown" for one in runner.artifacts}


def test_pipeline_protects_only_where_decontamination_is_on(tmp_path, test_data):
    off = plan(tmp_path, recipe_with(tmp_path, test_data))
    assert "protect" not in off
    assert off == plan(tmp_path, recipe_with(tmp_path, test_data, "cleaning.decontamination_share=0.1"))
    on = plan(tmp_path, recipe_with(tmp_path, test_data, "cleaning.decontamination_words=13"))
    other_words = plan(tmp_path, recipe_with(tmp_path, test_data, "cleaning.decontamination_words=12"))
    assert len({off["clean"], on["clean"], other_words["clean"]}) == 3
    assert on["protect"] != other_words["protect"]


def test_pipeline_judge_and_candidate_do_not_enter_the_protected_texts(tmp_path, test_data):
    on = "cleaning.decontamination_words=13"
    one = recipe_with(tmp_path, test_data, on)
    other = recipe_with(tmp_path, test_data, on, "evaluation.judge.model=other", "evaluation.candidate.max_tokens=17")
    assert plan(tmp_path, one)["protect"] == plan(tmp_path, other)["protect"]


def test_pipeline_contaminated_document_is_left_out(tmp_path, test_data):
    corpus = tmp_path / "texts"
    corpus.mkdir()
    essay = sorted((test_data / "needle_haystack").glob("*.txt"))[4].read_text()
    (corpus / "essay.txt").write_text(essay[2_000:])
    (corpus / "own.txt").write_text("An own text of " + " ".join(f"word{number}" for number in range(500)))
    location = f'corpora=[{{"name": "web", "format": "text", "location": "{corpus}", "language": "en"}}]'
    recipe = recipe_with(tmp_path, test_data, "cleaning.decontamination_words=13", location)
    context = open_context(Runtime(store=str(tmp_path / "store"), scratch=tmp_path / "scratch"))
    check_inputs(recipe, "clean")
    runner = LocalRunner(context, until="clean")
    run_pipeline(runner, recipe)
    assert [one.stage for one in runner.artifacts] == ["ingest", "protect", "clean"]
    manifest = context.store.require(runner.artifacts[-1].address)
    (reject,) = read_records(context.store.fetch(manifest) / "rejects.parquet", Reject)
    assert (reject.id, reject.reason) == ("web:essay.txt", "contaminated")
    assert "needle:" in reject.detail
    assert manifest.counts["kept"] == 1


def test_check_inputs_evaluation_that_is_not_there_says_why_it_is_needed(tmp_path, test_data):
    recipe = recipe_with(tmp_path, test_data, "cleaning.decontamination_words=13")
    (tmp_path / "cases.json").unlink()
    for until in ("clean", "protect"):
        with pytest.raises(InputError, match="needs the evaluation's texts when the dataset is made"):
            check_inputs(recipe, until)
    check_inputs(recipe, "ingest")
    check_inputs(recipe.model_copy(update={"cleaning": CleaningConfig()}), "clean")


def test_check_inputs_until_protect_without_decontamination_is_refused(tmp_path, test_data):
    with pytest.raises(InputError, match="--until protect"):
        check_inputs(recipe_with(tmp_path, test_data), "protect")


def test_recipe_protected_texts_without_decontamination_are_refused(tmp_path, test_data):
    with pytest.raises(InputError, match="decontamination_words is null"):
        recipe_with(tmp_path, test_data, 'cleaning.protected=[{"name": "a", "location": "a.txt"}]')
    with pytest.raises(InputError, match="names a text to protect"):
        recipe_with(tmp_path, test_data, "cleaning.decontamination_words=13", "evaluation.suites=[]")
