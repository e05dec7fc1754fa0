# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Model files: where configs, tokenizers and tensors come from. No network, no remote code.

Files are untrusted until checked, and each fault ends in a `ModelError`. Nothing here runs a
model. Only `cache_folder` writes to disk.
"""
