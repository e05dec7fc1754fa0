# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A program that sends goals to a node, and prints how many results it has received.

Usage: goal_flood.py ACTION GOALS OPEN (goals that may be open at once)
"""

import sys
import time

import rclpy
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from slice_ros.action import Generate
from slice_ros.ros.qos import SERVICES

PATIENCE = 45.0   # seconds without any news

action, goals, open_at_once = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rclpy.init()
node = rclpy.create_node('flood')
client = ActionClient(node, Generate, action, goal_service_qos_profile=SERVICES,
                      result_service_qos_profile=SERVICES, cancel_service_qos_profile=SERVICES)
executor = SingleThreadedExecutor()
executor.add_node(node)
assert client.wait_for_server(60)
sent, received, last = 0, 0, time.monotonic()


def ask():
    global sent
    sent += 1
    client.send_goal_async(Generate.Goal(prompt='Hi')).add_done_callback(
        lambda sent: sent.result().get_result_async().add_done_callback(receive))


def receive(_):
    global received, last
    received += 1
    last = time.monotonic()


while received < goals and time.monotonic() < last + PATIENCE:
    while sent < goals and sent - received < open_at_once:
        ask()
    executor.spin_once(0.1)
print(received)
