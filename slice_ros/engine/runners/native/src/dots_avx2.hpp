// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The integer products of a group on AVX2, which has no dot product of four bytes. Included after
// simd_generic.hpp (SLICE_ISA).
//
// vpmaddubsw adds the products of two unsigned and two signed bytes into 16 bits. Those of 4 bit
// codes cannot overflow, not even the sums of a whole group: 2 * 8 quads * 15 * 127 = 30480. So a
// group has one widening to 32 bits for 8 quads. A code of 8 bits is 16 * its high nibble + its
// low one, each with a sum of its own.
#pragma once

#include "kernels.hpp"
#include "layout.hpp"
#include "tile.hpp"

namespace slice::SLICE_ISA {

static_assert(2 * kQuads * 15 * 127 <= 32767);

SLICE_INLINE __m256i load_bytes(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
SLICE_INLINE __m256i low_of(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
SLICE_INLINE __m256i high_of(__m256i v) { return low_of(_mm256_srli_epi16(v, 4)); }
SLICE_INLINE __m256i repeated(const int8_t* four) {
  int32_t packed;
  std::memcpy(&packed, four, sizeof packed);
  return _mm256_set1_epi32(packed);
}
// The barrier stops the compiler from adding in another order, with all products in memory.
SLICE_INLINE __m256i add_products(__m256i sum, __m256i codes, __m256i activations) {
  sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, activations));
  __asm__("" : "+x"(sum));
  return sum;
}
SLICE_INLINE __m256i widened(__m256i sum, int16_t factor) {
  return _mm256_madd_epi16(sum, _mm256_set1_epi16(factor));
}

template <int rows>
SLICE_INLINE void q4_dots(const uint8_t* weights, const GroupCodes* in, Ints (*exact)[1]) {
  __m256i sum[rows][kParts];
#pragma GCC unroll 8
  for (int row = 0; row < rows; ++row) SLICE_EACH sum[row][i] = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (int quad = 0; quad < kQuads / 2; ++quad) {
    __m256i low[kParts], high[kParts];
    prefetch(weights + quad * 64 + kAhead);
    SLICE_EACH {
      const __m256i both = load_bytes(weights + quad * 64 + i * 32);
      low[i] = low_of(both);
      high[i] = high_of(both);
    }
#pragma GCC unroll 8
    for (int row = 0; row < rows; ++row) {
      const __m256i first = repeated(in[row].codes + quad * 4);
      SLICE_EACH sum[row][i] = add_products(sum[row][i], low[i], first);
      const __m256i second = repeated(in[row].codes + (quad + kQuads / 2) * 4);
      SLICE_EACH sum[row][i] = add_products(sum[row][i], high[i], second);
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < rows; ++row) {
    SLICE_EACH exact[row][0].part[i] = (IntPart)widened(sum[row][i], 1);
  }
}

// One part after the other: the sums of both would not fit the registers. The barrier stops the
// compiler from keeping the activations of the first part, in memory, for the second.
template <int rows>
SLICE_INLINE void q8_dots(const uint8_t* weights, const GroupCodes* in, Ints (*exact)[1]) {
#pragma GCC unroll 2
  for (int i = 0; i < kParts; ++i) {
    __asm__("" : "+r"(in));
    __m256i low[rows], high[rows];
#pragma GCC unroll 8
    for (int row = 0; row < rows; ++row) low[row] = high[row] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int quad = 0; quad < kQuads; ++quad) {
      if (i == 0) prefetch(weights + quad * 64 + kAhead);
      const __m256i both = load_bytes(weights + quad * 64 + i * 32);
      const __m256i low_codes = low_of(both), high_codes = high_of(both);
#pragma GCC unroll 8
      for (int row = 0; row < rows; ++row) {
        const __m256i four = repeated(in[row].codes + quad * 4);
        low[row] = add_products(low[row], low_codes, four);
        high[row] = add_products(high[row], high_codes, four);
      }
    }
#pragma GCC unroll 8
    for (int row = 0; row < rows; ++row) {
      const __m256i sum = _mm256_add_epi32(widened(low[row], 1), widened(high[row], 16));
      exact[row][0].part[i] = (IntPart)sum + in[row].correction;
    }
  }
}

// As in dots.hpp.
template <int kind, int rows, int blocks>
SLICE_INLINE void group_dots(const uint8_t* const* weights, const GroupCodes* in,
                             Ints (*exact)[blocks]) {
  static_assert(blocks == 1);
  if constexpr (kind == SLICE_Q4) {
    q4_dots<rows>(weights[0], in, exact);
  } else {
    q8_dots<rows>(weights[0], in, exact);
  }
}

// As in dots.hpp; a code of 8 bits takes two products.
template <int kind>
constexpr int kCodeProducts = kind == SLICE_Q8 ? 32 : 64;
SLICE_INLINE Ints add_codes(Ints sum, const Codes& codes, const int8_t* in) {
  SLICE_EACH {
    sum.part[i] = (IntPart)add_products((__m256i)sum.part[i], (__m256i)codes.part[i], repeated(in));
  }
  return sum;
}

}  // namespace slice::SLICE_ISA
