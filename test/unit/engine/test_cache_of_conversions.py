# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The cache of conversions: shared by processes, cleaned up, and done without on a bad disk."""

from contextlib import contextmanager
import errno
import json
import logging
import os
from pathlib import Path
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

from filelock import FileLock
import numpy as np
import pytest
import simultaneous_starts
from slice_ros.engine.checkpoints import cache_folder, model_cache, tensor_files
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.errors import ModelError
import tiny

PAIRS = 6
NOBODY = 65534


@pytest.fixture(scope='module')
def model():
    """Return a GGUF file in a folder that every user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GgufFile, 'tokenizer', lambda self: tiny.tokenizer())
        yield simultaneous_starts.write_model(folder)
    shutil.rmtree(folder)


@pytest.fixture
def places(model, monkeypatch):
    """Return the folders of entries and of temporary files, both empty, for every user."""
    folder = Path(tempfile.mkdtemp())
    for path in (folder, folder / 'cache', folder / 'temporary'):
        path.mkdir(exist_ok=True)
        path.chmod(0o777)
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder / 'cache'))
    monkeypatch.setattr(tempfile, 'tempdir', str(folder / 'temporary'))
    monkeypatch.setattr(model_cache, '_MEMORY', str(folder / 'no_such_folder'))
    yield folder / 'cache' / 'slice_ros' / 'models', folder / 'temporary'
    shutil.rmtree(folder)


def convert(model):
    """Convert and read a model; return its directory."""
    with model_cache.converted(model, np.float16) as directory:
        simultaneous_starts.read(directory)
        return directory


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_processes_that_start_together_convert_once_and_read_the_same_entry():
    done = subprocess.run([sys.executable, simultaneous_starts.__file__, str(PAIRS)], timeout=120,
                          env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'{PAIRS} pairs {PAIRS} conversions\n'
    assert 'replaced' not in done.stderr


@pytest.mark.parametrize('manifest', [
    {}, {'files': {}}, {'files': {}, 'types': {}}, {'files': []}, [], 5, None,
    {'files': {'../../x': ''}, 'types': {}}, ..., 'F16'])
def test_a_manifest_without_files_is_not_intact(places, model, manifest, caplog):
    entry = convert(model)
    file = entry / 'slice_ros.json'
    good = json.loads(file.read_text())
    if manifest is ...:
        manifest = {'files': good['files']}   # nothing says of which types it is
    if manifest == 'F16':
        manifest = good | {'types': manifest}
    file.write_text(json.dumps(manifest))
    assert convert(model) == entry
    assert json.loads(file.read_text()) == good
    assert set(model_cache.types(entry).values()) == {'F16'}
    assert len(warnings(caplog)) == 1 and 'damaged or incomplete' in caplog.text


@pytest.mark.parametrize('kind', ['file', 'link'])
def test_something_else_in_the_place_of_an_entry_is_replaced(places, model, kind):
    entry = convert(model)
    shutil.rmtree(entry)
    entry.symlink_to('/dev/zero') if kind == 'link' else entry.write_text('?')
    assert convert(model) == entry
    assert entry.is_dir() and not entry.is_symlink()


def killed_within_a_conversion(model, cache):
    """Start a process that converts a model, and kill it before it has the weights."""
    pid = os.fork()
    if not pid:
        tensor_files.write = lambda *args: time.sleep(60)
        try:
            convert(model)
        finally:
            os._exit(1)
    wait_for(lambda: list(cache.glob('.new-*/tokenizer.json')))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def wait_for(condition):
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_what_a_killed_conversion_leaves_is_deleted_by_the_next_start(places, model, tmp_path):
    cache, _ = places
    other = tmp_path / 'other.gguf'
    other.write_bytes(model.read_bytes() + b'\0')
    entry = convert(other)
    killed_within_a_conversion(model, cache)
    assert len(list(cache.iterdir())) == 2
    assert convert(other) == entry                # also where the model is another one
    assert list(cache.iterdir()) == [entry]
    killed_within_a_conversion(model, cache)
    assert convert(model).parent == cache
    assert len(list(cache.iterdir())) == 2 and not list(cache.glob('.new-*'))


def test_what_a_live_process_converts_is_left_alone(places, model):
    cache, _ = places
    entry = convert(model)
    work = cache / '.new-of-another-process'
    work.mkdir()
    with cache_folder.lock_of('of-another-process', 0):
        convert(model)
        assert work.exists()
    convert(model)
    assert list(cache.iterdir()) == [entry]


def no_room(error):
    """Return `tensor_files.write` for a full cache: other places have room."""
    def write(path, tensors, write=tensor_files.write):
        if 'models' in path.parts:
            path.write_bytes(b'x')
            raise error
        write(path, tensors)
    return write


def full(patch, step):
    """Have one step of a conversion find the disk of the cache full."""
    error = OSError(errno.ENOSPC, 'No space left on device')
    if step == 'weights':
        patch.setattr(tensor_files, 'write', no_room(error))
    elif step == 'tokenizer':
        def save(self, target, save=tiny.PreTrainedTokenizerFast.save_pretrained):
            if 'models' in Path(target).parts:   # as the Rust library does it
                raise Exception('No space left on device (os error 28)')
            save(self, target)
        patch.setattr(tiny.PreTrainedTokenizerFast, 'save_pretrained', save)
    else:
        def write_text(self, text, write_text=Path.write_text):
            if self.name == step and 'models' in self.parts:
                raise error
            return write_text(self, text)
        patch.setattr(Path, 'write_text', write_text)


@pytest.mark.parametrize('step', ['config.json', 'tokenizer', 'weights', 'slice_ros.json'])
def test_a_full_disk_means_working_without_a_cache(places, model, step, monkeypatch, caplog):
    cache, temporary = places
    full(monkeypatch, step)
    directory = convert(model)
    assert directory.parent == temporary and not directory.exists()
    warning, = warnings(caplog)
    assert 'disk' in warning and 'No space left on device' in warning
    assert not list(cache.iterdir()) and not list(temporary.iterdir())
    monkeypatch.undo()


@pytest.mark.parametrize('room', [1 << 10, 1 << 14])
def test_where_no_disk_has_room_the_sentence_says_disk(places, model, room, caplog):
    cache, temporary = places
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))  # a file that grows beyond fails
    try:
        with pytest.raises(ModelError, match='no disk takes the result .* make room in'):
            convert(model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(warnings(caplog)) == 1
    assert not list(cache.iterdir()) and not list(temporary.iterdir())


@contextmanager
def without_privileges():
    """Have permissions count for root too."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_cache_is_read_and_done_without(places, model, monkeypatch, caplog):
    cache, temporary = places
    convert(model)                       # imports what a conversion needs, too
    for path in [cache, *cache.rglob('*')]:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o555 | 0o444)
    with without_privileges():
        assert convert(model).parent == cache
        assert not warnings(caplog)
        monkeypatch.setenv('XDG_CACHE_HOME', str(cache / 'no_entry_here'))
        assert convert(model).parent == temporary
    warning, = warnings(caplog)
    assert 'disk' in warning and 'every start converts it again' in warning
    assert not list(temporary.iterdir())
    for path in [cache, *cache.iterdir()]:
        path.chmod(0o755)


def test_an_entry_that_cannot_be_read_now_is_not_deleted(places, model, monkeypatch, caplog):
    cache, temporary = places
    entry = convert(model)
    file_hash = model_cache.file_hash

    def unreadable(path):
        if entry in path.parents:
            raise OSError(errno.EMFILE, 'Too many open files')
        return file_hash(path)
    monkeypatch.setattr(model_cache, 'file_hash', unreadable)
    assert convert(model).parent == temporary
    assert len(warnings(caplog)) == 1
    monkeypatch.setattr(model_cache, 'file_hash', file_hash)
    assert convert(model) == entry and len(warnings(caplog)) == 1


def test_a_process_that_waits_too_long_does_without_the_cache(places, model, monkeypatch, caplog):
    monkeypatch.setattr(model_cache, '_PATIENCE_S', 0.1)
    cache, temporary = places
    entry = convert(model)
    (entry / 'slice_ros.json').unlink()
    with cache_folder.lock_of(entry.name, 0):
        assert convert(model).parent == temporary
    assert len(warnings(caplog)) == 1


def test_a_temporary_conversion_of_a_killed_process_is_deleted(places, model, monkeypatch):
    _, temporary = places
    full(monkeypatch, 'weights')
    left, used, foreign = (temporary / f'slice_ros-conversion-{n}' for n in 'abc')
    for folder in (left, used, foreign):
        folder.mkdir()
        (folder / 'config.json').write_text('{}')
    left.with_suffix('.lock').touch()
    with FileLock(used.with_suffix('.lock')):
        convert(model)
        assert not left.exists() and used.exists() and foreign.exists()
    assert sorted(p.suffix for p in temporary.iterdir() if p not in (used, foreign)) == ['.lock']
    monkeypatch.undo()


def test_a_user_without_a_home_directory_does_without_the_cache(places, model, monkeypatch,
                                                                caplog):
    _, temporary = places

    def no_home():
        raise RuntimeError('Could not determine home directory.')
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setattr(Path, 'home', no_home)
    assert convert(model).parent == temporary
    assert len(warnings(caplog)) == 1
