# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""slice_bench reports: bags of both storages and JSON lines, read back without ROS."""

import json

from matplotlib.image import imread
import pytest
from recorded_bags import message, requests, typestore, write_bag
from rosbags.interfaces import MessageDefinitionFormat
from rosbags.rosbag2 import StoragePlugin
from slice_ros.bench.cli import main
from slice_ros.bench.report import class_summary, percentile
from slice_ros.errors import ErrorCode


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


def test_nodes_of_a_bag_are_distinguished_by_topic(tmp_path, capsys):
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
    printed = capsys.readouterr().out
    assert '62 requests; 1 that were refused' in ' '.join(printed.split())
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
