# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench engine --roofline``: steps of the native kernels as shares of what limits them.

The roofline model (Williams, Waterman, Patterson: Roofline, Communications of the ACM 52(4),
2009): a step takes at least as long as reading its bytes from memory, and as its multiply-adds
at the peak rate of the instructions that the kernels use. The first limits a decode step at batch
1, the second a long prefill. Both limits are measured by the native library, on as many threads
and with the same instruction set as the steps.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
import math

import numpy as np
from slice_ros.bench.engine.engine_measure import floor_ms, READ_BYTES
from slice_ros.engine import Engine
from slice_ros.engine.models.architecture import Architecture, mlp_parts
from slice_ros.engine.profile import Probe
from slice_ros.engine.runners.native import ISAS, KINDS, Library, load_library
from slice_ros.engine.runners.native.arena import Arena
from slice_ros.engine.runners.native.native_runner import NativeRunner


def roofline(engines: Mapping[str, Engine], isa: str, rounds: int, context: int, tokens: int,
             done: Callable[[float], None]) -> dict:
    """Return limits, and a decode step and a prefill of each engine as shares of them.

    `engines` are by their weights. A decode step is that of one request with `context` cached
    tokens, a prefill has `tokens`. Of the limits as of the steps, the best of the rounds counts,
    which other processes disturb least. `done` is called with the share of the rounds
    that is over. Raises ``ValueError`` for an engine that does not run on the native kernels.
    """
    for engine in engines.values():
        if not isinstance(engine._runner, NativeRunner):
            raise ValueError('--roofline is for the native kernels, and the steps of '
                             f'{engine.info.model} run on {engine.info.kernels}')
    library, _ = load_library()
    threads = next(iter(engines.values())).info.threads
    # Written once: pages that never were are all the same one, in the caches.
    data = Arena().take(READ_BYTES['cpu'])
    data[:] = 1
    rates, seconds = defaultdict(float), defaultdict(lambda: math.inf)
    with ExitStack() as stack:
        probes = {weights: stack.enter_context(Probe(engine, 1))
                  for weights, engine in engines.items()}
        for round_ in range(rounds):
            for name, rate in _limits(library, isa, data, {*engines, 'fp32'}, threads).items():
                rates[name] = max(rates[name], rate)
            for weights, probe in probes.items():
                probe.decode(1, context)  # not timed: others have changed the caches
                for step, taken in (('decode', probe.decode(1, context)),
                                    ('prefill', probe.prefill(tokens))):
                    seconds[weights, step] = min(seconds[weights, step], taken)
            done((round_ + 1) / rounds)
    rows = []
    for weights, engine in engines.items():
        least_s = floor_ms(engine, rates['read'], 1, context) / 1e3
        rows.append({'weights': weights, 'step': 'decode 1', 'unit': 'GB'} | share(
            least_s * rates['read'], least_s, seconds[weights, 'decode']))
        model = engine._runner._model
        products, attention = prefill_products(model.made, tokens)
        least_s = products / rates[weights] + attention / rates['fp32']
        rows.append({'weights': weights, 'step': f'prefill {tokens}', 'unit': 'GMAC'} | share(
            products + attention, least_s, seconds[weights, 'prefill']))
    return {'kernels': library.isa_name(ISAS[isa]), 'threads': threads,
            'read_gb_per_s': rates.pop('read') / 1e9,
            'peak_gmac_per_s': {kind: rates[kind] / 1e9 for kind in KINDS if kind in rates},
            'rows': rows}


def _limits(library: Library, isa: str, data: np.ndarray,
            kinds: set[str], threads: int) -> dict[str, int]:
    """Return bytes per second under 'read', and the peak of each kind in multiply-adds per second.

    Memory is read as the matmul reads weights, `data` long, which is far more than the caches
    hold. A peak is that of independent sums whose operands stay in registers: 8 bit dot products
    for int8 and int4 (on AVX2 two products of half a code for int8), else fused multiply-adds in
    fp32. Loads, unpacking and the scales of quantised groups are not in it.
    """
    return {'read': library.slice_read_rate(ISAS[isa], threads, data.ctypes.data, data.nbytes)} | {
        kind: library.slice_peak(ISAS[isa], KINDS[kind], threads) for kind in kinds}


def prefill_products(made: Architecture, tokens: int) -> tuple[int, int]:
    """Return the multiply-adds of a prefill with nothing cached: with weights, and in attention.

    A matrix takes one for each of its weights and each row. After the attention of the last layer
    only the last row goes on, to the head. Attention, in fp32, meets a key and a value for every
    token and each one before it.
    """
    layers, queries = len(made.layers), made.heads * made.head_dim
    qkv = made.hidden * (queries + 2 * made.kv_heads * made.head_dim)
    dense, sparse = queries + (len(mlp_parts(made)) + 1) * made.intermediate, 0
    if made.experts is not None:
        wide = made.experts.chosen * made.experts.intermediate + made.experts.shared
        sparse = queries + made.experts.count + made.experts.shared_gate + 3 * wide
    rest = made.hidden * sum(sparse if layer.sparse else dense for layer in made.layers)
    rows = (layers - 1) * tokens + 1
    return (layers * tokens * qkv + rows * rest // layers + made.hidden * made.vocabulary,
            layers * queries * tokens * (tokens + 1))


def share(work: float, least_s: float, taken_s: float) -> dict[str, float]:
    """Return work in 1e9, ms at the limit and as measured, and the share of the limit reached."""
    return {'work': work / 1e9, 'least_ms': 1e3 * least_s, 'ms': 1e3 * taken_s,
            'share': least_s / taken_s}
