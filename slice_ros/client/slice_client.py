# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What planners use: `SliceClient`, the slice node as seen from a node of their own."""

import time
import uuid

from rclpy.node import Node
from rclpy.task import Future
from slice_ros import srv
from slice_ros.client.answer import Answer, Progress, Waiter
from slice_ros.client.callbacks import Callbacks
from slice_ros.client.exceptions import Cancelled, SliceError, Unavailable
from slice_ros.client.generate_client import GRAPH_CHECK, Requests
from slice_ros.client.goals import check_timeout, make_goal
from slice_ros.client.stream import Stream

POLL = 0.2       # seconds between questions whether the node is ready
ASK_AGAIN = 2.0  # seconds after which such a question went to a node that is no more


class SliceClient:
    """Asks one slice node on behalf of `node`, which the caller's executor spins.

    `target` is the name of the slice node, resolved like a topic name. Make one client for a
    node, and `close` it at the end.
    """

    def __init__(self, node: Node, target: str = 'slice') -> None:
        self.node, self.target = node, target
        self._callbacks = Callbacks(node)
        self._requests = Requests(self._callbacks, target)
        self._status = node.create_client(srv.GetStatus, f'{target}/get_status',
                                          callback_group=self._callbacks.group)

    def generate(self, prompt, slo_class: str = 'dialogue', *, timeout: float | None = None,
                 **fields) -> Stream:
        """Send a request and return its `Stream`; it is on its way without being awaited.

        `prompt` is a text or a conversation and `fields` are those of `make_goal`: max_tokens,
        ttft_ms, tpot_ms, deadline_ms, sampling, stop, session_id, reset_session, and one of
        response_format, choice, schema and regex. After `timeout` seconds without a whole answer
        the request is cancelled and ends with `Timeout`. Where the node ends before its answer,
        however it ends, the request ends with `Unavailable` within a few seconds. Raises
        `InvalidRequest` for what cannot be sent at all; every other `SliceError` is raised where
        the stream is read.
        """
        progress = Progress(str(uuid.uuid4()))
        goal, seconds = make_goal(prompt, slo_class, **fields), check_timeout(timeout)
        with self._callbacks.lock:
            if self._callbacks.closed:
                progress.end(Cancelled('this client is closed'))
            else:
                self._requests.begin(progress, goal, seconds)
        return Stream(progress, self._requests.abandon)

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
            await self._callbacks.sleep(GRAPH_CHECK)
        future = self._status.call_async(srv.GetStatus.Request())
        waiter = Waiter()
        future.add_done_callback(lambda _: waiter.wake())
        timer = self._callbacks.after(max(end - time.monotonic(), 0.1), waiter.wake)
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
            left = end - time.monotonic()
            try:
                status = await self.status(max(min(left, ASK_AGAIN), 0.1))
            except Unavailable:
                if left <= ASK_AGAIN:
                    raise
                continue
            if status.state == 'ready' and self._requests.ready:
                return status
            if status.state == 'failed':
                raise Unavailable('the node failed to load its model: see its log')
            if time.monotonic() >= end:
                raise Unavailable(f'the node is still {status.state} after {timeout:g} s')
            await self._callbacks.sleep(POLL)

    def close(self) -> None:
        """Cancel every live request and leave the graph; their readers get `Cancelled`.

        Any thread may call this, also after the executor has stopped or ROS was shut down.
        """
        with self._callbacks.lock:
            if self._callbacks.closed:
                return
            self._callbacks.close()
            live = self._requests.close()
            self.node.destroy_client(self._status)
        for progress in live:
            progress.end(Cancelled('this client is closed'))
        if self.node.executor is not None:
            self.node.executor.wake()  # for coroutines that have something to raise now
