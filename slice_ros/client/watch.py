# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What goes on in a node, for people: bounded data, from a node that may start and end."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
import re
import threading
import time

import rclpy
from rclpy.executors import ShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.task import Future
from slice_ros import msg, srv
from slice_ros.client.strips import Strip, Strips
from slice_ros.ros.qos import STATE

ASK_EVERY = 1.0      # seconds between two status calls
PATIENCE = 4.0       # seconds that an answer may take
MAX_REPORTS = 64     # ended requests kept
MAX_CLASSES = 64     # classes with a token subscription
REPORTS = QoSProfile(depth=100)
# Best effort, so that a monitor never delays the node; the next token corrects the count.
TOKENS = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT)


@dataclass(frozen=True)
class View:
    """The data of a node at one moment."""

    node: str                                     # as the user named it
    absent: str = ''                              # why there is no data of it, or empty
    status: srv.GetStatus.Response | None = None  # its last answer
    state: msg.SchedulerState | None = None       # its last state
    reports: Sequence[msg.SloReport] = ()         # of ended requests, the newest last
    strips: Sequence[Strip] = ()                  # of live requests, the oldest first


class Watch:
    """Subscribes to the topics of the node `target`; use it as a context manager.

    It makes a node called `name` in the ROS context of the process, and spins it in a thread.

    Raises rclpy's ``NameValidationException`` for a name that no node can have.
    """

    def __init__(self, target: str = 'slice', name: str = 'slice_monitor') -> None:
        self._target = target
        self._lock = threading.Lock()
        self._strips = Strips()
        self._reports: deque[msg.SloReport] = deque(maxlen=MAX_REPORTS)
        self._state: msg.SchedulerState | None = None
        self._status: srv.GetStatus.Response | None = None
        self._tokens: dict[str, Subscription] = {}
        self._asked: Future | None = None
        self._answered_at = self._asked_at = self._started = time.monotonic()
        self._node = rclpy.create_node(name)
        try:
            self._client = self._node.create_client(srv.GetStatus, f'{target}/get_status')
            self._node.create_subscription(msg.SchedulerState, f'{target}/scheduler_state',
                                           self._on_state, STATE)
            self._node.create_subscription(msg.SloReport, f'{target}/slo_reports',
                                           self._on_report, REPORTS)
        except BaseException:
            self._node.destroy_node()
            raise
        self._node.create_timer(ASK_EVERY, self._ask)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name='executor', daemon=True)
        self._thread.start()

    def __enter__(self) -> 'Watch':
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._thread.join(2.0)
        self._node.destroy_node()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ShutdownException:
            pass

    @property
    def present(self) -> bool:
        """Whether the node has answered and still exists."""
        return self._status is not None

    def view(self) -> View:
        """Return the data collected so far."""
        now = time.monotonic()
        with self._lock:
            absent = ''
            silent = now - self._answered_at
            if self._status is None and now - self._started > ASK_EVERY:
                absent = ('is not there: waiting for it' if not self._client.service_is_ready()
                          else 'does not answer yet' if silent > PATIENCE else '')
            elif silent > PATIENCE + ASK_EVERY:
                absent = f'has not answered for {silent:.0f} s'
            return View(self._target, absent, self._status, self._state, tuple(self._reports),
                        self._strips.live(now))

    def _ask(self) -> None:
        now = time.monotonic()
        if not self._client.service_is_ready():
            with self._lock:  # gone or not started; another may start under this name
                self._status = self._state = None
                self._strips.clear()
        if self._asked is not None:
            if not self._asked.done() and now - self._asked_at < PATIENCE:
                return
            self._client.remove_pending_request(self._asked)
        if self._client.service_is_ready():
            self._asked_at = now
            self._asked = self._client.call_async(srv.GetStatus.Request())
            self._asked.add_done_callback(self._answered)

    def _answered(self, future: Future) -> None:
        status = future.result()
        if status is None:
            return
        with self._lock:
            self._status, self._answered_at = status, time.monotonic()
            if not status.engine.model:
                self._state = None   # cleaned up: its earlier state is out of date
                self._strips.clear()
        if status.engine.model:
            self._on_state(status.scheduler)

    def _on_state(self, state: msg.SchedulerState) -> None:
        now = time.monotonic()
        with self._lock:
            if self._state is not None and state.steps < self._state.steps:
                self._strips.clear()  # it has restarted
            self._state = state
            self._strips.update(state.requests, now)
        names = {c.slo.name for c in state.classes[:MAX_CLASSES]
                 if re.fullmatch('[a-zA-Z][a-zA-Z0-9_]{0,62}', c.slo.name)}
        for name in names - self._tokens.keys():
            self._tokens[name] = self._node.create_subscription(
                msg.TokenChunk, f'{self._target}/{name}/tokens',
                lambda chunk, name=name: self._on_token(name, chunk), TOKENS)
        for name in self._tokens.keys() - names:
            self._node.destroy_subscription(self._tokens.pop(name))

    def _on_token(self, slo_class: str, chunk: msg.TokenChunk) -> None:
        with self._lock:
            self._strips.add_chunk(slo_class, chunk, time.monotonic())

    def _on_report(self, report: msg.SloReport) -> None:
        with self._lock:
            self._reports.append(report)
            self._strips.end(report.request_id)
