# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Leaves of a py_trees behaviour tree that ask the slice node.

`AskChoice` (one of some texts), `AskJson` (JSON by a schema) and `Say` (free text, spoken as it
comes) put their result on the blackboard. They share `Ask`; a tree gives them a client once::

    tree = py_trees.trees.BehaviourTree(AskChoice(
        'stop or go', 'A box is 0.4 m ahead.', key='decision', choices=('STOP', 'GO'),
        slo_class='control', deadline=0.5, fallback='STOP'))
    tree.setup(client=SliceClient(node))

No tick waits: the executor that spins `node` receives the answer, in this thread or another.
"""

from slice_ros.behaviours.ask_leaves import Ask, AskChoice, AskJson, Say

__all__ = ['Ask', 'AskChoice', 'AskJson', 'Say']
