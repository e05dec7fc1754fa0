# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Preambles on disk: the same bits after a restart, and no file that can do harm."""

import logging
import os
import resource
import shutil
import threading
import time
import tracemalloc

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from slice_ros.engine import EngineConfig, load_engine, pinned_prefixes, Sampling
from slice_ros.engine.kv import prefix_folder, slot_memory, stored_prefixes
from slice_ros.engine.kv.prefix_folder import PrefixFolder
from slice_ros.engine.pinned_prefixes import PinnedPrefixes
from slice_ros.engine.runners.native import load_library
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.serving import Server, ServerConfig
from slice_ros.serving.warm.warm_up import warm_up
import tiny

PREFIX = [(7 * i) % 250 for i in range(70)]
OTHER = [(11 * i + 3) % 250 for i in range(40)]
REST = [5, 6, 7]
CHUNK = 16
FLAT = {'llama': tiny.llama} | {name: tiny.FAMILIES[name] for name in (
    'gemma3_text', 'phi3 longrope', 'ministral3')}   # windows, ropes, grown queries
STATES = {name: tiny.RECURRENT[name] for name in (
    'granitemoehybrid', 'falcon_h1', 'nemotron_h', 'lfm2', 'qwen3_5_text')}
LATENCY = LatencyModel('test', ((1, 1.0), (4, 2.0)), prefill_token_ms=0.1)


@pytest.fixture
def load(tiny_directory, tmp_path):
    """Return a function that loads an engine, which keeps preambles in a folder of the test."""
    def load(model=tiny_directory, folder=tmp_path / 'prefixes', most=1 << 20, **options):
        options = {'max_context': 128, 'slots': 4} | options
        return load_engine(EngineConfig(str(model), prefix_cache=str(folder),
                                        prefix_cache_bytes=most, **options))
    return load


def bring(engine, *prefixes):
    """Bring prefixes into the KV cache as the node does; return how many tokens were fed."""
    pinned, fed, step = PinnedPrefixes(engine, prefixes), [], engine.step

    def counted(work):
        fed.extend(n for _, n in work)
        return step(work)
    engine.step = counted
    try:
        end = time.monotonic() + 120
        while pinned.compute(CHUNK) or pinned.wait_for_disk(0.1) or written(pinned):
            assert time.monotonic() < end
    finally:
        del engine.step
    assert all(map(engine.pinned, prefixes)) and engine._slots.free == engine._slots.count
    return sum(fed)


def restart(engine):
    """Have an engine know no more of prefixes than one that was just loaded."""
    while engine._slots._kept:
        engine._slots._drop()
    engine.stored._warned = False


def written(pinned):
    """Wait until a prefix is written; return whether there may be another."""
    if pinned._writing is None:
        return False
    pinned._writing.result()
    return any(prefix.fresh for prefix in pinned._prefixes)


def answer(engine, prefix=PREFIX):
    """Return all logits of a greedy answer, its tokens, and the reused ones of its prompt."""
    seen, forward = [], engine._runner.forward

    def caught(*step):
        logits = forward(*step)
        seen.append(np.asarray(logits).copy())   # the next step writes over them
        return logits
    engine._runner.forward = caught
    sequence = engine.open([*prefix, *REST], 12, Sampling(logprobs=0))
    engine.adopt(sequence)
    while not sequence.finish_reason:
        engine.step([(sequence, sequence.pending)])
    engine.close(sequence)
    del engine._runner.forward
    return np.concatenate(seen).tobytes(), sequence.tokens, sequence.reused


def stored(folder):
    return sorted(folder.glob('*.prefix'))


@pytest.mark.parametrize('name', [*FLAT, *STATES])
def test_a_restart_computes_nothing_and_answers_with_the_same_bits(name, load, tmp_path, kernels):
    if name in STATES and kernels == 'torch':
        pytest.skip('layers with states have native kernels alone')
    tiny.save(tmp_path / 'model', (FLAT | STATES)[name](eos_token_id=None))
    model = tmp_path / 'model'
    computed = load(model, most=0)
    fed = bring(computed, PREFIX, OTHER)
    expected = answer(computed), answer(computed, OTHER)
    assert fed == bring(load(model), PREFIX, OTHER) == len(PREFIX) + len(OTHER)
    later = load(model)
    assert bring(later, PREFIX, OTHER) == 0
    assert (answer(later), answer(later, OTHER)) == expected and expected[0][2] == len(PREFIX)


@pytest.mark.parametrize('weights', ['fp32', 'bf16', 'int8'])
def test_every_format_of_pages_comes_back(load, weights, kernels):
    if weights == 'int8' and kernels == 'torch':
        pytest.skip('the torch path has no int8 on a CPU')
    first, later = load(weights=weights), load(weights=weights)
    assert bring(first, PREFIX) == len(PREFIX) and bring(later, PREFIX) == 0
    assert answer(first) == answer(later)


def test_what_others_left_in_the_pages_is_not_stored(load, tmp_path, kernels):
    for number, rubbish in enumerate((0, 0xAB)):
        engine = load(folder=tmp_path / str(number))
        for rows in (*engine._runner.memory.pages, *engine._runner.memory.states):
            rows[...] = rubbish
        bring(engine, PREFIX, PREFIX[:40])
    for one, other in zip(stored(tmp_path / '0'), stored(tmp_path / '1'), strict=True):
        assert one.name == other.name and one.read_bytes() == other.read_bytes()


def test_other_weights_in_the_same_files_are_another_model(load, tmp_path):
    """The size and the time of change of the file are what they were."""
    names, model = [], tmp_path / 'model'
    tiny.save(model, tiny.llama())
    tensors = load_file(model / 'model.safetensors')
    for change in (0.0, 1e-3):
        last = 'model.layers.2.mlp.down_proj.weight'
        save_file(tensors | {last: tensors[last] + change}, model / 'model.safetensors')
        os.utime(model / 'model.safetensors', (1, 1))
        names.append(load(model).stored._name(PREFIX))
    assert names[0] != names[1]


def test_a_name_stands_for_all_that_decides_the_bits(load, tmp_path, tiny_directory):
    model = tmp_path / 'model'
    shutil.copytree(tiny_directory, model)
    name = load(model).stored._name(PREFIX)
    assert name == load(model, slots=2, max_context=100).stored._name(PREFIX)
    portable = [] if load_library()[0] is None else [{'isa': 'portable'}]
    names = [name] + [load(model, **options).stored._name(PREFIX) for options in (
        {'weights': 'fp32'}, {'threads': 3}, *portable)]
    os.utime(model / 'model.safetensors', (1, 1))
    stored = load(model).stored
    names += [stored._name(tokens) for tokens in (PREFIX, PREFIX[:-1], [*PREFIX, 0])]
    assert len(set(names)) == len(names)


def spoil(how, path):
    """Do to a stored file what a full disk, another user or an attacker may do to it."""
    data = bytearray(path.read_bytes())
    if how == 'cut short':
        path.write_bytes(data[:-1])
    elif how == 'empty':
        path.write_bytes(b'')
    elif how == 'longer':
        path.write_bytes(data + b'\0')
    elif how == 'huge':
        os.truncate(path, 1 << 40)   # a hole: it takes no place
    elif how.startswith('flipped'):
        data[int(how.split()[1])] ^= 1
        path.write_bytes(data)
    elif how == 'another prefix':
        path.write_bytes(data[:20] + b'0' * 10 + data[30:])   # the name in the header
    elif how == 'a link':
        path.rename(path.with_name('target'))
        path.symlink_to(path.with_name('target'))
    elif how == 'a pipe':
        path.unlink()
        os.mkfifo(path)
    elif how == 'a folder':
        path.unlink()
        path.mkdir()
    elif how == 'open to others':
        path.chmod(0o620)


@pytest.mark.parametrize('how', [
    'cut short', 'empty', 'longer', 'huge', 'flipped 3', 'flipped 40', 'flipped 85', 'flipped 90',
    'flipped -1', 'another prefix', 'a link', 'a pipe', 'a folder', 'open to others',
    'of another user'])
def test_a_file_that_cannot_be_trusted_is_computed_anew(how, load, tmp_path, monkeypatch, caplog):
    engine = load()
    bring(engine, PREFIX)
    expected = answer(engine)
    path, = stored(tmp_path / 'prefixes')
    spoil(how, path)
    if how == 'of another user':
        monkeypatch.setattr(os, 'geteuid', lambda: 12345)
    restart(engine)
    caplog.clear()
    tracemalloc.start()
    try:
        assert bring(engine, PREFIX) == len(PREFIX)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    assert answer(engine) == expected
    restart(engine)
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1 and 'prefixes' in said[0].message
    if how not in ('a folder', 'of another user'):   # what was computed takes its place
        monkeypatch.undo()
        assert bring(engine, PREFIX) == 0 and answer(engine) == expected


def full_disk(folder, patch):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def no_folder(folder, patch):
    folder.write_text('a file')


def for_everybody(folder, patch):
    folder.mkdir()
    folder.chmod(0o777)


def read_only(folder, patch):
    """Whoever runs this may be root, whom no mode keeps from writing."""
    def refused(*arguments, **options):
        raise OSError(30, 'Read-only file system')
    patch.setattr(prefix_folder, 'FileLock', refused)


def no_threads(folder, patch):
    def start(thread):
        raise RuntimeError("can't start new thread")
    patch.setattr(threading.Thread, 'start', start)


@pytest.mark.parametrize('trouble', [full_disk, no_folder, for_everybody, read_only, no_threads])
def test_a_folder_that_takes_nothing_costs_one_sentence(trouble, load, tmp_path, monkeypatch,
                                                        caplog):
    engine, folder = load(), tmp_path / 'prefixes'
    with monkeypatch.context() as patch:
        end = trouble(folder, patch) or (lambda: None)
        caplog.clear()
        try:
            assert bring(engine, PREFIX, OTHER) >= len(PREFIX)
        finally:
            end()
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1 and str(folder) in said[0].message
    assert not folder.is_dir() or {file.name for file in folder.iterdir()} <= {'.lock'}


def test_a_user_without_a_home_has_none(load, monkeypatch, caplog):
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setattr(stored_prefixes.PrefixFolder, '__init__', lambda *a: None)

    def nowhere():
        raise OSError(2, 'no home')
    monkeypatch.setattr('slice_ros.engine.kv.stored_prefixes.cache_root', nowhere)
    engine = load(folder='')
    assert engine.stored is None and 'no home' in caplog.text
    assert bring(engine, PREFIX) == len(PREFIX)


def test_a_prefix_beyond_the_bound_is_not_stored(load, tmp_path, caplog):
    assert bring(load(most=1000), PREFIX) == len(PREFIX)
    assert not stored(tmp_path / 'prefixes') and 'prefix_cache_bytes is 1000' in caplog.text


# -- the folder ------------------------------------------------------------------------------

NAMES = [letter * 64 for letter in 'abcdef']


def filled(number, size=1000):
    return np.full(size, number, np.uint8)


def test_the_least_recently_used_goes_first(tmp_path):
    folder = PrefixFolder(tmp_path, 3500)
    (tmp_path / 'mine.txt').write_text('x' * 5000)
    for number, name in enumerate(NAMES[:3]):
        folder.write(name, filled(number))
        os.utime(tmp_path / f'{name}.prefix', (number, number))
    (tmp_path / '.new-left').write_text('of a killed process')
    assert folder.read(NAMES[0], 1000)[0] == 0   # now it is the one used last
    folder.write(NAMES[3], filled(3))
    assert folder.read(NAMES[1], 1000) is None and not (tmp_path / '.new-left').exists()
    assert [folder.read(NAMES[n], 1000)[-1] for n in (0, 2, 3)] == [0, 2, 3]
    folder.write(NAMES[4], filled(4, 3000))
    assert {path.name for path in tmp_path.iterdir()} == {
        'mine.txt', '.lock', f'{NAMES[4]}.prefix'}


def test_nodes_that_share_a_folder_find_whole_files_within_the_bound(tmp_path):
    wrong = []

    def use(of):
        folder = PrefixFolder(tmp_path, 3500)   # as another process has
        for turn in range(30):
            name = (of + turn) % len(NAMES)
            folder.write(NAMES[name], filled(name))
            found = folder.read(NAMES[(name + 1) % len(NAMES)], 1000)
            if found is not None and set(found.tolist()) != {(name + 1) % len(NAMES)}:
                wrong.append(found)
            try:
                if sum(path.stat().st_size for path in stored(tmp_path)) > 3500:
                    wrong.append('too much')
            except FileNotFoundError:
                pass
    threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(stored(tmp_path)) == 3


# -- between steps ---------------------------------------------------------------------------

def test_pieces_are_small_and_cover_a_prefix():
    memory = slot_memory.SlotMemory('test', [np.zeros((40, 9, 300_000), np.uint8)] * 2,
                                    [np.zeros((6, 4, 3 << 20), np.uint8)], None)
    found = list(slot_memory.pieces(memory, 100))
    assert [piece.begin for piece in found] == [0, *(piece.end for piece in found[:-1])]
    assert found[-1].end == slot_memory.copy_bytes(memory, 100) == 4 * 2 * 12_000_000 + (18 << 20)
    assert all(piece.end - piece.begin <= slot_memory.PIECE for piece in found
               if piece.page is not None)
    assert len([piece for piece in found if piece.page is None]) == 6   # a layer at a time


def test_requests_neither_share_nor_miss_what_is_half_restored(load, monkeypatch):
    engine = load()
    bring(engine, PREFIX)
    restart(engine)
    expected = answer(engine)
    restart(engine)
    monkeypatch.setattr(slot_memory, 'PIECE', 1)   # a layer of a page at a time
    pinned = PinnedPrefixes(engine, [PREFIX])
    while pinned._under is None or pinned._under.waits_for is not None:
        pinned.compute(CHUNK) or pinned.wait_for_disk(1)
    assert pinned.compute(CHUNK) and not engine.pinned(PREFIX)
    assert answer(engine) == (*expected[:2], 0)
    live = [engine.open([number] * 120, 1, Sampling()) for number in range(4)]
    engine.step([(sequence, sequence.pending - 1) for sequence in live])   # all slots
    for sequence in live:
        engine.close(sequence)
    restart(engine)   # as if the pages were needed
    fed = 0
    while pinned.compute(CHUNK):
        fed += 1
    assert engine.pinned(PREFIX) and fed >= len(PREFIX) // CHUNK   # computed, after all
    assert engine._slots.free == 4 and answer(engine)[:2] == expected[:2]


def test_a_disk_that_does_not_answer_is_not_waited_for(load, monkeypatch, caplog):
    engine, free = load(), threading.Event()
    monkeypatch.setattr(pinned_prefixes, 'PATIENCE_S', 0.2)
    monkeypatch.setattr(PrefixFolder, 'read', lambda *arguments: free.wait(60))
    pinned, woken = PinnedPrefixes(engine, [PREFIX]), threading.Event()
    pinned.wake = woken.set
    assert not pinned.compute(CHUNK) and not pinned.compute(CHUNK)
    assert woken.wait(60)   # nobody else would wake the loop
    assert pinned.compute(CHUNK) and 'does not answer' in caplog.text
    free.set()
    while pinned.compute(CHUNK):
        pass
    assert engine.pinned(PREFIX)


def test_a_prefix_that_lost_its_room_is_read_again(load):
    engine = load()
    bring(engine, PREFIX)
    pinned = PinnedPrefixes(engine, [PREFIX])
    assert not pinned.compute(CHUNK)   # it is still in the KV cache
    restart(engine)
    engine.step = None   # nothing is computed
    while pinned.compute(CHUNK) or pinned.wait_for_disk(1):
        pass
    assert engine.pinned(PREFIX)


PREAMBLES = {'control': [('system', 'You drive a robot. Answer with one word. Stop for all.')]}


def test_a_server_reads_a_preamble_that_is_set_while_it_is_idle(load, caplog):
    caplog.set_level(logging.INFO)
    engine = load()
    pinned = warm_up(engine, LATENCY, ServerConfig(), PREAMBLES, lambda: False)
    written(pinned)
    tokens = pinned._prefixes[0].tokens
    assert f'0 tokens came from disk in 0 ms, {len(tokens)} were computed' in caplog.text
    restart(engine)
    server = Server(engine, LATENCY, ServerConfig())
    server.start()
    try:
        server.keep(PinnedPrefixes(engine, [tokens]))
        end = time.monotonic() + 60
        while not engine.pinned(tokens):
            assert time.monotonic() < end
            time.sleep(0.001)
    finally:
        assert server.stop()
    assert f'{len(tokens)} tokens came from disk' in caplog.text
    assert not server.snapshot().steps
