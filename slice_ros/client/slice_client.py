# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""`SliceClient`: what planners use to send requests to the slice node."""

from array import array
from collections.abc import Callable, Iterable, Sequence
import time

from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future
from slice_ros import srv
from slice_ros.client.answer import Answer, AnswerBuffer, Waiter
from slice_ros.client.callbacks import Callbacks
from slice_ros.client.exceptions import (
    Cancelled, error_for, InvalidRequest, SliceError, Unavailable)
from slice_ros.client.function_tools import run_tools
from slice_ros.client.generate_client import GenerateClient, GRAPH_CHECK
from slice_ros.client.goals import check_timeout, goals_of_several, make_goal
from slice_ros.client.stream import begin_in_turn, Stream, Streams
from slice_ros.ros.compat import end_future
from slice_ros.ros.qos import SERVICES

POLL = 0.2       # seconds between two status calls while the node is not ready
TEXTS = 64       # of one call of ~/embed
ASK_AGAIN = 2.0  # seconds after which a status call without an answer is repeated


class SliceClient:
    """Sends requests to one slice node from `node`, which the caller's executor spins.

    `target` is the name of the slice node, resolved like a topic name. Make one client for each
    node, and `close` it at the end.
    """

    def __init__(self, node: Node, target: str = 'slice') -> None:
        self.node, self.target = node, target
        self._callbacks = Callbacks(node)
        self._generate_client = GenerateClient(self._callbacks, target)
        self._status = node.create_client(srv.GetStatus, f'{target}/get_status',
                                          callback_group=self._callbacks.group)
        self._embed = node.create_client(srv.Embed, f'{target}/embed', qos_profile=SERVICES,
                                         callback_group=self._callbacks.group)

    def generate(self, prompt, slo_class: str = 'dialogue', *, timeout: float | None = None,
                 **fields) -> Stream:
        """Send a request and return its `Stream`; it is sent without being awaited.

        `prompt` is a text or a conversation. `fields` are those of `make_goal`: max_tokens,
        ttft_ms, tpot_ms, deadline_ms, sampling, stop, session_id, reset_session, tools,
        tool_choice, reasoning, reasoning_budget and template_arguments, and one of
        response_format, choice, schema and regex. After `timeout` seconds without a complete
        answer the request is cancelled and ends with `Timeout`. If the node ends before its
        answer, the request ends with `Unavailable` within a few seconds. Raises `InvalidRequest`
        for a request that cannot be sent; reading the stream raises every other `SliceError`.
        """
        buffer, = self._send(prompt, slo_class, timeout, fields)
        return Stream(buffer, self._generate_client.abandon)

    def generate_several(self, prompt, n: int, slo_class: str = 'dialogue', *,
                         timeout: float | None = None, **fields) -> Streams:
        """Send a prompt for `n` answers, 8 at most; arguments and errors as of `generate`.

        Each is a request of its own, with its own objectives and report. All but the first are
        sent when that has its first token: the node then has the prompt in its cache, and computes
        it for none of them. Their seeds follow from the one of `sampling`. `timeout` is for all.
        """
        return Streams(self._send(prompt, slo_class, timeout, fields, n),
                       self._generate_client.abandon)

    async def ask(self, prompt, slo_class: str = 'dialogue', **options) -> Answer:
        """Return the complete answer; arguments as of `generate`. Raises `SliceError`."""
        return await self.generate(prompt, slo_class, **options)

    async def run_tools(self, prompt, tools: Iterable[Callable], slo_class: str = 'dialogue', *,
                        max_turns: int = 8, timeout: float | None = None, **fields) -> Answer:
        """Call `tools`, Python functions, as the model wishes; return its last answer.

        Functions may be coroutines. What one gives is sent back as text or JSON; what one raises
        ends this. The last of `max_turns` answers has to do without tools. `timeout` is seconds
        for the whole: an answer that comes later, or would begin later, ends with `Timeout`.
        `fields` are those of `generate`; a tool_choice holds for the first answer. Raises
        `SliceError`.
        """
        return await run_tools(self.ask, prompt, tools, slo_class, max_turns=max_turns,
                               timeout=check_timeout(timeout), **fields)

    def ask_future(self, prompt, slo_class: str = 'dialogue', *, timeout: float | None = None,
                   **fields) -> Future:
        """Return a future of the complete answer, for ``add_done_callback``; arguments as above.

        The future's exception is the `SliceError` the request ended with, also when it cannot be
        sent. Cancelling the future cancels the request.
        """
        future = Future(executor=self.node.executor)
        try:
            buffer, = self._send(prompt, slo_class, timeout, fields)
        except SliceError as error:
            future.set_exception(error)
            return future

        def ended() -> None:
            if future.cancelled():
                return
            if buffer.error is not None:
                end_future(future.set_exception, buffer.error)
            else:
                end_future(future.set_result, buffer.answer)
        stream = Stream(buffer, self._generate_client.abandon)
        buffer.on_end(ended)
        future.add_done_callback(lambda _: stream.cancel())
        return future

    async def status(self, timeout: float = 5.0) -> srv.GetStatus.Response:
        """Return the status of the node. Raises `Unavailable` when it does not answer in time."""
        return await self._call(self._status, srv.GetStatus.Request(), timeout)

    async def embed(self, texts: Sequence[str], *, pooling: str = 'mean', slo_class: str = '',
                    timeout: float = 60.0) -> list[array]:
        """Return an embedding of each of `texts`, an array of floats of Euclidean length 1.

        They are computed after the answers that are due, unless `slo_class` names a class. Raises
        `SliceError`, `Unavailable` when there is no answer within `timeout` seconds.
        """
        whole = await self.embed_whole(texts, pooling=pooling, slo_class=slo_class,
                                       timeout=timeout)
        return [embedding.values for embedding in whole.embeddings]

    async def embed_whole(self, texts: Sequence[str], *, pooling: str = 'mean',
                          slo_class: str = '', timeout: float = 60.0) -> srv.Embed.Response:
        """Return what `embed` does with the number of tokens of each text, and the model."""
        whole = srv.Embed.Response()
        try:
            texts = list(texts)
            request = srv.Embed.Request(check_fields=True, pooling=pooling, slo_class=slo_class)
            for first in range(0, len(texts), TEXTS):
                request.texts = texts[first:first + TEXTS]
                part = await self._call(self._embed, request, timeout)
                if part.error_code:
                    raise error_for(part.error_code, part.error_msg)
                whole.embeddings += part.embeddings
                whole.tokens += part.tokens
                whole.model = part.model
        except (AssertionError, TypeError, UnicodeError) as error:
            raise InvalidRequest(f'this cannot be sent: {error!s:.200}') from error
        return whole

    async def _call(self, client: Client, request, timeout: float):
        """Return the response of a service. Raises `Unavailable` after `timeout` seconds."""
        end = time.monotonic() + timeout
        while not client.service_is_ready():
            if time.monotonic() >= end:
                raise Unavailable(f'there is no {client.service_name}: is the node running, '
                                  'under this name and namespace?')
            await self._callbacks.sleep(GRAPH_CHECK)
        future = client.call_async(request)
        waiter = Waiter()
        future.add_done_callback(lambda _: waiter.wake())
        timer = self._callbacks.after(max(end - time.monotonic(), 0.1), waiter.wake)
        try:
            await waiter
            if not future.done():
                raise Unavailable(f'{client.service_name} did not answer in time')
            return future.result()
        finally:
            self.node.destroy_timer(timer)
            end_future(future.cancel)

    async def wait_until_ready(self, timeout: float,
                               on_wait: Callable[[str], object] = lambda state: None
                               ) -> srv.GetStatus.Response:
        """Wait until the node serves, and return its status.

        `on_wait` is called with each state that it is in meanwhile: ``loading``, ``unconfigured``,
        ``inactive``, ..., or ``not answering``. Raises `Unavailable` after `timeout` seconds, or
        when it failed to load its model.
        """
        end, last = time.monotonic() + timeout, ''
        while True:
            left = end - time.monotonic()
            try:
                status = await self.status(max(min(left, ASK_AGAIN), 0.1))
            except Unavailable:
                if last != 'not answering':
                    on_wait(last := 'not answering')
                if left <= ASK_AGAIN:
                    raise
                continue
            if status.state == 'ready' and self._generate_client.ready:
                return status
            if status.state not in (last, 'ready'):
                on_wait(last := status.state)
            if status.state == 'failed':
                raise Unavailable('the node failed to load its model: see its log')
            if time.monotonic() >= end:
                raise Unavailable(f'the node is still {status.state} after {timeout:g} s')
            await self._callbacks.sleep(POLL)

    @property
    def live(self) -> int:
        """Number of requests that the node may still be working on."""
        return len(self._generate_client.live)

    def cancel_all(self) -> None:
        """Cancel every live request; readers get `Cancelled`. Any thread may call this."""
        self._generate_client.abandon_all()

    def close(self) -> None:
        """Cancel every live request and leave the graph; readers of the requests get `Cancelled`.

        Any thread may call this, also after the executor has stopped or ROS is shut down. The last
        messages of a process that ends at once may be lost; then the node ends its requests within
        5 s. To be sure sooner, `cancel_all`, and spin until none is `live`.
        """
        with self._callbacks.lock:
            if self._callbacks.closed:
                return
            self._callbacks.close()
            live = self._generate_client.close()
            for client in (self._status, self._embed):
                self.node.destroy_client(client)
        for buffer in live:
            buffer.end(Cancelled('this client is closed'))
        if self.node.executor is not None:
            self.node.executor.wake()  # resumes the coroutines that read the requests

    def _send(self, prompt, slo_class: str, timeout: float | None, fields: dict, n: int = 1
              ) -> list[AnswerBuffer]:
        goals = goals_of_several(make_goal(prompt, slo_class, **fields), n)
        seconds, sent = check_timeout(timeout), time.monotonic()
        buffers = [AnswerBuffer(self._generate_client.new_request_id()) for _ in goals]

        def begin(number: int) -> None:
            with self._callbacks.lock:
                if self._callbacks.closed:
                    buffers[number].end(Cancelled('this client is closed'))
                else:
                    self._generate_client.begin(buffers[number], goals[number], seconds, sent)
        begin_in_turn(buffers, begin)
        return buffers
