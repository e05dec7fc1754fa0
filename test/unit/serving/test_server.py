# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What the server guarantees to callers, on a fake engine."""

from dataclasses import replace
import threading
import time

import pytest
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import State
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Policy, Step
from slice_ros.scheduling.registry import POLICIES
from slice_ros.serving import Server, ServerConfig
from slice_ros.slo import DEFAULT_CLASSES, SloClass

from .conftest import Consumer, FakeEngine, FakeInfo

CONTROL, NAVIGATION, DIALOGUE = DEFAULT_CLASSES


def ask(server, slo=DIALOGUE, prompt=5, max_tokens=4, on_output=None, **options):
    """Submit; return the request and its consumer."""
    consumer = on_output or Consumer()
    return server.submit(slo, [7] * prompt, max_tokens, None, consumer, **options), consumer


def wait_until(condition, timeout=60.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, 'it did not come to pass'
        time.sleep(0.001)


def test_tokens_come_in_order_and_end_with_a_report(engine, make_server):
    request, consumer = ask(make_server(engine), max_tokens=4)
    assert consumer.text == '1 2 3 4 '
    assert [d.number for d in consumer.deliveries] == [0, 1, 2, 3]
    assert [d.finish_reason for d in consumer.deliveries] == [None, None, None, 'length']
    report = request.report()
    assert report.served and report.output_tokens == 4
    assert 0 <= report.ttft <= report.completion
    assert engine.closed and len(engine.threads) == 1


def test_a_stop_ends_the_request_early(make_server):
    request, consumer = ask(make_server(FakeEngine(length=2)), max_tokens=50)
    assert consumer.last.finish_reason == 'stop'
    assert request.state is State.FINISHED and request.generated == 2


@pytest.mark.parametrize('size, code', [
    ({'max_tokens': 0}, ErrorCode.INVALID_REQUEST),
    ({'max_tokens': 1025}, ErrorCode.INVALID_REQUEST),
    ({'prompt': 0}, ErrorCode.INVALID_REQUEST),
    ({'prompt': 101}, ErrorCode.PROMPT_TOO_LONG),
    ({'prompt': 100, 'max_tokens': 500}, ErrorCode.PROMPT_TOO_LONG)])
def test_sizes_that_are_never_served_are_refused(engine, make_server, size, code):
    server = make_server(engine, max_prompt_tokens=100)
    with pytest.raises(RequestError) as refusal:
        ask(server, **size)
    assert refusal.value.code is code
    dialogue = server.snapshot().classes['dialogue']
    assert not engine.steps and (dialogue.received, dialogue.rejected) == (1, 1)
    assert dialogue.window_requests == 0   # its caller's fault: no measure of the service


@pytest.mark.parametrize('error', [RuntimeError('unforeseen'), BaseException('a panic'),
                                   RequestError(ErrorCode.INVALID_REQUEST, 'no such schema')])
def test_what_the_engine_does_not_open_counts_as_rejected(engine, make_server, error):
    def fail(*arguments):
        raise error
    server, engine.open = make_server(engine), fail
    with pytest.raises(type(error)):
        ask(server)
    dialogue = server.snapshot().classes['dialogue']
    assert (dialogue.received, dialogue.rejected) == (1, 1)


def test_the_queue_is_bounded_and_a_refusal_counts_against_the_class(make_server):
    gate = threading.Event()
    engine = FakeEngine(fail=lambda work: gate.wait(10))
    server = make_server(engine, max_queued=3)
    consumers = [ask(server)[1] for _ in range(3)]
    with pytest.raises(RequestError) as refusal:
        ask(server)
    assert refusal.value.code is ErrorCode.QUEUE_FULL
    gate.set()
    for consumer in consumers:
        assert consumer.last.finish_reason == 'length'
    dialogue = server.snapshot().classes['dialogue']
    assert (dialogue.received, dialogue.rejected, dialogue.finished) == (4, 1, 3)
    assert dialogue.attainment == pytest.approx(3 / 4)


def test_a_live_id_is_not_taken_twice(make_server):
    server = make_server(FakeEngine(seconds=0.01))
    _, first = ask(server, request_id='a', max_tokens=50)
    with pytest.raises(RequestError) as refusal:
        ask(server, request_id='a')
    assert refusal.value.code is ErrorCode.INVALID_REQUEST
    assert server.snapshot().classes['dialogue'].rejected == 1
    server.cancel('a')
    first.wait()
    assert ask(server, request_id='a')[1].last.finish_reason == 'length'


def test_a_cancelled_request_takes_part_in_no_later_step(make_server):
    engine = FakeEngine(seconds=0.002)
    server = make_server(engine)
    request, consumer = ask(server, max_tokens=400)
    _, neighbour = ask(server, max_tokens=40)
    assert consumer.first.wait(10)
    assert server.cancel(request.id)
    assert not server.cancel(request.id)
    at = len(engine.steps)
    last = consumer.last
    assert (last.finish_reason, last.error) == ('cancelled', ErrorCode.CANCELLED)
    assert request.state is State.CANCELLED
    neighbour.wait()
    gone = next(s for s in engine.closed if s.max_tokens == 400)
    assert not any(gone in step for step in engine.steps[at + 1:])
    cancelled = server.snapshot().classes['dialogue']
    assert cancelled.cancelled == 1 and cancelled.window_requests == 1


def test_a_class_is_cancelled_at_once(make_server):
    server = make_server(FakeEngine(seconds=0.002))
    dialogues = [ask(server, max_tokens=400) for _ in range(3)]
    _, control = ask(server, CONTROL, max_tokens=20)
    ids = server.cancel_class('dialogue')
    assert sorted(ids) == sorted(request.id for request, _ in dialogues)
    assert all(consumer.last.finish_reason == 'cancelled' for _, consumer in dialogues)
    assert control.last.finish_reason == 'length'


def test_a_failing_step_fails_its_requests_and_no_other(make_server):
    def fail(work):
        if any(sequence.max_tokens == 13 for sequence, _ in work):
            raise RuntimeError('the chip is on fire')
    engine = FakeEngine(fail=fail)
    server = make_server(engine)
    for _ in range(50):
        _, bad = ask(server, max_tokens=13)
        assert bad.last.error is ErrorCode.ENGINE_FAILURE
        assert 'on fire' in bad.last.message
    _, good = ask(server, max_tokens=5)
    assert good.last.finish_reason == 'length'
    snapshot = server.snapshot()
    assert snapshot.engine_failures == 50 and snapshot.classes['dialogue'].failed == 50
    assert len(engine.closed) == 51


def test_running_out_of_memory_has_its_own_code(make_server):
    def fail(work):
        raise MemoryError
    _, consumer = ask(make_server(FakeEngine(fail=fail)))
    assert consumer.last.error is ErrorCode.OUT_OF_MEMORY


class Panic(BaseException):
    """What pyo3 raises for a panic of Rust code is no `Exception`."""


def panics(*given):
    raise Panic('called `Option::unwrap()` on a `None` value')


def test_a_panic_of_a_step_ends_its_requests_only(make_server):
    def fail(work):
        if any(sequence.max_tokens == 13 for sequence, _ in work):
            panics()
    server = make_server(FakeEngine(fail=fail))
    _, bad = ask(server, max_tokens=13)
    assert bad.last.error is ErrorCode.ENGINE_FAILURE and 'unwrap' in bad.last.message
    assert ask(server)[1].last.finish_reason == 'length' and server.alive


def test_a_panic_anywhere_in_the_loop_ends_the_live_requests_and_not_the_loop(make_server):
    engine = FakeEngine()
    server, adopt = make_server(engine), engine.adopt
    engine.adopt = panics
    assert ask(server)[1].last.error is ErrorCode.ENGINE_FAILURE
    engine.adopt = adopt
    assert ask(server)[1].last.finish_reason == 'length' and server.alive


def test_a_latency_model_that_panics_costs_no_request(make_server, monkeypatch):
    server = make_server(FakeEngine())
    monkeypatch.setattr(LatencyModel, 'observe', panics)
    assert ask(server)[1].last.finish_reason == 'length'


@pytest.mark.parametrize('close', [lambda sequence: 1 / 0, panics])
def test_an_engine_that_cannot_even_close_does_not_end_the_loop(make_server, close):
    engine = FakeEngine()
    engine.close = close
    server = make_server(engine)
    for _ in range(3):
        assert ask(server)[1].last.finish_reason == 'length'


@pytest.mark.parametrize('error', [OSError('nobody is listening'), Panic('no'), SystemExit(1)])
def test_a_failing_consumer_loses_only_its_own_request(make_server, error):
    server = make_server(FakeEngine(seconds=0.001))

    def broken(delivery):
        raise error
    request, _ = ask(server, max_tokens=400, on_output=broken)
    assert ask(server, max_tokens=20)[1].last.finish_reason == 'length'
    wait_until(lambda: request.ended)
    assert request.state is State.CANCELLED and request.generated < 10


@pytest.fixture
def policy():
    """Register a policy made of the function that the test sets."""
    class Scripted(Policy):
        script = staticmethod(lambda made, requests: Step())
        made = 0

        def __init__(self, capacity, options=None):
            super().__init__(capacity, options)
            type(self).made += 1

        def plan(self, now, requests, latency):
            return self.script(type(self).made, requests)
    POLICIES['scripted'] = Scripted
    yield Scripted
    del POLICIES['scripted']


def oldest(requests):
    from slice_ros.scheduling.policy import PrefillChunk
    first = requests[0]
    if first.decoding:
        return Step(decode=(first,))
    return Step(prefill=(PrefillChunk(first, first.pending),))


def test_a_policy_that_fails_once_is_made_anew_and_nobody_notices(engine, make_server, policy):
    def script(made, requests):
        if made == 1:
            raise KeyError('lost')
        return oldest(requests)
    policy.script = staticmethod(script)
    server = make_server(engine, policy='scripted')
    assert ask(server)[1].last.finish_reason == 'length'
    assert policy.made == 2 and server.snapshot().policy_failures == 1


def test_a_policy_that_always_fails_fails_the_requests_but_not_the_loop(
        engine, make_server, policy):
    def script(made, requests):
        if made < 9:
            raise KeyError('lost')
        return oldest(requests)
    policy.script = staticmethod(script)
    server = make_server(engine, policy='scripted')
    outcomes = [ask(server)[1].last.error for _ in range(6)]
    assert outcomes[0] is ErrorCode.ENGINE_FAILURE and outcomes[-1] is ErrorCode.NONE
    assert server.alive


def test_drop_and_evict_are_carried_out(engine, make_server, policy):
    def script(made, requests):
        late = tuple(r for r in requests if r.id == 'late')
        if late:
            return Step(drop=late)
        first = requests[0]
        if first.generated == 2 and first.cached:
            return Step(evict=(first,))
        return oldest(requests)
    policy.script = staticmethod(script)
    server = make_server(engine, policy='scripted')
    late, gone = ask(server, request_id='late')
    assert gone.last.error is ErrorCode.DEADLINE_MISSED and late.state is State.FAILED
    with pytest.raises(AssertionError):  # idle without a time to wake at: nothing happens, or...
        ask(server)[1].wait(0.2)
    ask(server)  # ... until something changes
    wait_until(lambda: engine.evicted)


def test_an_idle_step_wakes_at_its_time_and_does_not_spin(engine, make_server, policy):
    plans = []

    def script(made, requests):
        plans.append(time.monotonic())
        if plans[-1] - plans[0] < 0.1:
            return Step(wake_at=plans[0] + 0.1)
        return oldest(requests)
    policy.script = staticmethod(script)
    request, consumer = ask(make_server(engine, policy='scripted'), max_tokens=1)
    assert consumer.last.finish_reason == 'length'
    assert request.ttft >= 0.1 and len(plans) <= 4


def test_stop_drains_then_ends_the_rest(make_server):
    server, drain = make_server(FakeEngine(seconds=0.01)), 600.0   # none of it is waited for
    _, quick = ask(server, max_tokens=20)
    _, slow = ask(server, max_tokens=400)
    stopping = threading.Thread(target=server.stop, args=(drain,))
    stopping.start()
    assert quick.last.finish_reason == 'length'
    server._loop.clock = lambda: time.monotonic() + drain   # it has passed
    stopping.join(60)
    assert not stopping.is_alive()
    assert slow.last.error is ErrorCode.SHUTTING_DOWN
    with pytest.raises(RequestError) as refusal:
        ask(server)
    assert refusal.value.code is ErrorCode.SHUTTING_DOWN


def test_stop_with_nothing_live_is_immediate_and_start_serves_again(engine, make_server):
    server = make_server(engine)
    begin = time.monotonic()
    assert server.stop(drain=600)
    assert time.monotonic() - begin < 300 and not server.alive
    server.start()
    assert ask(server)[1].last.finish_reason == 'length'


def test_before_start_nothing_is_taken_in(engine, make_server):
    with pytest.raises(RequestError) as refusal:
        ask(make_server(engine, started=False))
    assert refusal.value.code is ErrorCode.SHUTTING_DOWN


def test_many_threads_submit_and_cancel(make_server):
    engine = FakeEngine()
    server = make_server(engine, max_queued=10_000)
    consumers, errors = [], []

    def client(k):
        try:
            for i in range(40):
                request, consumer = ask(
                    server, (CONTROL, NAVIGATION, DIALOGUE)[k % 3], max_tokens=1 + i % 7)
                consumers.append(consumer)
                if i % 5 == 0:
                    server.cancel(request.id)
                server.snapshot()
        except Exception as error:
            errors.append(error)
    threads = [threading.Thread(target=client, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors and len(consumers) == 320
    for consumer in consumers:
        deliveries = consumer.wait(30)
        assert [d.number for d in deliveries] == list(range(len(deliveries)))
        assert sum(d.finish_reason is not None for d in deliveries) == 1
    snapshot = server.snapshot()
    assert sum(c.received for c in snapshot.classes.values()) == 320
    assert sum(c.finished + c.cancelled for c in snapshot.classes.values()) == 320
    assert not snapshot.requests and len(engine.closed) == 320


def test_the_snapshot_adds_up(make_server):
    engine = FakeEngine(info=FakeInfo(slots=4), seconds=0.002)
    server = make_server(engine)
    easy = SloClass('control', ttft_ms=60e3)
    for _ in range(5):
        ask(server, easy, max_tokens=3)[1].wait()
    impossible = SloClass('control', ttft_ms=0.001)
    ask(server, impossible, max_tokens=3)[1].wait()
    engine.seconds = 0.1
    _, running = ask(server, max_tokens=400)
    assert running.first.wait(60)
    snapshot = server.snapshot()
    control = snapshot.classes['control']
    assert (control.finished, control.attained, control.live) == (6, 5, 0)
    assert control.attainment == pytest.approx(5 / 6)
    assert 0 < control.ttft[0] <= control.ttft[1]
    assert snapshot.classes['dialogue'].live == 1
    assert snapshot.slots_used == 1 and snapshot.kv_tokens_used >= 5
    assert 0 < snapshot.load <= 1 and snapshot.tokens >= 18 and snapshot.steps >= 18
    assert snapshot.tokens_per_s > 0 and snapshot.prediction_error >= 0


def test_a_forecast_knows_the_queue(make_server):
    server = make_server(FakeEngine(seconds=0.05))
    alone = server.predict(CONTROL, 50, 10)
    assert alone.feasible and alone.ttft < alone.completion
    for _ in range(20):
        ask(server, CONTROL, prompt=50, max_tokens=10)
    beside = server.predict(CONTROL, 50, 10)
    assert beside.ttft > alone.ttft and beside.tpot > alone.tpot
    tight = server.predict(SloClass('x', tpot_ms=0.01), 50, 10)
    assert not tight.feasible and 'time per token' in tight.reason
    with pytest.raises(RequestError):
        server.predict(CONTROL, 50, 0)


def test_what_cannot_be_met_is_refused_at_once_or_degraded(make_server):
    hopeless = SloClass('control', tpot_ms=0.01, utility=100)
    server = make_server(FakeEngine(), admission='reject')
    with pytest.raises(RequestError) as refused:
        ask(server, hopeless)
    assert refused.value.code is ErrorCode.INFEASIBLE_SLO
    assert 'time per token would be' in refused.value.message
    assert server.snapshot().classes['control'].rejected == 1
    request, consumer = ask(server, CONTROL)   # its neighbours are served as ever
    assert consumer.text

    server = make_server(FakeEngine(), admission='degrade:dialogue')
    request, consumer = ask(server, hopeless)
    assert consumer.text and request.slo.name == 'dialogue'
    assert server.snapshot().classes['dialogue'].received == 1


def test_a_prompt_that_the_cache_knows_is_not_fed_again(make_server):
    engine = FakeEngine(prefix=3)
    fed = []
    engine.fail = lambda work: fed.extend(n for _, n in work)
    request, consumer = ask(make_server(engine), prompt=5, max_tokens=3)
    assert consumer.text == '1 2 3 '
    assert fed == [2, 1, 1]
    assert request.report().reused_tokens == 3


def test_what_the_policy_has_learnt_outlives_other_parameters(make_server):
    """Short answers to long allowances stay known, with live requests and without."""
    server = make_server(FakeEngine(length=3, seconds=0.001), policy='slice')

    def expected():
        return server.predict(DIALOGUE, 5, 400).completion
    unknown = expected()
    for _ in range(40):
        ask(server, max_tokens=400)[1].wait()
    known = expected()
    assert known < unknown / 3
    policy = server._loop.planner.policy
    live = ask(server, max_tokens=400)[1]
    for change in ({'prefill_chunk': 16}, {'policy_options': {'on_miss': 'drop'}},
                   {'classes': (CONTROL, NAVIGATION, replace(DIALOGUE, tpot_ms=200))}):
        server.reconfigure(replace(server.config, **change))
    planner = server._loop.planner
    wait_until(lambda: planner.policy is not policy)
    assert live.wait() and ask(server, max_tokens=400)[1].wait()
    assert server._loop.planner.policy.options.on_miss == 'drop'
    assert server._loop.planner.policy.capacity.prefill_chunk == 16
    assert expected() < unknown / 3
    server.reconfigure(replace(server.config, policy='slice_static', policy_options={}))
    assert ask(server, max_tokens=400)[1].wait()


@pytest.mark.parametrize('asynchronous, token_ms, chunk', [
    (False, 0.01, 64), (True, 0.01, 1024), (True, 0.001, 2048), (True, 0.1, 128), (True, 5, 64)])
def test_a_gpu_prefills_as_many_tokens_as_the_profile_allows(asynchronous, token_ms, chunk):
    """In 20 ms, 5 of which every chunk takes."""
    latency = LatencyModel('m', ((1, 1.0),), prefill_base_ms=5.0, prefill_token_ms=token_ms)
    engine = FakeEngine(FakeInfo(asynchronous=asynchronous))
    server = Server(engine, latency, ServerConfig(prefill_chunk=0))
    assert server.config.prefill_chunk == chunk
    server.reconfigure(ServerConfig(prefill_chunk=16))
    assert server.config.prefill_chunk == 16
    server.reconfigure(ServerConfig(prefill_chunk=0))
    assert server.config.prefill_chunk == chunk


def test_what_begins_adopts_what_it_could_not_on_arrival(engine, make_server):
    looks = []

    def adopt(sequence):
        looks.append(sequence)
        if len(looks) == 1:   # on arrival: no slot is free
            return 0
        sequence.request.adopt(3)
        return 3
    engine.adopt = adopt
    request, consumer = ask(make_server(engine), prompt=5, max_tokens=2)
    assert consumer.text == '1 2 ' and request.report().reused_tokens == 3
    assert len(looks) == 2
