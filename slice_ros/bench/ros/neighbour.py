# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A well-behaved caller in a process of its own, which asks for four tokens again and again.

Its waits show what other callers do to it. It waits until the node is ready, and writes that as
its first line; then one line for each request. A wait ends when the response has arrived.
"""

from argparse import ArgumentParser
import time

from slice_ros.bench.processes import orders, report

PROMPT = 'Count from one to ten.'
TOKENS = 4
CLASS = 'control'
PAUSE = 0.01          # seconds between two requests
ASK_AGAIN = 2.0       # seconds until a status call without an answer is repeated
GIVE_UP = 300.0       # seconds after which a request counts as unanswered


def main(requests: int) -> None:
    """Send `requests` requests one after the other; 0 = until the process is ended."""
    orders()
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions
    from slice_ros import srv
    from slice_ros.ros.qos import SERVICES
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('slice_bench_neighbour', enable_rosout=False,
                             start_parameter_services=False)
    status = node.create_client(srv.GetStatus, 'slice/get_status')
    text = node.create_client(srv.GenerateText, 'slice/generate_text', qos_profile=SERVICES)
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def call(client, request, patience: float):
        """Return a response, None if there is none within `patience` seconds."""
        future = client.call_async(request)
        executor.spin_until_future_complete(future, patience)
        if future.done():
            return future.result()
        client.remove_pending_request(future)
        return None

    def ready():
        found = status.service_is_ready() and text.service_is_ready()
        answer = call(status, srv.GetStatus.Request(), ASK_AGAIN) if found else None
        return answer if answer is not None and answer.state == 'ready' else None
    while (answer := ready()) is None:
        time.sleep(0.1)
    report(ready=True, live=len(answer.scheduler.requests))
    sent = 0
    while not requests or sent < requests:
        begin = time.monotonic()
        answer = call(text, srv.GenerateText.Request(
            slo_class=CLASS, prompt=PROMPT, max_tokens=TOKENS), GIVE_UP)
        wait = time.monotonic() - begin
        if answer is None:
            report(at=begin, wait=wait, code=None, ttft_ms=None)
        else:
            served = answer.error_code == 0
            report(at=begin, wait=wait, code=answer.error_code,
                   ttft_ms=answer.report.ttft_ms if served else None)
        sent += 1
        time.sleep(PAUSE)


if __name__ == '__main__':
    parser = ArgumentParser()
    parser.add_argument('requests', type=int)
    main(**vars(parser.parse_args()))
