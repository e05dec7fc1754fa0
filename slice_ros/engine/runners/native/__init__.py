# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Native kernels: a C++ library over plain data pointers, and its Python side.

``load_library`` finds the library, or returns a sentence why there is none; ``NativeModel`` runs
whole steps of a described decoder on it. Nothing here imports torch. The C interface is
versioned: change it together with `library.py`.
"""

from slice_ros.engine.runners.native.kv_pages import kv_bits_of, KvPages
from slice_ros.engine.runners.native.library import ISAS, Library, load_library
from slice_ros.engine.runners.native.model import LayerWeights, NativeModel
from slice_ros.engine.runners.native.packing import KINDS, pack, Packed

__all__ = ['ISAS', 'KINDS', 'KvPages', 'LayerWeights', 'Library', 'NativeModel', 'Packed',
           'kv_bits_of', 'load_library', 'pack']
