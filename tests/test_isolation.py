"""The start-up check that sequences of a pack do not see each other."""

from __future__ import annotations

import pytest
import torch

from longalign_core.errors import TrainingError
from longalign_core.training.isolation import check_isolation
from longalign_core.training.model import load_model
from tests.tiny_training import write_model

CPU = torch.device("cpu")


def load(folder, gradient_checkpointing=False):
    return load_model(folder, precision="fp32", trust_remote_code=False, gradient_checkpointing=gradient_checkpointing)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_check_isolation_packed_attention_passes_in_either_mode(tmp_path, dropout, gradient_checkpointing):
    model = load(write_model(tmp_path, dropout=dropout), gradient_checkpointing)
    model.train()
    check_isolation(model, CPU)
    assert model.training


def test_check_isolation_attention_over_the_whole_pack_is_refused(tmp_path):
    # What happens when an attention function ignores the restarts: a plain causal one does.
    model = load(write_model(tmp_path))

    class WholePack(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, *args, position_ids=None, **kwargs):
            whole = torch.arange(position_ids.shape[1])[None]
            return self.inner(*args, position_ids=whole, **kwargs)

    for layer in model.model.model.layers:
        layer.self_attn = WholePack(layer.self_attn)
    with pytest.raises(TrainingError, match="sequences see each other"):
        check_isolation(model, CPU)


def test_check_isolation_model_deaf_to_its_input_is_refused(tmp_path):
    model = load(write_model(tmp_path))
    with torch.no_grad():
        model.model.get_input_embeddings().weight.zero_()
    with pytest.raises(TrainingError, match="does not move its own logits"):
        check_isolation(model, CPU)


def test_check_isolation_logits_changed_after_the_head_is_refused(tmp_path):
    # Some models scale or cap logits in their own forward, which the loss head would miss.
    model = load(write_model(tmp_path))
    plain = type(model.model)

    class Scaled(plain):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits * 0.5
            return output

    model.model.__class__ = Scaled
    with pytest.raises(TrainingError, match="differ from those of the sequences alone"):
        check_isolation(model, CPU)
