# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A thousand dialogue requests thrown at the node: control is served within its objectives.

They are submitted to the node's server, where the queue is: how many goals a second the executor
takes in is another measure. The objectives of control are those of its class times `SLACK`, for a
machine that does something else.
"""

from collections import Counter
import threading
import time

from conftest import wait_until
from slice_ros.engine import Sampling
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.slo import DEFAULT_CLASSES

REQUESTS = 1000
EVERY = 0.01       # seconds between two of them
DECISIONS = 20     # control requests meanwhile, at least
SLACK = 4.0
CONTROL = DEFAULT_CLASSES[0]
OBJECTIVES = {f'{name}_ms': SLACK * getattr(CONTROL, f'{name}_ms')
              for name in ('ttft', 'tpot', 'deadline')}


def test_control_is_served_within_its_objectives(node, caller):
    codes, ended = Counter(), []
    server, slo = node.server, node.settings.classes['dialogue']
    tokens = node.engine.encode_chat([('user', 'Tell me a long story.')])

    def flood():
        for _ in range(REQUESTS):
            try:
                server.submit(slo, tokens, 200, Sampling(),
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
    late = [round(r.report.ttft_ms) for r in results if not r.report.attained]
    assert len(results) >= DECISIONS and not late, late
    assert set(codes) == {ErrorCode.QUEUE_FULL} and ErrorCode.QUEUE_FULL in ended
