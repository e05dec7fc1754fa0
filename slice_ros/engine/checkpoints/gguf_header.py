# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The header of a GGUF file: metadata of the model, and the positions of its tensors.

The reader of the gguf package makes several arrays for each token of the vocabulary, which takes
seconds and 150 MB. The vocabulary is needed for the tokenizer alone, so long arrays are skipped
unless they are asked for.
"""

from collections.abc import Container
from dataclasses import dataclass
import math
import mmap
from pathlib import Path
import struct

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

_NUMBERS = {0: 'B', 1: 'b', 2: 'H', 3: 'h', 4: 'I', 5: 'i', 6: 'f', 7: '?', 10: 'Q', 11: 'q',
            12: 'd'}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4
_MAX_KEPT = 1024  # numbers of an array that is read: more than layers, fewer than tokens


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in the file: rows of blocks."""

    name: str
    shape: tuple[int, ...]      # in torch's order
    type: GGMLQuantizationType  # noqa: A003
    start: int                  # offset of its data in the file, bytes
    nbytes: int


def read_header(path: Path, whole: Container[str] = ()
                ) -> tuple[dict[str, object], list[StoredTensor]]:
    """Return the metadata and the tensors.

    Arrays that are long or of texts are left out, but for those under the keys in `whole`.
    Raises ``OSError``, or ``ValueError`` with the reason when the file is no GGUF or is damaged.
    """
    with path.open('rb') as file:
        if not path.stat().st_size:
            raise ValueError('it is empty')
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, whole).header()


class _Reader:

    def __init__(self, data: mmap.mmap, whole: Container[str]) -> None:
        self._data = data
        self._whole = whole
        self._at = 0

    def header(self) -> tuple[dict[str, object], list[StoredTensor]]:
        if self._data[:4] != b'GGUF':
            raise ValueError('it does not begin with GGUF')
        self._at = 4
        version, tensors, fields = self._take('IQQ')
        if version not in (2, 3):
            raise ValueError(f'its version is {version}, 2 and 3 are known')
        metadata = {}
        for _ in range(fields):
            key = self._string()
            value = self._value(*self._take('I'), key in self._whole)
            if value is not None:
                metadata[key] = value
        entries = [self._entry() for _ in range(tensors)]
        alignment = metadata.get('general.alignment', 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f'its alignment is {alignment!r:.80}')
        data = -(-self._at // alignment) * alignment
        return metadata, [self._tensor(data, *entry) for entry in entries]

    def _skip(self, size: int) -> int:
        """Step over bytes of the file; return where they begin. All else is read through it."""
        if size > len(self._data) - self._at:
            raise ValueError('it was cut short, or is damaged')
        self._at += size
        return self._at - size

    def _take(self, form: str) -> tuple:
        form = f'<{form}'
        return struct.unpack_from(form, self._data, self._skip(struct.calcsize(form)))

    def _string(self) -> str:
        start = self._skip(self._take('Q')[0])
        return self._data[start:self._at].decode()

    def _value(self, kind: int, whole: bool) -> object | None:
        """Return a number, a text or an array; None for an array that is left out."""
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._take(_number(kind))[0]
        kind, count = self._take('IQ')
        if kind == _STRING and whole:
            return tuple(self._string() for _ in range(count))
        if kind == _STRING:
            length = struct.Struct('<Q')
            for _ in range(count):
                self._skip(length.unpack_from(self._data, self._skip(length.size))[0])
        elif whole or count <= _MAX_KEPT:
            return self._take(f'{count}{_number(kind)}')
        else:
            self._skip(count * struct.calcsize(_number(kind)))
        return None

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        dimensions, = self._take('I')
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise ValueError(f'tensor {name!r:.80} has {dimensions} dimensions')
        shape = self._take(f'{dimensions}Q')[::-1]
        if 0 in shape:
            raise ValueError(f'tensor {name!r:.80} is empty')
        return name, shape, *self._take('IQ')

    def _tensor(self, data: int, name: str, shape: tuple[int, ...], kind: int,
                offset: int) -> StoredTensor:
        stored = GGMLQuantizationType(kind)
        block, size = GGML_QUANT_SIZES[stored]
        if shape[-1] % block:
            raise ValueError(f'tensor {name!r:.80} has rows of {shape[-1]}, in blocks of {block}')
        nbytes = math.prod(shape) // block * size
        if data + offset + nbytes > len(self._data):
            raise ValueError(f'it was cut short: tensor {name!r:.80} goes beyond its end')
        return StoredTensor(name, shape, stored, data + offset, nbytes)


def _number(kind: int) -> str:
    if kind not in _NUMBERS:
        raise ValueError(f'it holds a value of type {kind}, which is not known')
    return _NUMBERS[kind]
