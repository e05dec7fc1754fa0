# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A ROS node that plays the robot for a running `slice` node: it sends, waits and receives."""

from contextlib import contextmanager
import os
import subprocess
import time

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import ListParameters, SetParametersAtomically
import rclpy
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from slice_ros.action import Generate
from slice_ros.msg import ResponseFormat, TokenChunk
from slice_ros.srv import GetStatus

READY_WITHIN = 180.0   # seconds; the first start on a machine converts and profiles the model
ANSWER_WITHIN = 60.0   # seconds
ASK_AGAIN = 2.0        # seconds without an answer to a small call
# An answer in it has all its tokens, so that what is done meanwhile does not race its end.
MANY_WORDS = ResponseFormat(type='regex', grammar='([a-z]+ ){500}')


def start(command, arguments, cwd, log) -> subprocess.Popen:
    """Start a node as a process; its output goes to the file `log`."""
    # The wheels' start-up hook runs the interpreter twice; the flag it leaves behind would make it
    # skip a child that has another environment. Read now: this graph is the one the test is on.
    env = {key: value for key, value in os.environ.items()
           if key != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'}
    return subprocess.Popen([*command, '--ros-args', *arguments], cwd=cwd, env=env, stdout=log,
                            stderr=subprocess.STDOUT)


class Robot:
    """Talks to the node whose full name is `server`, in a ROS context of its own."""

    def __init__(self, server: str):
        """Join the graph; the node need not be there yet."""
        self.server = server
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node(f'robot_of{server.replace("/", "_")}',
                                      context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.generate = ActionClient(self.node, Generate, f'{server}/generate')
        self._clients = {}
        self._chunks: dict[str, list[TokenChunk]] = {}

    def close(self):
        """Leave the graph."""
        self.executor.shutdown()
        self.generate.destroy()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    # -- waiting -------------------------------------------------------------------------------

    def result_of(self, future, within: float = ANSWER_WITHIN):
        """Spin until `future` is done; AssertionError after `within` seconds."""
        self.executor.spin_until_future_complete(future, timeout_sec=within)
        assert future.done(), f'no answer within {within:.0f} s'
        return future.result()

    def wait_for(self, condition, what: str, within: float = ANSWER_WITHIN):
        """Spin until `condition()` holds; AssertionError with `what` after `within` seconds."""
        end = time.monotonic() + within
        while not condition():
            assert time.monotonic() < end, what
            self.executor.spin_once(timeout_sec=0.05)

    def wait_until_ready(self):
        """Return the status once the model is loaded."""
        client = self.node.create_client(GetStatus, f'{self.server}/get_status')
        end = time.monotonic() + READY_WITHIN
        while time.monotonic() < end:
            # What is asked of a node that was killed a moment ago is never answered: ask again.
            client.wait_for_service(timeout_sec=1.0)
            future = client.call_async(GetStatus.Request())
            self.executor.spin_until_future_complete(future, timeout_sec=ASK_AGAIN)
            if future.done() and future.result().state == 'ready':
                self.node.destroy_client(client)
                assert self.generate.wait_for_server(timeout_sec=ANSWER_WITHIN)
                return future.result()
            assert not future.done() or future.result().state in ('loading', 'inactive')
            time.sleep(0.2)
        raise AssertionError(f'{self.server} was not ready within {READY_WITHIN:.0f} s')

    def wait_until_received(self, topic: str):
        """Wait until all that is published on a topic from now on reaches our subscription of it.

        A participant learns of our endpoints in the order in which they were made: whoever
        answers a client that is younger than the subscription has discovered that as well.
        """
        def publishers():
            return {f'{each.node_namespace.rstrip("/")}/{each.node_name}'
                    for each in self.node.get_publishers_info_by_topic(topic)}
        self.wait_for(lambda: publishers() and 'UNKNOWN' not in ''.join(publishers()),
                      f'no publisher of {topic}')
        for name in publishers():
            client = self.node.create_client(ListParameters, f'{name}/list_parameters')
            asked = []

            def answered():
                if not asked or time.monotonic() > asked[-1][0] + ASK_AGAIN:
                    asked.append((time.monotonic(),
                                  client.call_async(ListParameters.Request())))
                return any(future.done() for _, future in asked)
            self.wait_for(answered, f'{name} does not answer')
            self.node.destroy_client(client)

    # -- asking --------------------------------------------------------------------------------

    def call(self, kind, name: str, within: float = ANSWER_WITHIN, **fields):
        """Call a service of the node and return its response."""
        return self.result_of(self._begin(kind, name, within, **fields), within)

    def _begin(self, kind, name: str, within: float = ANSWER_WITHIN, **fields):
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(kind, f'{self.server}/{name}')
        assert client.wait_for_service(timeout_sec=within), f'{self.server}/{name} is not there'
        return client.call_async(kind.Request(**fields))

    def status(self, within: float = ANSWER_WITHIN):
        """Return the answer of ~/get_status."""
        return self.call(GetStatus, 'get_status', within)

    def state(self) -> str:
        """Return the lifecycle state by its name."""
        return self.call(GetState, 'get_state').current_state.label

    def change(self, transition: int) -> bool:
        """Ask for a transition and wait for its end; return whether it succeeded."""
        return self.result_of(self.begin(transition)).success

    def begin(self, transition: int):
        """Ask for a transition; return the future of the response."""
        return self._begin(ChangeState, 'change_state', transition=Transition(id=transition))

    def put(self, **values):
        """Set parameters (`__` for the dots of a name) as one set; return the result."""
        return self.call(SetParametersAtomically, 'set_parameters_atomically', parameters=[
            Parameter(name.replace('__', '.'), value=value).to_parameter_msg()
            for name, value in values.items()]).result

    @contextmanager
    def paced(self):
        """Have dialogues take 0.25 s a token meanwhile, on any machine."""
        assert self.put(rate_control__mode='paced').successful
        try:
            yield
        finally:
            assert self.put(rate_control__mode='work_conserving').successful

    def send(self, slo_class: str, prompt: str, max_tokens: int, **goal):
        """Send a goal; return its handle and the future of its result."""
        handle = self.result_of(self.generate.send_goal_async(Generate.Goal(
            slo_class=slo_class, prompt=prompt, max_tokens=max_tokens, **goal)))
        assert handle.accepted
        return handle, handle.get_result_async()

    # -- listening -----------------------------------------------------------------------------

    def listen(self, slo_class: str) -> list[TokenChunk]:
        """Return the growing list of chunks on the topic of a class from now on."""
        if slo_class not in self._chunks:
            topic = f'{self.server}/{slo_class}/tokens'
            chunks = self._chunks[slo_class] = []
            self.node.create_subscription(TokenChunk, topic, chunks.append, QoSProfile(depth=1000))
            self.wait_until_received(topic)
        return self._chunks[slo_class]

    def chunks_of(self, slo_class: str, request_id: str) -> list[TokenChunk]:
        """Return all chunks of a request whose class is listened to."""
        def mine():
            return [c for c in self._chunks[slo_class] if c.request_id == request_id]
        self.wait_for(lambda: any(c.finished for c in mine()), 'no finished chunk on the topic')
        return mine()

    def wait_for_tokens(self, slo_class: str, request_ids, count: int = 2):
        """Wait until each of the requests has `count` chunks on the topic of its class."""
        def streaming():
            received = [c.request_id for c in self._chunks[slo_class]]
            return all(received.count(request_id) >= count for request_id in request_ids)
        self.wait_for(streaming, f'no tokens on {self.server}/{slo_class}/tokens')
