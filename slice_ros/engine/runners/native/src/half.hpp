// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Conversion of single 16 bit floats, for packing and the portable kernels.
#pragma once

#include <cstdint>
#include <cstring>

namespace slice {

static inline float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fffu) << 13;
  if (magnitude >= 0x0f800000u) {  // infinity and NaN keep an all-ones exponent
    return float_from_bits(sign | 0x70000000u | magnitude);
  }
  // Multiplying by 2^112 moves the exponent bias from 15 to 127, for subnormals too.
  return float_from_bits(sign | bits_of_float(float_from_bits(magnitude) * 0x1p112f));
}

// Rounds to nearest even; too large numbers become infinity.
static inline uint16_t float_to_half(float value) {
  const uint32_t bits = bits_of_float(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;
  if (magnitude >= 0x47800000u) return sign | 0x7c00u;
  if (magnitude < 0x38800000u) {  // a subnormal half: adding 0.5 lets the adder round
    const float sum = float_from_bits(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(bits_of_float(sum) - 0x3f000000u);
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return sign | static_cast<uint16_t>((magnitude - 0x38000000u + 0xfffu + odd) >> 13);
}

// The least half that is not below a value of 0 or more.
static inline uint16_t half_above(float value) {
  const uint16_t nearest = float_to_half(value);
  return half_to_float(nearest) < value ? nearest + 1u : nearest;
}

static inline float bfloat_to_float(uint16_t value) {
  return float_from_bits(static_cast<uint32_t>(value) << 16);
}

static inline uint16_t float_to_bfloat(float value) {
  const uint32_t bits = bits_of_float(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace slice
