# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The library compiled for aarch64, in a process that emulates a processor (``make test-arm``).

It has the functions of a ``Library``. Each copies what its pointers point to into the other
process, calls the function there (call_server.cpp), and copies the results back.
"""

from contextlib import contextmanager
import ctypes
from ctypes import c_int32
import math
from pathlib import Path
import struct
import subprocess

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
from slice_ros.engine.runners.native import library as native

# The instruction sets that each processor has, and so runs the tests on.
CPUS = {
    'cortex-a57': {native.PORTABLE},
    'cortex-a76': {native.PORTABLE, native.DOTPROD},
    'max': {native.PORTABLE, native.DOTPROD, native.I8MM},
}
C_LIBRARY = '/usr/aarch64-linux-gnu'  # where Debian's cross compiler has that of the target
LINE = 64                             # bytes to which packed weights are aligned
ARGUMENTS = 12   # of a call, as in call_server.cpp
MOST_COPIED = 1 << 26                 # bytes: what is larger belongs to a call that is refused


class Copies(dict):
    """Copies in the other process by their address in this one; what is shared stays shared."""

    def __init__(self, library):
        super().__init__()
        self._call, self._exchange = library.call, library.exchange
        self._kept = []  # structures: no other may take their address

    def copy(self, address, nbytes):
        """Return the address of a copy of `nbytes` at `address`; 0 for None, as null."""
        if not address:
            return 0
        nbytes = nbytes if nbytes <= MOST_COPIED else 0
        if address not in self:
            size = -(-max(nbytes, 1) // LINE) * LINE
            self[address] = self._call('aligned_alloc', LINE, size)
            self.refresh(address, nbytes)
        return self[address]

    def refresh(self, address, nbytes):
        """Copy once more."""
        if nbytes > 0:
            self._exchange('put', self[address], nbytes, sent=ctypes.string_at(address, nbytes))

    def copy_back(self, address, nbytes):
        """Copy what the other process wrote."""
        if nbytes > 0 and address:
            ctypes.memmove(address, self._exchange('get', self[address], nbytes), nbytes)

    def structure(self, value):
        """Return the address of a copy of a structure, or of an array of them."""
        self._kept.append(value)
        return self.copy(ctypes.addressof(value), ctypes.sizeof(value))

    def free(self):
        """Release the copies."""
        for there in self.values():
            self._call('free', there)


class Emulated(native.Library):
    """``Library`` of another processor."""

    def __init__(self, cpu, folder):
        self.path = Path(folder) / native.FILE_NAME
        self._process = subprocess.Popen(
            ['qemu-aarch64', '-L', C_LIBRARY, '-cpu', cpu, self.path.with_name('call_server'),
             self.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._runners = {}

    def close(self):
        """End the other process."""
        self._process.stdin.close()
        assert self._process.wait(30) == 0

    def exchange(self, name, *arguments, number=0.0, sent=b''):
        """Call a function there; return the bytes of 'get', else its result, a signed integer."""
        padded = [int(value) for value in arguments] + [0] * (ARGUMENTS - len(arguments))
        request = struct.pack(f'<32s{ARGUMENTS}qf4x', name.encode(), *padded, number)
        self._process.stdin.write(request + sent)
        self._process.stdin.flush()
        received = self._process.stdout.read(padded[1]) if name == 'get' else None
        answer = self._process.stdout.read(8)
        assert len(answer) == 8, f'{name}: the emulated process ended'
        return received or struct.unpack('<q', answer)[0]

    call = exchange

    def _status(self, name, *arguments, number=0.0):
        return c_int32(self.call(name, *arguments, number=number)).value

    @contextmanager
    def _copies(self):
        copies = Copies(self)
        yield copies
        copies.free()

    def slice_isa(self, wanted):
        return self._status('slice_isa', wanted)

    def slice_isa_name(self, isa):
        there = self.call('slice_isa_name', isa)
        return self.exchange('get', there, self.call('strlen', there))

    def slice_packed_bytes(self, kind, outputs, inputs):
        return self.call('slice_packed_bytes', kind, outputs, inputs)

    def slice_page_bytes(self, bits, kv_heads, head_dim):
        return self.call('slice_page_bytes', bits, kv_heads, head_dim)

    def slice_pack_floats(self, kind, outputs, inputs, weights, packed):
        return self._pack('slice_pack_floats', kind, outputs, inputs, packed,
                          (weights, 4 * outputs * inputs))

    def slice_pack_codes(self, kind, outputs, inputs, codes, scales, minimums,
                         packed):
        size = outputs * inputs
        return self._pack('slice_pack_codes', kind, outputs, inputs, packed, (codes, size),
                          (scales, size // 16), (minimums, size // 16))

    def _pack(self, name, kind, outputs, inputs, packed, *sources):
        size = self.slice_packed_bytes(kind, outputs, inputs)
        with self._copies() as there:
            pointers = [there.copy(*source) for source in (*sources, (packed, size))]
            status = self._status(name, kind, outputs, inputs, *pointers)
            there.copy_back(packed, size)
        return status

    def slice_gguf_codes(self, kind, weights, data, grid, codes, scales, minimums):
        groups = weights // 16  # bytes of 16 bit scales
        return self._decode('slice_gguf_codes', kind, weights, data, grid, (codes, weights),
                            (scales, groups), (minimums, groups))

    def slice_gguf_floats(self, kind, weights, data, grid, out):
        return self._decode('slice_gguf_floats', kind, weights, data, grid, (out, 4 * weights))

    def _decode(self, name, kind, weights, data, grid, *results):
        block, size = GGML_QUANT_SIZES.get(kind, (1, 1))
        points = getattr(quants, GGMLQuantizationType(kind).name, quants.Q4_0).grid_shape
        with self._copies() as there:
            pointers = [there.copy(*part) for part in (
                (data, weights // block * size), (grid, math.prod(points)), *results)]
            status = self._status(name, kind, weights, *pointers)
            for result in results if status == 0 else ():
                there.copy_back(*result)
        return status

    def _matrix(self, there, matrix):
        """Return `matrix` with pointers to copies of its weights and its bias."""
        size = self.slice_packed_bytes(matrix.kind, matrix.outputs, matrix.inputs)
        moved = native.Matrix.from_buffer_copy(matrix)
        moved.data = there.copy(matrix.data, size)
        moved.bias = there.copy(matrix.bias, 4 * matrix.outputs)
        return moved

    def slice_unpack_row(self, matrix, row, out):
        with self._copies() as there:
            moved, size = self._matrix(there, matrix._obj), 4 * matrix._obj.inputs
            status = self._status('slice_unpack_row', there.structure(moved), row,
                                  there.copy(out, size))
            if status == 0:
                there.copy_back(out, size)
        return status

    def slice_matmul(self, isa, matrix, rows, x, out):
        with self._copies() as there:
            shape = matrix._obj if matrix else native.Matrix()
            moved = self._matrix(there, shape)
            status = self._status(
                'slice_matmul', isa, there.structure(moved) if matrix else 0, rows,
                there.copy(x, 4 * rows * shape.inputs), there.copy(out, 4 * rows * shape.outputs))
            if status == 0:
                there.copy_back(out, 4 * rows * shape.outputs)
        return status

    def slice_rms_norm(self, isa, rows, width, eps, weight, x, out):
        with self._copies() as there:
            pointers = [there.copy(weight, 4 * width), there.copy(x, 4 * rows * width),
                        there.copy(out, 4 * rows * width)]
            status = self._status('slice_rms_norm', isa, rows, width, *pointers, number=eps)
            there.copy_back(out, 4 * rows * width)
        return status

    def slice_attend(self, isa, bits, queries, size, tokens, query, keys, values, out):
        with self._copies() as there:
            pointers = [there.copy(query, 4 * queries * size), there.copy(keys, 4 * tokens * size),
                        there.copy(values, 4 * tokens * size), there.copy(out, 4 * queries * size)]
            status = self._status('slice_attend', isa, bits, queries, size, tokens, *pointers)
            if status == 0:
                there.copy_back(out, 4 * queries * size)
        return status

    def slice_peak(self, isa, kind, threads):
        return self.call('slice_peak', isa, kind, threads)

    def slice_read_rate(self, isa, threads, data, nbytes):
        with self._copies() as there:
            return self.call('slice_read_rate', isa, threads, there.copy(data, nbytes), nbytes)

    def slice_runner_create(self, model, cache, threads, max_rows, isa):
        there, model, cache = Copies(self), model._obj, cache._obj
        moved, pages = self._model(there, model), native.Cache.from_buffer_copy(cache)
        size = model.layers * cache.pages * self.slice_page_bytes(
            cache.bits, model.kv_heads, model.head_dim)
        table = cache.page_table, 4 * cache.slots * cache.pages_per_slot
        pages.keys, pages.values = there.copy(cache.keys, size), there.copy(cache.values, size)
        pages.page_table = there.copy(*table)
        runner = self.call('slice_runner_create', there.structure(moved), there.structure(pages),
                           threads, max_rows, isa)
        if not runner:
            there.free()
            return None
        self._runners[runner] = there, table, model.vocabulary, model.hidden
        return runner

    def _model(self, there, model):
        moved = native.Model.from_buffer_copy(model)
        layers = (native.Layer * model.layers)()
        for i, layer in enumerate(layers):
            source = model.layer[i]
            for name in ('qkv', 'attention_out', 'gate_up', 'down'):
                setattr(layer, name, self._matrix(there, getattr(source, name)))
            for name in ('attention_norm', 'mlp_norm'):
                setattr(layer, name, there.copy(getattr(source, name), 4 * model.hidden))
            for name in ('query_norm', 'key_norm'):
                setattr(layer, name, there.copy(getattr(source, name), 4 * model.head_dim))
        moved.layer = ctypes.cast(there.structure(layers), type(moved.layer))
        moved.final_norm = there.copy(model.final_norm, 4 * model.hidden)
        for name in ('rope_cos', 'rope_sin'):
            rotary = 4 * model.positions * model.rotary_dim // 2
            setattr(moved, name, there.copy(getattr(model, name), rotary))
        moved.embedding = self._matrix(there, model.embedding)
        moved.head = self._matrix(there, model.head)
        return moved

    def slice_runner_destroy(self, runner):
        self.call('slice_runner_destroy', runner)
        self._runners.pop(runner)[0].free()

    def slice_step(self, runner, rows, token, slot, position, outputs, output_row, logits,
                   best, states=None, adapter=None, input_row=None, input_rows=0,
                   inputs=None, rope_row=None, last_seen=None):
        model, table, vocabulary, hidden = self._runners[runner]
        model.refresh(*table)
        results = ((logits, 4 * outputs * vocabulary), (best, 4 * outputs),
                   (states, 4 * rows * hidden if states else 0))
        with self._copies() as there:
            numbers = [there.copy(pointer, 4 * rows) for pointer in (token, slot, position)]
            status = self._status('slice_step', runner, rows, *numbers, outputs,
                                  there.copy(output_row, 4 * outputs),
                                  *(there.copy(*result) for result in results))
            if status == 0:
                for result in results:
                    there.copy_back(*result)
        return status
