# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""slice_gateway: serve the slice node by HTTP, in the shape of the OpenAI API."""

import asyncio
import logging
import signal
import socket
import sys

from rclpy.exceptions import NameValidationException
from rclpy.utilities import remove_ros_args
from slice_ros.gateway.app import make_app
from slice_ros.gateway.connections import allow_open_files, BACKLOG, server
from slice_ros.gateway.gateway_options import LOOPBACK, Options, parse
from slice_ros.gateway.ros_side import RosSide

LOG = logging.getLogger('slice_gateway')
# Seconds that one thread may keep the interpreter while another wants it, 5 ms by default: a text
# passes from the thread of ROS to that of HTTP, and shall not wait there.
SWITCH_S = 0.0005


def main(argv: list[str] | None = None) -> int:
    """Run the program until a signal; return 0, 1 if it cannot listen, 2 for a wrong option."""
    argv = sys.argv if argv is None else ['slice_gateway', *argv]
    options = parse(remove_ros_args(argv)[1:])
    logging.basicConfig(level=logging.INFO, format='[%(levelname)s] [%(name)s]: %(message)s')
    logging.getLogger('uvicorn.error').setLevel(logging.ERROR)  # not a line for each bad request
    allow_open_files()
    sys.setswitchinterval(SWITCH_S)
    try:
        ros = RosSide(options.node, argv)
    except NameValidationException as error:
        print(f'slice_gateway: {options.node!r:.200} is no name of a node: '
              f'{str(error).splitlines()[0]}', file=sys.stderr)
        return 2
    if options.host not in LOOPBACK and not options.api_key:
        LOG.warning('everybody who reaches %s may use the model: no API key is set', options.host)
    with ros:
        try:
            listener = socket.create_server(
                (options.host, options.port), backlog=BACKLOG,
                family=socket.AF_INET6 if ':' in options.host else socket.AF_INET)
        except OSError as error:
            print(f'slice_gateway: cannot listen at {options.host} port {options.port}: {error}',
                  file=sys.stderr)
            return 1
        asyncio.run(_serve(options, ros, listener))
    return 0


async def _serve(options: Options, ros: RosSide, listener: socket.socket) -> None:
    app = make_app(options, ros)
    http = server(app, options)

    def stop() -> None:
        app.state.door.stopping = http.should_exit = True
        ros.end_requests()   # ends every request, and with it its response
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    address, port = listener.getsockname()[:2]
    LOG.info('serving %s at http://%s:%d', options.node, f'[{address}]' if ':' in address
             else address, port)
    await http.serve([listener])


if __name__ == '__main__':
    sys.exit(main())
