# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The KV cache: slots, pages, shared prefixes, and the memory they may take.

Counts of requests are not kept here: a slot knows its pages, its request knows the rest.
"""
