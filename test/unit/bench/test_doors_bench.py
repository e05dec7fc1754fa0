# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench doors``: what it counts, and what it refuses."""

from io import BytesIO, StringIO
from types import SimpleNamespace

import numpy as np
from PIL import Image
import pytest
from rich.console import Console
from slice_ros.bench import doors_bench
from slice_ros.bench.cli import main


def report(attained, ttft_ms=100.0, completion_ms=400.0):
    return SimpleNamespace(attained=attained, ttft_ms=ttft_ms, completion_ms=completion_ms)


def test_a_goal_without_an_answer_has_not_attained():
    figures = doors_bench._figures([report(True)] * 17 + [report(False, 900.0)] + [None] * 2)
    assert figures['attained_percent'] == 85.0 and figures['refused'] == 2
    assert figures['ttft_p50_ms'] == 100.0 and figures['ttft_p99_ms'] == 900.0
    assert figures['completion_p99_ms'] == 400.0


@pytest.mark.parametrize(('attained', 'word'), [(19, 'kept'), (18, 'MISSED')])
def test_the_table_says_whether_the_bar_is_kept(attained, word):
    half = doors_bench._figures([report(True)] * 10 + [None] * 10)
    beside = doors_bench._figures([report(True)] * attained + [report(False)] * (20 - attained))
    console = Console(width=160, record=True, file=StringIO())
    console.print(doors_bench.table({
        'alone': half, 'control': beside, 'dialogue_answers': {'whole': 3, '429': 1},
        'image_answers': {'QueueFull': 2}}))
    shown = console.export_text()
    assert f'95 %: {word}' in shown and '50.0 %' in shown
    assert '3 whole, 1 429' in shown and '2 QueueFull' in shown


def test_each_frame_is_a_new_image_of_the_camera():
    dice = np.random.default_rng(3)
    frames = [doors_bench._frame(dice) for _ in range(3)]
    assert len(set(frames)) == 3
    assert Image.open(BytesIO(frames[0])).size == (320, 240)


@pytest.mark.parametrize('flags', [['--goals', '0'], ['--dialogues', '65'], ['--images', '-1'],
                                   ['--images', 'nan']])
def test_flags_out_of_range_are_refused(flags, capsys):
    assert main(['doors', *flags]) == 2
    assert '--goals must be' in capsys.readouterr().err
