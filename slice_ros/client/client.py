"""The planner's end of the node's action: sends goals, receives, times out, cancels.

Everything that touches the action runs in one callback group of the caller's node, one callback
at a time, and none of them waits. Other threads (a reader in asyncio, the garbage collector) only
leave word and trigger a guard condition.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
import threading
import time
import uuid

from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidHandle
from rclpy.node import Node
from rclpy.task import Future
from rclpy.timer import Timer
from slice_ros import srv
from slice_ros.action import Generate
from slice_ros.client.answer import Answer, Progress, Waiter
from slice_ros.client.errors import Cancelled, SliceError, Timeout, Unavailable
from slice_ros.client.goals import check_timeout, make_goal
from slice_ros.client.stream import Stream
from slice_ros.ros.qos import SERVICES, TOKENS
from unique_identifier_msgs.msg import UUID

DISCOVERY = 2.0     # seconds after its making in which a client waits for a node it cannot see
GRAPH_CHECK = 0.05  # seconds between looks at the graph meanwhile
WATCH = 1.0         # seconds between looks whether the node of a live request is still there
POLL = 0.2          # seconds between questions whether the node is ready


class _Goals(ActionClient):
    """An action client that keeps nothing of a goal that is over."""

    def send_goal_async(self, *args, **options) -> Future:
        before = list(self._futures)
        future = super().send_goal_async(*args, **options)
        # rclpy makes a second future for each goal, which nobody completes and nobody removes:
        # each goal would make the next one slower.
        self._futures[:] = [*before, future]
        return future


class _Live:
    """A request that the node may still be working on."""

    def __init__(self, progress: Progress, goal: Generate.Goal) -> None:
        self.progress, self.goal = progress, goal
        self.servers: frozenset = frozenset()  # the nodes that were there when it was sent
        self.futures: list[Future] = []        # what is asked of the node about it
        self.timer: Timer | None = None


class SliceClient:
    """Asks one slice node on behalf of `node`, which the caller's executor spins.

    `target` is the name of the slice node, resolved like a topic name. Make one client for a
    node, and `close` it at the end.
    """

    def __init__(self, node: Node, target: str = 'slice') -> None:
        self.node, self.target = node, target
        self._group = MutuallyExclusiveCallbackGroup()
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # time-outs are real time
        self._action = _Goals(
            node, Generate, f'{target}/generate', callback_group=self._group,
            goal_service_qos_profile=SERVICES, result_service_qos_profile=SERVICES,
            cancel_service_qos_profile=SERVICES, feedback_sub_qos_profile=TOKENS)
        self._feedback_topic = node.resolve_topic_name(f'{target}/generate/_action/feedback')
        self._status = node.create_client(srv.GetStatus, f'{target}/get_status',
                                          callback_group=self._group)
        self._live: dict[str, _Live] = {}
        self._words: deque[Callable[[], None]] = deque()
        self._guard = node.create_guard_condition(self._take_words, callback_group=self._group)
        self._watch = node.create_timer(WATCH, self._check_servers, callback_group=self._group,
                                        clock=self._steady, autostart=False)
        self._born, self._closed = time.monotonic(), False
        self._lock = threading.RLock()  # what `close` must not cut across

    def generate(self, prompt, slo_class: str = 'dialogue', *, timeout: float | None = None,
                 **fields) -> Stream:
        """Send a request and return its `Stream`; it is on its way without being awaited.

        `prompt` is a text or a conversation and `fields` are those of `make_goal`: max_tokens,
        ttft_ms, tpot_ms, deadline_ms, sampling, stop, session_id, reset_session, and one of
        response_format, choice, schema and regex. After `timeout` seconds without a whole answer
        the request is cancelled and ends with `Timeout`. Raises `InvalidRequest` for what cannot
        be sent at all; every other `SliceError` is raised where the stream is read.
        """
        progress = Progress(str(uuid.uuid4()))
        live = _Live(progress, make_goal(prompt, slo_class, **fields))
        seconds = check_timeout(timeout)
        with self._lock:
            if self._closed:
                progress.end(Cancelled('this client is closed'))
            else:
                self._say(partial(self._begin, live, seconds, time.monotonic()))
        return Stream(progress, self._abandon)

    async def ask(self, prompt, slo_class: str = 'dialogue', **options) -> Answer:
        """Return the whole answer; arguments as of `generate`. Raises `SliceError`."""
        return await self.generate(prompt, slo_class, **options)

    def ask_future(self, prompt, slo_class: str = 'dialogue', **options) -> Future:
        """Return a future of the whole answer, for ``add_done_callback``; arguments as above.

        The future's exception is the `SliceError` the request ended with, also where it cannot be
        sent at all. Cancelling the future cancels the request.
        """
        future = Future(executor=self.node.executor)
        try:
            stream = self.generate(prompt, slo_class, **options)
        except SliceError as error:
            future.set_exception(error)
            return future

        def ended() -> None:
            if future.cancelled():
                return
            if stream.error is not None:
                future.set_exception(stream.error)
            else:
                future.set_result(stream.result)
        stream._progress.on_end(ended)
        future.add_done_callback(lambda _: stream.cancel())
        return future

    async def status(self, timeout: float = 5.0) -> srv.GetStatus.Response:
        """Return what the node says of itself. Raises `Unavailable` when it says nothing."""
        end = time.monotonic() + timeout
        while not self._status.service_is_ready():
            if time.monotonic() >= end:
                raise Unavailable(f'there is no {self._status.service_name}: is the node running, '
                                  'under this name and namespace?')
            await self._sleep(GRAPH_CHECK)
        future = self._status.call_async(srv.GetStatus.Request())
        waiter = Waiter()
        future.add_done_callback(lambda _: waiter.wake())
        timer = self._after(max(end - time.monotonic(), 0.1), waiter.wake)
        try:
            await waiter
            if not future.done():
                raise Unavailable(f'{self._status.service_name} did not answer in time')
            return future.result()
        finally:
            self.node.destroy_timer(timer)
            future.cancel()

    async def wait_until_ready(self, timeout: float) -> srv.GetStatus.Response:
        """Return the node's status once it serves.

        Raises `Unavailable` when it does not within `timeout` seconds, or cannot.
        """
        end = time.monotonic() + timeout
        while True:
            status = await self.status(max(end - time.monotonic(), 0.1))
            if status.state == 'ready' and self._action.server_is_ready():
                return status
            if status.state == 'failed':
                raise Unavailable('the node failed to load its model: see its log')
            if time.monotonic() >= end:
                raise Unavailable(f'the node is still {status.state} after {timeout:g} s')
            await self._sleep(POLL)

    def close(self) -> None:
        """Cancel every live request and leave the graph; their readers get `Cancelled`.

        Any thread may call this, also after the executor has stopped or ROS was shut down.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            live = list(self._live.values())
            for one in live:
                self._cancel(one)
                self._forget(one)
            self._action.destroy()
            self.node.destroy_client(self._status)
            self.node.destroy_timer(self._watch)
            self.node.destroy_guard_condition(self._guard)
        for one in live:
            one.progress.end(Cancelled('this client is closed'))
        if self.node.executor is not None:
            self.node.executor.wake()  # for coroutines that have something to raise now

    # -- from other threads to the executor's ------------------------------------------------

    def _say(self, word: Callable[[], None]) -> None:
        self._words.append(word)
        try:
            self._guard.trigger()
        except InvalidHandle:  # closed: nothing is live
            pass

    def _take_words(self) -> None:
        while self._words:
            self._do(self._words.popleft())

    def _do(self, word: Callable[[], None]) -> None:
        with self._lock:
            if not self._closed:
                word()

    def _abandon(self, progress: Progress) -> None:
        # Takes no lock: the garbage collector may call this in the middle of anything.
        self._say(partial(self._stop, progress, None))

    def _after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        def fire() -> None:
            self.node.destroy_timer(timer)
            callback()
        timer = self.node.create_timer(seconds, fire, callback_group=self._group,
                                       clock=self._steady, autostart=False)
        timer.reset()  # only now: `fire` needs its name
        return timer

    async def _sleep(self, seconds: float) -> None:
        waiter = Waiter()
        timer = self._after(seconds, waiter.wake)
        try:
            await waiter
        finally:
            self.node.destroy_timer(timer)

    # -- a goal's way, one callback at a time ------------------------------------------------

    def _begin(self, live: _Live, timeout: float | None, asked_at: float) -> None:
        if live.progress.done:
            return
        self._live[live.progress.request_id] = live
        if timeout is not None:
            left = max(timeout - (time.monotonic() - asked_at), 0.0)
            late = Timeout(f'no whole answer within {timeout:g} s')
            live.timer = self._after(
                left, partial(self._do, partial(self._stop, live.progress, late)))
        self._send(live)

    def _send(self, live: _Live) -> None:
        if live.progress.done:
            return
        if not self._action.server_is_ready():
            if time.monotonic() - self._born < DISCOVERY:
                self._after(GRAPH_CHECK, partial(self._do, partial(self._send, live)))
                return
            self._forget(live)
            live.progress.end(Unavailable(
                f'there is no action {self.target}/generate: is the node running, under this '
                'name and namespace?'))
            return
        live.servers = self._servers()
        if self._watch.is_canceled():
            self._watch.reset()
        self._expect(live, self._action.send_goal_async(
            live.goal, lambda message: live.progress.feed(message.feedback),
            _goal_id(live)), self._accepted)
        live.goal = None

    def _expect(self, live: _Live, future: Future, then: Callable[[_Live, Future], None]) -> None:
        live.futures.append(future)
        future.add_done_callback(lambda done: self._say(partial(then, live, done)))

    def _accepted(self, live: _Live, future: Future) -> None:
        if future.cancelled():
            return
        handle = future.result()
        if not handle.accepted:
            self._leave(live)
            live.progress.end(Unavailable('the node did not accept the goal'))
            return
        if live.progress.done:  # given up meanwhile, maybe too early for the node to know the goal
            self._cancel(live)
        self._expect(live, handle.get_result_async(), self._answered)

    def _answered(self, live: _Live, future: Future) -> None:
        if not future.cancelled():
            self._leave(live)
            live.progress.finish(future.result().result)

    def _stop(self, progress: Progress, error: SliceError | None) -> None:
        live = self._live.get(progress.request_id)
        if live is not None and not progress.done:
            if live.futures:
                self._cancel(live)
            else:
                self._leave(live)  # never sent
        progress.end(error or Cancelled('cancelled by its caller'))

    def _cancel(self, live: _Live) -> None:
        if live.futures:
            # By the id alone: that need not wait until the node has accepted the goal.
            live.futures.append(
                ClientGoalHandle(self._action, _goal_id(live), None).cancel_goal_async())

    def _leave(self, live: _Live) -> None:
        """Let go of a request that is over for the node as well."""
        self._live.pop(live.progress.request_id, None)
        if live.timer is not None:
            self.node.destroy_timer(live.timer)
        if not self._live:
            self._watch.cancel()

    def _forget(self, live: _Live) -> None:
        """Let go of a request that the node will not answer any more."""
        self._leave(live)
        for future in live.futures:
            future.cancel()

    def _servers(self) -> frozenset:
        return frozenset(tuple(end.endpoint_gid) for end in
                         self.node.get_publishers_info_by_topic(self._feedback_topic))

    def _check_servers(self) -> None:
        # By their endpoints, not by their name: a node that was started again knows no old goal.
        with self._lock:
            servers = self._servers() if self._live else frozenset()
            gone = [live for live in self._live.values()
                    if live.servers and not live.servers & servers]
            for live in gone:
                self._forget(live)
            for live in gone:
                live.progress.end(Unavailable('the node went away'))


def _goal_id(live: _Live) -> UUID:
    return UUID(uuid=list(uuid.UUID(live.progress.request_id).bytes))
