// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Blocks of GGUF types whose codes are numbers of points of a grid, which the caller has.
#pragma once

#include "gguf_blocks.hpp"

namespace slice {

// 8 signs as bits; the last of 7 stored ones makes their number even.
static inline int even_signs(uint32_t seven) {
  return static_cast<int>(seven | (__builtin_popcount(seven) & 1u) << 7);
}

static inline int8_t signed_by(int signs, int bit, int code) {
  return static_cast<int8_t>(signs >> bit & 1 ? -code : code);
}

static inline void iq2_xxs(const uint8_t* block, const int8_t* grid, Decoded& out) {
  const float factor = half_at(block);
  for (int group = 0; group < 8; ++group) {
    const uint8_t* at = block + 2 + group * 8;
    const uint32_t bits = long_at(at + 4);
    out.scale[group] = factor * (0.5f + static_cast<float>(bits >> 28)) * 0.25f;
    for (int i = 0; i < 32; ++i) {
      const int signs = even_signs(bits >> i / 8 * 7 & 127);
      out.code[group * 32 + i] = signed_by(signs, i % 8, grid[at[i / 8] * 8 + i % 8]);
    }
  }
}

static inline void iq3_xxs(const uint8_t* block, const int8_t* grid, Decoded& out) {
  const float factor = half_at(block);
  for (int group = 0; group < 8; ++group) {
    const uint8_t* at = block + 2 + group * 8;
    const uint32_t bits = long_at(block + 66 + group * 4);
    // All points of the grid are even: half of them, with twice the scale.
    out.scale[group] = factor * (0.5f + static_cast<float>(bits >> 28)) * 0.5f * 2.0f;
    for (int i = 0; i < 32; ++i) {
      const int signs = even_signs(bits >> i / 8 * 7 & 127);
      out.code[group * 32 + i] = signed_by(signs, i % 8, grid[at[i / 4] * 4 + i % 4] / 2);
    }
  }
}

static inline void iq3_s(const uint8_t* block, const int8_t* grid, Decoded& out) {
  const float factor = half_at(block);
  for (int group = 0; group < 8; ++group) {
    const uint8_t* low = block + 2 + group * 8;
    const uint8_t* signs = block + 74 + group * 4;
    const int step = block[106 + group / 2] >> group % 2 * 4 & 15;
    out.scale[group] = factor * static_cast<float>(1 + 2 * step);
    for (int i = 0; i < 32; ++i) {
      const int point = low[i / 4] | (block[66 + group] >> i / 4 & 1) << 8;
      out.code[group * 32 + i] = signed_by(signs[i / 8], i % 8, grid[point * 4 + i % 4]);
    }
  }
}

// Eight weights of IQ2_XS or IQ2_S.
static inline void iq2_eight(float scale, const int8_t* point, int signs, float* values) {
  for (int i = 0; i < 8; ++i) values[i] = scale * static_cast<float>(signed_by(signs, i, point[i]));
}

static inline void iq2_xs(const uint8_t* block, const int8_t* grid, Decoded& out) {
  const float factor = half_at(block);
  for (int part = 0; part < 32; ++part) {
    const uint16_t bits = word_at(block + 2 + part * 2);
    const int step = block[66 + part / 4] >> part / 2 % 2 * 4 & 15;
    const float scale = factor * (0.5f + static_cast<float>(step)) * 0.25f;
    iq2_eight(scale, grid + (bits & 511) * 8, even_signs(bits >> 9), out.value + part * 8);
  }
}

static inline void iq2_s(const uint8_t* block, const int8_t* grid, Decoded& out) {
  const float factor = half_at(block);
  for (int part = 0; part < 32; ++part) {
    const int step = block[74 + part / 4] >> part / 2 % 2 * 4 & 15;
    const float scale = factor * (0.5f + static_cast<float>(step)) * 0.25f;
    const int point = block[2 + part] | (block[66 + part / 4] >> part % 4 * 2 & 3) << 8;
    iq2_eight(scale, grid + point * 8, block[34 + part], out.value + part * 8);
  }
}

static inline void iq1_s(const uint8_t* block, const int8_t* grid, Decoded& out) {
  const float factor = half_at(block);
  for (int group = 0; group < 8; ++group) {
    const uint16_t bits = word_at(block + 34 + group * 2);
    const int delta = bits & 0x8000 ? -1 : 1;  // in eighths
    out.scale[group] = factor * static_cast<float>(2 * (bits >> 12 & 7) + 1) * 0.125f;
    for (int i = 0; i < 32; ++i) {
      const int point = block[2 + group * 4 + i / 8] | (bits >> i / 8 * 3 & 7) << 8;
      out.code[group * 32 + i] = static_cast<int8_t>(8 * grid[point * 8 + i % 8] + delta);
    }
  }
}

static inline void iq1_m(const uint8_t* block, const int8_t* grid, Decoded& out) {
  const uint8_t* scales = block + 48;
  const int half = (scales[1] >> 4) | (scales[3] & 0xf0) | (scales[5] & 0xf0) << 4 |
                   (scales[7] & 0xf0) << 8;
  const float factor = half_to_float(static_cast<uint16_t>(half));
  for (int part = 0; part < 32; ++part) {
    const int step = word_at(scales + part / 8 * 2) >> part / 2 % 4 * 3 & 7;
    const float scale = factor * static_cast<float>(2 * step + 1);
    const int high = block[32 + part / 2] >> part % 2 * 4 & 15;
    const int8_t* point = grid + (block[part] | (high & 7) << 8) * 8;
    const float delta = high & 8 ? -0.125f : 0.125f;
    for (int i = 0; i < 8; ++i) {
      out.value[part * 8 + i] = scale * (static_cast<float>(point[i]) + delta);
    }
  }
}

}  // namespace slice
