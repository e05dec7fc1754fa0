// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The keys, or the values, of one kv head in a page: see SliceCache.
#pragma once

#include <cstring>

#include "kernels.hpp"
#include "layout.hpp"

namespace slice {

constexpr int kMaxHeadWidth = 512;
constexpr int kPage = SLICE_PAGE_TOKENS;

static inline int head_width(int head_dim) {
  return static_cast<int>(round_up(static_cast<size_t>(head_dim), kBlock));
}

static inline bool valid_bits(int bits) { return bits == 8 || bits == 16 || bits == 32; }

// Bytes of the numbers, behind which are the scales of 8 bit codes: [groups][page_tokens].
static inline int64_t number_bytes(int bits, int width) { return int64_t{kPage} * width * bits / 8; }

static inline int64_t head_page_bytes(int bits, int width) {
  const int64_t scales = bits == 8 ? int64_t{groups_of(width)} * kPage : 0;
  return number_bytes(bits, width) + scales * static_cast<int64_t>(sizeof(uint16_t));
}

// Where the numbers of a token are, and how many numbers stand from one of them to the next.
struct Place {
  int first;
  int stride;
};
static inline Place key_place(int token, int width) {
  return {token / kBlock * kBlock * width + token % kBlock, kBlock};
}
static inline Place value_place(int token, int width) { return {token * width, 1}; }

template <typename Number>
static void put_numbers(const Number* numbers, int width, const Place& place, void* page) {
  Number* to = static_cast<Number*>(page) + place.first;
  for (int i = 0; i < width; ++i) to[i * place.stride] = numbers[i];
}

// Stores the numbers of a token, zero padded to `width`, in the page.
static inline void put_token(const Kernels& kernels, int bits, const float* numbers, int width,
                             int token, const Place& place, void* page) {
  if (bits == 32) return put_numbers(numbers, width, place, page);
  if (bits == 16) {
    uint16_t halves[kMaxHeadWidth];
    kernels.to_half(numbers, width, halves);
    return put_numbers(halves, width, place, page);
  }
  int8_t codes[kMaxHeadWidth];
  uint16_t scales[kMaxHeadWidth / kGroup];
  kernels.to_codes(numbers, width, codes, scales);
  put_numbers(codes, width, place, page);
  auto* kept = reinterpret_cast<uint16_t*>(static_cast<uint8_t*>(page) + number_bytes(bits, width));
  for (int group = 0; group < groups_of(width); ++group) kept[group * kPage + token] = scales[group];
}

}  // namespace slice
