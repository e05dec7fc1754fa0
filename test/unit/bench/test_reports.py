# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""slice_bench reports: bags of both storages and JSON lines, read back without ROS."""

import json
import math
from pathlib import Path
import random

from matplotlib.image import imread
import pytest
from rosbags.interfaces import MessageDefinitionFormat
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg, get_typestore, Stores
from slice_ros.bench.cli import main
from slice_ros.bench.report import class_summary, percentile
from slice_ros.bench.ros.recording import read_reports
from slice_ros.errors import ErrorCode
from slice_ros.slo import DEFAULT_CLASSES, SloClass, SloReport

MSG = Path(__file__).resolve().parents[3] / 'msg'
TYPE = 'slice_ros/msg/SloReport'
NAN = math.nan
PATROL = SloClass('patrol', ttft_ms=700, utility=3)   # a class that no default knows


def typestore(change=lambda text: text):
    types = get_typestore(Stores.EMPTY)
    found = {}
    for name in ('SloClass', 'SloReport'):
        text = change((MSG / f'{name}.msg').read_text())
        found.update(get_types_from_msg(text, f'slice_ros/msg/{name}'))
    types.register(found)
    return types


def served(number, slo, draw):
    ttft, tokens, tpot = draw.uniform(.05, 1.2), draw.randint(2, 60), draw.uniform(.01, .12)
    return SloReport(f'r{number}', slo, True, draw.randint(20, 90), tokens, ttft, tpot,
                     ttft + tpot * (tokens - 1), 2 * tpot, ttft + tpot * (tokens - 1))


def requests(count=60):
    """Return (received, error, report) of a mixed minute."""
    draw = random.Random(7)
    rows = [(1000.0 + .8 * i, 0, served(i, draw.choice((*DEFAULT_CLASSES, PATROL)), draw))
            for i in range(count)]
    refused = SloReport('no', DEFAULT_CLASSES[0], False, 0, 0, NAN, NAN, NAN, 0.0, 0.0)
    given_up = SloReport('off', DEFAULT_CLASSES[2], False, 33, 4, .5, .2, 1.1, .3, 1.2)
    return [*rows, (1002.1, int(ErrorCode.QUEUE_FULL), refused),
            (1003.7, int(ErrorCode.CANCELLED), given_up)]


def message(types, received, error, report):
    time, slo = types.types['builtin_interfaces/msg/Time'], report.slo
    values = {
        'stamp': time(int(received), round(received % 1 * 1e9)), 'request_id': report.request_id,
        'session_id': '', 'requested_class': slo.name,
        'slo': types.types['slice_ros/msg/SloClass'](
            slo.name, slo.ttft_ms, slo.tpot_ms, slo.deadline_ms, slo.utility),
        'served': report.served, 'attained': report.attained, 'ttft_met': report.ttft_met,
        'tpot_met': report.tpot_met, 'deadline_met': report.deadline_met,
        'prompt_tokens': report.prompt_tokens, 'reused_tokens': 0,
        'output_tokens': report.output_tokens, 'ttft_ms': report.ttft * 1e3,
        'tpot_ms': report.tpot * 1e3, 'completion_ms': report.completion * 1e3,
        'elapsed_ms': report.elapsed * 1e3, 'max_gap_ms': report.max_gap * 1e3,
        'finish_reason': 'length' if report.served else 'error', 'error_code': error,
        'error_msg': ''}
    fields = types.types[TYPE].__dataclass_fields__
    return types.types[TYPE](**{name: values[name] for name in values if name in fields})


def write_bag(path, rows, storage=StoragePlugin.SQLITE3, topics=('/slice/slo_reports',),
              change=lambda text: text):
    types = typestore(change)
    with Writer(path, version=9, storage_plugin=storage) as bag:
        for topic in topics:
            connection = bag.add_connection(topic, TYPE, typestore=types)
            for received, error, report in rows:
                bag.write(connection, int(received * 1e9), types.serialize_cdr(
                    message(types, received, error, report), TYPE))
    return path


def reports(path, tmp_path, *flags):
    out = tmp_path / 'out.json'
    assert main(['reports', str(path), '--json', str(out), *flags]) == 0
    return json.loads(out.read_text())['runs']


def near(figures):
    return {name: {key: value if value is None else pytest.approx(value)
                   for key, value in row.items()} for name, row in figures.items()}


@pytest.mark.parametrize('storage', list(StoragePlugin))
def test_figures_of_a_bag_are_those_of_its_reports(tmp_path, storage, capsys):
    rows = requests()
    (run,) = reports(write_bag(tmp_path / 'bag', rows, storage), tmp_path)
    counted = [report for _, error, report in rows if error != ErrorCode.CANCELLED]
    assert run['topic'] == '/slice/slo_reports'
    assert (run['requests'], run['cancelled']) == (61, 1)
    assert run['span_s'] == pytest.approx(.8 * 59)
    assert run['attainment'] == sum(report.attained for report in counted) / 61
    assert run['classes'] == near(class_summary(counted))
    ttft = [r.ttft for r in counted if r.slo.name == 'navigation']
    assert run['classes']['navigation']['ttft_p50'] == pytest.approx(percentile(ttft, .5))
    assert run['classes']['patrol']['requests'] > 0
    assert '61 requests in 47.2 s' in capsys.readouterr().out


def test_one_file_of_a_bag_will_do(tmp_path):
    bag = write_bag(tmp_path / 'bag', requests(), StoragePlugin.MCAP)
    (file,) = bag.glob('*.mcap')
    assert reports(file, tmp_path) == reports(bag, tmp_path)


def test_json_lines_hold_the_same(tmp_path):
    rows = requests(20)
    types = typestore()
    lines = []
    for row in rows:
        fields = dict(vars(message(types, *row)))
        fields['stamp'], fields['slo'] = vars(fields['stamp']), vars(fields['slo'])
        lines.append(json.dumps(fields, default=str))
    file = tmp_path / 'reports.jsonl'
    file.write_text('\n\n'.join(lines))
    (from_lines,) = reports(file, tmp_path)
    (from_bag,) = reports(write_bag(tmp_path / 'bag', rows), tmp_path)
    assert from_lines.pop('topic') == 'reports.jsonl' and from_bag.pop('topic')
    assert from_lines == from_bag


def test_a_bag_is_read_by_the_definitions_it_brings(tmp_path):
    """As recorded before a field was added: ours would read the bytes after it wrongly."""
    rows = requests(20)
    old = write_bag(tmp_path / 'old', rows, change=lambda text: '\n'.join(
        line for line in text.splitlines() if 'session_id' not in line))
    assert reports(old, tmp_path) == reports(write_bag(tmp_path / 'new', rows), tmp_path)


def test_a_bag_without_definitions_is_read_by_ours(tmp_path):
    rows = requests(20)
    bag = write_bag(tmp_path / 'bag', rows)
    expected = reports(bag, tmp_path)
    import sqlite3
    (file,) = bag.glob('*.db3')
    with sqlite3.connect(file) as database:
        database.execute('DELETE FROM message_definitions')
    database.close()
    from rosbags.rosbag2 import Reader
    with Reader(bag) as reader:
        assert reader.connections[0].msgdef.format is MessageDefinitionFormat.NONE
    assert reports(bag, tmp_path) == expected


def test_nodes_of_a_bag_are_told_apart_by_topic(tmp_path, capsys):
    bag = write_bag(tmp_path / 'bag', requests(), topics=('/a/slo_reports', '/b/slo_reports'))
    assert [run['topic'] for run in reports(bag, tmp_path)] == ['/a/slo_reports', '/b/slo_reports']
    (run,) = reports(bag, tmp_path, '--topic', '/b/slo_reports')
    assert run['topic'] == '/b/slo_reports'
    assert main(['reports', str(bag), '--topic', '/c']) == 2
    assert '/a/slo_reports, /b/slo_reports' in capsys.readouterr().err
    assert main(['reports', str(bag), '--trace', str(tmp_path / 't')]) == 2
    assert '--topic' in capsys.readouterr().err


def test_the_picture_has_a_row_a_topic(tmp_path):
    heights = []
    for topics in (('/a',), ('/a', '/b')):
        bag = write_bag(tmp_path / f'bag{len(topics)}', requests(), topics=topics)
        reports(bag, tmp_path, '--plot', str(tmp_path / 'plot.png'))
        picture = imread(tmp_path / 'plot.png')
        assert picture.std() > .05
        heights.append(picture.shape[0])
    assert 500 < heights[0] < heights[1]


def test_a_bag_becomes_a_trace_that_the_simulator_replays(tmp_path, capsys):
    rows, trace = requests(), tmp_path / 'trace.jsonl'
    bag = write_bag(tmp_path / 'bag', rows)
    reports(bag, tmp_path, '--trace', str(trace))
    said = capsys.readouterr().out
    assert '62 requests; 1 that were refused' in ' '.join(said.split())
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    received = {row[2].request_id: row[0] for row in rows}
    assert [line['arrival'] for line in lines] == pytest.approx(
        sorted(time - 1000.0 for time in received.values()), abs=1e-5)
    refused, = (line for line in lines if line['arrival'] == pytest.approx(2.1, abs=1e-5))
    lengths = sorted(r.output_tokens for _, _, r in rows if r.served and r.slo.name == 'control')
    assert refused['output_tokens'] == lengths[len(lengths) // 2] and refused['prompt_tokens'] > 0
    out = tmp_path / 'simulated.json'
    assert main(['simulate', '--trace', str(trace), '--policies', 'slice', '--seeds', '1',
                 '--jobs', '1', '--json', str(out)]) == 0
    (run,) = json.loads(out.read_text())['runs']
    assert run['requests'] == 62 and set(run['classes']) == {
        'control', 'navigation', 'dialogue', 'patrol'}


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
    f'{what} {kind}' for what in ('truncated', 'empty', 'noise', 'metadata')
    for kind in ('db3', 'mcap')])
def test_a_spoilt_bag_is_said_in_one_sentence(tmp_path, capsys, how):
    assert main(['reports', str(spoil(tmp_path, how))]) == 2
    said = capsys.readouterr()
    assert said.err.startswith('slice_bench: ') and said.err.count('\n') == 1 and not said.out


@pytest.mark.parametrize('other', ['float64 other', 'string ttft_ms', 'float64[99999999] ttft_ms'])
def test_a_bag_of_another_definition_is_said(tmp_path, capsys, other):
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
def test_a_file_that_is_none_is_said(tmp_path, capsys, content, sentence):
    file = tmp_path / 'reports.jsonl'
    file.write_bytes(content.encode('latin-1'))
    assert main(['reports', str(file)]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count('\n') == 1


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
