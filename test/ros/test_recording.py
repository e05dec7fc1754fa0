# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A bag of reports as a node published them: slice_bench reads the bytes that ROS wrote."""

import json

import pytest
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg, get_typestore, Stores
from slice_ros.bench.cli import main
from slice_ros.bench.report import class_summary
from slice_ros.installed import share
from slice_ros.ros.conversions import report_from

TYPE = 'slice_ros/msg/SloReport'


@pytest.mark.parametrize('storage', list(StoragePlugin))
def test_figures_of_a_bag_are_those_that_were_published(caller, tmp_path, storage):
    for slo_class, tokens in (('control', 2), ('dialogue', 5), ('navigation', 3)):
        caller.report_of(caller.ask(slo_class=slo_class, prompt='Hello.',
                                    max_tokens=tokens)[1].request_id)
    caller.ask(prompt='')   # refused
    published = list(caller.reports)
    types = get_typestore(Stores.EMPTY)
    types.register({
        kind: fields for name in ('SloClass', 'SloReport') for kind, fields in get_types_from_msg(
            (share() / 'msg' / f'{name}.msg').read_text(), f'slice_ros/msg/{name}').items()})
    with Writer(tmp_path / 'bag', version=9, storage_plugin=storage) as bag:
        connection = bag.add_connection('/slice/slo_reports', TYPE, typestore=types)
        for number, report in enumerate(published):
            bag.write(connection, number, serialize_message(report))
    out = tmp_path / 'out.json'
    assert main(['reports', str(tmp_path / 'bag'), '--json', str(out)]) == 0
    (run,) = json.loads(out.read_text())['runs']
    assert run['requests'] == len(published) >= 4
    expected = class_summary(map(report_from, published))
    assert set(run['classes']) == {'control', 'dialogue', 'navigation'} == set(expected)
    for name, figures in expected.items():
        assert run['classes'][name] == {
            key: value if value is None else pytest.approx(value)
            for key, value in figures.items()}
