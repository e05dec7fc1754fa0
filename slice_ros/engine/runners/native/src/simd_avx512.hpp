// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// 16 lanes on AVX-512 with VNNI. It defines the same names as simd_generic.hpp, for all kernels.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

namespace slice::SLICE_ISA {

using Floats = __m512;
using Ints = __m512i;
using Codes = __m512i;  // 64 unsigned bytes: four for each lane

// Rows of a matmul tile, and blocks of it that quantised kinds compute together: the integer sums
// of 8 rows and 2 blocks leave enough of the 32 registers for the operands, and activations are
// read once for both blocks.
constexpr int kRowTile = 8;
constexpr int kBlockTile = 2;
// Rows of a tile of float kinds: the sums of 12 rows and a unit, its weights and one activation
// take 27 registers. And rows of a panel, for which weights are converted once.
constexpr int kFloatRowTile = 12;
constexpr int kFloatPanel = 8 * kFloatRowTile;
constexpr int kAttentionSums = 16;  // of an attention tile, queries by vectors
constexpr int kPeakSums = 12;       // more than the latency of two units

#define SLICE_QUANTIZED_TILE static
#define SLICE_INLINE static inline __attribute__((always_inline))

// Into the second level cache: the first allows too few outstanding loads for full bandwidth.
SLICE_INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }
// The compiler knows nothing about v from here on, and cannot leave out what made it.
template <typename Vector>
SLICE_INLINE void opaque(Vector& v) { __asm__ volatile("" : "+v"(v)); }
SLICE_INLINE Floats zeros() { return _mm512_setzero_ps(); }
SLICE_INLINE Floats all(float value) { return _mm512_set1_ps(value); }
SLICE_INLINE Floats load(const float* p) { return _mm512_loadu_ps(p); }
SLICE_INLINE void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
SLICE_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
SLICE_INLINE Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
SLICE_INLINE Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
SLICE_INLINE Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
SLICE_INLINE Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
SLICE_INLINE Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
SLICE_INLINE Floats absolute(Floats a) { return _mm512_abs_ps(a); }
// a * b + c
SLICE_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
SLICE_INLINE float sum_of(Floats v) { return _mm512_reduce_add_ps(v); }
SLICE_INLINE float max_of(Floats v) { return _mm512_reduce_max_ps(v); }
// The first `count` lanes of v, `other` in the rest.
SLICE_INLINE Floats keep_first(Floats v, int count, Floats other) {
  return _mm512_mask_mov_ps(other, static_cast<__mmask16>((1u << count) - 1u), v);
}

SLICE_INLINE Floats load_half(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
SLICE_INLINE Floats load_signed(const int8_t* p) {
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
}
SLICE_INLINE void store_half(uint16_t* p, Floats v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
SLICE_INLINE Floats load_bfloat(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

SLICE_INLINE Ints all_ints(int32_t value) { return _mm512_set1_epi32(value); }
SLICE_INLINE Ints add_ints(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
SLICE_INLINE int32_t sum_of_ints(Ints v) { return _mm512_reduce_add_epi32(v); }
SLICE_INLINE Ints bits_of(Floats v) { return _mm512_castps_si512(v); }
SLICE_INLINE Floats from_bits(Ints v) { return _mm512_castsi512_ps(v); }
SLICE_INLINE Ints shift_to_exponent(Ints v) { return _mm512_slli_epi32(v, 23); }
SLICE_INLINE Floats to_floats(Ints v) { return _mm512_cvtepi32_ps(v); }
SLICE_INLINE void store_bytes(int8_t* p, Ints v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(v));
}

SLICE_INLINE Codes load_codes(const uint8_t* p) { return _mm512_loadu_si512(p); }
SLICE_INLINE Codes low_nibbles(Codes v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
SLICE_INLINE Codes high_nibbles(Codes v) { return low_nibbles(_mm512_srli_epi16(v, 4)); }
// Codes of Q8 are stored with 128 added, for this unsigned dot product; sums start at a
// correction.
SLICE_INLINE Codes q8_codes(Codes v) { return v; }
SLICE_INLINE Ints q8_start(int32_t correction) { return all_ints(correction); }
// The sum of each lane plus the dot product of its four codes and the activations at `four`.
SLICE_INLINE Ints dot(Ints sum, Codes codes, const int8_t* four) {
  int32_t packed;
  __builtin_memcpy(&packed, four, sizeof packed);
  return _mm512_dpbusd_epi32(sum, codes, _mm512_set1_epi32(packed));
}

}  // namespace slice::SLICE_ISA
