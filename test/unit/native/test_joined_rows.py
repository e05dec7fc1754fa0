# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Rows that attend to later ones of their request: those of an image."""

import numpy as np
import pytest
from slice_ros.engine.runners.native.model import passes
from test_model import native, reference, tokens_of
import torch

ROWS, BEGIN, END = 60, 20, 45   # tokens, and those of them that see each other


def seen_by(rows=ROWS, begin=BEGIN, end=END):
    """Return up to which position each row attends."""
    seen = np.arange(rows, dtype=np.int32)
    seen[begin:end] = end - 1
    return seen


def expected(model, tokens, seen):
    """Return the logits of transformers with a mask of its own."""
    mask = torch.arange(len(tokens)) <= torch.from_numpy(seen)[:, None]
    with torch.inference_mode():
        return model(torch.tensor([tokens]), attention_mask=mask[None, None]).logits[0].numpy()


def logits(model, tokens, seen, slot=0):
    count = len(tokens)
    return model.step(tokens, [slot] * count, range(count), range(count),
                      last_seen=seen)[0].copy()


@pytest.mark.parametrize('name', ['grouped', 'odd sizes', 'many in a group'])
def test_rows_see_later_ones_as_a_mask_of_transformers_says(library, name, isa):
    model, tokens = reference(name), tokens_of(21, ROWS)
    ours = native(library, model, isa=isa)
    got, want = logits(ours, tokens, seen_by()), expected(model, tokens, seen_by())
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * np.abs(want).max())
    plain = logits(ours, tokens, None, 1)
    np.testing.assert_array_equal(got[:BEGIN], plain[:BEGIN])
    assert (np.abs(got - plain).max(1)[BEGIN:] > 1e-3).all()
    np.testing.assert_array_equal(logits(ours, tokens, np.arange(ROWS, dtype=np.int32)), plain)


def test_in_chunks_and_in_company_no_bit_is_another(library):
    tokens, other = tokens_of(21, ROWS), tokens_of(22, 31)
    ours = native(library, reference('grouped'), 'int8')
    want, alone = logits(ours, tokens, seen_by()), logits(ours, other, None, 1)
    got = []
    for first, end in ((0, BEGIN), (BEGIN, END), (END, ROWS)):
        rows = end - first
        seen = np.concatenate([np.arange(31, dtype=np.int32), seen_by()[first:end]])
        out, _ = ours.step([*other, *tokens[first:end]], [3] * 31 + [2] * rows,
                           [*range(31), *range(first, end)], range(31 + rows), last_seen=seen)
        np.testing.assert_array_equal(out[:31], alone)
        got.append(out[31:].copy())
    np.testing.assert_array_equal(np.concatenate(got), want)


def test_a_pass_parts_no_rows_that_see_each_other(library):
    tokens = tokens_of(21, ROWS)
    want = logits(native(library, reference('grouped')), tokens, seen_by())
    for most in (25, 31, 44):
        ours = native(library, reference('grouped'), max_rows=most)
        np.testing.assert_array_equal(logits(ours, tokens, seen_by()), want)
    small = native(library, reference('grouped'), max_rows=24)
    with pytest.raises(ValueError, match='do not fit a pass of 24'):
        logits(small, tokens, seen_by())


def test_passes_are_as_long_as_they_may_be():
    positions = [*range(ROWS), *range(ROWS)]
    seen = np.concatenate([seen_by(), seen_by()])
    assert list(passes(positions, seen, 30)) == [(0, 20), (20, 50), (50, 80), (80, 110),
                                                 (110, 120)]
    assert list(passes(positions, None, 50)) == [(0, 50), (50, 100), (100, 120)]
    assert list(passes([], None, 5)) == []


@pytest.mark.parametrize('change', [{5: 4}, {5: 60}, {5: -1}, {5: 2 ** 31 - 1}, {5: -2 ** 31},
                                    {59: 60}])
def test_rows_that_are_not_there_cannot_be_seen(library, change):
    ours, seen = native(library, reference('grouped')), seen_by()
    seen[list(change)] = list(change.values())
    with pytest.raises(ValueError, match='position'):
        logits(ours, tokens_of(21, ROWS), seen)


def test_rows_of_another_request_cannot_be_seen(library):
    ours = native(library, reference('grouped'))
    seen = np.array([0, 2, 0, 1], np.int32)   # row 1 would see the first of slot 1
    with pytest.raises(ValueError, match='position'):
        ours.step([1, 2, 3, 4], [0, 0, 1, 1], [0, 1, 0, 1], [3], last_seen=seen)
    with pytest.raises(ValueError, match='attend up to 3'):
        ours.step([1, 2, 3, 4], [0, 0, 1, 1], [0, 1, 0, 1], [3], last_seen=seen[:3])
