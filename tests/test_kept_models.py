"""Models of a training as they come into the store: what they say of themselves, and that nothing is lost."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from huggingface_hub import ModelCard as HubCard

from longalign_core.batch_plan import BatchPlan
from longalign_core.errors import InputError, StoreError
from longalign_core.execution import ancestors
from longalign_core.hub_push import PushOptions, prepare_push
from longalign_core.inspection import verify_artifact
from longalign_core.stage import Artifact
from longalign_core.stages.kept_models import KeptModels
from longalign_core.stages.training import checkpoint
from longalign_core.training.job import TrainingJob
from longalign_core.training.kept_steps import kept_steps
from tests.kept_setup import KilledTraining
from tests.tiny_training import training_config, write_plan, write_tokens


def published(training):
    folder = training.context.store.fetch(training.publish())
    return json.loads((folder / "checkpoints.json").read_bytes())


def test_published_models_name_what_they_are_made_from_and_carry_a_card(store_url, tmp_path):
    training = KilledTraining(store_url, tmp_path, keep_steps=(1,))
    last, store = training.num_steps, training.context.store
    training.leave_model(1)
    training.leave_model(last)
    listed = published(training)
    assert [(one["step"], one["after"]) for one in listed] == [(1, 1), ("final", last)]
    first, final = (store.require(one["address"]) for one in listed)
    assert first.inputs == final.inputs == {"train": [training.address]}
    assert first.counts == {"step": 1, "not redistributable": "ours"}
    lineage = [one.address for one in ancestors(store, [final.address])]
    assert lineage[:2] == [final.address, training.address] and training.mixture in lineage
    assert any(training.mixture in line for line in verify_artifact(training.context, final.address))

    folder = store.fetch(final)
    card = HubCard.load(folder / "README.md")
    assert card.data.license == "apache-2.0" and card.data.library_name == "transformers"
    assert sorted(card.data.language) == ["en", "zh"]
    for part in (training.address, training.plan, training.tokens, training.mixture, "normaliser `step`"):
        assert part in card.text
    assert "| chat | en | MIT | 5 | not stated |" in card.text
    assert "| ours | zh | not stated | 3 | no |" in card.text
    assert f"{last:,} of {last:,}" in card.text and "learning rate 0.01" in card.text
    for secret in (str(tmp_path), "somebody", os.uname().nodename):
        assert secret not in card.content
    licences = json.loads((folder / "licences.json").read_bytes())
    assert [(one["source"], one["redistributable"]) for one in licences] == [("chat", None), ("ours", False)]
    generation = json.loads((folder / "generation_config.json").read_bytes())
    tokens = store.fetch(store.require(training.tokens))
    assert (folder / "chat_template.jinja").read_bytes() == (tokens / "chat_template.jinja").read_bytes()
    assert generation["eos_token_id"] == 2, "the tiny tokenizer's <|im_end|>"


def test_card_goes_to_the_hub_with_the_licence_that_is_asked_for(tmp_path):
    training = KilledTraining(str(tmp_path / "store"), tmp_path)
    training.leave_model(training.num_steps)
    (one,) = published(training)
    stated = prepare_push(training.context, one["address"], "team/model", PushOptions())
    assert HubCard.load(dict(stated.files)["README.md"]).data.license == "apache-2.0"
    other = prepare_push(training.context, one["address"], "team/model", PushOptions(licence="cc-by-4.0"))
    card = HubCard.load(dict(other.files)["README.md"])
    assert card.data.license == "cc-by-4.0" and "## Training data" in card.text
    assert [one.source for one in other.licences] == ["chat", "ours"]


def test_store_that_refuses_stops_the_run_and_the_models_wait_for_the_next(tmp_path):
    training = KilledTraining(str(tmp_path / "store"), tmp_path, keep_steps=(1, 2))
    for step in (1, 2, training.num_steps):
        training.leave_model(step)
    before = training.models()
    (tmp_path / "store" / "checkpoint").write_text("a file where a folder should be")
    with pytest.raises(StoreError):
        training.publish()
    assert training.models() == before and training.context.store.find(training.address) is None
    (tmp_path / "store" / "checkpoint").unlink()
    assert [one["step"] for one in published(training)] == [1, 2, "final"]


class SlowStore:
    """Takes a model when it is allowed to."""

    def __init__(self):
        self.may_go_on = threading.Event()
        self.labels = []

    def publish(self, stage, config, label, folder, counts):
        assert self.may_go_on.wait(30)
        if label == "3":
            raise StoreError("full")
        self.labels.append(label)
        return Artifact(stage=stage.name, key="0" * 16, label=label, done=True)


def kept(folder, publisher):
    job = TrainingJob(
        plan=folder, tokens=folder, base_model=folder, out_dir=folder, config=training_config(folder),
        keep_steps=(1, 2, 3, 4), checkpoint_interval=1, gradient_checkpointing=False, deepspeed={},
    )  # fmt: skip
    for step in job.keep_steps:
        job.model_folder(step).mkdir(parents=True)
    return KeptModels(
        job, checkpoint, steps=(1, 2, 3), num_steps=4, finish=lambda folder, step: {"step": step}, publisher=publisher
    )


def test_handing_a_model_in_waits_for_no_upload_and_the_end_waits_for_all(tmp_path):
    store = SlowStore()
    models = kept(tmp_path, store)
    with pytest.raises(StoreError, match="full"), models:  # it hands in the four that lie there
        models.check()
        assert store.labels == [], "none is uploaded yet, and nobody waited"
        store.may_go_on.set()
    assert store.labels == ["1", "2"], "in order, and none past the one that failed"
    assert [path.name for path in sorted(tmp_path.glob(".models/*"))] == ["step-000003", "step-000004"]
    assert [one["step"] for one in json.loads((tmp_path / ".published.json").read_bytes())] == [1, 2]
    assert kept(tmp_path / "other", store).missing == ()


@pytest.fixture
def plan(tmp_path: Path) -> BatchPlan:
    """Two epochs of three steps each."""
    store = write_tokens(tmp_path / "tokens", (7, 12, 30, 5, 9, 3))
    return write_plan(tmp_path / "plan", store, ((0,), (1,), (2,), (3,), (4,), (5,)), packs_per_step=2, epochs=2)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ()),
        ({"keep_steps": (5, 2)}, (2, 5)),
        ({"keep_every_steps": 2}, (2, 4, 6)),
        ({"keep_every_steps": 7}, ()),
        ({"keep_every_epochs": 1}, (3, 6)),
        ({"keep_every_epochs": 0.5}, (2, 3, 5, 6)),
        ({"keep_every_epochs": 1 / 3}, (1, 2, 3, 4, 5, 6)),
        ({"keep_every_epochs": 1.5}, (5,)),
        ({"keep_every_epochs": 3}, ()),
        ({"keep_steps": (1,), "keep_every_epochs": 1}, (1, 3, 6)),
    ],
)
def test_kept_steps_are_the_named_ones_and_those_of_the_intervals(plan, asked, expected):
    assert kept_steps(training_config(Path("base"), **asked), plan) == expected


def test_kept_steps_beyond_the_plan_are_refused(plan):
    with pytest.raises(InputError, match=r"names \[7\] but the batch plan has 6 steps"):
        kept_steps(training_config(Path("base"), keep_steps=(2, 7)), plan)
