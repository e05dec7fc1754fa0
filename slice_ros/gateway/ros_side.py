# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The gateway in the ROS graph: a node with a client, spun by a thread of its own.

The watch of the page is there only while somebody looks: it receives every token of the node.
"""

import asyncio
import threading
import time

import rclpy
from rclpy.executors import ShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from slice_ros import srv
from slice_ros.client import SliceClient
from slice_ros.client.watch import View, Watch

FRESH_S = 0.25      # for which a status is not asked for again
PATIENCE_S = 1.0    # that the node may take for it
CLOSE_S = 2.0       # that closing the client may take


class RosSide:
    """A client of the node at `target`; use it as a context manager.

    Raises rclpy's ``NameValidationException`` for a name that no node can have.
    """

    def __init__(self, target: str, args: list[str] | None = None) -> None:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        try:
            # The executor looks at every entity in each of its rounds: as few as possible.
            self._node = rclpy.create_node('slice_gateway', enable_rosout=False,
                                           start_parameter_services=False)
            self.client = SliceClient(self._node, target)
        except BaseException:
            rclpy.shutdown()
            raise
        self._target = target
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name='executor', daemon=True)
        self._status: asyncio.Task[srv.GetStatus.Response] | None = None
        self._asked_at = 0.0
        self._watch: Watch | None = None
        self._watchers = 0
        self._watch_lock = asyncio.Lock()

    def __enter__(self) -> 'RosSide':
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.end_requests()
        self._executor.shutdown()   # before anything else that it waits for is destroyed
        self._thread.join(10.0)
        if self._watch is not None:
            self._watch.close()
        self._node.destroy_node()
        rclpy.shutdown()

    def end_requests(self) -> None:
        """Close the client: in the executor's thread, which would fail where it waits for it."""
        closed = threading.Event()

        def close() -> None:
            try:
                self.client.close()
            finally:
                closed.set()
        self._executor.create_task(close)
        closed.wait(CLOSE_S)

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ShutdownException:
            pass

    async def status(self) -> srv.GetStatus.Response:
        """Return the status of the node, asked once for all that want it at about this time.

        Raises `Unavailable` when there is none.
        """
        now = time.monotonic()
        if self._status is None or (self._status.done() and now - self._asked_at > FRESH_S):
            self._asked_at = now
            self._status = asyncio.create_task(self.client.status(PATIENCE_S))
        return await asyncio.shield(self._status)

    async def watch(self) -> None:
        """Begin to watch the node for one more page."""
        self._watchers += 1
        async with self._watch_lock:
            if self._watch is None and self._watchers:
                self._watch = await asyncio.to_thread(Watch, self._target, 'slice_gateway_page')

    async def unwatch(self) -> None:
        """End the watch for a page; with the last one it is closed."""
        self._watchers -= 1
        async with self._watch_lock:
            if self._watch is not None and not self._watchers:
                watch, self._watch = self._watch, None
                await asyncio.to_thread(watch.close)

    def view(self) -> View:
        """Return what was seen so far, between `watch` and `unwatch`."""
        return self._watch.view()
