// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// 16 lanes in the vector extensions of GCC and Clang: SSE2, AVX2 or NEON, as the translation unit
// is compiled. The few operations that the extensions do not express well have a branch for each.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "half.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace slice::SLICE_ISA {

#define SLICE_INLINE static inline __attribute__((always_inline))

#if defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
constexpr int kParts = 16 / kLanes;
// GCC uses too few of SSE2's registers in an inlined quantised tile; elsewhere it may inline.
#if defined(__SSE2__) && !defined(__AVX2__)
#define SLICE_QUANTIZED_TILE static __attribute__((noinline))
#else
#define SLICE_QUANTIZED_TILE static
#endif
// Rows of a quantised tile: more, or two blocks at once, would not fit 16 or 32 small registers.
#if defined(__ARM_FEATURE_MATMUL_INT8)
constexpr int kRowTile = 4;  // two pairs for each arrangement of weights
#else
constexpr int kRowTile = kParts == 2 ? 4 : 2;
#endif
constexpr int kBlockTile = 1;
constexpr int kFloatRowTile = 2;
constexpr int kFloatPanel = 2;  // one tile: small vectors gain nothing from converted weights

// Sums of an attention tile, queries by vectors: with values and weights they fit 16 registers.
constexpr int kAttentionSums = 6;
// Sums that measure the peak: 12 vectors hide the latency in 16 registers, 24 in 32.
#if defined(__SSE2__) && !defined(__AVX2__)
constexpr int kPeakSums = 3;
#else
constexpr int kPeakSums = 6;
#endif

typedef float FloatPart __attribute__((vector_size(kLanes * 4)));
typedef int32_t IntPart __attribute__((vector_size(kLanes * 4)));

struct Floats { FloatPart part[kParts]; };
struct Ints { IntPart part[kParts]; };
struct Codes { IntPart part[kParts]; };  // four unsigned bytes in each lane

#define SLICE_EACH for (int i = 0; i < kParts; ++i)

template <typename Vector, typename Part>
SLICE_INLINE Vector fill(Part value) {
  Vector out;
  SLICE_EACH out.part[i] = value;
  return out;
}

SLICE_INLINE Floats all(float value) { return fill<Floats>(value - FloatPart{}); }
// Into the second level cache: the first allows too few outstanding loads for full bandwidth.
SLICE_INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }
// The compiler knows nothing about v from here on, and cannot leave out what made it.
template <typename Vector>
SLICE_INLINE void opaque(Vector& v) {
#if defined(__SSE2__)
  SLICE_EACH __asm__ volatile("" : "+x"(v.part[i]));
#elif defined(__aarch64__)
  SLICE_EACH __asm__ volatile("" : "+w"(v.part[i]));
#else
  SLICE_EACH __asm__ volatile("" : "+m"(v.part[i]));
#endif
}
SLICE_INLINE Floats zeros() { return fill<Floats>(FloatPart{}); }
#if defined(__AVX2__)
// Part by part: a copy of 64 bytes goes through memory, at a quarter of the speed.
SLICE_INLINE Floats load(const float* p) {
  Floats v;
  SLICE_EACH std::memcpy(&v.part[i], p + i * kLanes, sizeof v.part[i]);
  return v;
}
SLICE_INLINE void store(float* p, const Floats& v) {
  SLICE_EACH std::memcpy(p + i * kLanes, &v.part[i], sizeof v.part[i]);
}
#else
SLICE_INLINE Floats load(const float* p) { Floats v; std::memcpy(&v, p, sizeof v); return v; }
SLICE_INLINE void store(float* p, const Floats& v) { std::memcpy(p, &v, sizeof v); }
#endif
SLICE_INLINE Floats add(Floats a, const Floats& b) { SLICE_EACH a.part[i] += b.part[i]; return a; }
SLICE_INLINE Floats sub(Floats a, const Floats& b) { SLICE_EACH a.part[i] -= b.part[i]; return a; }
SLICE_INLINE Floats mul(Floats a, const Floats& b) { SLICE_EACH a.part[i] *= b.part[i]; return a; }
SLICE_INLINE Floats div(Floats a, const Floats& b) { SLICE_EACH a.part[i] /= b.part[i]; return a; }
SLICE_INLINE Floats max(Floats a, const Floats& b) {
  SLICE_EACH a.part[i] = a.part[i] > b.part[i] ? a.part[i] : b.part[i];
  return a;
}
SLICE_INLINE Floats min(Floats a, const Floats& b) {
  SLICE_EACH a.part[i] = a.part[i] < b.part[i] ? a.part[i] : b.part[i];
  return a;
}
SLICE_INLINE Floats fma(const Floats& a, const Floats& b, Floats c) {
  SLICE_EACH c.part[i] = a.part[i] * b.part[i] + c.part[i];
  return c;
}
SLICE_INLINE float sum_of(const Floats& v) {
  float lane[16], sum = 0.0f;
  store(lane, v);
  for (float value : lane) sum += value;
  return sum;
}
SLICE_INLINE float max_of(const Floats& v) {
  float lane[16];
  store(lane, v);
  float best = lane[0];
  for (float value : lane) best = value > best ? value : best;
  return best;
}
SLICE_INLINE Floats keep_first(const Floats& v, int count, Floats other) {
  float from[16], to[16];
  store(from, v);
  store(to, other);
  for (int lane = 0; lane < count; ++lane) to[lane] = from[lane];
  return load(to);
}

SLICE_INLINE Ints bits_of(const Floats& v) {
  Ints out;
  SLICE_EACH out.part[i] = (IntPart)v.part[i];
  return out;
}
SLICE_INLINE Floats from_bits(const Ints& v) {
  Floats out;
  SLICE_EACH out.part[i] = (FloatPart)v.part[i];
  return out;
}
SLICE_INLINE Floats absolute(const Floats& v) {
  Ints bits = bits_of(v);
  SLICE_EACH bits.part[i] &= 0x7fffffff;
  return from_bits(bits);
}
SLICE_INLINE Ints all_ints(int32_t value) { return fill<Ints>(value - IntPart{}); }
SLICE_INLINE Ints add_ints(Ints a, const Ints& b) { SLICE_EACH a.part[i] += b.part[i]; return a; }
SLICE_INLINE Ints shift_to_exponent(Ints v) { SLICE_EACH v.part[i] <<= 23; return v; }
SLICE_INLINE Floats to_floats(const Ints& v) {
  Floats out;
  SLICE_EACH out.part[i] = __builtin_convertvector(v.part[i], FloatPart);
  return out;
}
SLICE_INLINE int32_t sum_of_ints(const Ints& v) {
  int32_t lane[16], sum = 0;
  std::memcpy(lane, &v, sizeof lane);
  for (int32_t value : lane) sum += value;
  return sum;
}
SLICE_INLINE void store_bytes(int8_t* p, const Ints& v) {
#if defined(__AVX2__)
  const __m256i mixed = _mm256_packs_epi32((__m256i)v.part[0], (__m256i)v.part[1]);
  const __m256i words = _mm256_permute4x64_epi64(mixed, _MM_SHUFFLE(3, 1, 2, 0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi16(_mm256_castsi256_si128(words),
                                   _mm256_extracti128_si256(words, 1)));
#else
  int32_t lane[16];
  std::memcpy(lane, &v, sizeof lane);
  for (int i = 0; i < 16; ++i) {
    p[i] = static_cast<int8_t>(lane[i] < -128 ? -128 : lane[i] > 127 ? 127 : lane[i]);
  }
#endif
}

SLICE_INLINE Floats load_half(const uint16_t* p) {
  Floats out;
#if defined(__F16C__)
  const auto* codes = reinterpret_cast<const __m128i*>(p);
  SLICE_EACH out.part[i] = _mm256_cvtph_ps(_mm_loadu_si128(codes + i));
#elif defined(__aarch64__)
  SLICE_EACH out.part[i] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i)));
#else
  float lane[16];
  for (int i = 0; i < 16; ++i) lane[i] = half_to_float(p[i]);
  out = load(lane);
#endif
  return out;
}
SLICE_INLINE Floats load_signed(const int8_t* p) {
  Floats out;
#if defined(__AVX2__)
  SLICE_EACH {
    const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + i * kLanes));
    out.part[i] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
  }
#elif defined(__ARM_NEON)
  const int8x16_t codes = vld1q_s8(p);
  const int16x8_t half[2] = {vmovl_s8(vget_low_s8(codes)), vmovl_s8(vget_high_s8(codes))};
  SLICE_EACH {
    const int16x8_t words = half[i / 2];
    out.part[i] = vcvtq_f32_s32(vmovl_s16(i % 2 ? vget_high_s16(words) : vget_low_s16(words)));
  }
#elif defined(__SSE2__)
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m128i half[2] = {_mm_unpacklo_epi8(codes, codes), _mm_unpackhi_epi8(codes, codes)};
  SLICE_EACH {  // the code ends up in the highest byte of each lane
    const __m128i lanes = i % 2 ? _mm_unpackhi_epi16(half[i / 2], half[i / 2])
                                : _mm_unpacklo_epi16(half[i / 2], half[i / 2]);
    out.part[i] = _mm_cvtepi32_ps(_mm_srai_epi32(lanes, 24));
  }
#else
  float lane[16];
  for (int i = 0; i < 16; ++i) lane[i] = p[i];
  out = load(lane);
#endif
  return out;
}
SLICE_INLINE void store_half(uint16_t* p, const Floats& v) {
#if defined(__F16C__)
  SLICE_EACH _mm_storeu_si128(reinterpret_cast<__m128i*>(p) + i,
                              _mm256_cvtps_ph(v.part[i], _MM_FROUND_TO_NEAREST_INT));
#else
  float lane[16];
  store(lane, v);
  for (int i = 0; i < 16; ++i) p[i] = float_to_half(lane[i]);
#endif
}
SLICE_INLINE Floats load_bfloat(const uint16_t* p) {
  float lane[16];
  for (int i = 0; i < 16; ++i) lane[i] = bfloat_to_float(p[i]);
  return load(lane);
}

SLICE_INLINE Codes load_codes(const uint8_t* p) {
  Codes v;
  SLICE_EACH std::memcpy(&v.part[i], p + i * sizeof v.part[i], sizeof v.part[i]);
  return v;
}
SLICE_INLINE Codes low_nibbles(Codes v) { SLICE_EACH v.part[i] &= 0x0f0f0f0f; return v; }
SLICE_INLINE Codes high_nibbles(Codes v) {
  SLICE_EACH v.part[i] = (v.part[i] >> 4) & 0x0f0f0f0f;
  return v;
}
#if defined(__ARM_FEATURE_DOTPROD) && !defined(__ARM_FEATURE_MATMUL_INT8)
// The dot product is signed here: 128 is subtracted from the stored codes of Q8.
SLICE_INLINE Codes q8_codes(Codes v) {
  SLICE_EACH v.part[i] ^= static_cast<int32_t>(0x80808080);
  return v;
}
SLICE_INLINE Ints q8_start(int32_t) { return all_ints(0); }
#else
// Codes of Q8 are stored with 128 added; sums start at a correction.
SLICE_INLINE Codes q8_codes(const Codes& v) { return v; }
SLICE_INLINE Ints q8_start(int32_t correction) { return all_ints(correction); }
#endif
SLICE_INLINE Ints dot(Ints sum, const Codes& codes, const int8_t* four) {
#if defined(SLICE_VNNI)
  int32_t packed;
  std::memcpy(&packed, four, sizeof packed);
  const __m256i activations = _mm256_set1_epi32(packed);
  SLICE_EACH sum.part[i] =
      (IntPart)SLICE_VNNI((__m256i)sum.part[i], (__m256i)codes.part[i], activations);
#elif defined(__ARM_FEATURE_DOTPROD)
  int32_t packed;
  std::memcpy(&packed, four, sizeof packed);
  const int8x16_t activations = vreinterpretq_s8_s32(vdupq_n_s32(packed));
  SLICE_EACH {
    const int32x4_t bytes = (int32x4_t)codes.part[i];
    const int32x4_t so_far = (int32x4_t)sum.part[i];
#if defined(__ARM_FEATURE_MATMUL_INT8)
    sum.part[i] = (IntPart)vusdotq_s32(so_far, vreinterpretq_u8_s32(bytes), activations);
#else
    sum.part[i] = (IntPart)vdotq_s32(so_far, vreinterpretq_s8_s32(bytes), activations);
#endif
  }
#else
  SLICE_EACH {
    const IntPart bytes = codes.part[i];
    sum.part[i] += (bytes & 255) * four[0] + ((bytes >> 8) & 255) * four[1] +
                   ((bytes >> 16) & 255) * four[2] + ((bytes >> 24) & 255) * four[3];
  }
#endif
  return sum;
}

}  // namespace slice::SLICE_ISA
