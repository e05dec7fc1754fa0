# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The caller of ``slice_bench ros``; the node that it calls runs in a process of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
import os
from pathlib import Path
import threading
import time
from typing import NamedTuple

from slice_ros.bench.processes import NodeProcess

READY_WITHIN = 300.0     # seconds; the first start on a machine converts and profiles the model
CLASSES = ('control', 'dialogue')   # whose tokens are received
FLOOR = 'slice_bench/tokens'        # the topic of a bare publisher


class Token(NamedTuple):
    """One message on a token topic; times are seconds."""

    at: float          # when it was received, on the monotonic clock
    delay: float       # since the engine finished it
    number: int        # its sequence within the request
    finished: bool


class Caller:
    """Sends requests, and keeps all tokens and diagnostics that it receives."""

    def __init__(self, ros_node, clients) -> None:
        self.node, self.clients = ros_node, clients
        self.tokens: dict[str, list[Token]] = {}       # by request id
        self.received = 0                                 # tokens in all
        self.health: dict[str, dict[str, str]] = {}    # status -> its values
        self._ids = count()

    def on_chunk(self, chunk) -> None:
        delay = time.time() - chunk.stamp.sec - chunk.stamp.nanosec / 1e9
        self.tokens.setdefault(chunk.request_id, []).append(
            Token(time.monotonic(), delay, chunk.sequence, chunk.finished))
        self.received += 1

    def on_health(self, array) -> None:
        self.health = {s.name.rpartition(': ')[2]: {v.key: v.value for v in s.values}
                       for s in array.status}

    def get(self, future, timeout: float = 120.0):
        """Return the result of a future. Raises ``ValueError`` when `timeout` (s) passes."""
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout):
            raise ValueError(f'the node gave no answer within {timeout:g} s')
        return future.result()

    def call(self, client: str, **request):
        """Call a service of the node and return its response."""
        service = self.clients[client]
        return self.get(service.call_async(service.srv_type.Request(**request)))

    def set_parameter(self, name: str, value: object) -> None:
        """Set a parameter of the node. Raises ``ValueError`` when it is refused."""
        from rclpy.parameter import Parameter
        (result,) = self.call('parameters', parameters=[
            Parameter(name, value=value).to_parameter_msg()]).results
        if not result.successful:
            raise ValueError(result.reason)

    def send(self, slo_class: str, prompt: str, max_tokens: int):
        """Send a goal and return its handle. Raises ``ValueError`` when it is refused."""
        from slice_ros.action import Generate
        goal = Generate.Goal(slo_class=slo_class, prompt=prompt, max_tokens=max_tokens)
        # By the executor: rclpy loses an answer that comes before `send_goal_async` has returned.
        sent = self.node.executor.create_task(self.clients['generate'].send_goal_async, goal)
        handle = self.get(self.get(sent))
        if not handle.accepted:
            raise ValueError('the node refused a goal')
        return handle

    def publish(self, prompt: str, **fields) -> str:
        """Publish a dialogue prompt and return its request id.

        A prompt by topic, since the feedback of a goal would deliver its tokens a second time.
        """
        from slice_ros import msg
        request_id = f'stream {next(self._ids)}'
        self.clients['prompts'].publish(msg.Prompt(
            request_id=request_id, prompt=f'{prompt} This is {request_id}.', **fields))
        return request_id

    def finished(self, request_id: str) -> bool:
        tokens = self.tokens.get(request_id)
        return bool(tokens) and tokens[-1].finished

    def stream(self, streams: int, seconds: float, prompt: str,
               advance: Callable[[float], None] = lambda seconds: None, **fields) -> list[str]:
        """Keep `streams` answers streaming for `seconds`, then cancel them; return their ids."""
        ids, live = [], set()
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            live = {i for i in live if not self.finished(i)}
            while len(live) < streams:
                ids.append(self.publish(prompt, **fields))
                live.add(ids[-1])
            time.sleep(0.1)
            advance(time.monotonic() - now)
        self.call('cancel', slo_class='dialogue')
        return ids


@contextmanager
def calling() -> Iterator[Caller]:
    """Yield a caller that spins its nodes until the end of the block."""
    from diagnostic_msgs.msg import DiagnosticArray
    from rcl_interfaces.srv import SetParameters
    import rclpy
    from rclpy.action import ActionClient
    from rclpy.executors import SingleThreadedExecutor
    from rosgraph_msgs.msg import Clock
    from slice_ros import msg, srv
    from slice_ros.action import Generate
    from slice_ros.ros.compat import SubscriptionEventCallbacks
    from slice_ros.ros.qos import TOKENS
    rclpy.init()
    node = rclpy.create_node('slice_bench')
    caller = Caller(node, {
        'status': node.create_client(srv.GetStatus, 'slice/get_status'),
        'cancel': node.create_client(srv.CancelRequest, 'slice/cancel'),
        'parameters': node.create_client(SetParameters, 'slice/set_parameters'),
        'generate': ActionClient(node, Generate, 'slice/generate',
                                 feedback_sub_qos_profile=TOKENS),
        'clock': node.create_publisher(Clock, '/clock', 10),
        'prompts': node.create_publisher(msg.Prompt, 'slice/dialogue/prompt', 100)})
    node.create_subscription(DiagnosticArray, '/diagnostics', caller.on_health, 10)
    # An executor polls all its entities before each callback: tokens get one with few of them.
    listener = rclpy.create_node('slice_bench_tokens', enable_rosout=False,
                                 start_parameter_services=False)
    for topic in (*(f'slice/{name}/tokens' for name in CLASSES), FLOOR):
        listener.create_subscription(
            msg.TokenChunk, topic, caller.on_chunk, TOKENS,
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False))
    executors, spinners = [], []

    def spin(executor) -> None:
        try:
            executor.spin()
        except rclpy.executors.ShutdownException:
            pass
    for each in (node, listener):
        executors.append(SingleThreadedExecutor())
        executors[-1].add_node(each)
        spinners.append(threading.Thread(target=spin, args=executors[-1:], daemon=True))
        spinners[-1].start()
    try:
        yield caller
    finally:
        for executor in executors:
            executor.shutdown()
        for spinner in spinners:
            spinner.join(5.0)
        node.destroy_node()
        listener.destroy_node()
        rclpy.shutdown()


@contextmanager
def serving(caller: Caller, options: list[str]) -> Iterator[NodeProcess]:
    """Run the node with parameters NAME:=VALUE until the end of the block."""
    node = NodeProcess(['status.window_s:=20.0', 'limits.max_tokens:=1024', *options])
    try:
        _wait_until_ready(caller, node)
        yield node
    finally:
        node.close()


def _wait_until_ready(caller: Caller, node: NodeProcess) -> None:
    end = time.monotonic() + READY_WITHIN
    while time.monotonic() < end:
        if not node.alive:
            raise ValueError(f'the node ended: {node.end_of_log()}')
        if caller.clients['status'].wait_for_service(0.2):
            if caller.call('status').state == 'ready':
                if caller.clients['generate'].wait_for_server(10.0):
                    return
        time.sleep(0.2)
    raise ValueError(f'the node was not ready within {READY_WITHIN:g} s')


def cpu_seconds(node: NodeProcess) -> float:
    """Return the processor time that a node has taken so far."""
    stat = Path(f'/proc/{node.process.pid}/stat').read_text()
    fields = stat.rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
