# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What a link costs a step, by hand; and the command."""

import json

import pytest
from slice_ros.bench.cli import main
from slice_ros.bench.schedule.links_bench import divided, Link, LINKS
from slice_ros.scheduling.latency import LatencyModel

ONE = LatencyModel('one', ((1, 10.0), (4, 30.0)), decode_context_ms=0.02, prefill_base_ms=8.0,
                   prefill_token_ms=0.4, prefill_context_ms=0.002, shared_ms=6.0)


def test_two_gpus_have_half_the_work_and_two_all_reduces_a_layer():
    """10 layers: 20 all-reduces, 2 messages of 1 ms each; a token is 2,000 bytes, of 1 MB/s."""
    model = divided(ONE, 2, 10, 1000, Link('slow', 1000.0, 0.001))
    assert model.decode_ms == ((1, pytest.approx(5 + 40 + 40)), (4, pytest.approx(15 + 40 + 160)))
    assert model.prefill_base_ms == pytest.approx(4 + 40)
    assert model.prefill_token_ms == pytest.approx(.2 + 40)
    assert model.shared_ms == pytest.approx(3 + 40)
    assert (model.decode_context_ms, model.prefill_context_ms) == (0.01, 0.001)


def test_more_gpus_send_more_messages_and_no_link_costs_nothing():
    four = divided(ONE, 4, 10, 1000, Link('slow', 1000.0, 1e9))
    assert four.decode_ms[0][1] == pytest.approx(2.5 + 20 * 6)
    alone = divided(ONE, 1, 10, 1000, LINKS[-1])
    assert alone.decode_ms == ONE.decode_ms and alone.prefill_token_ms == ONE.prefill_token_ms


def test_the_command(tmp_path, capsys):
    out = tmp_path / 'links.json'
    assert main(['links', '--rates', '1', '--requests', '12', '--seeds', '1', '--json',
                 str(out)]) == 0
    rows = json.loads(out.read_text())['rows']
    assert [row['link'] for row in rows] == ['one GPU', *(link.name for link in LINKS)]
    steps = [row['decode_ms'] for row in rows[1:]]
    assert steps == sorted(steps)
    assert rows[1]['attainment'] == 1.0 and rows[-1]['control'] == 0.0
    assert 'NVLink' in capsys.readouterr().out
    assert main(['links', '--workload', 'none']) == 2
