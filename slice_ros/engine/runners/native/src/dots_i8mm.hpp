// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The integer products of a group on Arm with products of 8 bit matrices (I8MM). Included after
// simd_generic.hpp (SLICE_ISA).
//
// usmmla multiplies 2 outputs by 8 inputs with 8 inputs by 2 rows: twice the products of a dot
// product of four bytes. Two quads side by side make its 8 inputs; an odd row has dot products.
#pragma once

#include "kernels.hpp"
#include "layout.hpp"
#include "tile.hpp"

namespace slice::SLICE_ISA {

// Adds the products of two quads, whose activations begin at `input`. products[pair][part] has
// outputs 0, 1 and 2, 3 of a part, each with both rows of a pair.
template <int rows>
SLICE_INLINE void add_quads(const Codes& first, const Codes& second, const GroupCodes* in,
                            int input, int32x4_t (*products)[kParts][2], Ints& odd) {
  int8x16_t both[rows];
#pragma GCC unroll 8
  for (int row = 0; row + 1 < rows; row += 2) {
    both[row] = vcombine_s8(vld1_s8(in[row].codes + input), vld1_s8(in[row + 1].codes + input));
  }
  SLICE_EACH {
    const int32x4_t a = (int32x4_t)first.part[i], b = (int32x4_t)second.part[i];
    const uint8x16_t low = vreinterpretq_u8_s32(vzip1q_s32(a, b));
    const uint8x16_t high = vreinterpretq_u8_s32(vzip2q_s32(a, b));
#pragma GCC unroll 8
    for (int row = 0; row + 1 < rows; row += 2) {
      int32x4_t* sums = products[row / 2][i];
      sums[0] = vusmmlaq_s32(sums[0], low, both[row]);
      sums[1] = vusmmlaq_s32(sums[1], high, both[row]);
    }
  }
  if constexpr (rows % 2 == 1) {
    odd = dot(odd, first, in[rows - 1].codes + input);
    odd = dot(odd, second, in[rows - 1].codes + input + 4);
  }
}

// As in dots.hpp.
template <int kind, int rows, int blocks>
SLICE_INLINE void group_dots(const uint8_t* const* weights, const GroupCodes* in,
                             Ints (*exact)[blocks]) {
  static_assert(blocks == 1);
  int32x4_t products[(rows + 1) / 2][kParts][2];
#pragma GCC unroll 8
  for (auto& pair : products) SLICE_EACH pair[i][0] = pair[i][1] = vdupq_n_s32(0);
  Ints odd = all_ints(0);
  constexpr int vectors = kind == SLICE_Q8 ? kQuads : kQuads / 2;
#pragma GCC unroll 8
  for (int quad = 0; quad < vectors; quad += 2) {
    const uint8_t* at = weights[0] + quad * 64;
    const Codes first = load_codes(at), second = load_codes(at + 64);
    prefetch(at + kAhead);
    prefetch(at + 64 + kAhead);
    if constexpr (kind == SLICE_Q8) {
      add_quads<rows>(first, second, in, quad * 4, products, odd);
    } else {
      add_quads<rows>(low_nibbles(first), low_nibbles(second), in, quad * 4, products, odd);
      add_quads<rows>(high_nibbles(first), high_nibbles(second), in, kGroup / 2 + quad * 4,
                      products, odd);
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row + 1 < rows; row += 2) {
    SLICE_EACH {
      const int32x4_t* sums = products[row / 2][i];
      exact[row][0].part[i] = (IntPart)vuzp1q_s32(sums[0], sums[1]);
      exact[row + 1][0].part[i] = (IntPart)vuzp2q_s32(sums[0], sums[1]);
    }
  }
  if constexpr (rows % 2 == 1) exact[rows - 1][0] = odd;
  if constexpr (kind == SLICE_Q8) {
#pragma GCC unroll 8
    for (int row = 0; row < rows; ++row) {
      exact[row][0] = add_ints(exact[row][0], q8_start(in[row].correction));
    }
  }
}

// As in dots.hpp; each code meets two rows.
template <int>
constexpr int kCodeProducts = 128;
SLICE_INLINE Ints add_codes(Ints sum, const Codes& codes, const int8_t* in) {
  SLICE_EACH {
    sum.part[i] = (IntPart)vusmmlaq_s32((int32x4_t)sum.part[i], (uint8x16_t)codes.part[i],
                                        vld1q_s8(in));
  }
  return sum;
}

}  // namespace slice::SLICE_ISA
