# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench adapters`` measures an adapter of every matrix, which the engine takes."""

import pytest
from slice_ros.bench import adapters_bench
from slice_ros.bench.cli import main
from slice_ros.bench.engine.tiny_model import write_tiny
from slice_ros.engine.adapters.low_rank import JOINED
from slice_ros.engine.adapters.peft_directory import read_adapters
from slice_ros.engine.checkpoints.hf_directory import read_config
from slice_ros.engine.models.families import describe


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp('bench'))


def test_the_table_has_every_step(model, capsys):
    assert main(['adapters', '--model', str(model), '--rank', '3', '--rounds', '2']) == 0
    printed = capsys.readouterr().out
    assert all(f'{kind} {size}' in printed for kind, size in adapters_bench.STEPS)
    assert 'rank 3' in printed and 'ratio' in printed


def test_the_adapter_has_every_matrix(model, tmp_path):
    adapters_bench.save_adapter(tmp_path, model, 2)
    made = describe(read_config(model))
    adapter, = read_adapters((f'a={tmp_path}',), made)
    assert len(adapter.parts) == len(made.layers) * sum(map(len, JOINED))
