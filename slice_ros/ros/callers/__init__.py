# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Whose requests these are, and whether anybody is left to receive the answers.

`caller_ids` is shared with `slice_ros.client`: how a request id names the client that sent it, and
the topic by whose lease the client is known to be alive. `caller_watch` is the part of a node
that ends requests without a caller, `goal_server` its action; the node gives them how to begin and
how to cancel a request. `slice_ros.router` uses both as well.
"""
