# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A team's own policies, in a package of their own, serve by the node that names them."""

import os
from pathlib import Path
import sys

import pytest
from robot import Robot, start
from site_folder import install
from slice_ros.action import Generate

ROOT = Path(__file__).resolve().parents[2]
POLICIES = """
from slice_ros.scheduling.policy import Policy, PrefillChunk, Step


class NewestFirst(Policy):
    def plan(self, now, requests, latency):
        newest = requests[-1]
        if newest.decoding:
            return Step(decode=(newest,)) if newest.ready else Step()
        tokens = min(newest.pending, self.capacity.prefill_chunk)
        return Step(prefill=(PrefillChunk(newest, tokens),))


class Raises(Policy):
    def plan(self, now, requests, latency):
        raise KeyError('no idea')


class Lazy(Policy):
    def plan(self, now, requests, latency):
        return Step()


class Greedy(Policy):
    def plan(self, now, requests, latency):
        return Step(prefill=tuple(PrefillChunk(r, r.pending) for r in requests))


class Nonsense(Policy):
    def plan(self, now, requests, latency):
        return Step(decode=(requests[0], requests[0]))
"""
ENTRY_POINTS = """[slice_ros.policies]
newest_first = team_policies:NewestFirst
raises = team_policies:Raises
nonsense = team_policies:Nonsense
greedy = team_policies:Greedy
lazy = team_policies:Lazy
absent = no_such_module:Policy
"""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope='module')
def robot(tmp_path_factory):
    """A robot at a node in whose Python path the package of the team is installed."""
    site = tmp_path_factory.mktemp('site')
    install(site, 'team-policies', {'team_policies': POLICIES}, ENTRY_POINTS)
    log = site / 'log.txt'
    before = os.environ.get('PYTHONPATH')
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, (str(site), before)))
    try:
        process = start([sys.executable, '-m', 'slice_ros.ros.main'],
                        ['-r', '__ns:=/team', '-p', 'engine.slots:=8',
                         '-p', 'scheduler.policy:=newest_first'], ROOT, log.open('w'))
    finally:
        os.environ.pop('PYTHONPATH')
        if before is not None:
            os.environ['PYTHONPATH'] = before
    robot = Robot('/team/slice')
    robot.log = log
    try:
        robot.wait_until_ready()
        yield robot
    finally:
        robot.close()
        process.kill()
        process.wait()


def ask(robot, policy):
    """Return the result of a goal under `policy`."""
    assert robot.put(scheduler__policy=policy).successful
    _, result = robot.send('navigation', f'Say {policy}. ' * 40, 4)
    return robot.result_of(result).result


def test_a_policy_of_another_package_serves(robot):
    result = ask(robot, 'newest_first')
    assert result.error_code == Generate.Result.NONE and result.report.output_tokens
    assert robot.status().scheduler.policy == 'newest_first'


@pytest.mark.parametrize('policy, why', [
    ('raises', 'no idea'), ('nonsense', 'before its prefill'), ('greedy', 'tokens, over 64'),
    ('lazy', 'does nothing')])
def test_a_fault_of_a_policy_is_named(robot, policy, why):
    """The request fails with the name of the policy, and the node serves on."""
    result = ask(robot, policy)
    assert result.error_code == Generate.Result.ENGINE_FAILURE
    assert f'policy {policy}' in result.error_msg and why in result.error_msg
    assert f'policy {policy}' in robot.log.read_text()
    assert ask(robot, 'slice').error_code == Generate.Result.NONE


def test_a_policy_that_cannot_be_imported_is_refused(robot):
    refused = robot.put(scheduler__policy='absent')
    assert not refused.successful
    assert 'absent' in refused.reason and 'team-policies' in refused.reason
    assert robot.status().scheduler.policy != 'absent'
