// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Blocks of weights as GGUF files store them: the formats of ggml-common.h (MIT), in the arithmetic
// of the gguf package, to the bit.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "half.hpp"
#include "layout.hpp"

namespace slice {

constexpr int kSuper = 256;  // weights of the largest block

// What a type gives for each weight.
//   kScaled   scale * code, a scale for each group
//   kAffine   scale * code + minimum, codes from 0 to 15
//   kValues   the value
enum class Form { kScaled, kAffine, kValues };

// The weights of one block, in groups of 32.
struct Decoded {
  float scale[kSuper / kGroup];
  float minimum[kSuper / kGroup];
  int8_t code[kSuper];
  float value[kSuper];
};

static inline float half_at(const uint8_t* at) {
  uint16_t half;
  std::memcpy(&half, at, sizeof half);
  return half_to_float(half);
}

static inline uint16_t word_at(const uint8_t* at) {
  return static_cast<uint16_t>(at[0] | at[1] << 8);
}

static inline uint32_t long_at(const uint8_t* at) {
  return word_at(at) | static_cast<uint32_t>(word_at(at + 2)) << 16;
}

// 16 bytes have 32 codes: the low nibbles, then the high ones.
static inline void nibbles(const uint8_t* bytes, int8_t* codes) {
  for (int i = 0; i < 16; ++i) codes[i] = static_cast<int8_t>(bytes[i] & 15);
  for (int i = 0; i < 16; ++i) codes[i + 16] = static_cast<int8_t>(bytes[i] >> 4);
}

static inline void q4_0(const uint8_t* block, const int8_t*, Decoded& out) {
  out.scale[0] = half_at(block);
  out.minimum[0] = -8.0f * out.scale[0];
  nibbles(block + 2, out.code);
}

static inline void q4_1(const uint8_t* block, const int8_t*, Decoded& out) {
  out.scale[0] = half_at(block);
  out.minimum[0] = half_at(block + 2);
  nibbles(block + 4, out.code);
}

static inline void q8_0(const uint8_t* block, const int8_t*, Decoded& out) {
  out.scale[0] = half_at(block);
  std::memcpy(out.code, block + 2, 32);
}

// 32 codes of 5 bits: the high ones in a word.
static inline void fives(const uint8_t* high, const uint8_t* low, int8_t* codes) {
  const uint32_t bits = long_at(high);
  nibbles(low, codes);
  for (int i = 0; i < 32; ++i) codes[i] = static_cast<int8_t>(codes[i] | (bits >> i & 1) << 4);
}

static inline void q5_0(const uint8_t* block, const int8_t*, Decoded& out) {
  out.scale[0] = half_at(block);
  fives(block + 2, block + 6, out.code);
  for (int i = 0; i < 32; ++i) out.code[i] = static_cast<int8_t>(out.code[i] - 16);
}

static inline void q5_1(const uint8_t* block, const int8_t*, Decoded& out) {
  const float scale = half_at(block), minimum = half_at(block + 2);
  fives(block + 4, block + 8, out.code);
  for (int i = 0; i < 32; ++i) out.value[i] = scale * static_cast<float>(out.code[i]) + minimum;
}

static inline void q2_k(const uint8_t* block, const int8_t*, Decoded& out) {
  const float factor = half_at(block + 80), base = half_at(block + 82);
  for (int part = 0; part < 16; ++part) {  // of 16 weights
    const float scale = factor * static_cast<float>(block[part] & 15);
    const float minimum = base * static_cast<float>(block[part] >> 4);
    const uint8_t* bytes = block + 16 + part / 8 * 32 + part % 2 * 16;
    const int shift = part % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i) {
      out.value[part * 16 + i] = scale * static_cast<float>(bytes[i] >> shift & 3) - minimum;
    }
  }
}

// The product of a factor from -32 to 31 and a code from -4 to 3 fits 8 bits, but for its sign.
static inline void q3_k(const uint8_t* block, const int8_t*, Decoded& out) {
  const uint8_t* scales = block + 96;
  for (float& scale : out.scale) scale = -half_at(block + 108);
  for (int part = 0; part < 16; ++part) {
    const int low = scales[part % 8] >> part / 8 * 4 & 15;
    const int factor = (low | (scales[8 + part % 4] >> part / 4 * 2 & 3) << 4) - 32;
    const uint8_t* bytes = block + 32 + part / 8 * 32 + part % 2 * 16;
    const uint8_t* high = block + part % 2 * 16;
    const int shift = part % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i) {
      const int code = (bytes[i] >> shift & 3) - (high[i] >> part / 2 & 1 ? 0 : 4);
      out.code[part * 16 + i] = static_cast<int8_t>(-factor * code);
    }
  }
}

// Scales and minimums of Q4_K and Q5_K: 6 bits each, in 12 bytes.
static inline void steps_k(const uint8_t* block, float* scale, float* minimum) {
  const float factor = half_at(block), base = half_at(block + 2);
  const uint8_t* at = block + 4;
  for (int i = 0; i < 4; ++i) {
    scale[i] = factor * static_cast<float>(at[i] & 63);
    minimum[i] = -(base * static_cast<float>(at[4 + i] & 63));
    scale[4 + i] = factor * static_cast<float>((at[8 + i] & 15) | (at[i] >> 2 & 48));
    minimum[4 + i] = -(base * static_cast<float>(at[8 + i] >> 4 | (at[4 + i] >> 2 & 48)));
  }
}

static inline void q4_k(const uint8_t* block, const int8_t*, Decoded& out) {
  steps_k(block, out.scale, out.minimum);
  for (int pair = 0; pair < 4; ++pair) {
    const uint8_t* bytes = block + 16 + pair * 32;
    int8_t* codes = out.code + pair * 64;
    for (int i = 0; i < 32; ++i) codes[i] = static_cast<int8_t>(bytes[i] & 15);
    for (int i = 0; i < 32; ++i) codes[i + 32] = static_cast<int8_t>(bytes[i] >> 4);
  }
}

static inline void q5_k(const uint8_t* block, const int8_t*, Decoded& out) {
  steps_k(block, out.scale, out.minimum);
  for (int group = 0; group < 8; ++group) {
    const uint8_t* bytes = block + 48 + group / 2 * 32;
    const float scale = out.scale[group], minimum = out.minimum[group];
    for (int i = 0; i < 32; ++i) {
      const int low = bytes[i] >> group % 2 * 4 & 15, high = block[16 + i] >> group & 1;
      out.value[group * 32 + i] = scale * static_cast<float>(low | high << 4) + minimum;
    }
  }
}

static inline void q6_k(const uint8_t* block, const int8_t*, Decoded& out) {
  const float factor = half_at(block + 208);
  for (int group = 0; group < 8; ++group) {
    const uint8_t* low = block + group / 4 * 64 + group % 2 * 32;
    const uint8_t* high = block + 128 + group / 4 * 32;
    const int low_shift = group % 4 / 2 * 4, high_shift = group % 4 * 2;
    for (int half = 0; half < 2; ++half) {
      const int8_t step = static_cast<int8_t>(block[192 + group * 2 + half]);
      const float scale = factor * static_cast<float>(step);
      for (int i = half * 16; i < half * 16 + 16; ++i) {
        const int code = (low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4;
        out.value[group * 32 + i] = scale * static_cast<float>(code - 32);
      }
    }
  }
}

constexpr int8_t kIq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                             1,    13,   25,  38,  53,  69,  89,  113};
constexpr int8_t kFp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static inline void look_up(const uint8_t* bytes, const int8_t* table, int8_t* codes) {
  nibbles(bytes, codes);
  for (int i = 0; i < 32; ++i) codes[i] = table[codes[i]];
}

static inline void iq4_nl(const uint8_t* block, const int8_t*, Decoded& out) {
  out.scale[0] = half_at(block);
  look_up(block + 2, kIq4, out.code);
}

static inline void iq4_xs(const uint8_t* block, const int8_t*, Decoded& out) {
  const float factor = half_at(block);
  const uint16_t high = word_at(block + 2);
  for (int group = 0; group < 8; ++group) {
    const int low = block[4 + group / 2] >> group % 2 * 4 & 15;
    out.scale[group] = factor * static_cast<float>((low | (high >> group * 2 & 3) << 4) - 32);
    look_up(block + 8 + group * 16, kIq4, out.code + group * 32);
  }
}

static inline void mxfp4(const uint8_t* block, const int8_t*, Decoded& out) {
  const uint32_t e = block[0];
  out.scale[0] = float_from_bits(e < 2 ? 0x00200000u << e : (e - 1) << 23);  // half of 2^(e - 127)
  look_up(block + 1, kFp4, out.code);
}

static inline void nvfp4(const uint8_t* block, const int8_t*, Decoded& out) {
  for (int part = 0; part < 4; ++part) {
    const uint8_t e4m3 = block[part];
    const int exponent = e4m3 >> 3 & 15;
    const float mantissa = static_cast<float>(e4m3 & 7);
    const float raw = exponent ? std::ldexp(1.0f + mantissa / 8.0f, exponent - 7)
                               : mantissa * 0x1p-9f;
    const float scale = e4m3 == 0x7f ? 0.0f : raw * 0.5f;
    for (int i = 0; i < 16; ++i) {
      const int code = block[4 + part * 8 + i % 8] >> i / 8 * 4 & 15;
      out.value[part * 16 + i] = scale * static_cast<float>(kFp4[code]);
    }
  }
}

// The digits of a number in base 3, from 0 to 2, of a fixed point fraction.
static inline int8_t trit(uint8_t byte, int power) {
  constexpr uint8_t kPowers[] = {1, 3, 9, 27, 81};
  return static_cast<int8_t>((static_cast<uint8_t>(byte * kPowers[power]) * 3 >> 8) - 1);
}

static inline void tq1_0(const uint8_t* block, const int8_t*, Decoded& out) {
  for (float& scale : out.scale) scale = half_at(block + 52);
  for (int i = 0; i < 160; ++i) out.code[i] = trit(block[i % 32], i / 32);
  for (int i = 0; i < 80; ++i) out.code[160 + i] = trit(block[32 + i % 16], i / 16);
  for (int i = 0; i < 16; ++i) out.code[240 + i] = trit(block[48 + i % 4], i / 4);
}

static inline void tq2_0(const uint8_t* block, const int8_t*, Decoded& out) {
  for (float& scale : out.scale) scale = half_at(block + 64);
  for (int i = 0; i < kSuper; ++i) {
    out.code[i] = static_cast<int8_t>((block[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) - 1);
  }
}

}  // namespace slice
