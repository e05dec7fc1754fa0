"""What the command-line programs share: a ROS node that spins in the background and asks."""

from collections.abc import Callable
import threading
import time

import rclpy
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from slice_ros import srv
from slice_ros.action import Generate

STREAM = QoSProfile(depth=1000)


class NoAnswer(Exception):
    """The node at the other end is not there, or did not answer in time."""


def wait(future: Future, timeout: float):
    """Return the result of a future that the spinning thread completes. Raises `NoAnswer`."""
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    if not done.wait(timeout):
        raise NoAnswer(f'no answer within {timeout:g} s')
    return future.result()


class Connection:
    """Talks to one slice node; use it as a context manager.

    Signals stay with the program: Ctrl-C is a ``KeyboardInterrupt`` in the main thread while ROS
    still runs, so that a goal can be cancelled on the way out.
    """

    def __init__(self, target: str = 'slice', args: list[str] | None = None) -> None:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node('slice_client')
        self.target = target
        self._status = self.node.create_client(srv.GetStatus, f'{target}/get_status')
        self._generate = ActionClient(self.node, Generate, f'{target}/generate',
                                      feedback_sub_qos_profile=STREAM)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name='executor', daemon=True)
        self._thread.start()

    def __enter__(self) -> 'Connection':
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown()
        self._thread.join(2.0)
        self.node.destroy_node()
        rclpy.shutdown()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except rclpy.executors.ShutdownException:
            pass

    def status(self, timeout: float) -> srv.GetStatus.Response:
        """Ask how the node is. Raises `NoAnswer`."""
        if not self._status.wait_for_service(timeout):
            raise NoAnswer(f'there is no {self._status.srv_name}: is the node running, under '
                           'this name and namespace?')
        return wait(self._status.call_async(srv.GetStatus.Request()), timeout)

    def wait_until_ready(self, timeout: float) -> srv.GetStatus.Response:
        """Wait until the node serves. Raises `NoAnswer` when it does not in time, or cannot."""
        end = time.monotonic() + timeout
        while True:
            status = self.status(max(end - time.monotonic(), 0.1))
            if status.state == 'ready':
                if not self._generate.wait_for_server(max(end - time.monotonic(), 0.1)):
                    raise NoAnswer(f'there is no action {self.target}/generate')
                return status
            if status.state == 'failed':
                raise NoAnswer('the node failed to load its model: see its log')
            if time.monotonic() >= end:
                raise NoAnswer(f'the node is still {status.state} after {timeout:g} s')
            time.sleep(0.2)

    def send(self, goal: Generate.Goal,
             on_feedback: Callable[[Generate.Feedback], None] | None = None) -> Future:
        """Send a goal; the future holds its handle, whose result is got as of any action."""
        feedback = on_feedback and (lambda message: on_feedback(message.feedback))
        return self._generate.send_goal_async(goal, feedback_callback=feedback)
