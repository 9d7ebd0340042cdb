"""What the README shows is what the program takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from longalign_core.config.loading import load_recipe

REPOSITORY = Path(__file__).resolve().parent.parent
RECIPES = REPOSITORY / "deployments" / "recipes"
SNIPPETS = [
    yaml.safe_load(one) for one in re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.S)
]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda one: "-".join(one))
def test_readme_snippet_of_a_recipe_loads_over_a_shipped_one(snippet, tmp_path):
    # Its corpora are the paper's nine, with repositories, which tasks about code are for.
    recipe = yaml.safe_load((RECIPES / "longalign_7b_64k.yaml").read_text())
    for section, values in snippet.items():
        assert section in recipe
        recipe[section] |= values
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    loaded = load_recipe(file, [])
    for section, values in snippet.items():
        written = getattr(loaded, section).model_dump()
        for key, value in values.items():
            if key != "task_types":
                assert written[key] == value
    if "task_types" in snippet.get("instruct", {}):
        wanted = [one if isinstance(one, str) else one["name"] for one in snippet["instruct"]["task_types"]]
        assert [one.name for one in loaded.instruct.tasks] == wanted


def test_readme_names_recipes_that_are_there():
    named = re.findall(r"`(deployments/recipes/[\w./-]+\.yaml)`", (REPOSITORY / "README.md").read_text())
    assert len(named) >= 3
    assert all((REPOSITORY / one).is_file() for one in named)


def test_recipe_beyond_the_paper_asks_for_every_kind_and_draws_more_documents_than_it_needs():
    recipe = load_recipe(RECIPES / "beyond_the_paper.yaml", [])
    assert {one.kind for one in recipe.instruct.tasks} == {
        "questions", "follow_ups", "code", "several_documents", "long_output",
    }  # fmt: skip
    assert recipe.instruct.num_conversations == 10_000
    assert recipe.selection.num_documents > recipe.instruct.num_conversations
    paper = load_recipe(RECIPES / "open_corpora.yaml", [])
    for section in ("cleaning", "encoding", "batching", "extension", "training", "evaluation", "mixture"):
        assert getattr(recipe, section) == getattr(paper, section)
