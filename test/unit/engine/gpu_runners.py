# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Runners as a GPU has them: on it where there is one, else in Triton's interpreter."""

from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.kv.slots import page_table
from slice_ros.engine.models.families import describe
from slice_ros.engine.models.model_tensors import ModelTensors
from slice_ros.engine.runners.cuda.gpu_linear import (
    make_gpu_embedding, make_gpu_linear, sixteen_bits)
from slice_ros.engine.runners.cuda.graph_runner import GraphRunner
from slice_ros.engine.runners.runner import Segment
from slice_ros.engine.runners.torch.linear import DTYPES
from slice_ros.engine.runners.torch.torch_runner import TorchRunner
from slice_ros.engine.runners.torch.weights import build_weights
import tiny
import torch

DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
CONTEXT = 256
PAGES = 8  # of a slot


def build(config, weights, device=DEVICE, tensors=None, make_linear=make_gpu_linear,
          make_embedding=make_gpu_embedding):
    """Return the weights of a random model of that shape on the device."""
    made = describe(config)
    tensors = ModelTensors(made, tensors or dict(tiny.model(config).state_dict()))
    floats = weights if weights in DTYPES else sixteen_bits(device)
    return build_weights(made, tensors, weights, floats, device, CONTEXT, lambda share: None,
                         make_linear, make_embedding)


def runners(config, weights='fp32', max_batch=4, slots=4, tensors=None,
            make_linear=make_gpu_linear, make_embedding=make_gpu_embedding):
    """Return the plain and the recorded pass of a random model of that shape.

    Every slot has its pages already, in another order in each.
    """
    weights = build(config, weights, tensors=tensors, make_linear=make_linear,
                    make_embedding=make_embedding)
    made = weights.made
    caches = [KvCache(len(made.layers), page_table(slots, CONTEXT), slots * PAGES,
                      made.kv_heads, made.head_dim, weights.embedding.dtype, DEVICE)
              for _ in range(2)]
    both = TorchRunner(weights, caches[0]), GraphRunner(weights, caches[1], max_batch)
    for number, runner in enumerate(both):
        pages = torch.randperm(slots * PAGES, generator=torch.Generator().manual_seed(number))
        runner.cache.table[:] = pages.view(slots, PAGES)
    return both


def filled(config, lengths, **options):
    """Return `runners` whose slots hold the same tokens, of these lengths."""
    plain, recorded = runners(config, **options)
    plain.cache.data.normal_()
    plain.forward([Segment(slot, 0, [(slot + 11 * i) % 256 for i in range(length)], False)
                   for slot, length in enumerate(lengths) if length])
    recorded.cache.data[:, :, recorded.cache.table.ravel()] = plain.cache.data[
        :, :, plain.cache.table.ravel()]
    return plain, recorded


def near(found, wanted):
    # A GPU's libraries add in another order for every size of a product.
    limit = 2e-4 if DEVICE.type == 'cpu' else 2e-3
    torch.testing.assert_close(found, wanted, atol=limit, rtol=limit)
