# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The options of slice_gateway, and the bounds of what callers can take."""

import argparse
from dataclasses import dataclass, field
import os
from pathlib import Path

KEY_VARIABLE = 'SLICE_API_KEY'   # of the environment, where no file has the key
LOOPBACK = ('127.0.0.1', '::1', 'localhost')


@dataclass(frozen=True)
class Bounds:
    """What callers can take, so that no one of them keeps the others out."""

    body_bytes: int = 2 ** 20       # of a request; the node's own limit of texts is 64 KiB
    discarded_bytes: int = 2 ** 24  # read and dropped of a larger body before it is refused
    connections: int = 256          # open at once
    live: int = 64                  # requests for the model at once; the node queues 64
    pages: int = 16                 # browsers that watch at once
    idle_s: float = 15.0            # until all headers of a connection's next request are there
    body_s: float = 15.0            # until all of a request's body is there
    unread_s: float = 30.0          # for which a caller may leave what is sent to it unread


@dataclass(frozen=True)
class Options:
    """How the program was started."""

    host: str = LOOPBACK[0]
    port: int = 8000
    node: str = 'slice'            # name of the slice node
    slo_class: str = 'dialogue'    # of requests that name none
    api_key: str = ''              # empty: everybody may come in
    bounds: Bounds = field(default_factory=Bounds)


def parse(argv: list[str]) -> Options:
    """Return the options in `argv`. Ends the program with status 2 for one that is wrong."""
    plain, bounds = Options(), Bounds()
    parser = argparse.ArgumentParser(
        prog='slice_gateway', description='Serve the slice node by HTTP, in the shape of the '
        'OpenAI API, and show what it does on a page.')
    parser.add_argument('--node', default=plain.node, metavar='NAME',
                        help='the node to serve, e.g. /robot1/slice (default: slice)')
    parser.add_argument('--host', default=plain.host, metavar='ADDRESS',
                        help='address to listen at (default: %(default)s, this machine alone)')
    parser.add_argument('--port', type=int, default=plain.port,
                        help='port to listen at; 0 = a free one (default: %(default)s)')
    parser.add_argument('--slo-class', default=plain.slo_class, metavar='NAME',
                        help='SLO class of requests that name none (default: %(default)s)')
    parser.add_argument('--api-key-file', type=Path, metavar='FILE',
                        help='file with the key that callers must give; otherwise the '
                        f'environment variable {KEY_VARIABLE}, otherwise none is needed')
    parser.add_argument('--max-live', type=int, default=bounds.live, metavar='N',
                        help='requests for the model at once (default: %(default)s)')
    parser.add_argument('--max-body-bytes', type=int, default=bounds.body_bytes, metavar='N',
                        help='longest body of a request (default: %(default)s)')
    given = parser.parse_args(argv)
    if not 0 <= given.port < 2 ** 16:
        parser.error('--port must be 0 to 65535')
    for name in ('max_live', 'max_body_bytes'):
        if not 1 <= getattr(given, name) < 2 ** 31:
            parser.error(f'--{name.replace("_", "-")} must be at least 1')
    return Options(given.host, given.port, given.node, given.slo_class,
                   _api_key(parser, given.api_key_file),
                   Bounds(live=given.max_live, body_bytes=given.max_body_bytes))


def _api_key(parser: argparse.ArgumentParser, file: Path | None) -> str:
    if file is None:
        return os.environ.get(KEY_VARIABLE, '').strip()
    try:
        key = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f'--api-key-file: {error}')
    if not key:
        parser.error(f'--api-key-file: {file} is empty')
    return key
