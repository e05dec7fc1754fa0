# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny models with random weights, in the shapes of real families, as model directories."""

from tokenizers import AddedToken, decoders, models, pre_tokenizers, Tokenizer
import torch
from transformers import (
    AutoConfig, AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, MistralConfig,
    PreTrainedTokenizerFast, Qwen2Config)

TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' and loop.first %}"
    "{{ raise_exception('the assistant cannot speak first') }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
_SHAPE = {
    'vocab_size': 320, 'hidden_size': 64, 'intermediate_size': 96, 'num_hidden_layers': 3,
    'num_attention_heads': 4, 'num_key_value_heads': 2, 'max_position_embeddings': 256,
    'bos_token_id': None, 'eos_token_id': 258, 'pad_token_id': None,
}


def llama(**changes):
    """Return a Llama config: tied head, default rope."""
    return LlamaConfig(**_SHAPE | {'tie_word_embeddings': True} | changes)


def llama3_rope(**changes):
    """Return a Llama config with the scaled rope of Llama 3 and an untied head."""
    return llama(tie_word_embeddings=False, **changes, rope_parameters={
        'rope_type': 'llama3', 'rope_theta': 10000.0, 'factor': 8.0, 'low_freq_factor': 1.0,
        'high_freq_factor': 4.0, 'original_max_position_embeddings': 64})


def qwen2(**changes):
    """Return a Qwen2 config: bias on queries, keys and values."""
    return Qwen2Config(**_SHAPE | {'tie_word_embeddings': True} | changes)


def mistral(**changes):
    """Return a Mistral config: a head size of its own, a window that prompts of 90 fit into."""
    return MistralConfig(**_SHAPE | {'head_dim': 24, 'sliding_window': 100} | changes)


def all_biases(**changes):
    """Return a Llama config with bias everywhere, one key-value head, and yarn rope."""
    return llama(attention_bias=True, mlp_bias=True, num_key_value_heads=1, rope_parameters=yarn(),
                 **changes)


def described(model_type, **changes):
    """Return a config of any type with a small window, behind which long prompts reach."""
    return AutoConfig.for_model(model_type, **_SHAPE | {'head_dim': 24} | changes)


def yarn(factor=4.0):
    """Return rope parameters that stretch the context."""
    return {'rope_type': 'yarn', 'rope_theta': 10000.0, 'factor': factor,
            'original_max_position_embeddings': 64}


# Families in their own proportions: windows shorter than the prompts of the tests, several ropes.
FAMILIES = {
    'qwen3': lambda **more: described('qwen3', tie_word_embeddings=True, **more),
    'qwen3_moe': lambda **more: described(
        'qwen3_moe', num_experts=8, num_experts_per_tok=3, moe_intermediate_size=40,
        norm_topk_prob=True, mlp_only_layers=[1], **more),
    'qwen2_moe': lambda **more: described(
        'qwen2_moe', head_dim=16, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=40,
        shared_expert_intermediate_size=112, mlp_only_layers=[1], **more),
    'mixtral': lambda **more: described(
        'mixtral', num_local_experts=5, num_experts_per_tok=2, sliding_window=40, **more),
    'olmoe': lambda **more: described(
        'olmoe', head_dim=16, num_experts=6, num_experts_per_tok=4, **more),
    'granitemoe': lambda **more: described(
        'granitemoe', head_dim=16, num_local_experts=4, num_experts_per_tok=2,
        embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.3,
        logits_scaling=2.0, **more),
    'gpt_oss': lambda **more: described(
        'gpt_oss', num_local_experts=6, num_experts_per_tok=2, sliding_window=40, swiglu_limit=2.0,
        rope_parameters=yarn() | {'truncate': False}, **more),
    'qwen2 windows': lambda **more: described(
        'qwen2', use_sliding_window=True, sliding_window=40, max_window_layers=1, **more),
    'seed_oss': lambda **more: described('seed_oss', attention_bias=True, **more),
    'ministral': lambda **more: described(
        'ministral', sliding_window=40, num_hidden_layers=3,
        layer_types=['sliding_attention', 'full_attention', 'sliding_attention'], **more),
    'ministral3': lambda **more: described(
        'ministral3', **{'sliding_window': 40, 'rope_parameters': yarn() | {
            'mscale': 1.0, 'mscale_all_dim': 1.0, 'llama_4_scaling_beta': 0.5,
            'original_max_position_embeddings': 32}} | more),
    'gemma2': lambda **more: described(
        'gemma2', sliding_window=33, query_pre_attn_scalar=48, attn_logit_softcapping=5.0,
        final_logit_softcapping=3.0, **more),
    'gemma3_text': lambda **more: described(
        'gemma3_text', sliding_window=33, query_pre_attn_scalar=48, num_key_value_heads=1,
        layer_types=['sliding_attention', 'full_attention', 'sliding_attention'],
        rope_parameters={
            'full_attention': {'rope_type': 'linear', 'factor': 8.0, 'rope_theta': 1e6},
            'sliding_attention': {'rope_type': 'default', 'rope_theta': 1e4}}, **more),
    'smollm3': lambda **more: described('smollm3', no_rope_layer_interval=2, **more),
    'phi3': lambda **more: described('phi3', rope_parameters={
        'rope_type': 'default', 'rope_theta': 10000.0, 'partial_rotary_factor': 0.75}, **more),
    'phi3 longrope': lambda **more: described(
        'phi3', head_dim=16, max_position_embeddings=512, original_max_position_embeddings=128,
        rope_parameters={
            'rope_type': 'longrope', 'rope_theta': 10000.0,
            'original_max_position_embeddings': 128, 'long_factor': [4.0] * 8,
            'short_factor': [1.0 + n / 8 for n in range(8)]}, **more),
    'granite': lambda **more: described(
        'granite', embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.3,
        logits_scaling=2.0, num_key_value_heads=4, **more),
    'olmo2': lambda **more: described('olmo2', **more),
    'olmo3': lambda **more: described(
        'olmo3', sliding_window=40,
        layer_types=['sliding_attention', 'sliding_attention', 'full_attention'],
        rope_parameters={'full_attention': yarn(), 'sliding_attention': {
            'rope_type': 'default', 'rope_theta': 10000.0}}, **more),
    'exaone4': lambda **more: described(
        'exaone4', sliding_window=40, sliding_window_pattern=2,
        layer_types=['sliding_attention', 'full_attention', 'sliding_attention'], **more),
    'glm4': lambda **more: described('glm4', attention_bias=True, rope_parameters={
        'rope_type': 'default', 'rope_theta': 10000.0, 'partial_rotary_factor': 0.5}, **more),
    'ernie4_5': lambda **more: described('ernie4_5', use_bias=True, **more),
    'hunyuan_v1_dense': lambda **more: described('hunyuan_v1_dense', rope_parameters={
        'rope_type': 'dynamic', 'rope_theta': 10000.0, 'alpha': 20.0, 'factor': 1.0}, **more),
    'cohere': lambda **more: described('cohere', head_dim=16, logit_scale=0.5, **more),
    'cohere norms': lambda **more: described(
        'cohere', head_dim=16, logit_scale=0.5, use_qk_norm=True, **more),
    'cohere2': lambda **more: described(
        'cohere2', sliding_window=40, logit_scale=0.5, num_key_value_heads=1, attention_bias=True,
        layer_types=['sliding_attention', 'full_attention', 'sliding_attention'], **more),
    'nemotron': lambda **more: described('nemotron', mlp_bias=True, **more),
}


def granite_hybrid(**changes):
    """Return a config of Granite 4: layers with state spaces, one with attention."""
    return described('granitemoehybrid', **{
        'head_dim': 16, 'mamba_n_heads': 4, 'mamba_d_head': 32, 'mamba_d_state': 16,
        'mamba_n_groups': 1, 'mamba_d_conv': 4, 'shared_intermediate_size': 96,
        'embedding_multiplier': 3.0, 'residual_multiplier': 0.4, 'attention_multiplier': 0.3,
        'logits_scaling': 2.0,
        'layer_types': ['linear_attention', 'full_attention', 'linear_attention']} | changes)


def falcon_h1(**changes):
    """Return a config of Falcon H1: attention and state space in each layer."""
    return described('falcon_h1', **{
        'head_dim': 16, 'mamba_d_ssm': 64, 'mamba_n_heads': 4, 'mamba_d_head': 16,
        'mamba_d_state': 32, 'num_hidden_layers': 2} | changes)


def qwen3_5(model_type, kinds, **changes):
    """Return a config of Qwen3.5 with layers of these kinds: three value heads of a key head."""
    return described(model_type, **{
        'linear_num_value_heads': 6, 'linear_num_key_heads': 2, 'linear_key_head_dim': 64,
        'linear_value_head_dim': 32, 'num_hidden_layers': len(kinds), 'rope_parameters': {
            'rope_type': 'default', 'rope_theta': 10000.0, 'partial_rotary_factor': 0.25},
        'layer_types': [f'{kind}_attention' for kind in kinds]} | changes)


# Families with layers that keep a state in place of keys and values, or beside them.
RECURRENT = {
    'granitemoehybrid': lambda **more: granite_hybrid(num_local_experts=0, **more),
    'granitemoehybrid experts': lambda **more: granite_hybrid(
        num_local_experts=4, num_experts_per_tok=2, intermediate_size=40, mamba_n_groups=2,
        position_embedding_type='rope', attention_bias=True, mamba_proj_bias=True, **more),
    'falcon_h1': lambda **more: falcon_h1(
        mamba_rms_norm=False, mamba_n_groups=1, mlp_multipliers=[0.8, 0.6], key_multiplier=0.4,
        lm_head_multiplier=0.7, embedding_multiplier=3.0, attention_in_multiplier=0.9,
        attention_out_multiplier=0.5, ssm_in_multiplier=1.2, ssm_out_multiplier=0.7,
        ssm_multipliers=[0.8, 0.9, 0.7, 0.6, 0.5], **more),
    'falcon_h1 norm first': lambda **more: falcon_h1(
        mamba_rms_norm=True, mamba_norm_before_gate=True, mamba_n_groups=2, attention_bias=True,
        mamba_proj_bias=True, projectors_bias=True, mlp_bias=True, key_multiplier=0.4,
        attention_in_multiplier=0.9, ssm_in_multiplier=1.2, ssm_out_multiplier=0.7, **more),
    'falcon_h1 gates first': lambda **more: falcon_h1(
        mamba_rms_norm=True, mamba_norm_before_gate=False, mamba_n_groups=2,
        mamba_conv_bias=False, **more),
    'nemotron_h': lambda **more: described('nemotron_h', **{
        'num_hidden_layers': None, 'ssm_state_size': 16, 'mamba_num_heads': 4,
        'mamba_head_dim': 48, 'n_groups': 2, 'layers_block_type': [
            'linear_attention', 'mlp', 'linear_attention', 'full_attention', 'mlp']} | more),
    'nemotron_h experts': lambda **more: described('nemotron_h', **{
        'num_hidden_layers': None, 'ssm_state_size': 16, 'mamba_num_heads': 4,
        'mamba_head_dim': 48, 'n_groups': 2, 'n_routed_experts': 8, 'num_experts_per_tok': 3,
        'moe_intermediate_size': 40, 'moe_shared_expert_intermediate_size': 48,
        'routed_scaling_factor': 2.5, 'layers_block_type': [
            'linear_attention', 'moe', 'full_attention', 'mlp', 'moe']} | more),
    'lfm2': lambda **more: described('lfm2', head_dim=16, tie_word_embeddings=False, layer_types=[
        'conv', 'full_attention', 'conv'], **more),
    'qwen3_5_text': lambda **more: qwen3_5(
        'qwen3_5_text', ('linear', 'full', 'linear', 'linear'), linear_num_value_heads=4,
        linear_key_head_dim=32, linear_value_head_dim=64, **more),
    'qwen3_5_moe_text': lambda **more: qwen3_5(
        'qwen3_5_moe_text', ('linear', 'full', 'linear'), linear_num_value_heads=4,
        linear_key_head_dim=32, linear_value_head_dim=64, num_experts=8, num_experts_per_tok=3,
        moe_intermediate_size=40, shared_expert_intermediate_size=48, **more),
}


def gpt2():
    """Return a GPT-2 config."""
    return GPT2Config(vocab_size=320, n_embd=64, n_layer=2, n_head=4, n_positions=256,
                      bos_token_id=None, eos_token_id=258)


def gpt_neox():
    """Return a GPT-NeoX config."""
    return GPTNeoXConfig(vocab_size=320, hidden_size=64, num_hidden_layers=2,
                         num_attention_heads=4, intermediate_size=96, eos_token_id=258,
                         bos_token_id=None, max_position_embeddings=256)


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token a byte, and three special ones from id 256."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(t, special=True, normalized=False)
                             for t in ('<|endoftext|>', '<|im_start|>', '<|im_end|>')])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token='<|im_end|>', chat_template=TEMPLATE)


def model(config):
    """Return a float32 model with random weights, biases and norms included, always the same."""
    torch.manual_seed(7)
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, parameter in made.named_parameters():
        if parameter.dim() > 1 and 'norm' not in name:
            parameter.data.normal_(0, 0.15)
        elif 'bias' in name:
            parameter.data.normal_(0, 0.3)
        else:
            parameter.data.uniform_(0.5, 1.5)
    for name, buffer in made.named_buffers():
        if 'correction_bias' in name:
            buffer.normal_(0, 0.3)
    return made


def save(path, config):
    """Write a model directory and return the model in it."""
    made = model(config)
    made.save_pretrained(path)
    tokenizer().save_pretrained(path)
    return made


# Families that run through transformers: windows, experts, ALiBi.
OTHER = {
    'gpt2': gpt2, 'gpt_neox': gpt_neox,
    'bloom': lambda: described('bloom'),
    'starcoder2': lambda: described('starcoder2', head_dim=16, sliding_window=8),
    'bamba': lambda: described(   # with layers that keep a state
        'bamba', head_dim=16, mamba_n_heads=8, mamba_d_head=16, mamba_d_state=16,
        mamba_n_groups=1, attn_layer_indices=[1]),
    'jamba': lambda: described(
        'jamba', head_dim=16, mamba_d_state=16, mamba_dt_rank=4, attn_layer_period=2,
        attn_layer_offset=1, num_experts=2, use_mamba_kernels=False),
    'ernie4_5_moe': lambda: described(
        'ernie4_5_moe', moe_num_experts=5, moe_k=2, moe_num_shared_experts=1,
        moe_intermediate_size=40),
}
