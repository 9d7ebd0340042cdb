"""A base model that does not fit the data, found before anything is started or paid for."""

from __future__ import annotations

import orjson
import pytest

from longalign_core.config.loading import load_recipe
from longalign_core.errors import InputError
from longalign_core.recipe_checks import check_inputs
from longalign_core.training.base_model import check_positions, num_positions
from longalign_core.training.vocabularies import check_same_vocabulary
from tests.small_recipe import small_recipe
from tests.tiny_model import tiny_model
from tests.tiny_training import write_model


def change_tokenizer(folder, change):
    file = folder / "tokenizer.json"
    content = orjson.loads(file.read_bytes())
    change(content)
    file.write_bytes(orjson.dumps(content))


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024}, 1024),
        ({"hidden_size": 8}, None),
        ({"text_config": {"max_position_embeddings": 8192}, "model_type": "gemma3"}, 8192),
        # Qwen2.5 with YaRN as its card says, which leaves max_position_embeddings.
        (
            {
                "max_position_embeddings": 32_768,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768},
            },
            131_072,
        ),
        # Llama 3.1, which counts them already.
        (
            {
                "max_position_embeddings": 131_072,
                "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8_192},
            },
            131_072,
        ),
    ],
)
def test_num_positions_are_those_that_the_config_states(config, positions):
    assert num_positions(config) == positions


def test_check_positions_pack_beyond_the_model_is_refused_and_one_that_fits_is_not(tmp_path):
    write_model(tmp_path)
    check_positions(tmp_path, 128)
    with pytest.raises(InputError, match=r"capacity is 129 but .* has 128 positions .*extension\.enabled"):
        check_positions(tmp_path, 129)


def test_same_vocabulary_of_another_form_is_let_through(tmp_path):
    first, second = write_model(tmp_path / "a"), write_model(tmp_path / "b")
    change_tokenizer(second, lambda content: content.update(padding=None, version="2"))
    assert (first / "tokenizer.json").read_bytes() != (second / "tokenizer.json").read_bytes()
    check_same_vocabulary(first, second)


def test_same_vocabulary_exchanged_tokens_are_named(tmp_path):
    first, second = write_model(tmp_path / "a"), write_model(tmp_path / "b")

    def exchange(content):
        words = content["model"]["vocab"]
        words["w7"], words["w9"] = words["w9"], words["w7"]

    change_tokenizer(second, exchange)
    with pytest.raises(InputError, match=r"token id 7 is 'w7' in the first and is 'w9' in the second"):
        check_same_vocabulary(first, second)


def test_same_vocabulary_token_that_the_model_lacks_is_named(tmp_path):
    first, second = write_model(tmp_path / "a"), write_model(tmp_path / "b")
    change_tokenizer(first, lambda content: content["added_tokens"].append({"id": 61, "content": "<|new|>"}))
    with pytest.raises(InputError, match=r"token id 61 is '<\|new\|>' in the first and does not exist in the second"):
        check_same_vocabulary(first, second)
    check_same_vocabulary(second, first)  # one that only the model has does no harm


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["batching.capacity=20000"], "batching.capacity is 20000 but training.base_model has 16384 positions"),
        (
            ["batching.capacity=20000", "extension.enabled=true", "extension.context_tokens=17000"],
            "has 16384 positions",
        ),
    ],
)
def test_run_with_packs_beyond_the_model_is_refused_before_anything_is_computed(tmp_path, test_data, overrides, said):
    recipe = small_recipe(tmp_path, test_data)
    with pytest.raises(InputError, match=said):
        check_inputs(load_recipe(recipe, overrides), None)
    check_inputs(load_recipe(recipe, overrides), "batches")
    check_inputs(load_recipe(recipe, ["batching.capacity=20000", "extension.enabled=true"]), None)


def test_run_with_another_models_tokenizer_is_refused_before_anything_is_computed(tmp_path, test_data):
    other = tiny_model(tmp_path / "other", window=16_384)

    def rename(content):
        content["added_tokens"][0]["content"] = "<another>"

    change_tokenizer(other, rename)
    recipe = load_recipe(small_recipe(tmp_path, test_data), [f"training.base_model={other}"])
    with pytest.raises(InputError, match="disagree: token id"):
        check_inputs(recipe, None)
