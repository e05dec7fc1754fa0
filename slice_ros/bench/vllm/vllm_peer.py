# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""vLLM as a peer of ``slice_bench serve``: the same arrivals, in real time.

Each peer is a process of vLLM's own Python, alone on the machine while it is measured: our engine
computes nothing then, and one peer ends before the next one starts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
import importlib.util
import json
import os
from pathlib import Path
import random
import signal
import sys
import tempfile

from slice_ros.bench.processes import Worker
from slice_ros.bench.schedule.workload import Arrival
from slice_ros.engine.checkpoints.model_path import find_model
from slice_ros.engine.export_gguf import export_gguf
from slice_ros.engine.runners.vllm_process import environment
from slice_ros.errors import ErrorCode
from slice_ros.request import Request, State

# vLLM as it comes, with the classes ranked by their utility, and with our policy.
PEERS = ('vllm', 'vllm:priority', 'vllm:slice')
FOLDER = Path('.venv-vllm')   # where `make test-vllm` puts vLLM
SCHEDULER = 'slice_ros.vllm.SliceScheduler'
PROCESSOR = 'slice_ros.bench.vllm.scripted_answers:ScriptedAnswers'
FIRST_TOKEN = 2               # of prompts: those before it end texts
START_S = 900.0               # to load the model, and to serve some requests
SERVED = ('stop', 'length')   # how vLLM says that an answer is whole


def find_vllm(named: str) -> str:
    """Return the Python that has vLLM. Raises ``ValueError`` where none is found."""
    made = FOLDER.absolute() / 'bin' / 'python'
    if named or made.exists():
        return named or str(made)
    if importlib.util.find_spec('vllm') is None:
        raise ValueError(f'--peer vllm needs vLLM: name the Python of an environment with it in '
                         f'--peer-python, or let `make test-vllm` make {FOLDER}')
    return sys.executable


@contextmanager
def model_directory(model: str) -> Iterator[Path]:
    """Give a directory that vLLM reads: of a GGUF file, one that is made for this block."""
    if model and find_model(model).is_dir():
        yield find_model(model)
        return
    with tempfile.TemporaryDirectory(prefix='slice_bench_') as folder:
        export_gguf(model, Path(folder) / 'model')
        yield Path(folder) / 'model'


class VllmPeer:
    """A peer that serves loads until it is left; its process ends with this program at the latest.

    Raises ``ValueError`` when vLLM cannot be started.
    """

    def __init__(self, peer: str, python: str, model: Path, dtype: str,
                 arrivals: Sequence[Arrival], max_batch: int, slots: int, threads: int) -> None:
        context = max(a.prompt_tokens + a.max_tokens for a in arrivals)
        options = {
            'model': str(model), 'dtype': dtype, 'skip_tokenizer_init': True,
            'enforce_eager': True, 'max_model_len': context, 'enable_prefix_caching': False,
            # Ours chooses who decodes among all with a KV cache; vLLM's own decodes all of these.
            'max_num_seqs': slots if peer == 'vllm:slice' else max_batch,
            'logits_processors': [PROCESSOR]}
        if peer == 'vllm:priority':
            options['scheduling_policy'] = 'priority'
        if peer == 'vllm:slice':
            classes = {a.slo.name: asdict(a.slo) for a in arrivals}
            for entry in classes.values():
                del entry['name']
            options |= {'scheduler_cls': SCHEDULER, 'additional_config': {
                'slice': {'classes': classes, 'max_batch': max_batch}}}
        self._folder = tempfile.TemporaryDirectory(prefix='slice_bench_')
        self._peer = peer
        self._worker = Worker('slice_ros.bench.vllm.vllm_load', json.dumps(options),
                              python=python, env=environment(Path(self._folder.name), threads),
                              start_new_session=True)

    def __enter__(self) -> 'VllmPeer':
        try:
            self.about = self._line(START_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        self._worker.close()
        try:   # vLLM's own processes, if it was killed or has failed
            os.killpg(self._worker.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._folder.cleanup()

    def serve(self, arrivals: Sequence[Arrival], seed: int, vocabulary: int, patience: float,
              on_end: Callable[[], None]) -> tuple[list[Request], int]:
        """Serve a load in real time; return its requests, and the steps that gave a token.

        `patience` are the seconds after the last arrival for requests that are still live.
        `on_end` is called for each request that ends.
        """
        requests = [Request(f'{a.slo.name}-{i}', a.slo, a.time, a.prompt_tokens, a.max_tokens)
                    for i, a in enumerate(arrivals)]
        self._worker.send(load=orders(arrivals, seed, vocabulary))
        left = arrivals[-1].time + patience
        while 'steps' not in (line := self._line(left)):
            _end(requests[line['ended']], line)
            on_end()
        return requests, line['steps']

    def _line(self, timeout: float) -> Mapping:
        try:
            line = self._worker.line(timeout)
        except ValueError as error:
            causes = [line for line in self._worker.log().splitlines() if 'Error: ' in line]
            raise ValueError(f'{self._peer}: vLLM ended: {causes[0].strip():.300}' if causes
                             else str(error)) from error
        if not isinstance(line, dict):
            raise ValueError(f'{self._peer}: vLLM said nothing for {timeout:.0f} s: '
                             f'{self._worker.end_of_log()}')
        return line


def prompts_of(arrivals: Sequence[Arrival], seed: int, vocabulary: int) -> list[list[int]]:
    """Return the prompts of a load: random tokens, but none that ends an answer."""
    draw = random.Random(seed)
    return [[draw.randrange(FIRST_TOKEN, vocabulary) for _ in range(a.prompt_tokens)]
            for a in arrivals]


def orders(arrivals: Sequence[Arrival], seed: int, vocabulary: int) -> list[dict]:
    """Return a load as `vllm_load` reads it."""
    utilities = sorted({a.slo.utility for a in arrivals}, reverse=True)
    ranks = {utility: rank for rank, utility in enumerate(utilities)}
    return [{'time': a.time, 'prompt': prompt, 'max_tokens': a.max_tokens,
             'length': min(a.output_tokens, a.max_tokens), 'rank': ranks[a.slo.utility],
             'arguments': {'slo_class': a.slo.name}}
            for a, prompt in zip(arrivals, prompts_of(arrivals, seed, vocabulary))]


def _end(request: Request, line: Mapping) -> None:
    """Record how a request was served."""
    request.generated, request.max_gap = line['tokens'], line['gap']
    if line['tokens']:
        request.first_token_at, request.last_token_at = line['first'], line['last']
    if line['reason'] in SERVED:
        request.end(State.FINISHED, line['at'])
    else:
        request.end(State.FAILED, line['at'], ErrorCode.ENGINE_FAILURE)
