"""A training that was killed after its last step: its models are written and wait to be published."""

from __future__ import annotations

import shutil

from longalign_core.config.batching import BatchingConfig, EncodingConfig
from longalign_core.config.mixture import MixtureConfig
from longalign_core.config.runtime import Runtime
from longalign_core.execution import address_of, execute, open_context
from longalign_core.stages.batching import batches
from longalign_core.stages.encoding import encode
from longalign_core.stages.mixture import mixture
from longalign_core.stages.training import train
from longalign_core.training.job import EVENTS_FILE, MODELS_FOLDER, EventWriter
from tests.measuring_run import made_up_steps
from tests.mixture_setup import Room, chat
from tests.tiny_model import tiny_model
from tests.tiny_training import training_config

BASE_CARD = "---\nlicense: apache-2.0\nlanguage: [en]\n---\n# Base\n"


class KilledTraining:
    """Its inputs are in the store; `publish` goes on with it.

    Args:
        store: URL of the store.
        folder: For scratch files and inputs.
        config: Changes of the training's section.
    """

    def __init__(self, store, folder, **config):
        self.context = open_context(Runtime(store=store, scratch=folder / "scratch", gpus=0, ranks=1))
        base = tiny_model(folder / "somebody" / "base")
        (base / "README.md").write_text(BASE_CARD)
        room = Room(folder)
        sets = (
            room.set_of([chat(number) for number in range(5)], name="chat", licence="MIT"),
            room.set_of([chat(number) for number in range(5, 8)], name="ours", redistributable=False, language="zh"),
        )
        self.mixture = self._made(mixture, MixtureConfig(suite="0k", sets=sets))
        self.tokens = self._made(
            encode, EncodingConfig(tokenizer=str(base), max_tokens=64), conversations=[self.mixture]
        )
        batching = BatchingConfig(strategy="longalign", capacity=64, packs_per_step=1, epochs=2)
        self.plan = self._made(batches, batching, tokens=[self.tokens])
        self.num_steps = int(self.context.store.require(self.plan).counts["steps"])
        self.config = training_config(base, **config)
        self.inputs = {"plan": [self.plan], "tokens": [self.tokens]}
        _, key = address_of(train, self.config, self.inputs, self.context)
        self.address = f"train/{key}"
        self.work = self.context.runtime.scratch / "work" / "train" / key
        (self.work / MODELS_FOLDER).mkdir(parents=True)
        events = EventWriter(self.work / EVENTS_FILE)
        for step in made_up_steps(self.num_steps):
            events.step(step)
        self.base = base

    def leave_model(self, step):
        shutil.copytree(self.base, self.work / MODELS_FOLDER / f"step-{step:06d}", ignore=lambda *_: ["README.md"])

    def models(self):
        return sorted(path.name for path in (self.work / MODELS_FOLDER).iterdir())

    def publish(self):
        return execute(train, self.config, self.inputs, self.context)[0]

    def _made(self, stage, config, **inputs):
        return execute(stage, config, inputs, self.context)[0].address
