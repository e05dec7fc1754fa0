# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The node `slice_router`: one door to several slice nodes, each request to the soonest of them.

`router_main` runs the process, and `router_node` composes the node: `doors` (the interfaces of the
slice node), `forwarding` (the course of a request), a `link` to each slice node, and
`router_status`. `node_choice` says which node is the soonest, and `routed_call` is one request
with its objectives and its report. Built on `slice_ros.client`: the engine is never imported.
"""
