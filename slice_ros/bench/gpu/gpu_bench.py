# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench gpu``: all there is to find out in ten minutes with a GPU, the important first.

The JSON and a Markdown table beside it are written after each part.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
import json
from pathlib import Path
import sys
from tempfile import TemporaryDirectory

from rich.console import Console
from slice_ros.bench.gpu.gpu_checks import find_machine, missing
from slice_ros.bench.gpu.gpu_parts import (
    Advance, DONE, FAILED, Outcome, Part, run_parts, run_program, run_tests)
from slice_ros.bench.gpu.gpu_table import table
from slice_ros.bench.processes import end_as_interrupted
from slice_ros.bench.progress import parts as progress_of_parts

# What the name of a runner that replays recorded steps contains.
GRAPHS = 'CUDA graphs'
_FORWARD_S, _TESTS_S = 90.0, 150.0
_TESTS = 'test'   # in the checkout, from which this runs


@dataclass(frozen=True, slots=True)
class Measure:
    """A run of ``slice_bench engine`` on random weights of a shape."""

    shape: str
    weights: str                # auto: bf16, or fp16 on a GPU without bf16
    limit_s: float              # beyond what a slow card takes
    batches: str = '1,2,4,8,16'
    prefill: str = '64,512,2048'
    peer: str = ''

    @property
    def name(self) -> str:
        """The shape, the precision and the peer."""
        weights = '16 bits' if self.weights == 'auto' else self.weights
        return f'{self.shape}, {weights}' + (f', beside {self.peer}' if self.peer else '')

    def arguments(self, path: str, device: str = 'cuda') -> list[str]:
        """Return those of the program that writes its JSON to `path`."""
        return ['slice_ros.bench', 'engine', '--device', device, '--shape', self.shape,
                '--weights', self.weights, '--batches', self.batches, '--contexts', '64,512',
                '--prefill', self.prefill, '--rounds', '5', '--json', path,
                *(('--peer', self.peer) if self.peer else ())]


def _beside_transformers(shape: str, limit_s: float) -> Measure:
    # Compiling each batch size takes the peer tens of seconds.
    return Measure(shape, 'auto', limit_s, '1,8', '512', 'transformers')


# The most important first: what comes last may find no time.
MEASURES = (
    Measure('llama-3.1-8b', 'auto', 75.0), Measure('llama-3.1-8b', 'int4', 75.0),
    Measure('llama-3.2-1b', 'auto', 45.0), Measure('llama-3.2-1b', 'int4', 45.0),
    Measure('llama-3.1-8b', 'int8', 75.0), Measure('llama-3.2-1b', 'int8', 45.0),
    _beside_transformers('llama-3.2-1b', 120.0),
    *(Measure('qwen2.5-0.5b', weights, 45.0) for weights in ('auto', 'int4', 'int8')),
    _beside_transformers('llama-3.1-8b', 150.0), _beside_transformers('qwen2.5-0.5b', 120.0))


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument('--minutes', type=float, default=9.0, help='for all parts together; a '
                        'part that is stopped may take 20 s more to end')
    parser.add_argument('--json', type=Path, default=Path('gpu.json'), help='file to write the '
                        'figures to, and a table in Markdown beside it (.md)')


def run(args: Namespace) -> int:
    """Check, test and measure; returns 1 where something is missing or has failed."""
    end_as_interrupted()
    console = Console(soft_wrap=True, highlight=False)
    machine = find_machine()
    sentences = missing(machine)
    for sentence in sentences:
        print(f'slice_bench gpu: {sentence}', file=sys.stderr)
    if sentences:
        return 1
    outcomes: dict[str, Outcome] = {}
    args.json.parent.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        result = {'machine': asdict(machine),
                  'parts': {name: asdict(outcome) for name, outcome in outcomes.items()}}
        _replace(args.json, json.dumps(result, indent=1) + '\n')
        _replace(args.json.with_suffix('.md'), table(result))
        for line in _last(outcomes):
            console.print(line, markup=False)

    with TemporaryDirectory() as folder, progress_of_parts(console) as show:
        run_parts(list(make_parts(folder)), outcomes, 60 * args.minutes, save, show)
    console.print(args.json.with_suffix('.md').read_text(), markup=False)
    return int(any(outcome.state == FAILED for outcome in outcomes.values()))


def make_parts(folder: str, measures: Sequence[Measure] = MEASURES) -> Iterator[Part]:
    """Return all parts in order; they leave their JSON in `folder`."""
    yield Part('forward', _FORWARD_S, partial(run_forward, path=f'{folder}/forward.json'))
    yield Part('tests', _TESTS_S, partial(run_tests, folder=_TESTS))
    for number, measure in enumerate(measures):
        path = f'{folder}/{number}.json'
        yield Part(measure.name, measure.limit_s, partial(
            _run_to_json, arguments=measure.arguments(path), path=path))


def run_forward(outcome: Outcome, limit_s: float, advance: Advance, path: str) -> None:
    """Load the embedded model; the part has failed if its steps are not recorded."""
    _run_to_json(outcome, limit_s, advance, ['slice_ros.bench.gpu.gpu_forward', path], path)
    if outcome.state == DONE and GRAPHS not in outcome.result['kernels']:
        outcome.state = FAILED
        outcome.reason = (f'the forward pass is {outcome.result["kernels"]}, not {GRAPHS}: '
                          + ('; '.join(outcome.result['warnings']) or 'the log has no reason'))


def _run_to_json(outcome: Outcome, limit_s: float, advance: Advance, arguments: list[str],
                 path: str) -> None:
    run_program(outcome, limit_s, advance, arguments)
    if outcome.state == DONE:
        outcome.result = json.loads(Path(path).read_text())


def _last(outcomes: dict[str, Outcome]) -> list[str]:
    """Return a line about the part that has just ended, if there is one."""
    ended = [(name, o) for name, o in outcomes.items() if o.seconds]
    if not ended:
        return []
    name, outcome = ended[-1]
    reason = f': {outcome.reason}' if outcome.reason else ''
    return [f'{name}: {outcome.state} after {outcome.seconds:.0f} s{reason}']


def _replace(path: Path, text: str) -> None:
    """Write a file so that whatever stops this process leaves the old or the new one."""
    new = path.with_name(path.name + '.new')
    new.write_text(text)
    new.replace(path)
