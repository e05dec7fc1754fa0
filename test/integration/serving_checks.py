"""What a client expects of a running node; shared by the process test and the launch test."""

import time

from action_msgs.msg import GoalStatus
import rclpy
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile

from slice_ros.action import Generate
from slice_ros.msg import TokenChunk
from slice_ros.srv import GetStatus

READY_WITHIN = 180.0   # seconds; the first start on a machine converts and profiles the model
ANSWER_WITHIN = 60.0   # seconds


class Client:
    """A ROS node that plays the robot; one graph of its own for each test."""

    def __init__(self, server: str):
        """Talk to the node whose full name is `server`."""
        self.server = server
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('test_client', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def close(self):
        """Leave the graph."""
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def result_of(self, future, within: float):
        """Spin until `future` is done; AssertionError after `within` seconds."""
        self.executor.spin_until_future_complete(future, timeout_sec=within)
        assert future.done(), f'no answer within {within:.0f} s'
        return future.result()

    def wait_until_ready(self):
        """Return the status once the model is loaded."""
        client = self.node.create_client(GetStatus, f'{self.server}/get_status')
        end = time.monotonic() + READY_WITHIN
        assert client.wait_for_service(timeout_sec=60.0), f'{self.server} did not start'
        while True:
            left = end - time.monotonic()
            assert left > 0, f'{self.server} was not ready within {READY_WITHIN:.0f} s'
            status = self.result_of(client.call_async(GetStatus.Request()), left)
            assert status.state in ('loading', 'ready'), status.state
            if status.state == 'ready':
                return status
            time.sleep(0.2)

    def generate(self, slo_class: str, prompt: str, max_tokens: int):
        """Send one action goal; return its status, its result and the chunks on its topic."""
        chunks = []
        topic = f'{self.server}/{slo_class}/tokens'
        self.node.create_subscription(TokenChunk, topic, chunks.append, QoSProfile(depth=1000))
        end = time.monotonic() + 20.0
        while self.node.count_publishers(topic) == 0:
            assert time.monotonic() < end, f'nobody publishes {topic}'
            self.executor.spin_once(timeout_sec=0.1)
        client = ActionClient(self.node, Generate, f'{self.server}/generate')
        assert client.wait_for_server(timeout_sec=20.0)
        goal = Generate.Goal(slo_class=slo_class, prompt=prompt, max_tokens=max_tokens)
        handle = self.result_of(client.send_goal_async(goal), 20.0)
        assert handle.accepted
        answer = self.result_of(handle.get_result_async(), ANSWER_WITHIN)
        end = time.monotonic() + 10.0
        while not (chunks and chunks[-1].finished):
            assert time.monotonic() < end, f'no finished chunk on {topic}'
            self.executor.spin_once(timeout_sec=0.1)
        return answer.status, answer.result, chunks


def check_one_answer(client: Client):
    """One control request: the action's answer and the topic's tokens say the same."""
    client.wait_until_ready()
    status, result, chunks = client.generate(
        'control', 'An obstacle is two metres ahead. Answer with one word: stop or go?', 8)
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert result.error_code == Generate.Result.NONE, result.error_msg
    assert result.text
    assert result.finish_reason in ('stop', 'length')
    assert {chunk.request_id for chunk in chunks} == {result.request_id}
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.finished for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert ''.join(chunk.text for chunk in chunks) == result.text
