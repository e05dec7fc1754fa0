# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The node with the real embedded model, in this process, and a caller beside it.

Both spin in threads of their own, on a ROS domain that no other process uses.
"""

from contextlib import contextmanager
import os
import threading
import time

os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ['ROS_DOMAIN_ID'] = str(os.getpid() % 90 + 10)

import pytest  # noqa: E402
import rclpy  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from slice_ros import msg, srv  # noqa: E402
from slice_ros.action import Generate  # noqa: E402
from slice_ros.client import SliceClient  # noqa: E402
from slice_ros.engine import EngineConfig, load_engine  # noqa: E402
from slice_ros.ros.isolation.executor import Executor  # noqa: E402
from slice_ros.ros.node import SliceNode  # noqa: E402
from slice_ros.ros.qos import SERVICES, TOKENS  # noqa: E402
from slice_ros.scheduling.latency import LatencyModel  # noqa: E402

CLASSES = ('control', 'navigation', 'dialogue')
# A format of at least so many tokens: how long a story is depends on the last bits of logits.
MANY_WORDS = '([a-z]+ ){400}'
# An answer that does not end by itself: with `slow_steps`, for 12 s at least on any machine.
LONG = {'prompt': 'Tell me a long story about a robot in a warehouse.', 'max_tokens': 400,
        'response_format': msg.ResponseFormat(type='regex', grammar=MANY_WORDS)}
PAUSE = 0.03   # seconds that each slowed step takes longer


def wait_until(condition, timeout=60.0, what='the condition did not become true'):
    """Wait for a condition without spinning anything."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def get(future, timeout=60.0):
    """Return the result of a future that another thread's executor completes."""
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    assert done.wait(timeout), 'no answer'
    return future.result()


def run(executor, coroutine, timeout=60.0):
    """Spin until a coroutine is done; return its result."""
    async def task():
        return await coroutine
    task = executor.create_task(task)
    executor.spin_until_future_complete(task, timeout)
    assert task.done(), 'no answer'
    return task.result()


def subscribers(node, topic):
    """Return how many subscribers the publishers of a node on `topic` have."""
    return sum(publisher.get_subscription_count() for publisher in node.publishers
               if publisher.topic_name == topic)


def live(node):
    """Return the requests of a node that have not ended."""
    return [request for request in node.server.snapshot().requests if not request.ended]


def spin_until(planner, condition, timeout=60.0):
    """Spin a planner until a condition holds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, 'the condition did not become true'
        planner[0].spin_once(0.02)


class SlowSteps:
    """Slows an engine down: what a test does while a request lives does not race its end."""

    def __init__(self, engine) -> None:
        self.pause = PAUSE   # may be changed at any time
        self._quick, self._launch = threading.Event(), engine.launch

    def __call__(self, *step):
        begun = time.monotonic()
        while not self._quick.wait(0.01) and time.monotonic() < begun + self.pause:
            pass
        return self._launch(*step)

    def end(self) -> None:
        """Let the steps be as quick as they are, this one included."""
        self._quick.set()


@contextmanager
def slowed(engine):
    """Have each step of an engine take longer, at first by `PAUSE`, and give one token."""
    steps = SlowSteps(engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, 'launch', steps)
        patch.setattr(engine, 'draft', lambda sequence, most: [])
        try:
            yield steps
        finally:
            steps.end()


class Spinning:
    """Spins nodes in a thread until it is closed."""

    def __init__(self, *nodes) -> None:
        self.executor = Executor(context=nodes[0].context)
        for node in nodes:
            self.executor.add_node(node)
        self.thread = threading.Thread(target=self._spin, daemon=True)
        self.thread.start()

    def _spin(self) -> None:
        try:
            self.executor.spin()
        except ExternalShutdownException:
            pass

    def close(self) -> None:
        self.executor.shutdown()
        self.thread.join(10)
        assert not self.thread.is_alive()


@contextmanager
def serving(engine, latency, **options):
    """Make a node with these options of `SliceNode` that serves, and end it."""
    node = SliceNode(**options)
    spinning = Spinning(node)
    node.serve(engine, latency)
    yield node
    assert node.close()
    spinning.close()
    node.destroy_node()


class Caller(Node):
    """A client of every interface of a node; keeps all messages it has received."""

    def __init__(self, server: str = '/slice', **options) -> None:
        super().__init__('caller', **options)
        self.generate = ActionClient(self, Generate, f'{server}/generate',
                                     feedback_sub_qos_profile=TOKENS)
        self.text = self.create_client(srv.GenerateText, f'{server}/generate_text',
                                       qos_profile=SERVICES)
        self.admission = self.create_client(srv.CheckAdmission, f'{server}/check_admission')
        self.canceller = self.create_client(srv.CancelRequest, f'{server}/cancel')
        self.embedder = self.create_client(srv.Embed, f'{server}/embed', qos_profile=SERVICES)
        self.status = self.create_client(srv.GetStatus, f'{server}/get_status')
        self.chunks: dict[str, list[msg.TokenChunk]] = {name: [] for name in CLASSES}
        self.reports: list[msg.SloReport] = []
        self.states: list[msg.SchedulerState] = []
        self.prompts = {}
        for name in CLASSES:
            self.create_subscription(msg.TokenChunk, f'{server}/{name}/tokens',
                                     self.chunks[name].append, TOKENS)
            self.prompts[name] = self.create_publisher(msg.Prompt, f'{server}/{name}/prompt', 10)
        self.create_subscription(msg.SloReport, f'{server}/slo_reports', self.reports.append, 100)
        self.create_subscription(msg.SchedulerState, f'{server}/scheduler_state',
                                 self.states.append, 10)

    def send(self, feedback=None, **goal):
        """Send a goal and return its handle."""
        goal = {'slo_class': 'dialogue', 'max_tokens': 8, **goal}
        # By the executor: rclpy loses an answer that comes before `send_goal_async` has returned.
        sent = self.executor.create_task(self.generate.send_goal_async, Generate.Goal(**goal),
                                         feedback)
        handle = get(get(sent))
        assert handle.accepted
        return handle

    def ask(self, **goal):
        """Send a goal and return (status, result)."""
        response = get(self.send(**goal).get_result_async())
        return response.status, response.result

    def call(self, client, **request):
        return get(client.call_async(client.srv_type.Request(**request)))

    def chunks_of(self, request_id, name='dialogue'):
        """Return the chunks of a request once it is over."""
        def mine():
            return [c for c in self.chunks[name] if c.request_id == request_id]
        wait_until(lambda: any(c.finished for c in mine()), what='no last chunk')
        return mine()

    def report_of(self, request_id):
        wait_until(lambda: any(r.request_id == request_id for r in self.reports),
                   what='no report')
        return next(r for r in self.reports if r.request_id == request_id)


@pytest.fixture(scope='session')
def engine():
    """The embedded model."""
    return load_engine(EngineConfig(max_context=512, slots=16, max_batch=16, threads=2))


@pytest.fixture(scope='module')
def latency():
    """Step times of a small CPU; tests must not depend on the load of the machine."""
    return LatencyModel('test', ((1, 15.0), (4, 20.0), (16, 50.0)), prefill_token_ms=1.5)


@pytest.fixture(scope='session')
def ros():
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture(scope='module')
def node(ros, engine, latency):
    """A node that serves."""
    with serving(engine, latency, parameter_overrides=[
            Parameter('limits.max_queued', value=40), Parameter('limits.max_tokens', value=400),
            Parameter('status.period_s', value=0.2)]) as node:
        yield node


@pytest.fixture(scope='module')
def caller(node):
    caller = Caller()
    spinning = Spinning(caller)
    assert caller.generate.wait_for_server(20)
    for client in (caller.text, caller.admission, caller.canceller, caller.status):
        assert client.wait_for_service(20)
    for name in CLASSES:
        wait_until(lambda: subscribers(node, f'/slice/{name}/tokens'), what='no subscriber')
        wait_until(lambda: caller.prompts[name].get_subscription_count(), what='no publisher')
    yield caller
    spinning.close()
    caller.destroy_node()


@pytest.fixture
def slow_steps(node):
    """Have each step of the node take longer; what is live in the end is cancelled."""
    with slowed(node.engine) as steps:
        yield steps
    for request in live(node):
        node.server.cancel(request.id)
    wait_until(lambda: not live(node))


@pytest.fixture
def spin():
    """Return the class that spins a node in a thread of its own."""
    return Spinning


@pytest.fixture(scope='module')
def planner(node):
    """A client on a node of its own that nothing spins."""
    planner = Node('planner')
    client = SliceClient(planner)
    executor = SingleThreadedExecutor()
    executor.add_node(planner)
    run(executor, client.wait_until_ready(20))
    yield executor, client
    client.close()
    executor.shutdown()
    planner.destroy_node()


@pytest.fixture
def client(planner):
    return planner[1]


@pytest.fixture
def play(planner):
    """Run a coroutine on the one executor thread; return its result."""
    return lambda coroutine: run(planner[0], coroutine)
