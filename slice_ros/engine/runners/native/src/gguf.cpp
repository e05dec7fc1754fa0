// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Weights of GGUF files as the codes that the kernels use, or as floats.

#include <algorithm>

#include "gguf_grids.hpp"

namespace slice {
namespace {

struct Type {
  int number;  // that of ggml
  int weights;  // of a block
  int bytes;
  Form form;
  bool grid;  // its decoder needs one
  void (*decode)(const uint8_t* block, const int8_t* grid, Decoded& out);
};

constexpr Type kTypes[] = {
    {2, 32, 18, Form::kAffine, false, q4_0},
    {3, 32, 20, Form::kAffine, false, q4_1},
    {6, 32, 22, Form::kScaled, false, q5_0},
    {7, 32, 24, Form::kValues, false, q5_1},
    {8, 32, 34, Form::kScaled, false, q8_0},
    {10, kSuper, 84, Form::kValues, false, q2_k},
    {11, kSuper, 110, Form::kScaled, false, q3_k},
    {12, kSuper, 144, Form::kAffine, false, q4_k},
    {13, kSuper, 176, Form::kValues, false, q5_k},
    {14, kSuper, 210, Form::kValues, false, q6_k},
    {16, kSuper, 66, Form::kScaled, true, iq2_xxs},
    {17, kSuper, 74, Form::kValues, true, iq2_xs},
    {18, kSuper, 98, Form::kScaled, true, iq3_xxs},
    {19, kSuper, 50, Form::kScaled, true, iq1_s},
    {20, 32, 18, Form::kScaled, false, iq4_nl},
    {21, kSuper, 110, Form::kScaled, true, iq3_s},
    {22, kSuper, 82, Form::kValues, true, iq2_s},
    {23, kSuper, 136, Form::kScaled, false, iq4_xs},
    {29, kSuper, 56, Form::kValues, true, iq1_m},
    {34, kSuper, 54, Form::kScaled, false, tq1_0},
    {35, kSuper, 66, Form::kScaled, false, tq2_0},
    {39, 32, 17, Form::kScaled, false, mxfp4},
    {40, 64, 36, Form::kValues, false, nvfp4},
};

const Type* find(int number, int64_t weights, const void* data, const void* grid) {
  for (const Type& type : kTypes) {
    if (type.number == number) {
      const bool fits = weights > 0 && weights % type.weights == 0 && data;
      return fits && (grid || !type.grid) ? &type : nullptr;
    }
  }
  return nullptr;
}

// As ggml quantises to Q8_0: ties go away from zero.
uint16_t round_group(const float* values, uint8_t* codes) {
  int largest = 0;  // as bits, of which those of no numbers are the greatest
  for (int i = 0; i < kGroup; ++i) {
    largest = std::max(largest, static_cast<int>(bits_of_float(std::fabs(values[i]))));
  }
  const float step = float_from_bits(static_cast<uint32_t>(largest)) / 127.0f;
  if (!std::isfinite(step)) {
    std::fill(codes, codes + kGroup, uint8_t{0});
    return float_to_half(step);
  }
  const float inverse = step != 0 ? 1.0f / step : 0.0f;
  for (int i = 0; i < kGroup; ++i) {
    const float size = std::fabs(values[i] * inverse);
    const int whole = static_cast<int>(size);
    const int rounded = whole + static_cast<int>(2.0f * (size - static_cast<float>(whole)));
    const int sign = static_cast<int>(bits_of_float(values[i])) >> 31;  // -1 below 0
    codes[i] = static_cast<uint8_t>((rounded ^ sign) - sign + 128);
  }
  return float_to_half(step);
}

void put_codes(const Type& type, const Decoded& block, uint8_t* codes, uint16_t* scales,
               uint16_t* minimums) {
  for (int group = 0; group < type.weights / kGroup; ++group) {
    uint8_t* to = codes + group * kGroup;
    const int8_t* from = block.code + group * kGroup;
    if (type.form == Form::kValues) {
      scales[group] = round_group(block.value + group * kGroup, to);
      continue;
    }
    const int zero = type.form == Form::kScaled ? 128 : 0;
    const int sign = zero && block.scale[group] == 0 ? 0 : 1;  // weights of 0 have codes of 0
    for (int i = 0; i < kGroup; ++i) to[i] = static_cast<uint8_t>(from[i] * sign + zero);
    scales[group] = float_to_half(block.scale[group]);
    if (type.form == Form::kAffine) minimums[group] = float_to_half(block.minimum[group]);
  }
}

void put_floats(const Type& type, const Decoded& block, float* out) {
  if (type.form == Form::kValues) {
    std::copy(block.value, block.value + type.weights, out);
    return;
  }
  for (int i = 0; i < type.weights; ++i) {
    const float value = block.scale[i / kGroup] * static_cast<float>(block.code[i]);
    out[i] = type.form == Form::kAffine ? value + block.minimum[i / kGroup] : value;
  }
}

}  // namespace
}  // namespace slice

int32_t slice_gguf_codes(int32_t type, int64_t weights, const uint8_t* data, const int8_t* grid,
                         uint8_t* codes, uint16_t* scales, uint16_t* minimums) {
  const slice::Type* found = slice::find(type, weights, data, grid);
  if (!found || !codes || !scales || (found->form == slice::Form::kAffine && !minimums)) {
    return SLICE_BAD_ARGUMENT;
  }
  slice::Decoded block;
  for (int64_t at = 0; at < weights; at += found->weights, data += found->bytes) {
    found->decode(data, grid, block);
    const int64_t group = at / slice::kGroup;
    slice::put_codes(*found, block, codes + at, scales + group,
                     minimums ? minimums + group : nullptr);
  }
  return SLICE_OK;
}

int32_t slice_gguf_floats(int32_t type, int64_t weights, const uint8_t* data, const int8_t* grid,
                          float* out) {
  const slice::Type* found = slice::find(type, weights, data, grid);
  if (!found || !out) return SLICE_BAD_ARGUMENT;
  slice::Decoded block;
  for (int64_t at = 0; at < weights; at += found->weights, data += found->bytes) {
    found->decode(data, grid, block);
    slice::put_floats(*found, block, out + at);
  }
  return SLICE_OK;
}
