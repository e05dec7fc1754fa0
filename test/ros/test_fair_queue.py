# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A thousand dialogue requests thrown at the node: control is served as if there were none.

They are submitted to the node's server, where the queue is: how many goals a second the executor
takes in is another measure. How long a step takes is up to the machine: what counts is how many
steps a request of control lives for.
"""

from collections import Counter
import threading
import time

from conftest import wait_until
import pytest
from slice_ros.engine import Sampling
from slice_ros.errors import ErrorCode, RequestError

REQUESTS = 1000
EVERY = 0.01       # seconds between two of them
DECISIONS = 20     # control requests meanwhile, at least
LENGTH = 200       # tokens of each: with all slots in use, a place comes free after as many steps
# Objectives that slow machines can keep, too: what is out of reach is served after the rest.
OBJECTIVES = {'ttft_ms': 2e3, 'tpot_ms': 500.0, 'deadline_ms': 10e3}
STEPS = 50         # of a control request, whose four tokens take five or six alone


@pytest.fixture
def lives(node, monkeypatch):
    """Return a growing list: the steps that each request of control has lived for."""
    engine, steps, began, lives = node.engine, [0], {}, []
    launch, open_, close = engine.launch, engine.open, engine.close

    def launched(*step):
        steps[0] += 1
        return launch(*step)

    def opened(*arguments, **options):
        sequence = open_(*arguments, **options)
        began[id(sequence)] = steps[0]
        return sequence

    def closed(sequence, **options):
        if sequence.request.slo.name == 'control':
            lives.append(steps[0] - began[id(sequence)])
        return close(sequence, **options)
    for name, function in (('launch', launched), ('open', opened), ('close', closed)):
        monkeypatch.setattr(engine, name, function)
    return lives


def test_control_is_served_at_once(node, caller, lives):
    codes, ended = Counter(), []
    server, slo = node.server, node.settings.classes['dialogue']
    tokens = node.engine.encode_chat([('user', 'Tell me a long story.')])

    def flood():
        for _ in range(REQUESTS):
            try:
                server.submit(slo, tokens, LENGTH, Sampling(),
                              lambda d: ended.append(d.error) if d.finish_reason else None)
            except RequestError as error:
                codes[error.code] += 1
            time.sleep(EVERY)
    thread = threading.Thread(target=flood)
    thread.start()
    results = []
    try:
        wait_until(lambda: codes, what='the queue was not full')
        while thread.is_alive():
            results.append(caller.ask(
                slo_class='control', prompt=f'A wall is {len(results)} m ahead. STOP or GO?',
                max_tokens=4, **OBJECTIVES)[1])
            time.sleep(0.1)
    finally:
        thread.join()
        server.cancel_class('dialogue')
    wait_until(lambda: len(ended) + codes.total() == REQUESTS)   # each has one end
    assert Counter(ErrorCode(r.error_code) for r in results) == {ErrorCode.NONE: len(results)}
    assert len(lives) == len(results) >= DECISIONS and max(lives) < STEPS, lives
    assert set(codes) == {ErrorCode.QUEUE_FULL} and ErrorCode.QUEUE_FULL in ended
