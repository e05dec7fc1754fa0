# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A node for the gateway that answers what a test wants, through the client library's streams."""

import asyncio
from contextlib import contextmanager
import socket
import threading
import time

from slice_ros import msg, srv
from slice_ros.action import Generate
from slice_ros.client import Cancelled, Unavailable
from slice_ros.client.answer import AnswerBuffer
from slice_ros.client.exceptions import error_for
from slice_ros.client.goals import goals_of_several, make_goal
from slice_ros.client.stream import begin_in_turn, Streams
from slice_ros.client.strips import Strips
from slice_ros.client.watch import View
from slice_ros.errors import ErrorCode
from slice_ros.gateway.app import make_app
from slice_ros.gateway.connections import server
from slice_ros.gateway.gateway_options import Bounds, Options

NAN = float('nan')


class FakeNode:
    """In place of the gateway's `RosSide` and its client.

    `goals` are those that came. The answer is `pieces`, then `code`; where `first` is given, only
    so many of the pieces come, and no end. It ends with `calls`, and begins with a `thought`. Each
    piece is a token; `fails` has the codes of single answers of several.
    """

    def __init__(self, pieces=('Go', ' on'), code=ErrorCode.NONE, sentence='', first=None,
                 calls=(), thought='', fails=()):
        self.fails, self.made = dict(fails), 0
        self.calls, self.thought = list(calls), thought
        self.pieces, self.code, self.sentence, self.first = pieces, code, sentence, first
        self.goals, self.cancelled, self.present, self.watchers = [], [], True, 0
        self.client = self

    def generate_several(self, prompt, n, slo_class='dialogue', **fields):
        goals = goals_of_several(make_goal(prompt, slo_class, **fields), n)
        buffers = [AnswerBuffer(f'id-{self.made + number + 1}') for number in range(n)]
        self.made += n

        def begin(number):
            self.goals.append(goals[number])
            asyncio.get_running_loop().call_soon(
                self._play, buffers[number], goals[number], self.fails.get(number, self.code))
        begin_in_turn(buffers, begin)
        return Streams(buffers, self._abandon)

    def _abandon(self, buffer):
        self.cancelled.append(buffer.request_id)
        buffer.end(Cancelled('cancelled by its caller'))

    def _play(self, buffer, goal, code):
        at_once = self.pieces if self.first is None else self.pieces[:self.first]
        for number, text in enumerate(at_once):
            thought = '' if number else self.thought
            buffer.feed(Generate.Feedback(text=text, reasoning=thought, sequence=number,
                                          tokens=number + 1,
                                          logprobs=self._logprobs(goal, number, number + 1)))
        if self.first is None:
            buffer.finish(self._result(buffer, goal, code))

    def _logprobs(self, goal, begin, end):
        """Return those of some pieces: -1, -2, ... and likelier ones, one of them special."""
        if not goal.sampling.logprobs:
            return msg.TokenLogprobs()
        top, made = goal.sampling.top_logprobs, msg.TokenLogprobs()
        texts = []
        for number, text in enumerate(self.pieces[begin:end], begin):
            made.tokens.extend([number, *range(100, 100 + top)])
            made.logprobs.extend([-1.0 - number, *(-0.5 * other - 0.25 for other in range(top))])
            made.special.extend([False, *(other == 0 for other in range(top))])
            texts += [text.encode() if isinstance(text, str) else text,
                      *(b'<%d>' % other for other in range(top))]
        made.top, made.sizes, made.texts = top, list(map(len, texts)), b''.join(texts)
        return made

    def _result(self, buffer, goal, code):
        refused = code not in (ErrorCode.NONE, ErrorCode.FORMAT_INCOMPLETE)
        reason = 'error' if refused else 'length' if code else 'stop'
        report = msg.SloReport(
            slo=msg.SloClass(name=goal.slo_class, ttft_ms=500.0), served=not code,
            attained=not code, prompt_tokens=12, reused_tokens=5, ttft_ms=80.0, tpot_ms=NAN,
            output_tokens=len(self.pieces), reasoning_tokens=len(self.thought.split()),
            completion_ms=90.0, finish_reason=reason)
        return Generate.Result(request_id=buffer.request_id, text=''.join(self.pieces),
                               tool_calls=self.calls, reasoning=self.thought,
                               finish_reason=reason, report=report, error_code=int(code),
                               logprobs=self._logprobs(goal, 0, len(self.pieces)),
                               error_msg=self.sentence)

    async def embed_whole(self, texts, *, pooling='mean', slo_class=''):
        self.goals.append((texts, pooling, slo_class))
        if self.code:
            raise error_for(self.code, self.sentence)
        return srv.Embed.Response(
            embeddings=[msg.Embedding(values=[0.6, -0.8]) for _ in texts],
            tokens=[len(text) for text in texts], model='tiny')

    async def status(self):
        if not self.present:
            raise Unavailable('there is no slice/get_status')
        classes = [msg.ClassStatus(slo=msg.SloClass(name=name, ttft_ms=ttft), received=3,
                                   finished=2, attained=1, attainment=NAN, ttft_p50_ms=NAN)
                   for name, ttft in (('control', 500.0), ('dialogue', 0.0))]
        return srv.GetStatus.Response(
            state='ready', version='1', engine=msg.EngineStatus(model='/models/tiny.Q4.gguf'),
            scheduler=msg.SchedulerState(policy='slice', rate_control='paced', classes=classes,
                                         tokens=77, capacity_ratio=NAN))

    async def watch(self):
        self.watchers += 1

    async def unwatch(self):
        self.watchers -= 1

    def view(self):
        strips = Strips()
        strips.update([msg.RequestStatus(request_id='one', slo_class='control', state='prefill',
                                         ttft_ms=NAN, tpot_ms=NAN)], 1.0)
        report = msg.SloReport(request_id='two', slo=msg.SloClass(name='dialogue'), ttft_met=True,
                               tpot_met=False, deadline_met=True, ttft_ms=NAN)
        return View('slice', '', None, msg.SchedulerState(policy='slice'), [report],
                    strips.live(1.0))


def options(api_key='', host='127.0.0.1', **bounds):
    return Options(host=host, port=0, api_key=api_key, bounds=Bounds(**bounds))


@contextmanager
def listening(node, given):
    """Serve a node at a free port, in a thread; yields the port and the server."""
    listener = socket.create_server(('127.0.0.1', 0), backlog=1024)
    http = server(make_app(given, node), given)
    thread = threading.Thread(target=lambda: asyncio.run(http.serve([listener])), daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], http
    finally:
        http.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def wait_until(condition, timeout=60.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, 'the condition did not become true'
        time.sleep(0.005)
