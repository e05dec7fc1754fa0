# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The pictures: files that hold one, and the window of the Gantt strips."""

from matplotlib.image import imread
import pytest
from slice_ros.bench.cli import main
from slice_ros.bench.schedule.simulate import StepRecord
from slice_ros.bench.schedule.sweep_plot import busiest

FLAGS = ['simulate', '--requests', '20', '--seeds', '1,2', '--rates', '1,2', '--jobs', '1',
         '--policies', 'orca,slice_static']


def test_a_picture_with_one_strip_a_policy(tmp_path):
    heights = []
    for name, policies in (('two.png', 'orca,slice_static'), ('one.png', 'orca')):
        assert main([*FLAGS, '--policies', policies, '--plot', str(tmp_path / name)]) == 0
        picture = imread(tmp_path / name)
        assert picture.std() > .05           # something is drawn
        heights.append(picture.shape[0])
    assert heights[0] > heights[1] > 600


def test_a_format_that_cannot_be_drawn_is_named(tmp_path, capsys):
    assert main([*FLAGS, '--plot', str(tmp_path / 'out.xyz')]) == 2
    assert 'xyz' in capsys.readouterr().err


@pytest.mark.parametrize('at', [0, 30, 60])
def test_the_strip_shows_where_most_classes_decode_together(at):
    steps = [StepRecord(i * .1, .1, ('control-1',), ()) for i in range(80)]
    for i in range(at, at + 12):
        steps[i] = StepRecord(i * .1, .1, ('control-1', 'dialogue-2'), ())
    start = busiest(steps, 1.0)
    assert at * .1 - 1.01 <= start <= (at + 12) * .1


def test_nothing_ran():
    assert busiest([], 1.0) == 0.0
