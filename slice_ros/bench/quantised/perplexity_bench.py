# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench perplexity``: each file that llama.cpp's quantiser writes, read by both engines.

Both read the same tokens of a text in the same chunks, from the same file.
"""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from contextlib import closing
import json
from pathlib import Path
from tempfile import TemporaryDirectory
import time

from rich.console import Console
from rich.table import Table
from slice_ros.bench.engine.accuracy import CHUNK, engine_perplexity, text_tokens
from slice_ros.bench.engine.cyllama_peer import Cyllama
from slice_ros.bench.engine.peer_process import Peer
from slice_ros.bench.quantised.disturbed import write_disturbed
from slice_ros.bench.quantised.quantiser import FILE_TYPES, quantise
from slice_ros.engine import EngineConfig, load_engine
from slice_ros.engine.checkpoints.gguf_header import read_header
from slice_ros.engine.checkpoints.model_path import find_model
from slice_ros.engine.config import ISAS
from slice_ros.errors import ModelError

MOST = 1.01   # perplexity as a share of llama.cpp's


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument('--model', default='', help='.gguf file whose disturbed weights are '
                        'quantised; the embedded model if not given')
    parser.add_argument('--widen', action='store_true', help='copy channels and heads so that all '
                        'rows divide by 256, which K-quants need: the function is the same '
                        '(models of Llama)')
    parser.add_argument('--types', type=_types, default=','.join(FILE_TYPES),
                        help='file types, for example Q4_0,Q4_K_M; all if not given')
    parser.add_argument('--isa', type=_isas, default='auto', help='instruction sets of the native '
                        'kernels, for example auto,avx2')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--folder', type=Path, help='where the files are made and kept, and taken '
                        'from the next time; a temporary one if not given')
    parser.add_argument('--json', type=Path, help='file to write the figures to')


def run(args: Namespace) -> int:
    """Print the table, write the JSON after each row; returns 1 where a row is beyond `MOST`.

    Raises ``ValueError`` for a model that cannot be widened, or without cyllama; ``ModelError``.
    """
    console, rows = Console(), []
    with TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        floats = folder / ('wide.gguf' if args.widen else 'plain.gguf')
        if not floats.exists():
            part = floats.with_suffix('.part')
            write_disturbed(find_model(args.model), part, args.widen)
            part.rename(floats)
        for name in args.types:
            console.print(f'{name} ...')
            rows.append({'type': name} | _row(floats, name, args))
            if args.json:
                args.json.parent.mkdir(parents=True, exist_ok=True)
                args.json.write_text(json.dumps(rows, indent=1) + '\n')
            if not args.folder and name != 'F16':
                _file(floats, name).unlink(missing_ok=True)
    show(console, rows, args.isa)
    return int(any(row.get('ratio', 0) > MOST for row in rows))


def show(console: Console, rows: list[dict], isas: list[str]) -> None:
    """Print the rows as a table, and as sentences what was refused."""
    table = Table(title='perplexity of a text, and as a share of that of llama.cpp')
    for name in ('file', 'bits', *isas, 'llama.cpp', 'ratio'):
        table.add_column(name, justify='left' if name == 'file' else 'right', no_wrap=True)
    for row in rows:
        if 'refused' not in row:
            table.add_row(row['type'], f'{row["bits"]:.2f}', *(
                f'{row["perplexity"][isa]:.3f}' for isa in isas),
                f'{row["peer"]:.3f}', f'{row["ratio"]:.4f}')
    console.print(table)
    for row in rows:
        if 'refused' in row:
            console.print(f'{row["type"]}: {row["refused"]}')


def _file(floats: Path, name: str) -> Path:
    return floats if name == 'F16' else floats.with_name(f'{floats.stem}-{name.lower()}.gguf')


def _row(floats: Path, name: str, args: Namespace) -> dict:
    """Return the figures of a file type, or why there are none."""
    path = _file(floats, name)
    try:
        if not path.exists():
            quantise(floats, path, name, args.threads)
        tensors = [tensor for tensor in read_header(path)[1] if len(tensor.shape) > 1]
        sizes = Counter()
        for tensor in tensors:
            sizes[tensor.type.name] += tensor.nbytes
        weights = sum(tensor.shape[0] * tensor.shape[1] for tensor in tensors)
        found, seconds = {}, {}
        for isa in args.isa:
            engine = load_engine(EngineConfig(str(path), 'cpu', threads=args.threads, isa=isa,
                                              max_context=CHUNK, slots=1, max_batch=1))
            tokens = text_tokens(engine)
            found[isa], seconds[isa] = _timed(engine_perplexity, engine, tokens)
        rows = min(CHUNK, engine.info.max_context)
        del engine
        with closing(Peer('cyllama', Cyllama, str(path), args.threads, 1, rows, rows)) as peer:
            theirs, seconds['llama.cpp'] = _timed(peer.perplexity, tokens)
    except (ValueError, ModelError) as error:
        return {'refused': str(error)}
    return {'bits': 8 * sum(sizes.values()) / weights, 'tensors': dict(sizes),
            'perplexity': found, 'peer': theirs, 'ratio': max(found.values()) / theirs,
            'seconds': seconds}


def _timed(function, *arguments: object) -> tuple[float, float]:
    started = time.perf_counter()
    return function(*arguments), time.perf_counter() - started


def _types(text: str) -> list[str]:
    return _of(text, FILE_TYPES)


def _isas(text: str) -> list[str]:
    return _of(text, ISAS)


def _of(text: str, choices) -> list[str]:
    names = text.split(',')
    wrong = next((name for name in names if name not in choices), None)
    if wrong is not None:
        raise ArgumentTypeError(f'{wrong!r:.40} is none of {", ".join(choices)}')
    return names
