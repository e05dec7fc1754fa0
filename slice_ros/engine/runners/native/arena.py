# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Memory for packed weights."""

import mmap

import numpy as np


class Arena:
    """Memory for weights in large pieces, which the system may map with large pages.

    Each step reads all weights once; with 4 KiB pages, address translation takes a good part of
    that time.
    """

    def __init__(self, piece: int = 32 << 20) -> None:
        self._piece = piece
        self._left = np.empty(0, np.uint8)

    def take(self, nbytes: int) -> np.ndarray:
        """Return `nbytes` zeroed bytes, uint8, that start on a cache line."""
        size = -(-nbytes // 64) * 64
        if size > len(self._left):
            # Private: shared memory is seldom mapped with large pages.
            piece = mmap.mmap(-1, max(size, self._piece), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, 'MADV_HUGEPAGE'):
                try:
                    piece.madvise(mmap.MADV_HUGEPAGE)
                except OSError:
                    pass  # a kernel without large pages: only slower
            self._left = np.frombuffer(piece, np.uint8)
        taken, self._left = self._left[:nbytes], self._left[size:]
        return taken
