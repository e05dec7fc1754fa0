# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 by uvicorn, with what it has no setting for: a peer cannot hold a connection for ever.

uvicorn itself waits without an end for the headers of a request and for a peer that reads
nothing, and counts connections only when a request is there.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
import resource
import socket

from slice_ros.gateway.gateway_options import Bounds, Options
from slice_ros.gateway.http_errors import raw_response, SERVER
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_BYTES = 16 * 1024   # of one request
BACKLOG = 1024             # connections that the kernel keeps until they are accepted
OPEN_FILES = 4096          # wanted for them: accepting them all at once must not fail
GRACE_S = 2.0              # seconds for the last responses when the program ends
FULL = raw_response(503, 'Service Unavailable', 'as many connections are open as the gateway '
                    'serves: ask again later', SERVER)
TOO_SLOW = raw_response(408, 'Request Timeout', 'the headers of the request did not come in time')
UNREADABLE = raw_response(400, 'Bad Request', 'this is no HTTP/1.1 request: its lines, lengths or '
                          f'headers (at most {HEADER_BYTES} bytes) cannot be read')

Waiting = dict['BoundedProtocol', asyncio.TimerHandle]   # without a request, the oldest first


class BoundedProtocol(H11Protocol):
    """One connection. Where there are too many, the one that idles longest makes room."""

    def __init__(self, *args, bounds: Bounds, waiting: Waiting, **options) -> None:
        super().__init__(*args, **options)
        self._bounds, self._waiting = bounds, waiting
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        # asyncio does so only where a socket says that it is one of TCP. Otherwise a text waits
        # for the acknowledgement of the one before, 40 ms.
        transport.get_extra_info('socket').setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        full = len(self.connections) >= self._bounds.connections
        if full and not self._waiting:
            transport.write(FULL)
            transport.close()
            return
        if full:
            next(iter(self._waiting))._give_way()
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_unread()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._busy:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and not self._busy:
            self._wait()

    def send_400_response(self, msg: str) -> None:
        if not self._busy or not self.cycle.response_started:
            self.transport.write(UNREADABLE)
        if self._busy:   # its body is broken: nothing more can be said on this connection
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self._bounds.unread_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_unread()
        super().resume_writing()

    @property
    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self._waiting[self] = self.loop.call_later(self._bounds.idle_s, self._too_slow)

    def _stop_waiting(self) -> None:
        timer = self._waiting.pop(self, None)
        if timer is not None:
            timer.cancel()

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()

    def _give_way(self) -> None:
        self._stop_waiting()
        self.connections.discard(self)
        self.transport.abort()

    def _too_slow(self) -> None:
        if self.conn.trailing_data[0]:   # the beginning of a request
            self.transport.write(TOO_SLOW)
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server without its handlers of signals, after which it would not end with 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server(app, options: Options) -> Server:
    """Return the HTTP server of `app`; `serve` listens."""
    bounds = options.bounds
    return Server(uvicorn.Config(
        app, host=options.host, port=options.port, lifespan='off', ws='none', log_config=None,
        access_log=False, server_header=False, backlog=BACKLOG, proxy_headers=False,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=max(round(bounds.idle_s), 1), timeout_graceful_shutdown=GRACE_S,
        http=partial(BoundedProtocol, bounds=bounds, waiting={})))


def allow_open_files() -> None:
    """Let the process have as many files open as a burst of connections needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
