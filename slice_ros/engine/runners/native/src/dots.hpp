// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The integer products of a group, by the dot product of a simd header, which has to be included
// before, once for each instruction set (SLICE_ISA).
#pragma once

#include "kernels.hpp"
#include "layout.hpp"
#include "tile.hpp"

namespace slice::SLICE_ISA {

// exact[row][b] = the products of a group's codes of 16 outputs with those of a row, exactly.
template <int kind, int rows, int blocks>
SLICE_INLINE void group_dots(const uint8_t* const* weights, const GroupCodes* in,
                             Ints (*exact)[blocks]) {
#pragma GCC unroll 8
  for (int row = 0; row < rows; ++row) {
    for (int b = 0; b < blocks; ++b) {
      exact[row][b] = kind == SLICE_Q8 ? q8_start(in[row].correction) : all_ints(0);
    }
  }
  constexpr int vectors = kind == SLICE_Q8 ? kQuads : kQuads / 2;
#pragma GCC unroll 8
  for (int quad = 0; quad < vectors; ++quad) {
    Codes low[blocks], high[blocks];
    for (int b = 0; b < blocks; ++b) {
      const Codes both = load_codes(weights[b] + quad * 64);
      prefetch(weights[b] + quad * 64 + kAhead);
      low[b] = kind == SLICE_Q8 ? q8_codes(both) : low_nibbles(both);
      high[b] = high_nibbles(both);
    }
#pragma GCC unroll 8
    for (int row = 0; row < rows; ++row) {
      for (int b = 0; b < blocks; ++b) {
        exact[row][b] = dot(exact[row][b], low[b], in[row].codes + quad * 4);
      }
    }
    if constexpr (kind == SLICE_Q4) {
#pragma GCC unroll 8
      for (int row = 0; row < rows; ++row) {
        for (int b = 0; b < blocks; ++b) {
          exact[row][b] = dot(exact[row][b], high[b], in[row].codes + (quad + kQuads / 2) * 4);
        }
      }
    }
  }
}

// For measurements of the peak: the multiply-adds of a vector of codes, and how many they are.
template <int>
constexpr int kCodeProducts = 64;
SLICE_INLINE Ints add_codes(const Ints& sum, const Codes& codes, const int8_t* in) {
  return dot(sum, codes, in);
}

}  // namespace slice::SLICE_ISA
