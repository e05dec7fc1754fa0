# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever is sent is served, or refused with a declared error in a sentence that can be sent."""

import hostile_inputs
import pytest


@pytest.fixture(scope='module')
def targets(tmp_path_factory):
    return hostile_inputs.Targets(tmp_path_factory.mktemp('hostile'))


@pytest.mark.parametrize('kind', hostile_inputs.KINDS)
def test_generated_inputs_are_served_or_refused(targets, kind):
    count = 20 if kind == 'template' else 200
    outcomes = {hostile_inputs.attempt(targets, kind, seed) for seed in range(count)}
    assert len(outcomes) > 1 and 'served' in outcomes
