from __future__ import annotations

import numpy as np
import pytest
import transformers

from longalign_core.batching.cost import CostModel
from longalign_core.errors import InputError

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 128,
}
EXPERTS = {"num_experts": 6, "moe_intermediate_size": 40}
LATENT = {
    "q_lora_rank": 24,
    "kv_lora_rank": 20,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 12,
}
FAMILIES = {
    "Llama": SIZES,
    "Mistral": SIZES,
    "Qwen2": SIZES,
    "Qwen3": {**SIZES, "head_dim": 24},
    "Gemma2": {**SIZES, "head_dim": 24},
    "Glm4": {**SIZES, "head_dim": 16, "num_key_value_heads": 1, "pad_token_id": 0},
    "Phi3": {**SIZES, "pad_token_id": 0},
    "Starcoder2": SIZES,
    "GPTNeoX": {name: size for name, size in SIZES.items() if name != "num_key_value_heads"},
    "Arcee": SIZES,
    "Persimmon": {name: size for name, size in SIZES.items() if name != "num_key_value_heads"},
    "Falcon": {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 128},
    "GPT2": {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 128},
    "Mixtral": {**SIZES, "num_local_experts": 6, "num_experts_per_tok": 2},
    "Qwen2Moe": {
        **SIZES,
        **EXPERTS,
        "num_experts_per_tok": 2,
        "shared_expert_intermediate_size": 72,
        "decoder_sparse_step": 2,
    },
    "Qwen3Moe": {**SIZES, **EXPERTS, "num_experts_per_tok": 3, "mlp_only_layers": [1]},
    "GptOss": {**SIZES, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
    "DeepseekV3": {
        **SIZES,
        **LATENT,
        "num_key_value_heads": 4,
        "moe_intermediate_size": 40,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
    },
}
CHATGLM3_6B = {
    "model_type": "chatglm",
    "hidden_size": 4096,
    "num_layers": 28,
    "num_attention_heads": 32,
    "kv_channels": 128,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "ffn_hidden_size": 13696,
    "padded_vocab_size": 65024,
}


def counted_flops(model, length: int) -> int:
    """FLOPs of a forward pass as torch counts its matrix products, attention without a mask."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.arange(length)[None] % 100, use_cache=False)
    return counter.get_total_flops()


@pytest.mark.parametrize("family", FAMILIES)
def test_costs_real_model_equal_the_flops_torch_counts(family):
    config = getattr(transformers, f"{family}Config")(**FAMILIES[family])
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    one, two = counted_flops(model, 64), counted_flops(model, 128)
    squares = (two - 2 * one) / (128**2 - 2 * 64**2)
    tokens = one / 64 - squares * 64
    costs = CostModel.from_model_config(without_windows(config.to_dict()))
    assert costs.linear == pytest.approx(3 * tokens, rel=1e-9)
    # A causal mask leaves half of the products that are counted here.
    assert costs.quadratic == pytest.approx(3 * squares / 2, rel=1e-9)


def without_windows(values: dict) -> dict:
    """As counted above: the counter sees whole products, whatever the mask leaves of them."""
    return {name: value for name, value in values.items() if name not in ("sliding_window", "layer_types")}


@pytest.mark.parametrize(
    ("values", "parameters", "embeddings", "small"),
    [
        # Norms and the biases of queries, keys and values meet no matrix product.
        (CHATGLM3_6B, 6_243_584_000, 65024 * 4096, 57 * 4096 + 28 * (4096 + 2 * 256)),
        (
            {
                "hidden_size": 4096,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "intermediate_size": 11008,
                "vocab_size": 32000,
            },
            6_738_415_616,
            32000 * 4096,
            65 * 4096,
        ),
    ],
    ids=["chatglm3-6b", "llama-2-7b"],
)
def test_costs_published_model_spend_six_flops_a_parameter_but_its_embeddings(values, parameters, embeddings, small):
    assert CostModel.from_model_config(values).linear == 6 * (parameters - embeddings - small)


@pytest.mark.parametrize(
    ("family", "values"),
    [
        ("Mistral", {"sliding_window": 8}),
        ("Qwen2", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 3}),
        ("Qwen2", {"sliding_window": 8, "use_sliding_window": False}),
        ("Gemma2", {"sliding_window": 8}),
        ("Gemma3Text", {"sliding_window": 8}),
        ("Cohere2", {"sliding_window": 8}),
        ("GptOss", {"sliding_window": 8}),
    ],
)
@pytest.mark.parametrize("stated", [True, False], ids=["layer_types", "older config"])
def test_costs_windowed_layers_are_those_transformers_makes_windowed(family, values, stated):
    sizes = {**SIZES, "num_hidden_layers": 12, "head_dim": 16}
    config = getattr(transformers, f"{family}Config")(**sizes, **values)
    # Without a list of layers it is Mistral, whose layers are all alike.
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * 12
    saved = config.to_dict()
    if not stated:
        saved.pop("layer_types", None)
    costs = CostModel.from_model_config(saved)
    a_layer = 3 * 2 * 4 * 16
    num_windowed = kinds.count("sliding_attention")
    assert costs.quadratic == (12 - num_windowed) * a_layer
    assert costs.windowed == (((8, num_windowed * a_layer),) if num_windowed else ())


def test_costs_sliding_window_count_what_each_query_sees():
    lengths = np.array([1, 7, 400, 1000, 5000])
    costs = CostModel(linear=0.0, quadratic=0.0, windowed=((1000, 1.0),)).costs(lengths)
    # A squared token stands for half a token seen by each, as in whole causal attention.
    seen = [2 * np.minimum(np.arange(length) + 0.5, 1000).sum() for length in lengths]
    assert costs == pytest.approx(seen, rel=1e-3)


def test_costs_model_with_pictures_are_its_text_models():
    text = transformers.Gemma3TextConfig(**SIZES, head_dim=16).to_dict()
    assert CostModel.from_model_config({"model_type": "gemma3", "text_config": text}) == CostModel.from_model_config(
        text
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "no usable hidden_size"),
        ({"num_attention_heads": 0}, "no usable num_attention_heads"),
        ({"vocab_size": "128"}, "no usable vocab_size"),
        ({"intermediate_size": True}, "no usable intermediate_size"),
        ({"layer_types": ["full_attention"]}, "4 layers but 1 layer_types"),
        ({"layer_types": ["full_attention"] * 3 + ["linear_attention"]}, "layer 3 is a linear_attention"),
        # As published, without layer_types: Jamba, Qwen3-Next, RecurrentGemma, Lfm2, Llama-4.
        ({"mamba_d_state": 16, "attn_layer_period": 8}, "has mamba_d_state, so layers whose cost"),
        ({"linear_num_key_heads": 16, "full_attention_interval": 4}, "has linear_num_key_heads, so layers"),
        ({"lru_width": 64}, "has lru_width, so layers"),
        ({"conv_L_cache": 3, "full_attn_idxs": [2]}, "has conv_L_cache, so layers"),
        ({"attention_chunk_size": 8192}, "has attention_chunk_size, so layers"),
        ({"moe_num_experts": 64, "moe_k": 6}, "no usable num_experts_per_tok"),
        ({"layer_types": ["sliding_attention"] * 4}, "layer 0 is a sliding_attention but .* no sliding_window"),
        ({"num_local_experts": 4}, "no usable num_experts_per_tok"),
        ({"kv_lora_rank": 4, "v_head_dim": 8}, "no usable qk_nope_head_dim, qk_rope_head_dim"),
    ],
)
def test_costs_config_that_does_not_tell_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        CostModel.from_model_config({**SIZES, **change})


def test_costs_window_layers_that_are_null_window_every_layer():
    stated = {**SIZES, "sliding_window": 8, "use_sliding_window": True}
    assert CostModel.from_model_config({**stated, "max_window_layers": None}) == CostModel.from_model_config(stated)
