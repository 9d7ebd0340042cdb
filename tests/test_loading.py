"""Recipe files, overrides and runtime settings: what is accepted, and what a mistake is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from longalign_core.config.loading import load_recipe, load_runtime
from longalign_core.config.runtime import split_endpoint
from longalign_core.errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent
DEMO = REPOSITORY / "deployments" / "recipes" / "demo.yaml"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "deployments" / "recipes").rglob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipe_loads(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_relative_sources_start_at_the_recipe_and_hub_ids_stay() -> None:
    recipe = load_recipe(DEMO, ["training.base_model=hub:org/name"])
    assert recipe.corpora[0].location == str(REPOSITORY / ".longalign" / "demo" / "corpora" / "python_reference")
    assert recipe.instruct.generator.checkpoint == str(REPOSITORY / ".longalign" / "demo" / "smollm2-135m-instruct")
    assert recipe.training.base_model == "hub:org/name"


def test_overrides_reach_sections_lists_and_names() -> None:
    recipe = load_recipe(
        DEMO,
        [
            "training.optimizer.learning_rate=1e-5",
            "corpora.readmes.language=zh",
            "corpora.0.max_documents=3",
            "evaluation.suites.needle.lengths=[64, 128]",
        ],
    )
    assert recipe.training.optimizer.learning_rate == 1e-5
    assert recipe.corpora[1].language == "zh"
    assert recipe.corpora[0].max_documents == 3
    assert recipe.evaluation.suites[1].lengths == (64, 128)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.learning_rte=1", "training.learning_rte is not a key; allowed here: "),
        ("training.optimizer.learning_rte=1", "did you mean 'learning_rate'?"),
        ("corpora.readmes.languag=en", "did you mean 'language'?"),
        ("evaluation.suites.needle.length=[1]", "did you mean 'lengths'?"),
        ("corpora.nothing.language=en", r"no item 'nothing'; allowed: \['python_reference', 'readmes', 'packages'\]"),
        ("batching.alike=3", "alike 3 does not divide packs_per_step 2"),
        ("selection.min_tokens=9999", "min_tokens 9999 is above max_tokens 1500"),
        ("encoding.max_tokens=4096", "encoding.max_tokens 4096 is above batching.capacity 2048"),
        ("training.precision=fp8", "training.precision: Input should be 'bf16' or 'fp32'"),
        ("evaluation.suites.needle.depths=[2]", "are not between 0 and 1"),
        ("corpora.readmes.format=json_line", r"corpora.1.format 'json_line' is not known; .*'json_lines'\?$"),
        ("corpora.readmes.languages=[english]", r"'english' is no language code; write .* en or zh$"),
        ("corpora.readmes.language=English", "'English' is no language code"),
        ("corpora.readmes.quality=gopher", r"quality takes a list; found 'gopher', write \[gopher\]$"),
        (
            "instruct.task_types={general: 1}",
            "instruct.task_types takes a list; found a section, write one entry a line",
        ),
        ("instruct.task_types=[]", "instruct.task_types takes a list of at least 1; found 0"),
        ("instruct.task_types=[{kind: follow, name: f}]", "or a section with kind: .*; found kind 'follow'$"),
        ("instruct.task_types=[{kind: follow_ups}]", "name is missing; add it .*`longalign keys instruct` explains"),
        ("corpora.readmes.location=hub:datasets/org/name", "text reads files; use format: hub$"),
        ("nonsense", "is not section.key=value"),
    ],
)
def test_mistake_in_an_override_is_one_sentence(override: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        load_recipe(DEMO, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "instruct.api_key=abc123456789",
        "instruct.generator.model=sk-abcdefghijklmnop",
        "training.base_model=hf_abcdefghijklmnop",
    ],
)
def test_secret_in_an_override_is_refused_and_not_repeated(override: str) -> None:
    with pytest.raises(InputError, match="environment") as caught:
        load_recipe(DEMO, [override])
    assert override.partition("=")[2] not in str(caught.value)


def test_mistake_in_the_only_corpus_does_not_ask_for_another(tmp_path: Path) -> None:
    corpus = "  - {name: old, format: hub, location: 'hub:datasets/the_pile_books3'}\n"
    text = DEMO.read_text()
    head, tail = text[: text.index("  - name: python_reference")], text[text.index("cleaning:") :]
    (tmp_path / "recipe.yaml").write_text(head + corpus + tail)
    with pytest.raises(InputError, match=r"names Books3, which is not obtainable.*format: books$"):
        load_recipe(tmp_path / "recipe.yaml")


def test_secret_in_a_recipe_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "leaky.yaml"
    path.write_text(DEMO.read_text().replace("description: Ten", "description: sk-abcdefghijklmnop Ten"))
    with pytest.raises(InputError, match="at description") as caught:
        load_recipe(path)
    assert "abcdefghijklmnop" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "is not YAML"),
        ("name: one\nname: two\n", "the key 'name' is given twice"),
        ("just words", "holds no recipe sections"),
        ("name: x\n", "corpora is missing"),
    ],
)
def test_file_that_is_no_recipe_is_one_sentence(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=expected):
        load_recipe(path)


def test_missing_recipe_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="deployments/recipes"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "settings",
    [
        {"endpoints": {"judge": "https://user:hunter2@host/v1"}},
        {"endpoints": {"judge": "https://host/v1?api_key=hunter2"}},
        {"store": "s3://hunter2:hunter2@bucket/prefix"},
        {"endpoints": {"judge": "https://host/v1#token=hunter2"}},
        {"endpoints": {"judge": "https://host/sk-hunter2hunter2/v1"}},
        {"endpoints": {"judge": "anthropic+https://user:hunter2@host"}},
        {"endpoints": {"judge": "anthropic+https://host/?key=hunter2"}},
    ],
)
def test_secret_inside_a_url_is_refused_and_not_repeated(settings: dict[str, object]) -> None:
    with pytest.raises(InputError, match="carries a secret inside its URL") as caught:
        load_runtime(**settings)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "host/v1",
        "ftp://host/v1",
        "http://host:abc/v1",
        "http://host:99999/v1",
        "http:///v1",
        "",
        "OpenAI",
        "claude",
        "anthropic+",
        "anthropic+host",
        "anthropic+ftp://host",
        "claude+https://host",
        "openai https://host/v1",
    ],
)
def test_endpoint_that_is_neither_a_provider_nor_a_url_is_one_sentence(url: str) -> None:
    with pytest.raises(
        InputError, match=r"neither a provider \(openai, openai-responses, anthropic\) nor an"
    ) as caught:
        load_runtime(endpoints={"judge": url})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "api", "url"),
    [
        ("openai", "openai", None),
        ("openai-responses", "openai-responses", None),
        ("anthropic", "anthropic", None),
        ("http://127.0.0.1:8000/v1", "compatible", "http://127.0.0.1:8000/v1"),
        ("anthropic+https://gateway.example", "anthropic", "https://gateway.example"),
        ("openai+https://gateway.example/v1/", "openai", "https://gateway.example/v1/"),
        ("https://gateway.example/a+b/v1", "compatible", "https://gateway.example/a+b/v1"),
    ],
)
def test_endpoint_names_an_interface_and_where_it_is(setting: str, api: str, url: str | None) -> None:
    assert split_endpoint(load_runtime(endpoints={"judge": setting}).endpoints["judge"], "judge") == (api, url)


def test_endpoint_of_an_unknown_role_names_the_roles() -> None:
    with pytest.raises(InputError, match="no role 'generater'; endpoints are given for generator, judge, candidate"):
        load_runtime(endpoints={"generater": "http://127.0.0.1/v1"})


def test_runtime_from_the_environment_and_bad_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGALIGN_ENDPOINTS", '{"judge": "http://127.0.0.1:1/v1"}')
    monkeypatch.setenv("LONGALIGN_RANKS", "4")
    runtime = load_runtime(store="elsewhere")
    assert (runtime.endpoints["judge"], runtime.ranks, runtime.store) == ("http://127.0.0.1:1/v1", 4, "elsewhere")
    monkeypatch.setenv("LONGALIGN_ENDPOINTS", "http://127.0.0.1")
    with pytest.raises(InputError, match="LONGALIGN_ENDPOINTS is JSON"):
        load_runtime()
