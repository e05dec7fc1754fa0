# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Request ids that name the client that sent them, and the topic of a client's lease.

A goal id is a UUID that the client chooses. Those of `slice_ros.client` are of version 8, whose
content is free: four bytes that name the client, their check sum, and random bytes. The node can
tell them from all other ids, and no message needs a field for it.
"""

import secrets
import uuid
import zlib

from rclpy.duration import Duration
from rclpy.qos import LivelinessPolicy, QoSProfile, ReliabilityPolicy

NAME_BYTES = 4   # of a client's name
HEAD_BYTES = 8   # with the check sum
LEASE_S = 3.0    # seconds within which the node notices that a client's process has ended
# Nothing is ever published: the middleware renews the lease by itself while the process runs, also
# while its callbacks block.
LEASE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                   liveliness=LivelinessPolicy.AUTOMATIC,
                   liveliness_lease_duration=Duration(seconds=LEASE_S))


def new_client() -> str:
    """Return a name for a client that no other client has."""
    return secrets.token_hex(NAME_BYTES)


def lease_topic(target: str, client: str) -> str:
    """Return the topic on which `client` has a publisher while it lives."""
    return f'{target}/callers/client_{client}'


def new_request_id(client: str) -> str:
    """Return an id for a request of `client`."""
    return str(uuid.UUID(bytes=_with_version(_head(bytes.fromhex(client)) + secrets.token_bytes(
        HEAD_BYTES))))


def client_of(request_id: str) -> str | None:
    """Return the name of the client that sent a request; None if its id names none."""
    try:
        data = uuid.UUID(request_id).bytes
    except ValueError:
        return None
    name = data[:NAME_BYTES]
    return name.hex() if data == _with_version(_head(name) + data[HEAD_BYTES:]) else None


def _head(name: bytes) -> bytes:
    return name + zlib.crc32(name).to_bytes(HEAD_BYTES - NAME_BYTES, 'big')


def _with_version(data: bytes) -> bytes:
    """Return the 16 bytes with the bits that mark version 8 of RFC 9562."""
    return uuid.UUID(int=int.from_bytes(data, 'big') & ~(0xf000 << 64) & ~(0xc000 << 48)
                     | 8 << 76 | 2 << 62).bytes
