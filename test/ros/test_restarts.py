# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A node that starts again computes no preamble, and its first answer has the same bits."""

from first_requests import PREAMBLES
import pytest
from restarts import start


@pytest.mark.timeout(600)
def test_the_second_start_computes_nothing_and_answers_with_the_same_bits(tmp_path):
    first = start(PREAMBLES, str(tmp_path))
    assert first.disk == 0 and first.computed > 100
    assert len(list((tmp_path / 'slice_ros' / 'prefixes').glob('*.prefix'))) == len(PREAMBLES)
    again = start(PREAMBLES, str(tmp_path))
    assert again.disk >= first.computed and again.computed == 0
    assert again.text == first.text and again.logprobs == first.logprobs and first.logprobs
    without = start(PREAMBLES, str(tmp_path), prefix_cache_bytes=0)
    assert without.disk == 0 and without.computed == first.computed
    assert without.text == first.text and without.logprobs == first.logprobs
