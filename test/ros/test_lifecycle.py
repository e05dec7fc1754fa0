# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Transitions as a lifecycle manager asks for them."""

import threading
import time

from action_msgs.msg import GoalStatus
from conftest import Caller, get, LONG, PAUSE, slowed, Spinning, wait_until
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
import pytest
from rclpy.parameter import Parameter
from slice_ros import srv
from slice_ros.action import Generate
from slice_ros.ros.isolation.background import Background
from slice_ros.ros.node import SliceNode

CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = (
    Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP,
    Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE)
SHUTDOWN = Transition.TRANSITION_ACTIVE_SHUTDOWN
DRAIN = 600.0   # seconds; none of it is waited for


class Manager(Caller):
    """A caller that also changes the state of the node."""

    def __init__(self):
        super().__init__()
        self.changer = self.create_client(ChangeState, '/slice/change_state')
        self.getter = self.create_client(GetState, '/slice/get_state')

    def change(self, transition):
        return self.changer.call_async(ChangeState.Request(transition=Transition(id=transition)))

    def changed(self, transition):
        return get(self.change(transition)).success

    @property
    def label(self):
        return self.call(self.getter).current_state.label


@pytest.fixture
def managed(ros, engine, latency, monkeypatch):
    """Return a function that makes a node that a manager activates, and its manager."""
    made = []

    def make(load=lambda config, progress: engine, **parameters):
        monkeypatch.setattr('slice_ros.engine.load_engine', load)
        monkeypatch.setattr(type(engine), 'profile', lambda self, progress=None: latency)
        node = SliceNode(parameter_overrides=[
            Parameter('autostart', value=False),
            *(Parameter(name.replace('__', '.'), value=value)
              for name, value in parameters.items())])
        manager = Manager()
        made.extend([(node, Spinning(node)), (manager, Spinning(manager))])
        for client in (manager.changer, manager.getter, manager.status, manager.text):
            assert client.wait_for_service(20)
        assert manager.generate.wait_for_server(20)
        return node, manager
    yield make
    made[0][0].close()
    for node, spinning in made:
        spinning.close()
        node.destroy_node()


@pytest.fixture
def slow_steps(engine):
    """As that of the node, which has no engine yet."""
    with slowed(engine) as steps:
        yield steps


def test_a_manager_takes_it_through_its_life_twice(managed):
    node, manager = managed()
    for _ in range(2):
        assert manager.label == 'unconfigured'
        assert manager.call(manager.status).state == 'unconfigured'
        answer = manager.ask(prompt='Hello')[1]
        assert answer.error_code == Generate.Result.NOT_READY and 'configure' in answer.error_msg
        assert not manager.changed(ACTIVATE)
        assert manager.changed(CONFIGURE)
        assert manager.label == manager.call(manager.status).state == 'inactive'
        answer = manager.ask(prompt='Hello')[1]
        assert answer.error_code == Generate.Result.NOT_READY and 'activate' in answer.error_msg
        assert manager.changed(ACTIVATE) and manager.label == 'active'
        assert manager.ask(prompt='Hello')[0] == GoalStatus.STATUS_SUCCEEDED
        assert manager.changed(DEACTIVATE) and manager.label == 'inactive'
        assert manager.changed(CLEANUP)
        assert node.engine is None and node.server is None
    assert manager.changed(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert manager.call(manager.getter).current_state.id == State.PRIMARY_STATE_FINALIZED


def test_loading_blocks_no_callback_and_no_second_transition_begins(managed, engine):
    free = []

    def slow(config, progress):
        wait_until(lambda: free)
        return engine
    _, manager = managed(slow)
    configured = manager.change(CONFIGURE)
    wait_until(lambda: manager.call(manager.status).state == 'loading')
    assert manager.ask(prompt='Hello')[1].error_code == Generate.Result.NOT_READY
    assert not manager.changed(CONFIGURE)
    assert not configured.done()
    free.append(True)
    assert get(configured).success and manager.label == 'inactive'


def test_a_model_that_is_none_leaves_it_unconfigured_and_it_may_try_again(managed, engine):
    from slice_ros.errors import ModelError
    outcomes = [ModelError('there is no such file'), engine]

    def load(config, progress):
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome
    _, manager = managed(load)
    assert not manager.changed(CONFIGURE)
    assert manager.label == 'unconfigured' and manager.call(manager.status).state == 'failed'
    answer = manager.ask(prompt='Hello')[1]
    assert answer.error_code == Generate.Result.NOT_READY
    assert 'there is no such file' in answer.error_msg
    assert manager.changed(CONFIGURE) and manager.label == 'inactive'


@pytest.mark.parametrize('drain, quick', [(DRAIN, Generate.Result.NONE),
                                          (0.0, Generate.Result.SHUTTING_DOWN)])
def test_deactivate_drains_then_says_shutting_down(managed, slow_steps, monkeypatch, drain, quick):
    slow_steps.pause = 0.1   # until both are seen
    node, manager = managed(shutdown__drain_s=drain)
    assert manager.changed(CONFIGURE) and manager.changed(ACTIVATE)
    slow = manager.send(**LONG)
    short = manager.text.call_async(srv.GenerateText.Request(
        slo_class='control', prompt=LONG['prompt'], max_tokens=20))
    wait_until(lambda: node.server.snapshot().slots_used == 2)
    deactivated = manager.change(DEACTIVATE)
    if drain:
        wait_until(lambda: manager.call(manager.status).state == 'draining')
        late = manager.ask(prompt='Me too')[1]
        assert late.error_code == Generate.Result.SHUTTING_DOWN
        slow_steps.pause = PAUSE
        wait_until(short.done)
        monkeypatch.setattr(node.server._loop, 'clock', lambda: time.monotonic() + DRAIN)
    assert get(deactivated).success   # as the time has passed
    monkeypatch.setattr(node.server._loop, 'clock', time.monotonic)
    assert get(short).error_code == quick
    assert get(slow.get_result_async()).result.error_code == Generate.Result.SHUTTING_DOWN
    slow_steps.end()
    assert manager.changed(ACTIVATE)
    assert manager.ask(prompt='Hello')[0] == GoalStatus.STATUS_SUCCEEDED


def test_shutdown_from_active_answers_what_is_live(managed, slow_steps):
    node, manager = managed()
    assert manager.changed(CONFIGURE) and manager.changed(ACTIVATE)
    goal = manager.send(**LONG)
    wait_until(lambda: node.server.snapshot().slots_used == 1)
    assert manager.changed(SHUTDOWN) and manager.label == 'finalized'
    assert get(goal.get_result_async()).result.error_code == Generate.Result.SHUTTING_DOWN
    assert manager.ask(prompt='Hello')[1].error_code == Generate.Result.NOT_READY


class Nav2Manager:
    """Plays the lifecycle manager of Nav2, bond off: each change is checked by get_state."""

    def __init__(self, manager):
        self.manager = manager

    def step(self, transition, expected):
        assert self.manager.changed(transition)
        assert self.manager.call(self.manager.getter).current_state.id == expected

    def startup(self):
        self.step(CONFIGURE, State.PRIMARY_STATE_INACTIVE)
        self.resume()

    def resume(self):
        self.step(ACTIVATE, State.PRIMARY_STATE_ACTIVE)

    def pause(self):
        self.step(DEACTIVATE, State.PRIMARY_STATE_INACTIVE)

    def reset(self):
        self.pause()
        self.step(CLEANUP, State.PRIMARY_STATE_UNCONFIGURED)

    def shutdown(self):
        self.reset()
        self.step(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, State.PRIMARY_STATE_FINALIZED)


def test_under_a_lifecycle_manager_of_nav2(managed, slow_steps):
    """Startup, pause, resume, reset, startup and shutdown, each under load."""
    node, manager = managed()
    nav2 = Nav2Manager(manager)
    nav2.startup()
    for then in (nav2.resume, nav2.startup, None):
        goals = [manager.send(**LONG) for _ in range(3)]
        wait_until(lambda: node.server.snapshot().slots_used == 3)
        end = {nav2.resume: nav2.pause, nav2.startup: nav2.reset}.get(then, nav2.shutdown)
        end()
        codes = {get(goal.get_result_async()).result.error_code for goal in goals}
        assert codes == {Generate.Result.SHUTTING_DOWN}
        if then:
            then()
            assert manager.ask(prompt='Hello')[0] == GoalStatus.STATUS_SUCCEEDED


def test_a_manager_that_asks_while_it_drains_is_answered_at_once(managed, slow_steps):
    """A manager gives up on get_state after seconds: a slow transition does not block it."""
    node, manager = managed(shutdown__drain_s=DRAIN)
    assert manager.changed(CONFIGURE) and manager.changed(ACTIVATE)
    goal = manager.send(**LONG)
    wait_until(lambda: node.server.snapshot().slots_used == 1)
    deactivated = manager.change(DEACTIVATE)
    wait_until(lambda: node.state == 'draining')
    assert get(manager.getter.call_async(GetState.Request())) and node.state == 'draining'
    assert not manager.changed(SHUTDOWN)   # another transition is under way
    get(goal.cancel_goal_async())          # then it has nothing to wait for
    assert get(deactivated).success and manager.label == 'inactive'


@pytest.mark.parametrize('where', ['the server', 'a start', 'the loader', 'rclpy'])
def test_a_transition_that_raises_is_answered_and_logged_and_the_next_one_succeeds(
        managed, engine, latency, monkeypatch, caplog, where):
    class Panic(BaseException):
        """As a native library raises it: no `Exception`."""

    def raising(*arguments, **options):
        raise Panic('unforeseen')
    node, manager = managed()
    if where == 'the loader':
        monkeypatch.setattr('slice_ros.engine.load_engine', raising)
    elif where == 'the server':
        monkeypatch.setattr('slice_ros.ros.lifecycle.Server', raising)
    elif where == 'a start':
        assert manager.changed(CONFIGURE)
        monkeypatch.setattr('slice_ros.serving.Server.start', raising)
    else:
        monkeypatch.setattr(node.lifecycle, '_complete', raising)
    assert not manager.changed(ACTIVATE if where == 'a start' else CONFIGURE)
    assert 'Panic: unforeseen' in caplog.text
    if where == 'the loader':
        assert 'Panic' in manager.ask(prompt='Hello')[1].error_msg
    monkeypatch.undo()
    monkeypatch.setattr('slice_ros.engine.load_engine', lambda config, progress: engine)
    monkeypatch.setattr(type(engine), 'profile', lambda self, progress=None: latency)
    if where == 'rclpy':
        return
    assert manager.changed(CONFIGURE) and manager.changed(ACTIVATE)
    assert manager.ask(prompt='Hello')[0] == GoalStatus.STATUS_SUCCEEDED


@pytest.mark.parametrize('transition', [
    Transition(id=200), Transition(id=ACTIVATE), Transition(label='nonsense'),
    Transition(label='x' * 1_000_000), Transition(id=CLEANUP, label='activate')])
def test_a_transition_that_is_refused_or_unknown_is_answered(managed, transition):
    node, manager = managed()
    asked = manager.changer.call_async(ChangeState.Request(transition=transition))
    assert not get(asked).success and manager.label == 'unconfigured'
    assert manager.changed(CONFIGURE)


def test_a_finalized_node_says_so_and_loads_nothing_more(managed):
    node, manager = managed()
    assert manager.changed(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert manager.call(manager.status).state == 'finalized'
    answer = manager.ask(prompt='Hello')[1]
    assert answer.error_code == Generate.Result.NOT_READY
    assert 'shut down' in answer.error_msg and 'loaded' not in answer.error_msg
    assert not manager.changed(CONFIGURE) and node.engine is None


def test_a_stop_while_the_loader_is_being_started_waits_for_it(monkeypatch):
    background = Background(lambda: None)
    starting, waited, start = threading.Event(), [], threading.Thread.start

    def wait():
        starting.wait(10)
        waited.append(background.wait(10))

    def slowly(thread):
        starting.set()
        time.sleep(0.2)
        start(thread)
    stopper = threading.Thread(target=wait)
    stopper.start()
    monkeypatch.setattr(threading.Thread, 'start', slowly)
    done = background.run(lambda: time.sleep(0.1))
    stopper.join(10)
    assert waited == [True] and done.done()
