# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Weights of 4 and 8 bits on a GPU: on one if there is one, else in Triton's interpreter."""

from gguf import GGMLQuantizationType, quantize
import gguf_files
from gpu_runners import DEVICE, near, runners
import numpy as np
import pytest
from slice_ros.engine import EngineConfig, load_engine
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.gguf_tensors import GgufTensors
from slice_ros.engine.checkpoints.hf_directory import CompleteConfig
from slice_ros.engine.checkpoints.regroup import kept_as, regrouped
from slice_ros.engine.checkpoints.stored_weights import Codes, KEPT
from slice_ros.engine.models.families import describe
from slice_ros.engine.models.model_tensors import ModelTensors
from slice_ros.engine.runners.cuda import group_linear as gpu_groups
from slice_ros.engine.runners.cuda.gpu_linear import (
    IntegerKernelError, make_gpu_embedding, make_gpu_linear, sixteen_bits)
from slice_ros.engine.runners.cuda.group_codes import group_codes
from slice_ros.engine.runners.runner import Segment
from slice_ros.engine.runners.torch.linear import DTYPES, make_embedding, make_linear
from slice_ros.engine.runners.torch.weights import build_weights
import tiny
import torch
from torch.nn import functional as F

pytestmark = [pytest.mark.usefixtures('quick_checks'), pytest.mark.gpu(needed=False)]

INPUTS = 9 * 32  # one group more than a tile


def gguf_codes(outputs, type_name, inputs=INPUTS, seed=1):
    """Return random weights as a GGUF file of that type has them."""
    values = np.random.default_rng(seed).normal(0, 0.1, (outputs, inputs)).astype(np.float32)
    data = quantize(values, GGMLQuantizationType[type_name])
    return Codes.from_gguf(regrouped(data, type_name), kept_as(type_name))


def random_q4_k(outputs, seed=1):
    """Return any Q4_K weights, from random bits: gguf cannot quantise to it."""
    chance = np.random.default_rng(seed)
    blocks = chance.integers(0, 256, (outputs, 144), np.uint8)
    blocks[:, :4] = chance.uniform(0, 0.01, (outputs, 2)).astype(np.float16).view(np.uint8)
    return Codes.from_gguf(regrouped(blocks, 'Q4_K'), 'Q4_1')


@pytest.mark.parametrize('rows', (1, 16, 19, 129))
@pytest.mark.parametrize('make', (
    lambda: [gguf_codes(50, 'Q4_0')], lambda: [gguf_codes(50, 'Q4_1')], lambda: [random_q4_k(50)],
    lambda: [gguf_codes(50, 'Q8_0')], lambda: [gguf_codes(33, 'Q4_1'), gguf_codes(17, 'Q8_0')]),
    ids=('Q4_0', 'Q4_1', 'Q4_K', 'Q8_0', 'Q4_1 and Q8_0'))
def test_a_linear_layer_multiplies_by_the_weights_of_the_file(make, rows):
    """Few tokens, in the kernel, and many, widened; with and without bias."""
    parts = make()
    weight = torch.from_numpy(np.concatenate([part.floats() for part in parts]))
    torch.manual_seed(rows)
    bias, x = torch.randn(50), torch.randn(rows, weight.shape[1])
    for b in (None, bias):
        linear = make_gpu_linear(parts, b, KEPT, DEVICE)
        assert linear.kind == ('int8' if any(p.kind == 'int8' for p in parts) else 'int4')
        found = linear(x.to(DEVICE)).cpu()
        wanted = F.linear(x.to(found.dtype).float(), weight, b)
        limit = 0.001 if found.dtype == torch.float16 else 0.008
        assert (found - wanted).norm() < limit * wanted.norm()


@pytest.mark.parametrize('make, step', [
    (lambda: gguf_codes(40, 'Q4_1'), 'exact'), (lambda: gguf_codes(40, 'Q8_0'), 'exact'),
    (lambda: torch.randn(40, INPUTS), 'near')], ids=('Q4_1', 'Q8_0', 'floats'))
def test_codes_stay_as_they_are_and_floats_are_rounded_to_the_nearest(make, step):
    part = make()
    weight = part if step == 'near' else torch.from_numpy(part.floats())
    for kind, most in (('int4', 15), ('int8', 254)):
        if step == 'exact' and (kind, part.kind) == ('int4', 'int8'):
            continue
        made = group_codes([part], kind, DEVICE)
        codes = made.codes.cpu().int()
        if kind == 'int4':
            codes = torch.cat([codes >> shift & 15 for shift in (0, 4, 8, 12)], -1)
        found = codes * made.scales.cpu().float().t()[..., None]
        if made.minimums is not None:
            found += made.minimums.cpu().float().t()[..., None]
        error = (found.view(weight.shape) - weight).abs().view(40, -1, 32)
        if step == 'exact':
            assert not error.any()
        else:
            low, high = weight.view(40, -1, 32).aminmax(dim=-1)
            spread = high - low if kind == 'int4' else 2 * torch.maximum(-low, high)
            assert (error <= 0.51 * spread[..., None] / most + 1e-3).all()
            assert error.max() > 0.4 * spread.min() / most  # it is rounded


@pytest.mark.parametrize('weights, share', [('int8', 0.29), ('int4', 0.21)])
def test_fewer_bits_read_fewer_bytes_and_are_near_what_they_round_to(weights, share):
    """Chunks and rows, in the plain and the recorded pass; embedding and head in 8 bits."""
    config = tiny.llama(num_hidden_layers=1, tie_word_embeddings=False)
    tensors = dict(tiny.model(config).state_dict())
    rounded = {name: rounded_to(t, weights if 'layers' in name else 'int8') if t.dim() > 1 else t
               for name, t in tensors.items()}
    exact, _ = runners(config, max_batch=1, tensors=rounded)
    plain, recorded = runners(config, weights, max_batch=1, tensors=tensors)
    assert recorded.info.streamed_bytes < share * exact.info.streamed_bytes
    assert recorded.info.weights == weights and f'Triton {weights}' in recorded.info.kernels
    for segments in ([Segment(0, 0, [5, 6] * 65, True), Segment(1, 0, [3, 4], True)],
                     [Segment(0, 130, [7], True), Segment(1, 2, [8], True)]):
        wanted = exact.forward(segments)
        for runner in (plain, recorded):
            found = runner.forward(segments)
            limit = 0.01 if runner.cache.data.dtype == torch.float16 else 0.06
            assert (found - wanted).norm() < limit * wanted.norm()


def rounded_to(weight, kind):
    """Round to the nearest code, with scale and minimum in 16 bits."""
    groups = weight.view(len(weight), -1, 32)
    if kind == 'int8':
        scale = (groups.abs().amax(-1, True) / 127).half().float()
        return ((groups / scale).round() * scale).view(weight.shape)
    low, high = groups.amin(-1, True), groups.amax(-1, True)
    scale, low = ((high - low) / 15).half().float(), low.half().float()
    return (((groups - low) / scale).round().clamp(0, 15) * scale + low).view(weight.shape)


@pytest.mark.parametrize('weights', ('int8', 'int4'))
def test_a_gpu_without_integer_kernels_is_one_sentence(weights, monkeypatch):
    monkeypatch.setattr(gpu_groups, '_TOLERANCE', -1)
    with pytest.raises(IntegerKernelError, match="int.*other numbers.*use '.*16'"):
        runners(tiny.llama(), weights)


def test_inputs_that_are_no_whole_groups_keep_16_bits():
    linear = make_gpu_linear([torch.randn(8, 40)], None, 'int4', DEVICE)
    assert linear.kind in ('fp16', 'bf16') and linear.nbytes == 2 * 8 * 40


def test_a_gguf_file_keeps_its_bits_matrix_by_matrix(tmp_path):
    """Q4_K_M of llama.cpp has some values and outputs in more bits: they are exact as well."""
    config = tiny.llama(num_hidden_layers=2)
    gguf_files.write(tmp_path / 'm.gguf', 'llama', config, tiny.model(config).state_dict(),
                     types=[
                         ('0.self_attn.v', 'Q8_0'), ('1.mlp.down', 'Q8_0'), ('1.mlp.', 'Q4_0'),
                         ('self_attn.o', 'F16'), ('embed', 'Q8_0'), ('', 'Q4_1')])
    source = GgufFile(tmp_path / 'm.gguf')
    made = describe(CompleteConfig(**source.config()))
    tensors = ModelTensors(made, GgufTensors(source, np.float16))
    kept, exact = (
        build_weights(made, tensors, weights, floats, DEVICE, 64, lambda share: None, *make)
        for weights, floats, make in (
            (KEPT, sixteen_bits(DEVICE), (make_gpu_linear, make_gpu_embedding)),
            ('fp32', 'fp32', (make_linear, make_embedding))))
    first, second = kept.layers
    downs = first.mlp[0][1], second.mlp[0][1]
    assert [m.kind for m in (first.qkv, second.qkv, *downs, kept.head)] == [
        'int8', 'int4', 'int4', 'int8', 'int8']
    assert first.output.kind == sixteen_bits(DEVICE) and set(kept.kinds.split('+')) == {
        'int4', 'int8', sixteen_bits(DEVICE)}
    x = torch.sin(torch.arange(128., device=DEVICE)).view(2, 64)
    for layer, wanted in zip(kept.layers, exact.layers):
        for part, exactly in ((layer.qkv, wanted.qkv), (layer.output, wanted.output),
                              (layer.mlp[0][0], wanted.mlp[0][0])):
            right = exactly(x)
            assert (part(x) - right).norm() < 0.01 * right.norm()
    ids = torch.tensor([7, 319, 0], dtype=torch.int32, device=DEVICE)
    assert kept.embedding[ids].dtype == kept.embedding.dtype == DTYPES[sixteen_bits(DEVICE)]
    near(kept.embedding[ids].float(), exact.embedding[ids])
    assert kept.nbytes == kept.streamed_bytes < 0.3 * exact.streamed_bytes  # the head is shared


@pytest.mark.gpu
@pytest.mark.parametrize('weights, limit', [('int8', 0.1), ('int4', 0.6)])
def test_integers_on_a_gpu_give_logits_like_fp32(weights, limit, tiny_directory):
    logits = []
    for wanted in (weights, 'fp32'):
        engine = load_engine(EngineConfig(str(tiny_directory), 'cuda', wanted, max_context=128))
        assert 'CUDA graphs' in engine.info.kernels and engine.info.weights == wanted
        engine._slots.reserve([(engine._slots.take(), 3)])
        logits.append(engine._runner.forward([Segment(0, 0, [1, 2, 3], True)]).clone())
    assert (logits[0] - logits[1]).norm() < limit * logits[1].norm()
