"""Packed training on the families of models that transformers knows, each tiny and random."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from longalign_core.errors import LongAlignError, TrainingError
from longalign_core.training.isolation import check_isolation
from longalign_core.training.model import load_model

CPU = torch.device("cpu")
VOCABULARY, WINDOW = 61, 4
LENGTHS = (7, 1, 12, 5)
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
# Windows narrower than the sequences wherever the family has them.
FAMILIES = {
    "llama": {"attention_bias": True},
    "qwen2": {},
    "qwen2-window": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    "qwen3": {"head_dim": 8},
    "qwen3_moe": {"head_dim": 8, **EXPERTS},
    "mistral": {"sliding_window": WINDOW},
    "mixtral": {"num_local_experts": 4},
    "glm": {"head_dim": 8},
    "glm4": {"head_dim": 8},
    "llama-smollm2": {"tie_word_embeddings": True},
    "smollm3": {},
    "gemma": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    "phi": {},
    "phi3": {"sliding_window": WINDOW},
    "cohere": {"logit_scale": 0.0625},
    "cohere2": {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    "granite": {"logits_scaling": 8.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    "olmo3": {"sliding_window": WINDOW},
    "starcoder2": {"sliding_window": WINDOW},
    "gpt_neox": {},
    "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": 2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "deepseek_v3": {
        "num_key_value_heads": 4,
        "n_group": 1,
        "topk_group": 1,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "kv_lora_rank": 8,
        "q_lora_rank": 8,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "first_k_dense_replace": 1,
    },
}
REFUSED = {
    "gemma2": ({"head_dim": 8, "sliding_window": WINDOW}, "softcap"),
    "gpt_oss": ({"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2}, "s_aux"),
    "llama4_text": ({"head_dim": 8, "num_local_experts": 2, "attention_chunk_size": 4}, "chunked_attention"),
    "phi3": (
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10_000.0,
                "short_factor": [1.0] * 4,
                "long_factor": [2.0] * 4,
                "original_max_position_embeddings": 8,
            }
        },
        "by the longest sequence it sees",
    ),
    "gptj": ({"n_embd": 32, "n_head": 4, "n_layer": 2, "rotary_dim": 4}, "do not call transformers' attention"),
    "bloom": ({}, "see each other"),
    "mamba": ({}, "linear_attention"),
    "qwen3_next": (
        {
            "head_dim": 8,
            **EXPERTS,
            "shared_expert_intermediate_size": 16,
            "linear_num_value_heads": 2,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
        },
        "linear_attention",
    ),
    "gemma3_text": ({"head_dim": 8, "final_logit_softcapping": 30.0}, "changes its logits after its output layer"),
}


def write_family(folder, family, values):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family.partition("-")[0], **(SHAPE | values))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def load(folder, gradient_checkpointing):
    return load_model(folder, precision="fp32", trust_remote_code=False, gradient_checkpointing=gradient_checkpointing)


def gradients(model):
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_gradient_of_family_equals_that_of_sequences_alone_by_its_own_forward(tmp_path, family):
    folder = write_family(tmp_path, family, FAMILIES[family])
    ids = torch.randint(VOCABULARY, (sum(LENGTHS),), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    weights = torch.rand(len(ids), generator=torch.Generator().manual_seed(2))
    weights[torch.tensor(LENGTHS).cumsum(0) - 1] = 0  # the last token of each has nothing to predict
    labels = ids.roll(-1)

    alone = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    expected = 0.0
    for own, own_labels, own_weights in zip(*(x.split(LENGTHS) for x in (ids, labels, weights)), strict=True):
        logits = alone(own[None], use_cache=False).logits[0].float()
        losses = torch.nn.functional.cross_entropy(logits, own_labels, reduction="none")
        (losses * own_weights).sum().backward()
        expected += float((losses * own_weights).sum().detach())
    alone_gradients = gradients(alone)

    for gradient_checkpointing in (False, True):
        model = load(folder, gradient_checkpointing)
        model.train()
        check_isolation(model, CPU)
        loss, _ = model(ids, positions, labels, weights)
        loss.backward()
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        found = gradients(model.model)
        assert set(found) == set(alone_gradients)
        errors = {
            name: float((found[name] - one).norm() / one.norm())
            for name, one in alone_gradients.items()
            if one.norm() > 1e-6  # attention's key bias moves nothing
        }
        assert max(errors.values()) < 1e-5, errors


def test_check_isolation_window_that_packed_attention_is_not_told_of_is_refused(tmp_path):
    model = load(write_family(tmp_path, "qwen2-window", FAMILIES["qwen2-window"] | {"sliding_window": 20}), False)
    check_isolation(model, CPU)
    for layer in model.model.model.layers:  # the model's own masks still have it
        layer.self_attn.sliding_window = None
    with pytest.raises(TrainingError, match="differ from those of the sequences alone"):
        check_isolation(model, CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen2-window", "mistral", "glm", "cohere", "deepseek_v3"])
def test_check_isolation_of_family_on_gpu_in_bf16_passes(tmp_path, family, gradient_checkpointing):
    # Heads of a size that the kernels take.
    wide = {"hidden_size": 256, "head_dim": 64} if family != "deepseek_v3" else {}
    folder = write_family(tmp_path, family, FAMILIES[family] | wide)
    model = load_model(
        folder, precision="bf16", trust_remote_code=False, gradient_checkpointing=gradient_checkpointing
    ).to("cuda")
    model.train()
    check_isolation(model, torch.device("cuda", 0))


@pytest.mark.parametrize("family", REFUSED)
def test_family_that_packed_training_does_not_compute_is_refused_with_the_reason(tmp_path, family):
    values, reason = REFUSED[family]
    folder = write_family(tmp_path, family, values)
    with pytest.raises(LongAlignError, match=reason):
        check_isolation(load(folder, False), CPU)
