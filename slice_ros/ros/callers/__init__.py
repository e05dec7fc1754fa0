# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Whose requests these are, and whether anybody is left to receive the answers.

`caller_ids` is shared with `slice_ros.client`: how a request id names the client that sent it, and
the topic by whose lease the client is known to be alive. `caller_watch` is the part of the node
that ends requests without a caller; the node gives it the live calls and how to cancel one.
"""
