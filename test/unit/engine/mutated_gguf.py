# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""GGUF files with damage that nobody thought of, as bytes."""

import random
import struct

import gguf
import gguf_files
import tiny

_NUMBERS = (0, 1, 2, 7, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 62, (1 << 63) - 1, 1 << 63,
            (1 << 64) - 1)
_FLOATS = (float('nan'), float('inf'), -1.0, 0.0)


def whole_file(path):
    """Write a GGUF file with every kind of metadata; return it, and the length of its header."""
    config = tiny.llama()
    gguf_files.write(path, 'llama', config, tiny.model(config).state_dict(), describe=_describe)
    whole = path.read_bytes()
    return whole, gguf.GGUFReader(path).data_offset


def _describe(writer):
    writer.add_token_list(['a', 'bc', ''])
    writer.add_array('slice.long', [True] * 1025)
    writer.add_array('slice.short', [3, 4])
    writer.add_bool('slice.flag', True)
    writer.add_float64('slice.double', 0.5)


def mutated(whole, header, seed):
    """Return `whole` with one to four changes in its header."""
    dice, data = random.Random(seed), bytearray(whole)
    for _ in range(dice.choice((1, 1, 2, 4))):
        at = dice.randrange(header)
        kind = dice.randrange(6)
        if kind == 0:
            data[at] = dice.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 2:
            data[at:at + 8] = struct.pack('<Q', dice.choice(_NUMBERS))
        elif kind == 3:
            data[at:at + 4] = struct.pack('<f', dice.choice(_FLOATS))
        elif kind == 4:
            other = dice.randrange(header)
            data[at:at + 8] = data[other:other + 8]
        else:
            del data[at:at + dice.choice((1, 4, 8, 100))]
    return bytes(data)
