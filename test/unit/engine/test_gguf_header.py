# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A GGUF file may be cut, damaged or hostile: it is read, or refused with a sentence."""

import random
import struct

import gguf
import gguf_files
import mutated_gguf
import numpy as np
import pytest
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.gguf_header import read_header
from slice_ros.engine.checkpoints.gguf_tensors import GgufTensors
from slice_ros.errors import ModelError
import tiny


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp('gguf') / 'model.gguf'
    config = tiny.llama()
    gguf_files.write(path, 'llama', config, tiny.model(config).state_dict())
    return path


def test_it_reads_what_the_package_that_defines_the_format_reads(file):
    metadata, tensors = read_header(file)
    reader = gguf.GGUFReader(file)
    for key, field in reader.fields.items():
        if not key.startswith('GGUF.'):
            assert metadata[key] == field.contents()
    assert [t.name for t in tensors] == [t.name for t in reader.tensors]
    for ours, theirs in zip(tensors, reader.tensors):
        assert ours.shape == tuple(theirs.shape.tolist()[::-1])
        assert (ours.start, ours.nbytes, ours.type) == (
            theirs.data_offset, theirs.n_bytes, theirs.tensor_type)


def test_arrays_of_texts_and_long_ones_are_stepped_over(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / 'model.gguf', 'llama')
    writer.add_token_list(['a', 'bc', ''])
    writer.add_array('slice.short', [3, 4])
    writer.add_array('slice.long', list(range(5000)))
    writer.add_string('slice.last', 'read')
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    metadata, tensors = read_header(tmp_path / 'model.gguf')
    assert metadata == {'general.architecture': 'llama', 'slice.short': (3, 4),
                        'slice.last': 'read'}
    assert not tensors
    whole, _ = read_header(tmp_path / 'model.gguf', {'tokenizer.ggml.tokens', 'slice.long'})
    assert whole == metadata | {'tokenizer.ggml.tokens': ('a', 'bc', ''),
                                'slice.long': tuple(range(5000))}


def test_a_file_cut_anywhere_is_refused(file, tmp_path):
    whole = file.read_bytes()
    for size in [*range(0, 3000, 7), len(whole) - 1]:
        (tmp_path / 'cut.gguf').write_bytes(whole[:size])
        with pytest.raises(ModelError, match='not a readable GGUF file'):
            GgufFile(tmp_path / 'cut.gguf')


def test_damage_is_read_or_refused_and_never_anything_else(file, tmp_path):
    whole = file.read_bytes()
    numbers = random.Random(5)
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        at = numbers.randrange(2000)
        damaged[at:at + 8] = struct.pack('<Q', numbers.choice((0, 1, 2, 1 << 31, (1 << 64) - 1)))
        (tmp_path / 'damaged.gguf').write_bytes(damaged)
        refused += bool(outcome(tmp_path / 'damaged.gguf'))
    assert 0 < refused < 400


def outcome(path):
    """Return why a file is refused, '' where all of it can be read."""
    try:
        made = GgufFile(path)
        made.config()
        made.types()
        tensors = GgufTensors(made, np.float16)
        for name, _ in made.named():
            assert tensors[name].numel()
    except ModelError as error:
        assert len(str(error)) < 1000
        return str(error)
    return ''


@pytest.mark.parametrize('start', range(0, 1000, 100))
def test_any_damage_of_a_header_is_read_or_refused(start, tmp_path):
    path = tmp_path / 'damaged.gguf'
    whole, header = mutated_gguf.whole_file(path)
    assert outcome(path) == ''
    refused = 0
    for seed in range(start, start + 100):
        path.write_bytes(mutated_gguf.mutated(whole, header, seed))
        refused += bool(outcome(path))
    assert 50 < refused < 100


@pytest.mark.parametrize('key', ['attention.head_count', 'embedding_length',
                                 'attention.head_count_kv'])
@pytest.mark.parametrize('value', [0, 2.0, -1, True, 'two', float('nan')])
def test_counts_that_are_none_are_refused(key, value, file):
    made = GgufFile(file)
    made._metadata[f'llama.{key}'] = value
    if (key, value) == ('attention.head_count_kv', 0):  # as many as there are heads
        assert made.config()['num_key_value_heads'] == made.config()['num_attention_heads']
        return
    with pytest.raises(ModelError, match=key):
        made.config()
    if 'head_count' in key:
        with pytest.raises(ModelError, match=key):
            for name, _ in made.named():
                GgufTensors(made, np.float16)[name]


@pytest.mark.parametrize('length', [1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize('before', [b'slice.long', b'tokenizer.ggml.tokens', b'slice.short'])
def test_lengths_that_no_file_has_are_refused(before, length, tmp_path):
    whole, _ = mutated_gguf.whole_file(tmp_path / 'whole.gguf')
    at = whole.index(before) + len(before) + 8  # after the types of the value and its parts
    for place in (at, at + 8) if before == b'tokenizer.ggml.tokens' else (at,):
        damaged = bytearray(whole)
        damaged[place:place + 8] = struct.pack('<Q', length)
        (tmp_path / 'damaged.gguf').write_bytes(damaged)
        assert 'cut short' in outcome(tmp_path / 'damaged.gguf')


def test_layers_that_differ_are_refused(tmp_path):
    config = tiny.llama()
    state = tiny.model(config).state_dict()
    for counts, fits in (([2, 2, 2], True), ([2, 1, 2], False)):
        gguf_files.write(tmp_path / 'model.gguf', 'llama', config, state, kv_heads=counts)
        made = GgufFile(tmp_path / 'model.gguf')
        if fits:
            assert made.config()['num_key_value_heads'] == 2
        else:
            with pytest.raises(ModelError, match='differ in attention.head_count_kv'):
                made.config()
