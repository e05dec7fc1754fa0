# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What is done before a node is ready, so that its first request is as quick as its tenth.

`preambles` reads how the requests of a class begin, `warm_up` computes these beginnings and runs
real requests through a server of its own. Nothing of it is counted, reported or published.
"""
