# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The node `slice_router`: its parameters, which are fixed at start, and its parts."""

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import (
    InvalidParameterTypeException, InvalidParameterValueException, NameValidationException)
from rclpy.node import Node
from slice_ros.client.callbacks import Callbacks
from slice_ros.errors import ErrorCode, one_line
from slice_ros.ros.callers.caller_watch import CallerWatch
from slice_ros.ros.isolation.boundary import guard_services, logging_faults
from slice_ros.router.doors import Doors, ENDS
from slice_ros.router.forwarding import Forwarding, Limits
from slice_ros.router.link import Link
from slice_ros.router.router_status import RouterStatus

TICK_S = 0.05     # seconds between two looks for what has taken too long
STATUS_S = 1.0    # seconds between two messages of state and diagnostics
MAX_NODES = 16
# name -> default, lowest and highest value (None: no number), meaning
PARAMETERS = {
    'nodes': (['/onboard/slice', '/station/slice'], None, 'Full names of the slice nodes, 1 to '
              f'{MAX_NODES}; the first is on board and wins ties.'),
    'answer_within_s': (1.0, (0.05, 60.0), 'A node that leaves a small call unanswered for so '
                        'long, without any other sign of it, counts as gone; seconds.'),
    'ping_s': (0.25, (0.05, 60.0), 'Time between two small calls that measure the delay of a '
               'link, seconds.'),
    'choose_s': (0.1, (0.0, 60.0), 'How long a request waits for the predictions of further nodes '
                 'once one has given its own, seconds.'),
    'margin_s': (0.25, (0.0, 60.0), 'A request goes to another node when its first token is by '
                 'this later than twice as predicted, seconds.'),
    'cache_s': (0.1, (0.0, 10.0), 'How long the prediction of a node is good for requests of the '
                'same class and size, seconds.'),
    'max_live': (256, (1, 65536), 'Requests in the router; more get QUEUE_FULL.'),
    'unattended_s': (120.0, (0.0, 1e6), 'Time after which a request ends that nobody is there to '
                     'receive, seconds; 0 = never.'),
    'result_timeout_s': (30, (1, 86400), 'How long the result of an action goal is kept, '
                         'seconds.')}


class RouterNode(Node):
    """Sends each request to the slice node that can meet its objectives soonest."""

    def __init__(self, name: str = 'slice_router', **options) -> None:
        """Make the node. Raises ``ValueError`` when its parameters cannot be used."""
        self._links: list[Link] = []   # rclpy destroys the node, too, that could not be made
        super().__init__(name, **options)
        values = {each: self._declared(each) for each in PARAMETERS}
        try:
            names = [self.resolve_service_name(each) for each in values['nodes']]
        except (RuntimeError, NameValidationException) as error:   # of rcl, and of rclpy
            raise ValueError(f'nodes: {one_line(error)}') from error
        if not 1 <= len(set(names)) == len(names) <= MAX_NODES:
            raise ValueError(f'nodes must be 1 to {MAX_NODES} different names, not {names}')
        group, steady = ReentrantCallbackGroup(), Clock(clock_type=ClockType.STEADY_TIME)
        self._callbacks = Callbacks(self)
        self.status = RouterStatus(self, group, values['max_live'], lambda: self.forwarding)
        self._links += [Link(self._callbacks, each, values['answer_within_s'], values['ping_s'],
                             values['cache_s']) for each in names]
        self.forwarding = Forwarding(
            self._links, Limits(values['answer_within_s'], values['choose_s'], values['margin_s'],
                                values['max_live']), self.status.count)
        self.doors = Doors(self, group, self.forwarding, values['result_timeout_s'])
        self.caller_watch = CallerWatch(self, lambda: values['unattended_s'], group,
                                        lambda: list(self.forwarding.live.values()),
                                        self.forwarding.cancel)
        self.create_timer(TICK_S, self._tick, callback_group=group, clock=steady)
        self.create_timer(STATUS_S, self._report, callback_group=group, clock=steady)
        guard_services(self)

    @property
    def waiting(self) -> int:
        """How many callers have no answer yet."""
        return self.doors.waiting

    def close(self) -> None:
        """End every request with SHUTTING_DOWN, and cancel it at its node."""
        for request_id in list(self.forwarding.live):
            self.forwarding.cancel(request_id, ENDS, ErrorCode.SHUTTING_DOWN)
        self.doors.close()

    def destroy_node(self) -> None:
        """Cancel what the nodes still compute, and leave the graph."""
        for link in self._links:
            link.close()
        if self._links:
            self._callbacks.close()
        super().destroy_node()

    def _declared(self, name: str) -> object:
        default, span, sentence = PARAMETERS[name]
        descriptor = ParameterDescriptor(description=sentence, read_only=True)
        if isinstance(default, float):
            descriptor.floating_point_range = [FloatingPointRange(
                from_value=span[0], to_value=span[1])]
        elif isinstance(default, int):
            descriptor.integer_range = [IntegerRange(from_value=span[0], to_value=span[1], step=1)]
        try:
            return self.declare_parameter(name, default, descriptor).value
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise ValueError(str(error)) from error

    def _tick(self) -> None:
        with logging_faults('looking for what has taken too long'):
            self.forwarding.tick()

    def _report(self) -> None:
        with logging_faults('publishing the status'):
            self.status.publish()
