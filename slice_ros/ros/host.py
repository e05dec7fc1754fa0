# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The server that the node hosts, and the state of the node."""

from slice_ros.errors import ErrorCode, RequestError
from slice_ros.serving import Server


class Host:
    """What the parts of the node share: `Lifecycle` writes it, the others read it.

    `server` exists from configure to cleanup. `state` is the one that ~/get_status reports:
    unconfigured, loading, failed, inactive, ready, draining or finalized. `failure` is why the
    model could not be loaded.
    """

    def __init__(self, state: str) -> None:
        self.server: Server | None = None
        self.state, self.failure = state, ''

    def busy(self) -> bool:
        """Return whether a request is live."""
        server = self.server
        return server is not None and server.busy

    def serving(self) -> Server:
        """Return the server of an active node. Raises `RequestError` when the node is not active.

        A node that drains still returns its server, which refuses new requests itself.
        """
        if self.server is None:
            if self.state == 'draining':
                raise RequestError(ErrorCode.SHUTTING_DOWN, 'the node ends: start it again')
            reasons = {'finalized': 'the node is shut down for good: start it again',
                       'unconfigured': 'the node is not configured: configure and activate it',
                       'failed': f'the model could not be loaded: {self.failure}'}
            raise RequestError(ErrorCode.NOT_READY, reasons.get(
                self.state, 'the model is still being loaded: try again when get_status says '
                'ready'))
        if self.state == 'inactive':
            raise RequestError(ErrorCode.NOT_READY, 'the node is not active: activate it')
        return self.server
