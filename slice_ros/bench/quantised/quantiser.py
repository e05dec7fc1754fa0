# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""llama.cpp's own quantiser, in the build of the package cyllama."""

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
import multiprocessing
from pathlib import Path

from gguf import LlamaFileType

# The numbers of llama.cpp's file types by name, the finest first.
FILE_TYPES = {name: LlamaFileType[f'{"ALL" if name == "F32" else "MOSTLY"}_{name}'].value
              for name in (
    'F32', 'BF16', 'F16', 'Q8_0', 'Q6_K', 'Q5_1', 'Q5_0', 'Q5_K_M', 'Q5_K_S', 'Q4_1', 'Q4_0',
    'Q4_K_M', 'Q4_K_S', 'IQ4_NL', 'IQ4_XS', 'MXFP4_MOE', 'NVFP4', 'Q3_K_L', 'Q3_K_M', 'Q3_K_S',
    'IQ3_M', 'IQ3_S', 'IQ3_XS', 'IQ3_XXS', 'Q2_K', 'Q2_K_S', 'IQ2_M', 'IQ2_S', 'IQ2_XS',
    'IQ2_XXS', 'IQ1_M', 'IQ1_S', 'TQ2_0', 'TQ1_0', 'Q1_0')}
# Of dense models, which have no experts, these would have no tensor in their own type.
_PURE = ('MXFP4_MOE',)


def quantise(source: Path, path: Path, name: str, threads: int) -> None:
    """Write the GGUF file `source`, of floats, to `path` in a file type of `FILE_TYPES`.

    In a process of its own, which llama.cpp may end. Raises ``ValueError`` when cyllama is not
    installed or the quantiser refuses.
    """
    part = path.with_suffix('.part')
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        try:
            pool.submit(_quantise, str(source), str(part), FILE_TYPES[name], name in _PURE,
                        threads).result()
        except (BrokenProcessPool, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise ValueError(f'llama.cpp does not write {name}: {error}') from error
    part.rename(path)


def _quantise(source: str, path: str, number: int, pure: bool, threads: int) -> None:
    try:
        import cyllama.llama.llama_cpp as api
    except ImportError as error:
        raise ValueError('files are quantised with the package cyllama, which is not installed '
                         f'({error})') from error
    said = []
    api.set_log_callback(lambda level, text: said.append(text))
    params = api.LlamaModelQuantizeParams()
    params.ftype, params.pure, params.nthread = number, pure, threads
    try:
        api.model_quantize(source, path, params)
    except RuntimeError as error:
        raise RuntimeError(_reason(said) or str(error)) from None


def _reason(said: list[str]) -> str:
    """Return the line of the log that says what is wrong."""
    lines = ''.join(said).splitlines()
    return next((line for line in reversed(lines) if 'failed' in line), '')
