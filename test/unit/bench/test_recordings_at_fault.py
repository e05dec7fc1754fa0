# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""slice_bench reports: a recording that cannot be read is named in one sentence."""

import json
import math
import random

import pytest
from recorded_bags import message, requests, TYPE, typestore, write_bag
from rosbags.rosbag2 import StoragePlugin, Writer
from slice_ros.bench.cli import main
from slice_ros.bench.ros.recording import read_reports


def spoil(tmp_path, how):
    path = tmp_path / 'bag'
    storage = StoragePlugin.SQLITE3 if 'db3' in how else StoragePlugin.MCAP
    write_bag(path, requests(), storage)
    (file,) = [*path.glob('*.db3'), *path.glob('*.mcap')]
    data = file.read_bytes()
    if how.startswith('truncated'):
        file.write_bytes(data[:len(data) // 2])
    elif how.startswith('empty'):
        file.write_bytes(b'')
    elif how.startswith('noise'):
        middle = len(data) // 3
        file.write_bytes(data[:middle] + random.Random(1).randbytes(middle) + data[2 * middle:])
    elif how.startswith('metadata'):
        (path / 'metadata.yaml').write_text('a: [')
    return path


@pytest.mark.parametrize('how', [
    f'{what} {storage}' for what in ('truncated', 'empty', 'noise', 'metadata')
    for storage in ('db3', 'mcap')])
def test_a_spoilt_bag_is_reported_in_one_sentence(tmp_path, capsys, how):
    assert main(['reports', str(spoil(tmp_path, how))]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith('slice_bench: ') and printed.err.count('\n') == 1
    assert not printed.out


@pytest.mark.parametrize('other', ['float64 other', 'string ttft_ms', 'float64[99999999] ttft_ms'])
def test_a_bag_of_another_definition_is_reported(tmp_path, capsys, other):
    types = typestore(lambda text: text.replace('float64 ttft_ms', other))
    bag = tmp_path / 'bag'
    with Writer(bag, version=9) as writer:
        connection = writer.add_connection('/slice/slo_reports', TYPE, typestore=types)
        writer.write(connection, 1, bytes(400))
    assert main(['reports', str(bag)]) == 2
    assert capsys.readouterr().err.count('\n') == 1


@pytest.mark.parametrize('content, sentence', [
    ('', 'holds no'), ('x', 'neither a bag nor JSON lines'), ('[' * 100_000, 'JSON lines'),
    ('\xff\x00', 'JSON lines'), ('{}', 'report 1'), ('3', 'report 1'),
    ('{"slo": {"name": "a b"}}', 'report 1'),
])
def test_a_file_of_another_format_is_reported(tmp_path, capsys, content, sentence):
    file = tmp_path / 'reports.jsonl'
    file.write_bytes(content.encode('latin-1'))
    assert main(['reports', str(file)]) == 2
    printed = capsys.readouterr().err
    assert sentence in printed and printed.count('\n') == 1


def test_values_that_cannot_be_are_refused(tmp_path):
    types = typestore()
    row = dict(vars(message(types, *requests(1)[0])))
    row['stamp'], row['slo'] = vars(row['stamp']), vars(row['slo'])
    for field, value in (('ttft_ms', -1), ('ttft_ms', math.inf), ('tpot_ms', 'fast'),
                         ('output_tokens', 1.5), ('output_tokens', -1), ('error_code', 999),
                         ('stamp', {'sec': 1e300, 'nanosec': 0}), ('slo', {'name': 3})):
        file = tmp_path / 'one.jsonl'
        file.write_text(json.dumps({**row, field: value}))
        with pytest.raises(ValueError, match='report 1'):
            read_reports(file)


def test_without_a_recording(tmp_path, capsys):
    assert main(['reports', str(tmp_path / 'none')]) == 2
    assert 'there is no' in capsys.readouterr().err
    (tmp_path / 'folder').mkdir()
    assert main(['reports', str(tmp_path / 'folder')]) == 2
    assert 'cannot be read as a bag' in capsys.readouterr().err
