# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""One client process of ``slice_bench soak``: its share of the requests, over every way in.

It writes the numbers of the requests that it sends, and a row for each one that is over. When it
is sent ``down``, the node was killed: what is under way is cut, and it waits for the next node.
"""

from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
import time
import uuid

from slice_ros.bench.processes import orders, report
from slice_ros.bench.ros.soak_plan import chunk_faults, CLASSES, Goal, make_plan
from slice_ros.errors import ErrorCode

# Seconds from a request to its answer: the load never pauses, and under it a request that has
# missed its objectives is served on slack alone.
ANSWER_WITHIN = 300.0
CHUNKS_WITHIN = 30.0    # seconds from the answer to the last chunk
UNAVAILABLE_WITHIN = 30.0   # seconds in which `slice_ros.client` has to notice a killed node
PROBE_EVERY = 2.0       # seconds between two rounds of probes, until a round is complete
REPORT_EVERY = 0.1      # seconds between two reports


class Live:
    """A request that is not over."""

    def __init__(self, goal: Goal, now: float) -> None:
        self.goal, self.sent = goal, now
        self.numbers: list[int] = []        # of its chunks
        self.last_chunks = self.answers = 0
        self.code = ''
        self.answered_at = 0.0
        self.cancelled = False
        self.cut_at = 0.0                   # when the node was killed
        self.cancel: Callable[[], object] = lambda: None

    def answer(self, code: str) -> None:
        self.answers += 1
        self.code, self.answered_at = code, time.monotonic()

    def fate(self, now: float) -> str:
        """Return how it is over: ended, unanswered or cut; empty while it is not."""
        if self.cut_at:
            if self.goal.way != 'client' or self.answers:
                return 'cut'
            return 'unanswered' if now > self.cut_at + UNAVAILABLE_WITHIN else ''
        if self.answers and (self.last_chunks or not self.goal.streamed
                             or now > self.answered_at + CHUNKS_WITHIN):
            return 'ended'
        return 'unanswered' if now > self.sent + ANSWER_WITHIN and not self.answers else ''

    def row(self, fate: str) -> dict:
        lost, reordered = (0, 0)
        if self.goal.streamed and fate == 'ended':
            lost, reordered = chunk_faults(self.numbers, self.last_chunks > 0)
        way = f'{self.goal.way} after a kill of the node' if self.cut_at else self.goal.way
        return {'number': self.goal.number, 'way': way, 'fate': fate, 'code': self.code,
                'wait_s': max(self.answered_at - self.sent, 0.0),
                'lost': lost, 'reordered': reordered, 'cancelled': self.cancelled,
                'twice': self.last_chunks > 1 or self.answers > 1}


class Client:
    """A ROS node with every way to send a request, and the requests that are under way."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.action import ActionClient
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions
        from slice_ros import msg, srv
        from slice_ros.action import Generate
        from slice_ros.client import SliceClient
        from slice_ros.ros.compat import SubscriptionEventCallbacks
        from slice_ros.ros.qos import SERVICES, TOKENS
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        node = self.node = rclpy.create_node(f'slice_bench_soak_{uuid.uuid4().hex[:8]}',
                                             enable_rosout=False, start_parameter_services=False)
        self.live: dict[str, Live] = {}
        self.over: set[str] = set()         # ids whose last chunk has come
        self.rows: list[dict] = []          # to be reported
        self._goals = ActionClient(
            node, Generate, 'slice/generate', goal_service_qos_profile=SERVICES,
            result_service_qos_profile=SERVICES, cancel_service_qos_profile=SERVICES,
            feedback_sub_qos_profile=TOKENS)
        self._text = node.create_client(srv.GenerateText, 'slice/generate_text',
                                        qos_profile=SERVICES)
        self._canceller = node.create_client(srv.CancelRequest, 'slice/cancel',
                                             qos_profile=SERVICES)
        self._client = SliceClient(node)
        self._prompts = {}
        for name in CLASSES:
            self._prompts[name] = node.create_publisher(msg.Prompt, f'slice/{name}/prompt', 100)
            node.create_subscription(
                msg.TokenChunk, f'slice/{name}/tokens', self._on_chunk, TOKENS,
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False))
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(node)

    def send(self, goal: Goal) -> Live:
        """Send a request."""
        from slice_ros import msg, srv
        live, request_id = Live(goal, time.monotonic()), str(uuid.uuid4())
        fields = {'prompt': goal.prompt, 'max_tokens': goal.max_tokens,
                  'session_id': goal.session_id,
                  'sampling': msg.SamplingParams(temperature=goal.temperature)}
        if goal.choices:
            fields['response_format'] = msg.ResponseFormat(type='choice',
                                                           choices=list(goal.choices))
        live.cancel = partial(self._canceller.call_async,
                              srv.CancelRequest.Request(request_id=request_id))
        if goal.way == 'action':
            self._send_action(live, request_id, fields)
        elif goal.way == 'service':
            self._text.call_async(srv.GenerateText.Request(
                request_id=request_id, slo_class=goal.slo_class, **fields)).add_done_callback(
                    lambda done: live.answer(ErrorCode(done.result().error_code).name))
        elif goal.way == 'topic':
            self._prompts[goal.slo_class].publish(msg.Prompt(request_id=request_id, **fields))
        else:
            request_id = self._send_client(live, fields)
        self.live[request_id] = live
        return live

    def _send_action(self, live: Live, request_id: str, fields: dict) -> None:
        from slice_ros.action import Generate
        from unique_identifier_msgs.msg import UUID

        def accepted(future) -> None:
            handle = future.result()
            if not handle.accepted:
                live.answer('not accepted')
                return
            live.cancel = handle.cancel_goal_async
            handle.get_result_async().add_done_callback(
                lambda done: live.answer(ErrorCode(done.result().result.error_code).name))
        self._goals.send_goal_async(
            Generate.Goal(slo_class=live.goal.slo_class, **fields),
            goal_uuid=UUID(uuid=list(uuid.UUID(request_id).bytes))).add_done_callback(accepted)

    def _send_client(self, live: Live, fields: dict) -> str:
        from slice_ros.client import SliceError
        stream = self._client.generate(fields.pop('prompt'), live.goal.slo_class, **fields)
        live.cancel = stream.cancel

        async def read() -> None:
            try:
                await stream
                live.answer('NONE')
            except SliceError as error:
                live.answer(ErrorCode(error.code).name)
        self.executor.create_task(read)
        return stream.request_id

    def _on_chunk(self, chunk) -> None:
        live = self.live.get(chunk.request_id)
        if live is None:
            if chunk.finished and chunk.request_id in self.over:
                self.rows.append({'again': True})
            return
        live.numbers.append(chunk.sequence)
        if chunk.finished:
            live.last_chunks += 1
            if live.goal.way == 'topic':
                live.answer(ErrorCode(chunk.error_code).name)

    def tend(self) -> None:
        """Cancel what is due, and move what is over to `rows`."""
        now = time.monotonic()
        for request_id, live in list(self.live.items()):
            after = live.goal.cancel_after
            if (after is not None and not live.cancelled and not live.answers and not live.cut_at
                    and now >= live.sent + after):
                live.cancelled = True
                live.cancel()
            if fate := live.fate(now):
                del self.live[request_id]
                if live.last_chunks:
                    self.over.add(request_id)
                if live.goal.number >= 0:
                    self.rows.append(live.row(fate))

    def cut(self) -> None:
        """Mark all that is under way: the node was killed."""
        for live in self.live.values():
            live.cut_at = live.cut_at or time.monotonic()

    def probe(self, down: Callable[[], bool]) -> None:
        """Wait until every way in and every topic is connected to the node."""
        while True:
            self.cut()   # the probes of the round before as well
            probes = [self.send(Goal(-1, way, name, 'Go.', 2))
                      for way in ('action', 'service', 'topic', 'client') for name in CLASSES]
            end = time.monotonic() + PROBE_EVERY
            while time.monotonic() < end:
                self.executor.spin_once(0.02)
                self.tend()
                down()
                if all(p.answers and p.code == 'NONE' and chunk_faults(
                        p.numbers, p.last_chunks > 0) == (0, 0) for p in probes):
                    return


def main(goals: int, cancels: int, seed: int, share: int, shares: int, begun: int,
         concurrent: int) -> None:
    """Send every `shares`-th request of the plan, from `share` on, without the first `begun`."""
    lines = orders()
    todo = make_plan(goals, cancels, seed)[share::shares][begun:]
    todo.reverse()
    client = Client()
    begun_now: list[int] = []
    stop = False

    def down() -> bool:
        nonlocal stop
        found = False
        while not lines.empty():
            order = lines.get()
            stop = stop or 'stop' in order
            if 'down' in order:
                client.cut()
                found = True
        return found
    client.probe(down)
    report(up=True)
    reported = time.monotonic()
    while True:
        if down():
            client.probe(down)
            report(up=True)
        if stop:
            todo.clear()
        if todo and len(client.live) < concurrent:   # one at a time: answers come in between
            begun_now.append(todo[-1].number)
            client.send(todo.pop())
        client.executor.spin_once(0.005)
        client.tend()
        if time.monotonic() > reported + REPORT_EVERY:
            reported = time.monotonic()
            report(begun=begun_now, rows=client.rows, done=not todo and not client.live)
            begun_now, client.rows = [], []


if __name__ == '__main__':
    parser = ArgumentParser()
    for argument in ('goals', 'cancels', 'seed', 'share', 'shares', 'begun', 'concurrent'):
        parser.add_argument(argument, type=int)
    main(**vars(parser.parse_args()))
