# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The Foxglove layout: whole, and every path in it leads to a field of the interfaces."""

import json
from pathlib import Path
import re

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = json.loads((ROOT / 'config/foxglove/slice.json').read_text())
PANELS = LAYOUT['configById']
KINDS = {'Plot', 'StateTransitions', 'Table', 'DiagnosticSummary', 'RawMessages', 'Parameters'}
TOPICS = {'/slice/scheduler_state': 'SchedulerState', '/slice/slo_reports': 'SloReport',
          **{f'/slice/{name}/tokens': 'TokenChunk'
             for name in ('control', 'navigation', 'dialogue')}}
NUMBERS = re.compile(r'bool|float\d+|u?int\d+')


def fields(message):
    text = (ROOT / 'msg' / f'{message}.msg').read_text()
    return {name: kind for kind, name in re.findall(r'^([\w/\[\]]+) +(\w+)\b(?! *=)', text,
                                                    re.MULTILINE)}


def resolve(path):
    """Return the type that a message path ends at; raise ``KeyError`` where it leads nowhere."""
    topic = re.match(r'[\w/]+', path)[0]
    kind, rest = TOPICS[topic], path[len(topic):]
    while rest:
        step = re.match(r'\.(\w+)|\[(?:\d+|:)\]|\{([\w.]+)=="\w+"\}', rest)
        if step is None:
            raise KeyError(path)
        if step[1]:
            kind = fields(kind)[step[1]]
        elif step[2]:
            inner = kind
            for name in step[2].split('.'):
                inner = fields(inner)[name]
            if inner != 'string':
                raise KeyError(path)
        else:
            kind, array, _ = kind.partition('[]')
            if not array:
                raise KeyError(path)
        rest = rest[step.end():]
    return kind


def placed(node):
    if isinstance(node, str):
        return [node]
    assert set(node) == {'direction', 'first', 'second', 'splitPercentage'}
    assert node['direction'] in ('row', 'column') and 10 <= node['splitPercentage'] <= 90
    return placed(node['first']) + placed(node['second'])


def test_it_has_the_parts_of_an_exported_layout():
    assert set(LAYOUT) == {'configById', 'globalVariables', 'userNodes', 'playbackConfig',
                           'layout'}


def test_every_panel_is_placed_once_and_configured():
    panels = placed(LAYOUT['layout'])
    assert sorted(panels) == sorted(PANELS)
    assert {panel.split('!')[0] for panel in panels} == KINDS


@pytest.mark.parametrize('panel', sorted(PANELS))
def test_every_path_leads_to_a_field(panel):
    kind, config = panel.split('!')[0], PANELS[panel]
    if kind == 'Plot':
        assert config['paths']
        for path in config['paths']:
            assert NUMBERS.fullmatch(resolve(path['value'])), path
    elif kind == 'StateTransitions':
        for path in config['paths']:
            assert resolve(path['value']) in ('string', 'bool'), path
    elif kind == 'Table':
        assert resolve(config['topicPath']).endswith('[]')
    elif kind == 'RawMessages':
        assert resolve(config['topicPath']) in TOPICS.values()
    elif kind == 'DiagnosticSummary':
        assert config['topicToRender'] == '/diagnostics'
    else:
        assert kind == 'Parameters'


@pytest.mark.parametrize('path', [
    '/slice/nothing', '/slice/slo_reports.nothing', '/slice/scheduler_state.load[0]',
    '/slice/scheduler_state.classes{nothing=="x"}', '/slice/slo_reports.slo.name.more'])
def test_a_path_that_leads_nowhere_would_be_found(path):
    with pytest.raises((KeyError, FileNotFoundError)):
        resolve(path)
