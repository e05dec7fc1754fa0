// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Kernels that work on one row of activations. Included after a simd header, once for each
// instruction set (SLICE_ISA).
#pragma once

#include <algorithm>

#include "half.hpp"
#include "kernels.hpp"
#include "layout.hpp"
#include "vector_math.hpp"

namespace slice::SLICE_ISA {

// out = in / sqrt(mean(in^2) + eps) * weight
static void rms_norm(const float* in, const float* weight, float eps, int width, float* out) {
  Floats squares = zeros();
  int i = 0;
  for (; i + 16 <= width; i += 16) {
    const Floats v = load(in + i);
    squares = fma(v, v, squares);
  }
  float sum = sum_of(squares);
  for (int j = i; j < width; ++j) sum += in[j] * in[j];
  const float scale = 1.0f / __builtin_sqrtf(sum / static_cast<float>(width) + eps);
  for (int j = 0; j + 16 <= width; j += 16) {
    store(out + j, mul(mul(load(in + j), all(scale)), load(weight + j)));
  }
  for (; i < width; ++i) out[i] = in[i] * scale * weight[i];
}

// out = (in - mean) / sqrt(variance + eps) * weight + bias
static void layer_norm(const float* in, const float* weight, const float* bias, float eps,
                       int width, float* out) {
  Floats total = zeros();
  int i = 0;
  for (; i + 16 <= width; i += 16) total = add(total, load(in + i));
  float sum = sum_of(total);
  for (int j = i; j < width; ++j) sum += in[j];
  const float mean = sum / static_cast<float>(width);
  Floats squares = zeros();
  for (i = 0; i + 16 <= width; i += 16) {
    const Floats v = sub(load(in + i), all(mean));
    squares = fma(v, v, squares);
  }
  float variance = sum_of(squares);
  for (int j = i; j < width; ++j) variance += (in[j] - mean) * (in[j] - mean);
  const float scale = 1.0f / __builtin_sqrtf(variance / static_cast<float>(width) + eps);
  for (i = 0; i + 16 <= width; i += 16) {
    const Floats v = mul(mul(sub(load(in + i), all(mean)), all(scale)), load(weight + i));
    store(out + i, bias ? add(v, load(bias + i)) : v);
  }
  for (; i < width; ++i) {
    out[i] = (in[i] - mean) * scale * weight[i];
    if (bias) out[i] += bias[i];
  }
}

// One scale for each group of 32 of a row, so that a row does not depend on the other rows.
static void quantize(const float* in, int width, const Activations& out, int row) {
  const int tile = row / kRowTile * kRowTile;
  const int rows = out.rows - tile < kRowTile ? out.rows - tile : kRowTile;
  GroupCodes* to = out.codes + static_cast<size_t>(tile) * out.groups + (row - tile);
  for (int group = 0; group < out.groups; ++group, to += rows) {
    Floats low = load(in + group * kGroup);
    Floats high = load(in + group * kGroup + 16);
    const int left = width - group * kGroup;
    if (left < kGroup) {
      low = keep_first(low, left < 16 ? left : 16, zeros());
      high = keep_first(high, left < 16 ? 0 : left - 16, zeros());
    }
    const float largest = max_of(max(absolute(low), absolute(high)));
    const float scale = largest / 127.0f;
    const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
    const Ints low_codes = rounded(mul(low, all(inverse)));
    const Ints high_codes = rounded(mul(high, all(inverse)));
    store_bytes(to->codes, low_codes);
    store_bytes(to->codes + 16, high_codes);
    const int32_t sum = sum_of_ints(add_ints(low_codes, high_codes));
    to->scale = scale;
    to->scaled_sum = scale * static_cast<float>(sum);
    to->correction = -128 * sum;
  }
}

// Rotary embedding of the first rotary_dim numbers of a head, pairing i with i + rotary_dim / 2.
static void rotate(float* head, const float* cos, const float* sin, int rotary_dim) {
  const int half = rotary_dim / 2;
  for (int i = 0; i < half; ++i) {
    const float a = head[i];
    const float b = head[i + half];
    head[i] = a * cos[i] - b * sin[i];
    head[i + half] = b * cos[i] + a * sin[i];
  }
}

static void softcap(float* values, int width, float cap) {
  int i = 0;
  for (; i + 16 <= width; i += 16) store(values + i, capped(load(values + i), all(cap)));
  if (i == width) return;
  float lanes[16] = {};
  __builtin_memcpy(lanes, values + i, sizeof(float) * static_cast<size_t>(width - i));
  store(lanes, capped(load(lanes), all(cap)));
  __builtin_memcpy(values + i, lanes, sizeof(float) * static_cast<size_t>(width - i));
}

// The buffers must extend to a multiple of 16.
static void gate(const float* gates, int width, float* values) {
  for (int i = 0; i < width; i += 16) {
    const Floats open = add(all(1.0f), exp_of(sub(zeros(), load(gates + i))));
    store(values + i, div(load(values + i), open));
  }
}

static void to_half(const float* in, int width, uint16_t* out) {
  for (int i = 0; i < width; i += 16) store_half(out + i, load(in + i));
}

// A code is at most half a scale from its number: scales are rounded up, so that none is cut off.
static void to_codes(const float* in, int width, int8_t* codes, uint16_t* scales) {
  for (int at = 0; at < width; at += kGroup) {
    const bool whole = at + 16 < width;
    const Floats low = load(in + at);
    const Floats high = whole ? load(in + at + 16) : zeros();
    const float largest = max_of(max(absolute(low), absolute(high)));
    const uint16_t scale = half_above(largest / kMostCode);
    const float inverse = largest > 0.0f ? 1.0f / half_to_float(scale) : 0.0f;
    store_bytes(codes + at, rounded(mul(low, all(inverse))));
    if (whole) store_bytes(codes + at + 16, rounded(mul(high, all(inverse))));
    scales[at / kGroup] = scale;
  }
}

// Finds the greatest value with vectors, then its first index.
static int arg_max(const float* in, int width) {
  Floats top = all(in[0]);
  int i = 0;
  for (; i + 16 <= width; i += 16) top = max(top, load(in + i));
  float best = max_of(top);
  for (; i < width; ++i) best = in[i] > best ? in[i] : best;
  for (int at = 0; at < width; ++at) {
    if (in[at] == best) return at;
  }
  return 0;  // all are NaN
}

}  // namespace slice::SLICE_ISA
