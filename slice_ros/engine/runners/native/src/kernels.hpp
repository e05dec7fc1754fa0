// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The table of kernels that each instruction set provides, and their arguments.
#pragma once

#include <cstdint>

#include "layout.hpp"
#include "slice_kernels.h"

namespace slice {

constexpr int kMaxQueries = 8;  // queries of one attention call

// 32 activations of a row in 8 bits: value = scale * code.
struct alignas(16) GroupCodes {
  int8_t codes[kGroup];
  float scale;
  float scaled_sum;    // scale times the sum of the codes, for Q4's minimums
  int32_t correction;  // -128 times the sum of the codes, for Q8's offset
};

// Rows of activations as a matrix of `kind` reads them: fp32 values, or 8 bit codes.
struct Activations {
  float* values;      // [rows][value_stride]
  GroupCodes* codes;  // of each tile of kRowTile rows (the last may have fewer): [groups][rows]
  int value_stride;
  int groups;
  int rows;
};

enum class Store { kWrite, kAdd, kSwiGlu, kGeGlu, kClamped, kSquaredRelu };
constexpr bool is_gated(Store store) {
  return store == Store::kSwiGlu || store == Store::kGeGlu || store == Store::kClamped;
}

// The rows of a matmul that adapters add to: those with an adapter of 0 or more.
struct AdaptedRows {
  const int32_t* adapter;      // of each row; null: there are none
  const SliceLowRank* part;    // of each adapter, for this matrix
  const float* factors;        // of each row: down in
  int stride;                  // of the factors
};

// out = store(W in + bias + what adapters add). kSwiGlu, kGeGlu, kClamped: block 2j of W gates block
// 2j + 1, and out gets silu(gate) * up, gelu(gate) * up, or what SLICE_CLAMPED says. kSquaredRelu: out gets
// the squares of what is above zero.
struct MatmulJob {
  const SliceMatrix* matrix;
  const Activations* in;
  float* out;
  int out_stride;
  int out_width;  // columns of out
  Store store;
  AdaptedRows adapted;
  float gate_scale = 1.0f;  // of kClamped
  float gate_limit = 0.0f;
};

// Up to kMaxQueries queries over the keys and values of one slot and one kv head.
struct AttentionJob {
  const float* query[kMaxQueries];  // [width], scaled, zero padded
  float* out[kMaxQueries];          // [head_dim]
  int begin[kMaxQueries];           // tokens [begin, length) are those that the query attends to
  int length[kMaxQueries];
  float sink[kMaxQueries];          // if sinks: a score without a value
  bool sinks;
  int queries;
  int width;     // head_dim rounded up to 16
  int head_dim;
  float softcap;           // of scores; 0: none
  int bits;                // of a number in a page: SliceCache
  const void* keys;        // of page 0, this layer and kv head
  const void* values;
  const void* next_keys;   // a page that will be read after this call
  int64_t page_stride;     // bytes from page to page
  const int32_t* pages;    // of the slot
  float* scores;           // [queries][score_stride] scratch
  int score_stride;        // at least the greatest length, rounded up to a page
};

constexpr int kMaxDeltaDim = 512;  // of a key or value of a delta rule
constexpr int kMaxMambaDim = 1024;  // of a head or a state of a state space
constexpr int kMaxTaps = 16;       // of a convolution

// The rows of one slot in one layer with a delta rule, for one key head.
struct DeltaJob {
  const SliceDelta* delta;
  const float* in;     // [rows][in_stride]: queries, keys and values, then gates
  const float* rates;  // [rows][2 value_heads]
  float* inputs;       // [taps - 1][channels]: the last ones of before
  float* state;        // of the value heads of this key head
  float* out;          // [rows][out_stride]
  float norm_eps;
  int in_stride;
  int out_stride;
  int channels;  // of the convolution: queries, keys and values
  int head;
  int rows;
};

// The rows of one slot in one layer with a state space.
struct MambaJob {
  const SliceMamba* mamba;
  float* in;           // [rows][in_stride]: gates, then channels, which the convolution replaces
  const float* rates;  // [rows][heads]
  float* inputs;       // [taps - 1][channels]: the last ones of before
  float* state;        // [heads][state][head_dim]
  float* out;          // [rows][out_stride]
  float norm_eps;
  int in_stride;
  int out_stride;
  int channels;  // of the convolution: values, B and C
  int rows;
};

struct Kernels {
  // Computes units [first, last) of 32 outputs. The sum of an output runs over the inputs in one
  // fixed order. So its bits depend neither on the other rows of the batch nor on the thread.
  void (*matmul)(const MatmulJob& job, int first, int last);
  void (*rms_norm)(const float* in, const float* weight, float eps, int width, float* out);
  // `bias` may be null.
  void (*layer_norm)(const float* in, const float* weight, const float* bias, float eps, int width,
                     float* out);
  // The buffer of `in` must extend to a multiple of 32; numbers beyond width count as zeros.
  void (*quantize)(const float* in, int width, const Activations& out, int row);
  void (*rotate)(float* head, const float* cos, const float* sin, int rotary_dim);
  void (*to_half)(const float* in, int width, uint16_t* out);  // width a multiple of 16
  // The same in 8 bits: codes from -127 to 127, and a 16 bit scale for each 32 of them.
  void (*to_codes)(const float* in, int width, int8_t* codes, uint16_t* scales);
  void (*attend)(const AttentionJob& job);
  void (*softcap)(float* values, int width, float cap);  // cap * tanh(value / cap)
  void (*delta_rule)(const DeltaJob& job);
  // The three parts of a state space, in order: `count` channels, a multiple of 16; one head; and
  // one row of the output of all heads.
  void (*mamba_convolve)(const MambaJob& job, int channel, int count);
  void (*mamba_advance)(const MambaJob& job, int head);
  void (*mamba_gate)(const MambaJob& job, int row);
  void (*gate)(const float* gates, int width, float* values);  // values *= sigmoid(gates)
  int (*arg_max)(const float* in, int width);  // the first of several equal ones
  // For measurements of limits. The multiply-adds of the matmul of `kind` with all operands in
  // registers, those of 64 bytes of ones; returns how many it did.
  int64_t (*multiply)(int kind, const uint8_t* operands, int rounds);
  void (*read)(const uint8_t* data, int64_t bytes);  // a multiple of 64, as matmul reads weights
};

// Null if the library was built for another kind of processor.
const Kernels* generic_kernels();
const Kernels* avx2_kernels();
const Kernels* avxvnni_kernels();
const Kernels* avx512_kernels();
const Kernels* dotprod_kernels();
const Kernels* i8mm_kernels();

// The kernels of an instruction set, or of the best one for SLICE_BEST; null if this machine lacks
// it.
const Kernels* kernels_for(int isa);

void unpack_row(const SliceMatrix& matrix, int row, float* out);

}  // namespace slice
