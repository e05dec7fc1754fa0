# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The shared library behind ctypes: finding it, checking its version, declaring functions."""

import ctypes
from ctypes import c_char_p, c_float, c_int32, c_int64, c_void_p, POINTER, Structure
from functools import lru_cache
import hashlib
from pathlib import Path
import subprocess
import sys

ABI_VERSION = 15         # that of src/slice_kernels.h
FILE_NAME = 'libslice_kernels.so'
BEST, PORTABLE, AVX2, AVX512, DOTPROD, AVXVNNI, I8MM = -1, 0, 1, 2, 3, 4, 5
ISAS = {'auto': BEST, 'portable': PORTABLE, 'avx2': AVX2, 'avx512': AVX512, 'dotprod': DOTPROD,
        'avxvnni': AVXVNNI, 'i8mm': I8MM}

ERRORS = {
    -1: 'an argument is missing or out of range',
    -2: 'a token is not in the vocabulary',
    -3: 'a slot does not exist, or its tokens do not stand together',
    -4: 'a position is beyond the context, or does not follow the one before it',
    -5: 'a position has no page in the page table',
    -6: 'more rows than the runner was made for',
}


class Matrix(Structure):
    """``SliceMatrix``."""

    _fields_ = [('data', c_void_p), ('bias', c_void_p), ('kind', c_int32), ('outputs', c_int32),
                ('inputs', c_int32), ('reserved', c_int32)]


class Expert(Structure):
    """``SliceExpert``."""

    _fields_ = [('gate_up', Matrix), ('down', Matrix)]


class Delta(Structure):
    """``SliceDelta``."""

    _fields_ = [('in_', Matrix), ('rates', Matrix), ('conv', c_void_p), ('decay', c_void_p),
                ('bias', c_void_p), ('norm', c_void_p), ('key_heads', c_int32),
                ('value_heads', c_int32), ('key_dim', c_int32), ('value_dim', c_int32),
                ('taps', c_int32), ('reserved', c_int32)]


class ShortConv(Structure):
    """``SliceShortConv``."""

    _fields_ = [('in_', Matrix), ('conv', c_void_p), ('taps', c_int32), ('reserved', c_int32)]


class Mamba(Structure):
    """``SliceMamba``."""

    _fields_ = [('in_', Matrix), ('rates', Matrix), ('out', Matrix), ('conv', c_void_p),
                ('conv_bias', c_void_p), ('decay', c_void_p), ('bias', c_void_p),
                ('skip', c_void_p), ('norm', c_void_p), ('least_step', c_float),
                ('most_step', c_float), ('heads', c_int32), ('head_dim', c_int32),
                ('groups', c_int32), ('state', c_int32), ('taps', c_int32),
                ('norm_parts', c_int32), ('norm_first', c_int32), ('reserved', c_int32)]


class Layer(Structure):
    """``SliceLayer``."""

    _fields_ = [('attention_norm', c_void_p), ('attention_out_norm', c_void_p),
                ('mlp_norm', c_void_p), ('mlp_out_norm', c_void_p), ('query_norm', c_void_p),
                ('key_norm', c_void_p), ('rope', c_int32), ('window', c_int32), ('qkv', Matrix),
                ('attention_out', Matrix), ('gate_up', Matrix), ('down', Matrix),
                ('expert', POINTER(Expert)), ('router', Matrix), ('choice_bias', c_void_p),
                ('delta', POINTER(Delta)), ('short_conv', POINTER(ShortConv)),
                ('mamba', POINTER(Mamba)), ('sinks', c_void_p)]


class LowRank(Structure):
    """``SliceLowRank``."""

    _fields_ = [('down', Matrix), ('up', c_void_p), ('block', c_void_p)]


class Model(Structure):
    """``SliceModel``."""

    _fields_ = [('layer', POINTER(Layer)), ('final_norm', c_void_p), ('rope_cos', c_void_p),
                ('rope_sin', c_void_p), ('query_scale', c_void_p), ('embedding', Matrix),
                ('head', Matrix),
                ('low_rank', POINTER(LowRank)),
                ('layers', c_int32), ('hidden', c_int32), ('heads', c_int32),
                ('kv_heads', c_int32), ('head_dim', c_int32), ('rotary_dim', c_int32),
                ('intermediate', c_int32), ('vocabulary', c_int32), ('positions', c_int32),
                ('ropes', c_int32), ('activation', c_int32), ('adapters', c_int32),
                ('experts', c_int32), ('chosen_experts', c_int32),
                ('expert_intermediate', c_int32), ('share_scores', c_int32),
                ('sigmoid_scores', c_int32), ('gated_attention', c_int32),
                ('joint_norms', c_int32), ('norms_of_heads', c_int32),
                ('norms_behind_rope', c_int32), ('norm', c_int32), ('parallel', c_int32),
                ('input_levels', c_int32),
                ('norm_eps', c_float), ('attention_scale', c_float),
                ('attention_softcap', c_float), ('logit_softcap', c_float),
                ('embedding_scale', c_float), ('residual_scale', c_float),
                ('gate_scale', c_float), ('gate_limit', c_float), ('expert_scale', c_float)]


class Cache(Structure):
    """``SliceCache``."""

    _fields_ = [('keys', c_void_p), ('values', c_void_p), ('page_table', c_void_p),
                ('slots', c_int32), ('pages_per_slot', c_int32), ('pages', c_int32),
                ('bits', c_int32), ('states', c_void_p)]


_FUNCTIONS = {
    'slice_isa': (c_int32, c_int32),
    'slice_isa_name': (c_char_p, c_int32),
    'slice_packed_bytes': (c_int64, c_int32, c_int32, c_int32),
    'slice_pack_floats': (c_int32, c_int32, c_int32, c_int32, c_void_p, c_void_p),
    'slice_pack_codes': (c_int32, c_int32, c_int32, c_int32, c_void_p, c_void_p, c_void_p,
                         c_void_p),
    'slice_gguf_codes': (c_int32, c_int32, c_int64, c_void_p, c_void_p, c_void_p, c_void_p,
                         c_void_p),
    'slice_gguf_floats': (c_int32, c_int32, c_int64, c_void_p, c_void_p, c_void_p),
    'slice_unpack_row': (c_int32, POINTER(Matrix), c_int32, c_void_p),
    'slice_page_bytes': (c_int64, c_int32, c_int32, c_int32),
    'slice_runner_create': (c_void_p, POINTER(Model), POINTER(Cache), c_int32, c_int32, c_int32),
    'slice_runner_destroy': (None, c_void_p),
    'slice_step': (c_int32, c_void_p, c_int32, c_void_p, c_void_p, c_void_p, c_int32, c_void_p,
                   c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_int32, c_void_p, c_void_p,
                   c_void_p),
    'slice_matmul': (c_int32, c_int32, POINTER(Matrix), c_int32, c_void_p, c_void_p),
    'slice_attend': (c_int32, c_int32, c_int32, c_int32, c_int32, c_int32, c_void_p, c_void_p,
                     c_void_p, c_void_p),
    'slice_peak': (c_int64, c_int32, c_int32, c_int32),
    'slice_read_rate': (c_int64, c_int32, c_int32, c_void_p, c_int64),
    'slice_rms_norm': (c_int32, c_int32, c_int32, c_int32, c_float, c_void_p, c_void_p, c_void_p),
}


class Library:
    """The loaded library; its functions are attributes, by their C names.

    Raises ``OSError`` when the file cannot be loaded, ``ValueError`` when it is another version,
    is built for another processor, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_machine(path)
        stat = path.stat()
        fatal = _fatal_signal(path, stat.st_size, stat.st_mtime_ns)
        if fatal:
            raise ValueError(f'it is damaged: a process that loads it ends with signal {fatal}')
        handle = ctypes.CDLL(str(path))
        try:
            version = handle.slice_abi_version()
            if version != ABI_VERSION:
                raise ValueError(f'its interface is version {version}, {ABI_VERSION} is wanted')
            for name, (result, *arguments) in _FUNCTIONS.items():
                function = getattr(handle, name)
                function.restype = result
                function.argtypes = arguments
                setattr(self, name, function)
        except AttributeError as error:
            raise ValueError(f'it lacks a function ({error})') from error

    def isa_name(self, isa: int = BEST) -> str:
        """Return the name of an instruction set, of the best one of this machine for `BEST`."""
        return self.slice_isa_name(self.slice_isa(isa)).decode()

    def digest(self) -> str:
        """Return what no other library has: its interface's version and a hash of its file."""
        return f'{ABI_VERSION} {hashlib.sha256(self.path.read_bytes()).hexdigest()}'

    def has(self, isa: int) -> bool:
        """Return whether this machine and this build have an instruction set."""
        return self.slice_isa(isa) >= 0


def load_library(path: Path | None = None) -> tuple[Library | None, str]:
    """Return the library and a sentence for the log; or None, and a sentence why.

    Without `path`, it is looked for beside this file, then at the same place under each entry of
    ``sys.path``: in a checkout, the source tree hides the installed package that has it.
    """
    paths = [path] if path else _candidates()
    problem = 'the package was built without it'
    for candidate in paths:
        try:
            if not candidate.is_file():
                continue
            library = Library(candidate)
        except (OSError, ValueError) as error:
            problem = f'{candidate} cannot be used: {error}'
            continue
        return library, f'native kernels: up to {library.isa_name()}, from {candidate}'
    return None, f'no native kernels, the torch path runs: {problem}'


def _candidates() -> list[Path]:
    here = Path(__file__).parent
    inside = Path(*__name__.split('.')[:-1]) / FILE_NAME
    return [here / FILE_NAME, *(Path(entry) / inside for entry in sys.path)]


def _check_machine(path: Path) -> None:
    """Raise ``ValueError`` when an ELF file is for another processor than this Python.

    The system's loader reports only that the file does not exist.
    """
    try:
        with open(sys.executable or '', 'rb') as python, path.open('rb') as library:
            ours, other = python.read(20), library.read(20)
    except OSError:
        return  # no program to compare with, or the loader reports the fault
    if ours[:4] == other[:4] == b'\x7fELF' and (
            (ours[4:6], ours[18:20]) != (other[4:6], other[18:20])):
        raise ValueError('it was built for another kind of processor')


@lru_cache
def _fatal_signal(path: Path, size: int, modified_ns: int) -> int:
    """Return the signal that ends a process when it loads the file, 0 for none.

    A file that was cut short ends the process without an exception, so another one tries first.
    """
    code = 'import ctypes, sys; ctypes.CDLL(sys.argv[1]).slice_isa(-1)'
    try:
        # In a session of its own, so that Ctrl-C does not count as a fault of the library.
        trial = subprocess.run([sys.executable or '', '-I', '-S', '-c', code, path],
                               capture_output=True, timeout=30, start_new_session=True)
    except (OSError, subprocess.TimeoutExpired):
        return 0  # no interpreter to try it in, or no time
    return max(0, -trial.returncode)
