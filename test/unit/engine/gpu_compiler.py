# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Compiles all kernels that steps of models launch, for GPUs that need not be there.

Run as a program: ``gpu_compiler.py 75 80 ...`` prints a line of JSON for each kernel. Triton's own
launcher finds what to compile (types, alignment, divisible sizes, constants) from the arguments
of a step on tensors without data; its driver says that the GPU is of the capability asked for.
"""

from collections.abc import Iterator
import json
import re
import subprocess
import sys
import tempfile

from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.kv.slots import page_table
from slice_ros.engine.models.families import describe
from slice_ros.engine.runners.cuda import graph_runner, group_linear
from slice_ros.engine.runners.cuda.group_codes import GroupCodes
from slice_ros.engine.runners.runner import Segment
from slice_ros.engine.runners.torch.linear import Linear
from slice_ros.engine.runners.torch.low_rank_sums import LowRankSums
from slice_ros.engine.runners.torch.weights import DecoderLayer, DecoderWeights
import torch
from transformers import LlamaConfig
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

META = torch.device('meta')
CONTEXT = 2048
# hidden, heads, key-value heads, head size, intermediate: Llama 3.1 8B and Qwen2.5 0.5B, whose
# 28 and 152 groups are no multiples of 16; the third has the largest heads that are known.
SHAPES = {'8b': (4096, 32, 8, 128, 14336), '0.5b': (896, 14, 2, 64, 4864),
          'wide heads': (1024, 4, 1, 256, 4096)}


class Driver:
    """In the place of Triton's driver: a GPU of any capability that runs nothing."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return self.capability  # kernels are kept by device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget('cuda', self.capability, 32)


def group_codes(outputs: int, inputs: int, kind: str, minimum: bool) -> GroupCodes:
    """Return weights of `kind` without data."""
    groups = inputs // 32
    codes = torch.empty(outputs, groups, 8, dtype=torch.int16, device=META) if kind == 'int4' \
        else torch.empty(outputs, groups, 32, dtype=torch.int8, device=META)
    scales = torch.empty(groups, outputs, dtype=torch.float16, device=META)
    return GroupCodes(kind, codes, scales, torch.empty_like(scales) if minimum else None)


def linear(outputs: int, inputs: int, kind: str, dtype: torch.dtype, minimum: bool, bias: bool
           ) -> Linear:
    """Return a linear layer of `kind` without data."""
    weight = group_codes(outputs, inputs, kind, minimum)
    run = group_linear.group_linear(
        weight, torch.empty(outputs, device=META) if bias else None, dtype)
    return Linear(run, kind, weight.nbytes)


def weights(shape: str, dtype: torch.dtype) -> DecoderWeights:
    """Return a model of one layer without data, with every variant of integer weights."""
    hidden, heads, kv_heads, dim, inner = SHAPES[shape]
    norm = torch.empty(hidden, device=META)
    layer = DecoderLayer(
        linear((heads + 2 * kv_heads) * dim, hidden, 'int8', dtype, True, True),
        linear(hidden, heads * dim, 'int4', dtype, True, False),
        ((linear(2 * inner, hidden, 'int4', dtype, True, shape == '0.5b'),
          linear(hidden, inner, 'int8', dtype, False, False)),),
        router=None, router_bias=None, choice_bias=None, shared=None, shared_gate=None, sinks=None,
        attention_norm=norm, attention_out_norm=None, mlp_norm=norm, mlp_out_norm=None,
        query_norm=None, key_norm=None)
    angles = torch.empty(CONTEXT, 1, dim, device=META)
    embedding = group_linear.GroupEmbedding(group_codes(1000, hidden, 'int4', True), dtype)
    made = describe(LlamaConfig(
        hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=dim,
        intermediate_size=inner, num_hidden_layers=1))
    return DecoderWeights(
        made, embedding, (layer,), norm, layer.mlp[0][1], ((angles, angles),), query_scales=None,
        linears='Triton', kinds='int4', nbytes=0, streamed_bytes=0,
        adapters=LowRankSums((), made, META))


def compiled(capability: int, shape: str) -> Iterator[dict]:
    """Compile what a step of one row launches, and what a prefill does; yield what was made."""
    dtype = torch.float16 if capability < 80 else torch.bfloat16
    made, launch = {}, JITFunction.run

    def compile_only(kernel, *given, grid, warmup, **options):
        done = launch(kernel, *given, grid=grid, warmup=True, **options)
        made[done.hash] = done
    driver.set_active(Driver(capability))
    JITFunction.run = compile_only
    try:
        model = weights(shape, dtype)
        cache = KvCache(1, page_table(1, CONTEXT), CONTEXT // 32, model.made.kv_heads,
                        model.made.head_dim, dtype, META)
        runner = graph_runner.GraphRunner(model, cache, 1)
        runner.forward([Segment(0, 9, [1], True)])
        runner.forward([Segment(0, 9, [1] * 20, True)])
        for layer in (model.layers[0].qkv, model.layers[0].mlp[0][0]):
            layer(torch.empty(group_linear._FEW + 1, SHAPES[shape][0], device=META))
    finally:
        JITFunction.run = launch
    for kernel in made.values():
        yield {'capability': capability, 'shape': shape, 'name': kernel.metadata.name,
               'shared': kernel.metadata.shared, 'copies': kernel.asm['ptx'].count('cp.async.'),
               'products': kernel.asm['ptx'].count('mma'), 'spilled': spilled(kernel)}


def spilled(kernel) -> int:
    """Return the bytes of registers that a thread keeps in memory."""
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(kernel.asm['cubin'])
        file.flush()
        said = subprocess.run([knobs.nvidia.cuobjdump.path, '--dump-resource-usage', file.name],
                              capture_output=True, text=True, check=True).stdout
    return int(re.search(r'STACK:(\d+)', said)[1])


def main() -> None:
    graph_runner.GraphRunner._check = lambda self: None
    group_linear.check = lambda *given: None
    graph_runner._PROGRAMS = 64  # several splits
    for task in sys.argv[1:]:
        capability, _, shape = task.partition(':')
        for found in compiled(int(capability), shape or '8b'):
            print(json.dumps(found), flush=True)


if __name__ == '__main__':
    main()
