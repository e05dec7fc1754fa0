# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The runner whose forward passes vLLM computes, in a process and a Python of its own.

Pages and slots, sampling, response formats and text stay here: vLLM gets the pages that each
segment of a step has. The other end is `slice_ros.vllm.step_process`.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from slice_ros.engine.kv.slots import PAGE_TOKENS
from slice_ros.engine.runners.runner import RunnerInfo, Segment
from slice_ros.engine.runners.runner_spec import RunnerSpec
from slice_ros.engine.runners.vllm_process import find_cluster, find_python, StepProcess
from slice_ros.errors import ModelError

STEP_TOKENS = 2048      # tokens that vLLM computes at once; a larger step is cut
DTYPES = {'auto': 'auto', 'fp16': 'float16', 'bf16': 'bfloat16', 'fp32': 'float32'}
NAMES = {'float16': 'fp16', 'bfloat16': 'bf16', 'float32': 'fp32'}


class VllmRunner:
    """A `Runner` on a process of vLLM, which ends with it. Made by `start`."""

    memory = None   # it is that process's

    def __init__(self, process: StepProcess, about: dict, table: np.ndarray, pages: int,
                 weight_bytes: int) -> None:
        self._process, self._table = process, table
        self._copies: dict[int, int] = {}   # page -> the one that it is copied from
        cpu = about['device'] == 'cpu'
        self.info = RunnerInfo(
            path='vLLM', kernels=f'vLLM {about["version"]} on {about["device_name"]}', pages=pages,
            weight_bytes=weight_bytes, streamed_bytes=weight_bytes,
            kv_bytes=pages * about['page_bytes'],
            kv_bits=32 if about['weights'] == 'float32' else 16, shares_prefixes=True,
            asynchronous=not cpu, hidden=0, verifies=False,
            weights=NAMES.get(about['weights'], about['weights']),
            device='cpu' if cpu else f'{about["device"]}:0')

    def forward(self, segments: Sequence[Segment], states: np.ndarray | None = None) -> np.ndarray:
        """As `Runner.forward`."""
        found = []
        for part in cut(segments, STEP_TOKENS):
            self._send(part, logits=True)
            data = self._process.receive()[1]
            if rows := sum([s.wants_logits for s in part]):
                found.append(np.frombuffer(data, np.float32).reshape(rows, -1))
        return np.concatenate(found) if found else np.empty((0, 0), np.float32)

    def greedy(self, segments: Sequence[Segment]) -> Callable[[], list[int]]:
        """As `Runner.greedy`."""
        *before, last = cut(segments, STEP_TOKENS)
        tokens = []
        for part in before:
            self._send(part, logits=False)
            tokens += self._process.receive()[0]
        self._send(last, logits=False)
        return lambda: tokens + self._process.receive()[0]

    def share(self, source: int, slot: int, tokens: int) -> None:
        """As `Runner.share`: part of a page is copied before the next step."""
        whole, rest = divmod(tokens, PAGE_TOKENS)
        if rest:
            self._copy(self._table[source, whole], self._table[slot, whole])

    def forget(self, slot: int) -> None:
        """As `Runner.forget`: vLLM keeps nothing of a slot."""

    def fill(self, slots: Sequence[int], ids: Sequence[int]) -> None:
        """As `Runner.fill`: `ids` are fed to the first slot, and its pages copied."""
        self.forward([Segment(slots[0], 0, ids, False)])
        for slot in slots[1:]:
            for source, target in zip(self._table[slots[0]], self._table[slot]):
                if min(source, target) >= 0:
                    self._copy(source, target)

    def _copy(self, source: int, target: int) -> None:
        # What is itself still to be copied is taken from where it comes from.
        self._copies[int(target)] = self._copies.get(int(source), int(source))

    def _send(self, segments: Sequence[Segment], logits: bool) -> None:
        copies, self._copies = self._copies, {}
        self._process.send({
            'segments': [[s.start, list(s.ids), self._table[
                s.slot, :-(-(s.start + len(s.ids)) // PAGE_TOKENS)].tolist(), s.wants_logits]
                for s in segments],
            'copies': [[source, target] for target, source in copies.items()], 'logits': logits})


def cut(segments: Sequence[Segment], most: int) -> Iterator[list[Segment]]:
    """Yield the segments in steps of at most `most` tokens, in order; at least one step."""
    part, room = [], most
    for segment in segments:
        start, ids = segment.start, segment.ids
        while len(ids) > room:
            if room:
                part.append(segment._replace(start=start, ids=ids[:room], wants_logits=False))
            yield part
            start, ids, part, room = start + room, ids[room:], [], most
        part.append(segment._replace(start=start, ids=ids))
        room -= len(ids)
    yield part


def start(spec: RunnerSpec, progress: Callable[[float], None]) -> VllmRunner:
    """Have vLLM load a model; raises ``ModelError`` saying what it cannot do, or has said."""
    config = spec.config
    if config.weights not in DTYPES:
        raise ModelError(f"weights '{config.weights}' are not for engine.backend vllm, which "
                         "computes in the format of the files: use 'auto', or fp16, bf16 or fp32")
    if config.kv == '8':
        raise ModelError('keys and values in 8 bits are not for engine.backend vllm: leave '
                         "engine.kv at 'auto', or use engine.backend native")
    if config.adapters:
        raise ModelError('adapters are not mapped to vLLM: leave engine.adapters empty, or use '
                         'engine.backend native')
    python = find_python(config.vllm_python)
    if config.ray_address:
        find_cluster(config.ray_address)
    progress(0.0)
    process = StepProcess(python, config.threads, config.ray_address)
    about = process.load({
        'model': str(spec.path.absolute()), 'dtype': DTYPES[config.weights],
        'max_context': spec.max_context, 'slots': len(spec.table), 'page_tokens': PAGE_TOKENS,
        'step_tokens': STEP_TOKENS, 'memory_fraction': config.memory_fraction,
        'tensor_parallel_size': config.tensor_parallel_size, 'ray': bool(config.ray_address)})
    per_slot = spec.table.shape[1]
    pages = min(about['pages'], config.slots * per_slot)
    if pages < min(per_slot + config.slots, config.slots * per_slot):
        process.close()
        raise ModelError(f'vLLM has memory for {pages * PAGE_TOKENS} tokens of keys and values, '
                         'too few: use a shorter max_context, fewer slots, or a larger '
                         'memory_fraction')
    # As they are in the files: what vLLM makes of them, it does not say.
    weight_bytes = sum(file.stat().st_size for file in spec.path.glob('*.safetensors'))
    return VllmRunner(process, about, spec.table, pages, weight_bytes)
