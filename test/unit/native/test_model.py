# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Whole steps against transformers, in any company, and what a step refuses."""

import numpy as np
import pytest
from slice_ros.engine.kv.slots import page_table
from slice_ros.engine.models.architecture import layer_name
from slice_ros.engine.models.families import describe
from slice_ros.engine.runners.native.build import build_model
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

# hidden, heads, kv heads, head_dim, intermediate, tied, family
MODELS = {
    'grouped': (96, 6, 2, 16, 160, True, 'llama'),
    'odd sizes': (72, 3, 3, 40, 100, False, 'llama'),
    'many in a group': (80, 10, 1, 64, 64, True, 'llama'),
    'biased': (64, 4, 2, 24, 48, False, 'qwen2'),
    'biased everywhere': (64, 4, 2, 16, 40, True, 'biased llama'),
}
VOCABULARY, LAYERS, CONTEXT = 300, 3, 128


def reference(name):
    """Return a model of transformers with random weights."""
    hidden, heads, kv_heads, head_dim, intermediate, tied, family = MODELS[name]
    config, model = {'llama': (LlamaConfig, LlamaForCausalLM),
                     'qwen2': (Qwen2Config, Qwen2ForCausalLM)}[family.split()[-1]]
    biases = {'attention_bias': True, 'mlp_bias': True} if 'biased' in family else {}
    torch.manual_seed(11)
    made = model(config(
        hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=kv_heads,
        head_dim=head_dim, intermediate_size=intermediate, num_hidden_layers=LAYERS,
        vocab_size=VOCABULARY, tie_word_embeddings=tied, initializer_range=0.2,
        **biases)).eval()
    for parameter in made.parameters():
        if parameter.dim() == 1:
            parameter.data += torch.randn_like(parameter) * 0.2
    return made


def native(library, model, weights='fp32', **options):
    """Return the native model with the weights of one of transformers."""
    config = model.config
    made = describe(config)
    cos, sin = model.model.rotary_emb(torch.zeros(1), torch.arange(CONTEXT)[None])
    half = config.head_dim // 2
    tensors = {k: v.detach().numpy() for k, v in model.named_parameters()}
    for layer in range(LAYERS):
        for norm, name in made.norms.items():
            tensors[f'{layer_name(layer, norm)}.weight'] = tensors[
                f'{layer_name(layer, name)}.weight']
    table = page_table(6, CONTEXT)
    if 'pages' not in options:  # every slot owns its pages
        table[:] = np.arange(table.size).reshape(table.shape)
    options = {'table': table, 'pages': table.size, 'threads': 2, **options}
    return build_model(library, made, tensors, weights, cos[:, :, :half].numpy(),
                       sin[:, :, :half].numpy(), **options)


@pytest.fixture(scope='module', params=MODELS)
def pair(request, library):
    """Return a model of transformers and the same on the native kernels."""
    model = reference(request.param)
    return model, native(library, model)


@pytest.fixture
def small(library):
    """Return a small model in the fastest kind."""
    return native(library, reference('grouped'), 'int4')


def tokens_of(seed, count):
    """Return random tokens."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, count).tolist()


def logits(model, tokens, slot=0, start=0):
    """Return logits after each of `tokens` in a slot."""
    count = len(tokens)
    return model.step(tokens, [slot] * count, range(start, start + count), range(count))[0].copy()


def expected(model, tokens):
    """Return the same by transformers."""
    with torch.inference_mode():
        return model(torch.tensor([tokens])).logits[0].numpy()


def test_a_prompt_has_the_logits_of_transformers(pair):
    model, ours = pair
    tokens = tokens_of(1, 75)
    want = expected(model, tokens)
    np.testing.assert_allclose(logits(ours, tokens), want, rtol=0, atol=2e-5 * np.abs(want).max())
    got, best = ours.step(tokens, [1] * 75, range(75), [74, 3])
    np.testing.assert_array_equal(best, got.argmax(1))


def test_states_are_the_inputs_of_the_head(pair):
    model, ours = pair
    tokens, other = tokens_of(1, 75), tokens_of(5, 30)
    with torch.inference_mode():
        want = model.model(torch.tensor([tokens])).last_hidden_state[0].numpy()
    states = np.full((75, want.shape[1]), np.nan, np.float32)
    assert len(ours.step(tokens, [0] * 75, range(75), [], states)[0]) == 0
    np.testing.assert_allclose(states, want, rtol=0, atol=3e-5 * np.abs(want).max())
    # In chunks, beside a request whose logits are wanted, no bit is another.
    first, rest = np.empty((40, want.shape[1]), np.float32), np.empty((66, want.shape[1]), 'f4')
    ours.step(tokens[:40], [1] * 40, range(40), [], first)
    beside, _ = ours.step([*other, *tokens[40:], 9], [2] * 30 + [1] * 35 + [3],
                          [*range(30), *range(40, 75), 0], [29, 65, 29], rest)
    beside = beside.copy()
    np.testing.assert_array_equal(np.concatenate([first, rest[30:65]]), states)
    np.testing.assert_array_equal(beside[0], logits(ours, other, 4)[29])
    np.testing.assert_array_equal(beside[2], beside[0])
    np.testing.assert_array_equal(beside[1], logits(ours, [9], 5)[0])


@pytest.mark.parametrize('weights, error', [('fp16', 0.01), ('bf16', 0.1), ('int8', 0.1),
                                            ('int4', 0.6)])
def test_other_kinds_stay_near(library, weights, error):
    model = reference('grouped')
    want = expected(model, tokens_of(2, 40))
    got = logits(native(library, model, weights), tokens_of(2, 40))
    assert np.sqrt(np.mean((got - want) ** 2)) < error * want.std()


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('kv_bits, error', [(16, 0.01), (8, 0.05)])
def test_fewer_bits_of_keys_and_values_stay_near(library, isa, name, kv_bits, error):
    # 8 bits: in a group of 32 normal numbers the largest is 2.1 deviations away, so that rounding
    # them adds 2.1 / 127 / sqrt(12) = 0.5 % of noise. Keys and values of three layers: 1.2 % of
    # the logits if attention alone made them; several times that is a fault.
    model, tokens = reference(name), tokens_of(2, 40)
    want = expected(model, tokens)
    got = logits(native(library, model, isa=isa, kv_bits=kv_bits), tokens)
    assert 1e-5 * want.std() < np.sqrt(np.mean((got - want) ** 2)) < error * want.std()


@pytest.mark.parametrize('weights', ['fp16', 'int8', 'int4'])
def test_instruction_sets_agree(library, isa, weights):
    model = reference('odd sizes')
    tokens = tokens_of(3, 40)
    want = logits(native(library, model, weights, isa=0), tokens)
    got = logits(native(library, model, weights, isa=isa), tokens)
    if library.isa_name(0) == 'NEON':  # the same float operations in the same order
        np.testing.assert_array_equal(got, want)
    assert np.sqrt(np.mean((got - want) ** 2)) < 0.02 * want.std()


@pytest.mark.parametrize('weights, kv_bits', [
    *((kind, None) for kind in ('fp32', 'fp16', 'bf16', 'int8', 'int4')), ('fp32', 8),
    ('int4', 8)])
@pytest.mark.parametrize('name', MODELS)
def test_company_changes_no_bit(library, isa, name, weights, kv_bits):
    model = reference(name)
    prompts = [tokens_of(20 + i, 5 + 13 * i) for i in range(5)]
    alone = native(library, model, weights, threads=1, isa=isa, kv_bits=kv_bits)
    want = [logits(alone, prompt, slot=i) for i, prompt in enumerate(prompts)]
    # Token by token, in pieces, and all mixed in the same steps, with more threads and pages
    # handed out in another order.
    mixed = native(library, model, weights, threads=3, isa=isa, kv_bits=kv_bits)
    mixed.cache.table[:] = mixed.cache.table.ravel()[::-1].reshape(mixed.cache.table.shape)
    got = [[] for _ in prompts]
    step = 0
    while any(len(g) < len(p) for g, p in zip(got, prompts)):
        rows = []
        for i, prompt in enumerate(prompts):
            piece = 1 if (step + i) % 3 else 1 + 5 * i
            done = len(got[i])
            rows += [(prompt[at], 5 - i, at, i)
                     for at in range(done, min(done + piece, len(prompt)))]
        tokens, slots, positions, owners = zip(*rows)
        out, _ = mixed.step(tokens, slots, positions, range(len(rows)))
        for owner, row in zip(owners, out):
            got[owner].append(row.copy())
        step += 1
    for one, other in zip(want, got):
        np.testing.assert_array_equal(one, np.array(other))


def test_more_rows_than_fit_are_run_in_passes(library):
    model = reference('grouped')
    tokens = tokens_of(4, 100)
    want = logits(native(library, model), tokens)
    ours = native(library, model, max_rows=16)
    np.testing.assert_array_equal(logits(ours, tokens), want)
    rows = [99, 0, 16, 15, 31, 50, 16]  # in any order
    got, best = ours.step(tokens, [1] * 100, range(100), rows)
    np.testing.assert_array_equal(got, want[rows])
    np.testing.assert_array_equal(best, want[rows].argmax(1))


def test_a_chunk_and_a_decode_of_32_are_one_pass_with_the_same_bits(library, monkeypatch):
    model = reference('grouped')
    parts = [(0, 128), (1, 128), (2, 32)]   # slot and rows: as many as 256 tokens and 32 decodes
    tokens = tokens_of(6, 288)
    slots = [slot for slot, count in parts for _ in range(count)]
    positions = [at for _, count in parts for at in range(count)]
    step = tokens, slots, positions, range(288)
    want = native(library, model, max_rows=16).step(*step)[0].copy()
    ours = native(library, model)
    passes, run = [], type(ours)._pass
    monkeypatch.setattr(type(ours), '_pass', lambda self, tokens, *rest: (
        passes.append(len(tokens)), run(self, tokens, *rest))[1])
    np.testing.assert_array_equal(ours.step(*step)[0], want)
    assert passes == [288]


@pytest.mark.parametrize('change', [
    {'outputs': [100]}, {'outputs': [3, -1]}, {'outputs': [0, 10 ** 6]},
    {'outputs': range(101)}, {'slots': [0] * 99}, {'slots': [0] * 101},
    {'positions': range(101)}, {'positions': range(64)}])
@pytest.mark.parametrize('max_rows', [10, 16, 100])
def test_a_step_of_several_passes_is_refused_as_one_of_one_pass(library, change, max_rows):
    ours = native(library, reference('grouped'), max_rows=max_rows)
    step = {'tokens': tokens_of(4, 100), 'slots': [0] * 100, 'positions': range(100),
            'outputs': [99]}
    with pytest.raises(ValueError, match='100 tokens with|the step was refused'):
        ours.step(**step | change)


@pytest.mark.parametrize('weights', ['fp16', 'int4'])
def test_rows_nobody_asks_for_change_no_bit(library, isa, weights):
    model = native(library, reference('odd sizes'), weights, isa=isa)
    tokens = tokens_of(8, 40)
    want = logits(model, tokens)
    for outputs in ([39], [31, 4, 31, 0], []):
        got, best = model.step(tokens, [1] * 40, range(40), outputs)
        np.testing.assert_array_equal(got, want[outputs])
        np.testing.assert_array_equal(best, want[outputs].argmax(1))
    # Their keys and values are there all the same.
    np.testing.assert_array_equal(logits(model, tokens[20:], 1, 20), want[20:])


@pytest.mark.parametrize('kv_bits', [8, 16, 32])
def test_slots_share_the_pages_of_a_prefix(library, kv_bits):
    model = native(library, reference('grouped'), pages=6, kv_bits=kv_bits)
    table = model.cache.table
    prefix, endings = tokens_of(5, 64), [tokens_of(6, 8), tokens_of(7, 9)]
    table[0, :3] = 0, 1, 2
    want = [logits(model, prefix + ending)[64:] for ending in endings]
    table[1, :3] = 0, 1, 3
    table[2, :3] = 0, 1, 4
    for slot, ending, one in zip((1, 2), endings, want):
        np.testing.assert_array_equal(logits(model, ending, slot, 64), one)


@pytest.mark.parametrize('tokens, slots, positions, why', [
    ([VOCABULARY], [0], [0], 'vocabulary'),
    ([-1], [0], [0], 'vocabulary'),
    ([1], [6], [0], 'slot'),
    ([1], [-1], [0], 'slot'),
    ([1], [0], [CONTEXT], 'position'),
    ([1], [0], [-1], 'position'),
    ([1, 2], [0, 0], [3, 5], 'position'),
    ([1, 2], [0, 0], [3, 3], 'position'),
    ([1, 2, 3], [0, 1, 0], [0, 0, 1], 'slot'),
    ([1], [5], [40], 'page'),
])
def test_a_bad_step_is_refused_and_the_next_one_runs(small, tokens, slots, positions, why):
    want = logits(small, [1, 2, 3])
    small.cache.table[5, 1] = -1
    with pytest.raises(ValueError, match=why):
        small.step(tokens, slots, positions, [0])
    np.testing.assert_array_equal(logits(small, [1, 2, 3]), want)


def test_bad_outputs_and_numbers_are_refused(small):
    for outputs in ([1], [-1], [0, 0]):
        with pytest.raises(ValueError):
            small.step([1], [0], [0], outputs)
    with pytest.raises(ValueError):
        small.step([], [], [], [])
    with pytest.raises(OverflowError):
        small.step([2 ** 40], [0], [0], [0])
    with pytest.raises(ValueError):
        small.step([1, 2], [0], [0], [0])
    small.close()
    small.close()
    with pytest.raises(ValueError, match='closed'):
        small.step([1], [0], [0], [0])


def test_parts_that_do_not_fit_are_refused(library):
    model = reference('grouped')
    with pytest.raises(ValueError, match='refused'):
        native(library, model, threads=0)
    with pytest.raises(ValueError, match='refused'):
        native(library, model, isa=99)
    model.config.num_key_value_heads = 3
    with pytest.raises(ValueError, match='refused'):
        native(library, model)
    model.config.hidden_size = 95
    with pytest.raises(ValueError, match='norm'):
        native(library, model)
