# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Bags of `slo_reports` for tests, written without ROS."""

import math
from pathlib import Path
import random

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg, get_typestore, Stores
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
        'output_tokens': report.output_tokens, 'reasoning_tokens': 0,
        'ttft_ms': report.ttft * 1e3, 'answer_ms': report.ttft * 1e3,
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
