# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Callers that are slow, idle, many, or gone: others do not notice. Real sockets."""

from contextlib import closing, ExitStack
import json
import socket
import time
from urllib.request import Request, urlopen

from fake_node import FakeNode, listening, options, wait_until
import pytest

POST = (b'POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n'
        b'content-type: application/json\r\n')
EVENTS = b'GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n'
BODY = json.dumps({'messages': [{'role': 'user', 'content': 'Hi'}]}).encode()
STREAM = json.dumps({'messages': [{'role': 'user', 'content': 'Hi'}], 'stream': True}).encode()


def whole(body=BODY):
    """Return a request."""
    return POST + f'content-length: {len(body)}\r\n\r\n'.encode() + body


def connect(port, data=b''):
    peer = socket.create_connection(('127.0.0.1', port), timeout=60)
    peer.sendall(data)
    return peer


def read_all(peer):
    """Return all that comes until the other side closes."""
    data = b''
    with closing(peer):
        try:
            while piece := peer.recv(65536):
                data += piece
        except ConnectionResetError:
            pass
    return data


def healthy(port):
    """Send another caller's request; fail where it has to wait."""
    with urlopen(Request(f'http://127.0.0.1:{port}/health'), timeout=60) as response:
        assert json.load(response) == {'status': 'ready'}


@pytest.mark.parametrize('sent, status', [
    (b'POST /v1/chat', b'408'), (POST + b'x-slow: ', b'408'), (b'', b''),
    (POST + b'content-length: 50\r\n\r\n{"mess', b'408'),
    (b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n', b'400'), (b'GET / HTTP/1.1\r\n\r\n', b'400'),
    (POST + b'content-length: -5\r\n\r\n', b'400'), (POST + b'x: ' + b'y' * 70_000, b'400'),
    (POST + b'transfer-encoding: chunked\r\n\r\nzz\r\n', b'400')])
def test_half_a_request_is_ended_with_a_sentence(sent, status):
    with listening(FakeNode(), options(idle_s=0.3, body_s=0.3)) as (port, _):
        peer = connect(port, sent)
        healthy(port)
        answer = read_all(peer)
        assert answer[9:12] == status
        if status:
            assert json.loads(answer.partition(b'\r\n\r\n')[2])['error']['message']


def test_a_caller_that_drips_its_headers_is_not_waited_for():
    with listening(FakeNode(), options(idle_s=0.4)) as (port, http):
        peer = connect(port, POST)
        begun = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < begun + 60:
                peer.sendall(b'x-more: 1\r\n')
                time.sleep(0.05)
        peer.close()
        wait_until(lambda: not http.server_state.connections)


def test_a_kept_connection_serves_again_and_is_closed_when_idle():
    with listening(FakeNode(), options(idle_s=2.0)) as (port, _):
        peer = connect(port)
        for _ in range(2):
            peer.sendall(whole())
            answer = b''
            while not answer.endswith(b'}}}'):
                answer += peer.recv(65536)
            assert answer.startswith(b'HTTP/1.1 200')
        assert read_all(peer) == b''


def test_a_thousand_connections_leave_room_for_another_caller():
    given = options(connections=64, idle_s=120.0)   # longer than a caller waits
    with listening(FakeNode(), given) as (port, http), ExitStack() as peers:
        for number in range(1000):
            peers.enter_context(closing(connect(port, b'GET /' if number % 2 else b'')))
            if number % 100 == 50:
                healthy(port)
        healthy(port)
        assert len(http.server_state.connections) <= 64


def test_where_all_connections_are_served_another_is_refused():
    node = FakeNode(first=1)
    with listening(node, options(connections=2)) as (port, _):
        peers = [connect(port, whole(STREAM)) for _ in range(2)]
        wait_until(lambda: len(node.goals) == 2)
        assert read_all(connect(port))[9:12] == b'503'
        for peer in peers:
            peer.close()
        wait_until(lambda: len(node.cancelled) == 2)
        healthy(port)


@pytest.mark.parametrize('body', [BODY, STREAM])
@pytest.mark.parametrize('first', [0, 1])
def test_a_caller_that_leaves_cancels_its_goal(body, first):
    node = FakeNode(first=first)
    with listening(node, options()) as (port, http):
        peer = connect(port, whole(body))
        wait_until(lambda: node.goals)
        assert not node.cancelled
        peer.close()
        wait_until(lambda: node.cancelled == ['id-1'])
        wait_until(lambda: not http.config.loaded_app.state.door.live)


def test_more_live_requests_than_wanted_are_refused():
    node = FakeNode(first=0)
    with listening(node, options(live=1)) as (port, _):
        first = connect(port, whole())
        wait_until(lambda: node.goals)
        second = connect(port, whole())
        answer = second.recv(65536)
        assert answer.startswith(b'HTTP/1.1 429') and b'retry-after: 1' in answer
        second.close()
        first.close()


def test_a_caller_that_reads_nothing_is_let_go():
    node = FakeNode(pieces=('word ' * 8000,) * 250, first=250)   # 10 MB: more than sockets hold
    with listening(node, options(unread_s=0.3)) as (port, http):
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(('127.0.0.1', port))
        peer.sendall(whole(STREAM))
        wait_until(lambda: node.cancelled == ['id-1'])
        healthy(port)
        peer.close()


def test_a_body_without_an_end_is_refused():
    with listening(FakeNode(), options(body_bytes=1000, discarded_bytes=200_000)) as (port, _):
        peer = connect(port, POST + b'transfer-encoding: chunked\r\n\r\n')
        answer = b''
        try:
            while not answer:
                peer.sendall(b'2710\r\n' + b'x' * 10_000 + b'\r\n')
                peer.settimeout(0.001)
                try:
                    answer = peer.recv(65536)
                except TimeoutError:
                    pass
                peer.settimeout(60)
        except OSError:
            pass
        assert answer[9:12] in (b'413', b'')
        healthy(port)


def test_pages_are_few_and_watch_only_while_they_are_open():
    node = FakeNode()
    with listening(node, options(pages=1)) as (port, _):
        page = connect(port, EVENTS)
        data = b''
        while data.count(b'data: ') < 2:
            data += page.recv(65536)
        shown = json.loads(data.partition(b'data: ')[2].partition(b'\n')[0])
        (live,), (ended,) = shown['requests'], shown['ended']
        assert (live['state'], live['ttft_ms']) == ('prefill', None)
        assert ended['verdict'] == 'missed TPOT' and shown['scheduler']['policy'] == 'slice'
        other = connect(port, EVENTS)
        assert other.recv(65536).startswith(b'HTTP/1.1 429')
        other.close()
        assert node.watchers == 1
        page.close()
        wait_until(lambda: not node.watchers)
