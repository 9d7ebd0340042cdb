"""A recipe over the real sample corpora with a tiny random model: everything real but the words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.tiny_model import tiny_model

INSTRUCTIONS = (
    ("Name a colour of the sky.", "Blue, on a clear day."),
    ("What is two and two?", "Four."),
    ("Which animal barks?", "The dog barks."),
    ("How many legs has a spider?", "A spider has eight legs."),
)


def small_recipe(folder: Path, test_data: Path, model: Path | None = None) -> Path:
    """Write recipe, model, instructions and questions into `folder`; returns the recipe's path.

    Where no stage gets as far as the model, any folder does for it; it takes seconds to make one.
    """
    model = model or tiny_model(folder / "model", window=16_384)
    (folder / "instructions.jsonl").write_text(
        "".join(
            json.dumps({"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]}) + "\n"
            for ask, reply in INSTRUCTIONS
        )
    )
    _write_questions(folder, test_data)
    recipe = folder / "small.yaml"
    recipe.write_text(yaml.safe_dump(_sections(test_data, model, folder), sort_keys=False, allow_unicode=True))
    return recipe


def _write_questions(folder: Path, test_data: Path) -> None:
    shots = json.loads((test_data / "longbench_chat" / "few_shots.json").read_text())[:3]
    essays = sorted((test_data / "needle_haystack").glob("*.txt"))[:3]
    cases = [
        {
            "idx": number,
            "prompt": f"{essay.read_text(errors='replace')[:3000]}\n\nWhat is essay {number} about?",
            "query": f"What is essay {number} about?",
            "answer": f"It is about {essay.stem}.",
        }
        for number, essay in enumerate(essays, start=1)
    ]
    (folder / "cases.json").write_text(json.dumps(cases))
    (folder / "shots.json").write_text(json.dumps(shots))


def _sections(test_data: Path, model: Path, folder: Path) -> dict[str, Any]:
    corpora = test_data / "corpora"
    hosted = {"model": "any-chat-model", "max_tokens": 64, "context_tokens": 100_000}
    formats = {"books": "text", "c4": "json_lines", "github": "repository", "wikipedia": "mediawiki"}
    return {
        "name": "small",
        "corpora": [
            {"name": name, "format": kind, "location": str(corpora / name), "language": "en"}
            for name, kind in formats.items()
        ],
        "cleaning": {},
        "selection": {
            "tokenizer": str(model),
            "min_tokens": 2_000,
            "max_tokens": 8_000,
            "num_buckets": 3,
            "num_documents": 10,
            "seed": 1,
        },
        "instruct": {"generator": hosted, "seed": 1},
        "mixture": {"suite": "all", "sets": [{"name": "short", "location": str(folder / "instructions.jsonl")}]},
        "encoding": {"tokenizer": str(model), "max_tokens": 4_096},
        "batching": {"strategy": "balanced", "capacity": 4_096, "packs_per_step": 2, "epochs": 2, "seed": 1},
        "extension": {"enabled": False},
        "training": {"base_model": str(model), "precision": "fp32", "optimizer": {"learning_rate": 1e-3}, "seed": 1},
        "evaluation": {
            "candidate": {"max_tokens": 16, "context_tokens": 4_096},
            "judge": hosted,
            "suites": [
                {
                    "kind": "longbench_chat",
                    "name": "essays",
                    "questions": str(folder / "cases.json"),
                    "few_shots": str(folder / "shots.json"),
                    "judge_prompt": str(test_data / "longbench_chat" / "prompt_fs.txt"),
                    "repeats": 2,
                },
                {
                    "kind": "needle",
                    "name": "needle",
                    "haystack": str(test_data / "needle_haystack"),
                    "needle": "The password of the lighthouse keeper is marmalade.",
                    "question": "What is the password of the lighthouse keeper?",
                    "expected": "marmalade",
                    "lengths": [512, 1024],
                    "depths": [0.0, 1.0],
                },
            ],
        },
    }
