# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Leaves of behaviour trees that ask a node with the real model, and what they do without one."""

import time

from conftest import live, wait_until
from py_trees.blackboard import Blackboard
from py_trees.common import Status
from py_trees.composites import Sequence
from py_trees.trees import BehaviourTree
import pytest
from rclpy.node import Node
from slice_ros.behaviours import AskChoice, AskJson, Say
from slice_ros.client import SliceClient

TURN = {'type': 'object', 'properties': {'left': {'type': 'boolean'}}, 'required': ['left'],
        'additionalProperties': False}
STORY = 'Tell me a long story about a robot in a warehouse.'


class Trees:
    """Sets trees up with one client, whose node another thread spins."""

    def __init__(self, spin, target='slice') -> None:
        Blackboard.clear()
        self.planner = Node('tree_planner')
        self.client = SliceClient(self.planner, target)
        self.spinning = spin(self.planner)

    def tree(self, leaf):
        tree = BehaviourTree(leaf)
        tree.setup(client=self.client)
        return tree

    def play(self, leaf):
        """Tick until the leaf ends; return its status and those that it had before."""
        tree, before = self.tree(leaf), []
        end = time.monotonic() + 60
        while True:
            tree.tick()
            if leaf.status is not Status.RUNNING:
                return leaf.status, before
            before.append(leaf.status)
            assert time.monotonic() < end
            time.sleep(0.005)

    def close(self):
        self.client.close()
        self.spinning.close()
        self.planner.destroy_node()


@pytest.fixture
def trees(node, spin):
    """Trees beside a node that serves."""
    trees = Trees(spin)
    wait_until(lambda: trees.client._generate_client.ready)
    yield trees
    trees.close()


@pytest.fixture
def alone(ros, spin):
    """Trees without a node."""
    trees = Trees(spin, 'nobody')
    yield trees
    trees.close()


def test_a_choice_is_on_the_blackboard(trees):
    leaf = AskChoice('look', lambda: 'A box blocks the way.', key='decision',
                     choices=('STOP', 'GO'), slo_class='control', deadline=20.0)
    status, before = trees.play(leaf)
    assert status is Status.SUCCESS and before and Blackboard.get('decision') in ('STOP', 'GO')
    assert Blackboard.get('decision_error') == '' and leaf.feedback_message in ('STOP', 'GO')


def test_json_is_a_value(trees):
    status, _ = trees.play(AskJson('turn', 'Turn left.', key='turn', schema=TURN, max_tokens=20))
    assert status is Status.SUCCESS and Blackboard.get('turn')['left'] in (True, False)


def test_a_text_is_said_as_it_comes(trees):
    said = []
    leaf = Say('tell', [('user', STORY)], key='story', say=said.append, max_tokens=30)
    status, before = trees.play(leaf)
    assert status is Status.SUCCESS and len(said) > 2 and before
    assert ''.join(said) == Blackboard.get('story')


def test_a_leaf_that_is_left_cancels_its_request(trees, node, slow_steps):
    leaf = Say('tell', STORY, key='story', say=lambda _: None, max_tokens=400)
    tree = trees.tree(Sequence('talk', memory=True, children=[leaf]))
    tree.tick()
    wait_until(lambda: len(live(node)) == 1)
    tree.root.stop(Status.INVALID)
    assert leaf.status is Status.INVALID
    wait_until(lambda: not live(node))


@pytest.mark.parametrize('options, code', [
    ({'slo_class': 'nothing'}, 'UNKNOWN_SLO_CLASS'), ({'deadline': 0.0}, 'DEADLINE_MISSED'),
    ({'max_tokens': -1}, 'INVALID_REQUEST'), ({'schema': {'not': {}}}, 'INVALID_REQUEST'),
    ({'max_tokens': 1}, 'FORMAT_INCOMPLETE')])
def test_a_failure_has_its_code(trees, options, code):
    leaf = AskJson('turn', 'Turn left.', key='turn', **{'schema': TURN, **options})
    status, _ = trees.play(leaf)
    assert status is Status.FAILURE and Blackboard.get('turn_error') == code
    assert leaf.feedback_message.startswith(f'{code}: ') and not Blackboard.exists('turn')
    leaf = AskJson('turn', 'Turn left.', key='turn', **{'schema': TURN, **options},
                   fallback={'left': False})
    status, _ = trees.play(leaf)
    assert status is Status.SUCCESS and Blackboard.get('turn') == {'left': False}
    assert Blackboard.get('turn_error') == code


def test_without_a_node_the_fallback_is_said(alone):
    said = []
    leaf = Say('tell', STORY, key='story', say=said.append, fallback='I cannot say.')
    assert alone.play(leaf)[0] is Status.SUCCESS
    assert said == ['I cannot say.'] == [Blackboard.get('story')]
    assert Blackboard.get('story_error') == 'NOT_READY'


def test_a_tree_without_a_client_says_what_is_missing():
    with pytest.raises(KeyError, match='client='):
        BehaviourTree(AskChoice('look', 'x', key='k', choices=('a',))).setup()
