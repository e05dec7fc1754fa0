# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""An action client for any number of goals: it corrects how rclpy keeps their futures."""

from rclpy.action import ActionClient
from rclpy.task import Future


class GoalClient(ActionClient):
    """Keeps no future of a goal that has ended.

    rclpy 9.1 adds two futures for each goal. It returns the second and never completes or removes
    the first, so that each goal would make the executor slower. `futures` are those kept.
    """

    def __init__(self, *args, **options) -> None:
        self.futures: list[Future] = []
        super().__init__(*args, **options)

    def add_future(self, future: Future) -> None:
        self.futures.append(future)
        super().add_future(future)

    def remove_future(self, future: Future) -> None:
        self.futures.remove(future)
        super().remove_future(future)

    def send_goal_async(self, *args, **options) -> Future:
        """Send a goal; arguments and result as of `ActionClient`."""
        before = len(self.futures)
        future = super().send_goal_async(*args, **options)
        for surplus in [added for added in self.futures[before:] if added is not future]:
            self.remove_future(surplus)
        return future
