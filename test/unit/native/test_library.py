# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Finding the library: a good one, none, a broken one, another version."""

import ctypes.util
import struct
import sys

import pytest
from slice_ros.engine.runners.native import library as native


def test_it_says_what_it_runs_on(library):
    again, sentence = native.load_library(library.path)
    assert again is not None
    assert again.isa_name() in sentence
    assert again.isa_name() in ('AVX-512 VNNI', 'AVX-VNNI', 'AVX2', 'NEON I8MM',
                                'NEON dot product', 'NEON', 'portable')
    assert library.has(native.PORTABLE)
    assert not library.has(99)


def test_a_missing_library_is_a_sentence(tmp_path):
    found, sentence = native.load_library(tmp_path / native.FILE_NAME)
    assert found is None
    assert 'torch path' in sentence and 'without it' in sentence


def refused(file, content):
    """Return why a file that holds `content` is not loaded."""
    file.write_bytes(content)
    found, sentence = native.load_library(file)
    assert found is None
    assert str(file) in sentence and 'torch path' in sentence and '\n' not in sentence
    return sentence


@pytest.mark.parametrize('content', [b'', b'not a library', b'\x7fELF' + bytes(200),
                                     b'MZ' + bytes(9000), '# text\n'.encode() * 999])
def test_a_file_that_is_no_library_is_a_sentence(tmp_path, content):
    refused(tmp_path / native.FILE_NAME, content)


@pytest.mark.parametrize('share', [0.0005, 0.002, 0.01, 0.1, 0.3, 0.5, 0.7])
def test_a_library_that_was_cut_short_is_a_sentence(library, tmp_path, share):
    whole = library.path.read_bytes()
    refused(tmp_path / native.FILE_NAME, whole[:int(len(whole) * share)])


@pytest.mark.parametrize('first, last', [(0x20, 0x28), (0x38, 0x3a), (64, 1024), (64, None)])
@pytest.mark.parametrize('byte', [b'\0', b'\x55', b'\xff'])
def test_a_damaged_header_is_a_sentence(library, tmp_path, first, last, byte):
    content = bytearray(library.path.read_bytes())
    last = last or len(content)
    content[first:last] = byte * (last - first)
    refused(tmp_path / native.FILE_NAME, bytes(content))


def test_a_library_that_ends_the_process_is_a_sentence(library, tmp_path):
    # A segment beyond the end of the file: reading it is SIGBUS, which nothing catches.
    content = bytearray(library.path.read_bytes())
    wide = content[4] == 2
    content[72 if wide else 56:80 if wide else 60] = struct.pack('=Q' if wide else '=I', 1 << 30)
    assert 'ends with signal' in refused(tmp_path / native.FILE_NAME, bytes(content))


@pytest.mark.parametrize('machine, elf_class', [(183, 2), (62, 2), (40, 1), (243, 2), (8, 1)])
def test_a_library_for_another_processor_is_a_sentence(library, tmp_path, machine, elf_class):
    content = bytearray(library.path.read_bytes())
    if struct.unpack('<H', content[18:20])[0] == machine:
        machine += 1
    content[4] = elf_class
    content[18:20] = struct.pack('<H', machine)
    assert 'processor' in refused(tmp_path / native.FILE_NAME, bytes(content))
    header = content[:64]  # alone: what a broken copy of it would be
    assert 'processor' in refused(tmp_path / native.FILE_NAME, bytes(header))


def test_without_a_program_to_compare_with_a_good_library_is_loaded(library, monkeypatch):
    native._fatal_signal.cache_clear()
    for nothing in (None, '', '/nowhere/python'):
        monkeypatch.setattr(sys, 'executable', nothing)
        assert native.load_library(library.path)[0] is not None
    native._fatal_signal.cache_clear()


def test_places_that_cannot_be_looked_into_are_passed_over(library, tmp_path, monkeypatch):
    place = tmp_path / 'slice_ros' / 'engine' / 'runners' / 'native'
    place.mkdir(parents=True)
    (place / native.FILE_NAME).symlink_to(library.path)
    (tmp_path / 'archive.zip').write_bytes(b'PK')
    broken = tmp_path / 'broken' / 'slice_ros' / 'engine' / 'runners' / 'native'
    broken.mkdir(parents=True)
    (broken / native.FILE_NAME).write_text('?')
    entries = ['x' * 5000, 'a\0b', str(tmp_path / 'archive.zip'), str(tmp_path / 'broken')]
    monkeypatch.setattr(native, '__file__', str(tmp_path / 'elsewhere' / 'library.py'))
    monkeypatch.setattr('sys.path', [*entries, str(tmp_path)])
    assert native.load_library()[0] is not None
    monkeypatch.setattr('sys.path', entries)
    found, sentence = native.load_library()
    assert found is None and 'cannot be used' in sentence


def test_a_library_of_something_else_is_a_sentence(tmp_path):
    file = tmp_path / native.FILE_NAME
    file.symlink_to(_some_library())
    found, sentence = native.load_library(file)
    assert found is None
    assert 'lacks a function' in sentence


def test_another_version_is_refused(library, monkeypatch):
    monkeypatch.setattr(native, 'ABI_VERSION', native.ABI_VERSION + 1)
    found, sentence = native.load_library(library.path)
    assert found is None
    assert f'{native.ABI_VERSION} is wanted' in sentence
    # It says so too where the other version has other functions.
    monkeypatch.setitem(native._FUNCTIONS, 'slice_of_tomorrow', (None,))
    assert f'{native.ABI_VERSION} is wanted' in native.load_library(library.path)[1]


def test_an_installed_library_is_found_behind_the_source_tree(library, tmp_path, monkeypatch):
    place = tmp_path / 'slice_ros' / 'engine' / 'runners' / 'native'
    place.mkdir(parents=True)
    (place / native.FILE_NAME).symlink_to(library.path)
    monkeypatch.setattr(native, '__file__', str(tmp_path / 'elsewhere' / 'library.py'))
    monkeypatch.setattr('sys.path', [str(tmp_path)])
    found, _ = native.load_library()
    assert found is not None and found.path == place / native.FILE_NAME


def _some_library():
    # The C library as this process has it mapped.
    name = ctypes.util.find_library('c')
    with open('/proc/self/maps') as maps:
        return next(line.split()[-1] for line in maps if line.rstrip().endswith(name))
