# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What differs between releases of rclpy: chosen by what is there, never by a name or a number.

All that is not documented of rclpy, or not in every release from Humble on, is used here and
nowhere else; test/ros/test_rclpy.py says of each piece what it is expected to do. Where a piece is
missing, the node serves all the same, without what the docstring says.
"""

from collections.abc import Callable, Collection
import inspect

from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.service import Service
from rclpy.timer import Timer

try:
    from rclpy.event_handler import (
        PublisherEventCallbacks, SubscriptionEventCallbacks, UnsupportedEventTypeError)
except ImportError:   # Humble
    from rclpy.qos_event import (
        PublisherEventCallbacks, SubscriptionEventCallbacks, UnsupportedEventTypeError)

__all__ = ['change_state_service', 'count_clients', 'end_future', 'given_parameters',
           'idle_timer', 'leave_out', 'on_parameters', 'PublisherEventCallbacks', 'put_back',
           'service_name', 'SubscriptionEventCallbacks', 'UnsupportedEventTypeError']

_AUTOSTART = 'autostart' in inspect.signature(Node.create_timer).parameters


def idle_timer(node: Node, seconds: float, callback: Callable[[], None], **options) -> Timer:
    """Return a timer that runs once it is reset; options as of `Node.create_timer`."""
    if _AUTOSTART:
        return node.create_timer(seconds, callback, autostart=False, **options)
    timer = node.create_timer(seconds, callback, **options)   # Humble
    timer.cancel()
    return timer


def service_name(service: Service) -> str:
    """Return the full name of a service."""
    return getattr(service, 'service_name', None) or service.srv_name   # Humble


def change_state_service(node: Node) -> Service:
    """Return the ~/change_state service that rclpy made for a lifecycle node.

    Raises ``RuntimeError`` where rclpy does not list it in `Node.services`.
    """
    name = node.resolve_service_name('~/change_state')
    for service in node.services:
        if service_name(service) == name:
            return service
    raise RuntimeError(f'rclpy lists no service {name} in Node.services')


def count_clients(node: Node, service: str) -> int:
    """Return how many clients a service has; 1 where nobody can tell (Humble)."""
    count = getattr(node, 'count_clients', None)
    return 1 if count is None else count(service)


def given_parameters(node: Node) -> Collection[str]:
    """Return the names that files and the command line give values to; nobody can warn without."""
    return getattr(node, '_parameter_overrides', ())


def on_parameters(node: Node, prepare: Callable[[list[Parameter]], list[Parameter]],
                  check: Callable[[list[Parameter]], SetParametersResult],
                  apply: Callable[[list[Parameter]], None]) -> None:
    """Have each set of parameters prepared, checked, and applied after it is set.

    Without rclpy's own callbacks before and after (Humble) values stay as they came, an integer
    where a double is due, and are applied in the executor's next round.
    """
    if hasattr(node, 'add_post_set_parameters_callback'):
        node.add_pre_set_parameters_callback(prepare)
        node.add_on_set_parameters_callback(check)
        node.add_post_set_parameters_callback(apply)
        return
    unapplied = []
    guard = node.create_guard_condition(
        lambda: [apply(unapplied.pop(0)) for _ in range(len(unapplied))])

    def checked(changes: list[Parameter]) -> SetParametersResult:
        result = check(prepare(changes))
        if result.successful:
            unapplied.append(changes)
            guard.trigger()
        return result
    node.add_on_set_parameters_callback(checked)


def end_future(end: Callable[..., object], *outcome: object) -> None:
    """Call `cancel`, `set_result` or `set_exception` of a future whose executor may have ended.

    Its callbacks then never run; on Jazzy the executor has nothing left to hand them to, and
    raises ``AttributeError`` once the future is as asked.
    """
    try:
        end(*outcome)
    except AttributeError:
        pass


# -- the executor's coroutines -------------------------------------------------------------------

def leave_out(executor: Executor, entry: tuple) -> bool:
    """Take the coroutine that runs now out of the executor's rounds; return whether it is.

    `entry` is what `wait_for_ready_callbacks` returned. An executor that keeps its coroutines in
    another way runs them in every round, or resumes them by itself when what they await is done.
    """
    if not hasattr(executor, '_tasks'):
        return False
    with executor._tasks_lock:
        if not entry[0].executing() or entry not in executor._tasks:
            return False
        executor._tasks.remove(entry)
    return True


def put_back(executor: Executor, entry: tuple) -> None:
    """Let a coroutine that was left out take part again; any thread may call this."""
    with executor._tasks_lock:
        executor._tasks.append(entry)
    executor.wake()
