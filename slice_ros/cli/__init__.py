# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Programs for people at a terminal: `client` asks one thing, `demo` plays a robot's minute."""
