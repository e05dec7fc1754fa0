# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench images`` measures a model that sees, and refuses one that does not."""

import json
from pathlib import Path
import sys

from slice_ros.bench.cli import main

sys.path.append(str(Path(__file__).parents[1] / 'engine'))


def test_it_measures_images_and_steps(tmp_path, capsys):
    import tiny_vision   # and with it Triton, which the tests of the engine set up before
    tiny_vision.save(tmp_path, 'smolvlm')
    file = tmp_path / 'figures.json'
    assert main(['images', '--model', str(tmp_path), '--images', '2', '--steps', '20', '--json',
                 str(file)]) == 0
    figures = json.loads(file.read_text())
    assert figures['tokens_of_an_image'] == 20 and figures['image_s'] > 0
    assert figures['step_ms']['steps'] == 20 and figures['step_beside_images_ms']['steps'] > 1
    assert 'beside images' in capsys.readouterr().out


def test_a_model_that_does_not_see_is_refused(tmp_path, capsys):
    import tiny
    tiny.save(tmp_path, tiny.llama())
    assert main(['images', '--model', str(tmp_path)]) == 2
    assert 'does not see' in capsys.readouterr().err
