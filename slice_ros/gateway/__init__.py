# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""slice_gateway: the node through HTTP, in the shape of OpenAI's API, and a page to look at.

A client of the node like any other: it uses `slice_ros.client`, and nothing of the engine. HTTP
runs on the event loop of the main thread, ROS in a thread of its own.

`gateway_program` (starts and ends it), `gateway_options`, `ros_side` (the node and its thread),
`connections` (HTTP with bounds and time limits), `app` (routes, and who may come in), `models`
(names of models and classes), `bodies` (JSON to a goal), `completions` (a goal to an answer, whole
or as events), `answers` (their JSON), `http_errors` (codes), `figures_page` (the page and its
events), `exporter` (Prometheus).
"""
