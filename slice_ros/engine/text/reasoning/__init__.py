# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Reasoning: models that write a thought between two tags before their answer.

`think_tags` finds the tags of a model, and completes a prompt as thoughts are on or off;
`thought` follows one thought, keeps it within its budget, and lets the answer begin behind it.
"""
