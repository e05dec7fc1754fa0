"""Finding the library: a good one, none, a broken one, another version."""

import ctypes.util

import pytest
from slice_ros.engine.native import library as native


def test_it_says_what_it_runs_on(library):
    again, sentence = native.load_library(library.path)
    assert again is not None
    assert again.isa in sentence
    assert again.isa in ('AVX-512 VNNI', 'AVX2', 'NEON dot product', 'NEON', 'portable')
    assert library.has(native.PORTABLE)
    assert not library.has(99)


def test_a_missing_library_is_a_sentence(tmp_path):
    found, sentence = native.load_library(tmp_path / native.FILE_NAME)
    assert found is None
    assert 'torch path' in sentence and 'without it' in sentence


@pytest.mark.parametrize('content', [b'', b'not a library', b'\x7fELF' + bytes(200)])
def test_a_damaged_library_is_a_sentence(tmp_path, content):
    file = tmp_path / native.FILE_NAME
    file.write_bytes(content)
    found, sentence = native.load_library(file)
    assert found is None
    assert str(file) in sentence


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


def test_an_installed_library_is_found_behind_the_source_tree(library, tmp_path, monkeypatch):
    place = tmp_path / 'slice_ros' / 'engine' / 'native'
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
