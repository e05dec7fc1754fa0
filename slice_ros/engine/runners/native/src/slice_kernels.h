// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The C interface of the native engine: plain data pointers, no torch, no Python.
//
// The Python loader (library.py) mirrors these structures with ctypes. When you change a
// structure, a signature or a packed layout, raise SLICE_ABI_VERSION here and ABI_VERSION there: a
// stale library is then refused at load instead of reading wrong memory. A library without one of
// the functions is refused too.
#pragma once

#include <stdint.h>

#define SLICE_ABI_VERSION 15
#define SLICE_PAGE_TOKENS 32
#define SLICE_EXPORT extern "C" __attribute__((visibility("default")))

// How the weights of a matrix are stored. Q8: signed 8 bit codes, one scale for each 32 inputs.
// Q4: unsigned 4 bit codes, a scale and a minimum for each 32 inputs (lossless for GGUF's Q4_1,
// Q4_0).
enum SliceKind { SLICE_F32 = 0, SLICE_F16 = 1, SLICE_BF16 = 2, SLICE_Q8 = 3, SLICE_Q4 = 4 };

enum SliceIsa {
  SLICE_BEST = -1,
  SLICE_GENERIC = 0,
  SLICE_AVX2 = 1,
  SLICE_AVX512 = 2,
  SLICE_DOTPROD = 3,
  SLICE_AVXVNNI = 4,
  SLICE_I8MM = 5,
};

// Results of a call: 0, or an error; after an error nothing was computed.
enum SliceError {
  SLICE_OK = 0,
  SLICE_BAD_ARGUMENT = -1,
  SLICE_BAD_TOKEN = -2,
  SLICE_BAD_SLOT = -3,
  SLICE_BAD_POSITION = -4,
  SLICE_BAD_PAGE = -5,
  SLICE_TOO_MANY_ROWS = -6,
};

// y = W x + bias; W has `outputs` rows of `inputs` columns, packed by slice_pack_*.
struct SliceMatrix {
  const void* data;   // 64 byte aligned, slice_packed_bytes() long
  const float* bias;  // [outputs], or null
  int32_t kind;
  int32_t outputs;
  int32_t inputs;
  int32_t reserved;
};

// What the gate of the MLP goes through. GELU: its tanh approximation. RELU2: there is no gate,
// and what is above zero is squared. CLAMPED: a gate of at most `gate_limit` times
// sigmoid(gate_scale * gate), and 1 is added to the other values, which are within the limit too.
enum SliceActivation { SLICE_SILU = 0, SLICE_GELU = 1, SLICE_RELU2 = 2, SLICE_CLAMPED = 3 };

// LAYER: the mean is subtracted first. BIASED: a LAYER norm whose weights are followed by as many
// biases.
enum SliceNorm { SLICE_RMS = 0, SLICE_LAYER = 1, SLICE_LAYER_BIASED = 2 };

// One of the experts of a layer, an MLP of `expert_intermediate`.
struct SliceExpert {
  SliceMatrix gate_up;  // as in SliceLayer
  SliceMatrix down;
};

// A mixer that keeps a state of each slot, by the gated delta rule. Dimensions are multiples of 32.
struct SliceDelta {
  SliceMatrix in;     // queries, keys, values, gates of the output: [.. + value_heads * value_dim]
  SliceMatrix rates;  // F32: the strength of each value head, then its decay
  const float* conv;  // [taps][queries, keys and values]: the last tap is the token's own
  const float* decay; // [value_heads], negative: multiplied by softplus(rate + bias)
  const float* bias;  // [value_heads]
  const float* norm;  // [value_dim]
  int32_t key_heads;
  int32_t value_heads;
  int32_t key_dim;
  int32_t value_dim;
  int32_t taps;
  int32_t reserved;
};

// A mixer that keeps the last inputs of a convolution: c * sum over the taps of weight * (b * x).
struct SliceShortConv {
  SliceMatrix in;     // b, c and x: [3 * hidden]
  const float* conv;  // [taps][hidden]: the last tap is the token's own
  int32_t taps;
  int32_t reserved;
};

// A mixer that keeps a state of each slot, the state space of Mamba-2. Dimensions of heads, and
// states, are multiples of 16.
struct SliceMamba {
  SliceMatrix in;     // gates [heads * head_dim], then the channels: values, and B and C of groups
  SliceMatrix rates;  // F32: of each head
  SliceMatrix out;    // [hidden]
  const float* conv;       // [taps][channels]: the last tap is the token's own
  const float* conv_bias;  // [channels], or null
  const float* decay;      // [heads], negative: multiplied by the time step
  const float* bias;       // [heads]: the time step is softplus(rate + bias), within its limits
  const float* skip;       // [heads]: of the values, added to the output
  const float* norm;       // [heads * head_dim], or null
  float least_step;
  float most_step;
  int32_t heads;
  int32_t head_dim;
  int32_t groups;      // of heads, with one B and C each
  int32_t state;       // numbers of each value of a head
  int32_t taps;
  int32_t norm_parts;  // of the output, each with a norm of its own
  int32_t norm_first;  // the norm comes before the gates, else behind
  int32_t reserved;
};

// Norms are of the kind `norm` of the model, those of queries and keys RMS norms unless norms_of_heads;
// each may be null.
// Attention and MLP add residual_scale * out_norm(part(norm(h))) to h, one after the other, or both to
// the same h.
struct SliceLayer {
  const float* attention_norm;      // [hidden]
  const float* attention_out_norm;  // [hidden]
  const float* mlp_norm;            // [hidden]
  const float* mlp_out_norm;        // [hidden]
  // [head_dim]; [heads * head_dim] and [kv_heads * head_dim] if joint_norms or norms_of_heads
  const float* query_norm;
  const float* key_norm;
  int32_t rope;                     // 0 .. ropes - 1; -1: positions are not marked
  int32_t window;                   // tokens that a token attends to, with itself; 0: all
  // Null data: no attention, and no keys and values.
  SliceMatrix qkv;  // query heads, key heads, value heads; if gated_attention, a gate of each query
  SliceMatrix attention_out;
  SliceMatrix gate_up;  // blocks of 16 gate outputs and 16 up outputs in turn, zero padded; the up
                        // outputs alone where there is no gate
  SliceMatrix down;     // null data of both: no MLP
  // Each token goes through some experts; where gate_up has data, beside an MLP of any width that all
  // tokens go through.
  const SliceExpert* expert;  // [experts], all of the same kinds; or null
  // [experts][hidden], F32: the scores of a token, through a softmax, or sigmoids. The sigmoid of one
  // more output multiplies the MLP beside the experts.
  SliceMatrix router;
  const float* choice_bias;  // [experts], or null: added to scores to find the highest, and only then
  // In place of attention, through attention_out; or null.
  const SliceDelta* delta;
  const SliceShortConv* short_conv;  // the same
  const SliceMamba* mamba;  // in place of attention or beside it; or null
  // [heads], or null: the softmax of a head's scores has one more term, which no value belongs to.
  const float* sinks;
};

// What an adapter (LoRA) adds to the product of a matrix: up (down x). Null data of `down`:
// nothing. The outputs of `down` are the factors; each block of 16 outputs of the matrix uses some
// of them, all those of a matrix of the file that is a part of this one.
struct SliceLowRank {
  SliceMatrix down;      // F32 or F16, without a bias
  const void* up;        // of each block: [factors][16 outputs]; in the kind of `down`
  const int32_t* block;  // of each: first factor, number of factors, vectors in front in `up`
};

// The matrices of a layer that an adapter may add to, in the order of SliceLayer.
#define SLICE_ADAPTED 4

struct SliceModel {
  const SliceLayer* layer;   // [layers]
  const float* final_norm;   // [hidden]
  const float* rope_cos;     // [ropes][positions][rotary_dim / 2]
  const float* rope_sin;     // [ropes][positions][rotary_dim / 2]
  const float* query_scale;  // [positions], beside attention_scale; or null
  SliceMatrix embedding;     // [vocabulary][hidden]; the same as head if they are tied
  SliceMatrix head;          // [vocabulary][hidden]
  const SliceLowRank* low_rank;  // [layers][SLICE_ADAPTED][adapters]
  int32_t layers;
  int32_t hidden;
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim;
  int32_t rotary_dim;
  int32_t intermediate;
  int32_t vocabulary;
  int32_t positions;
  int32_t ropes;
  int32_t activation;
  int32_t adapters;
  int32_t experts;          // of a layer that has some
  int32_t chosen_experts;   // those of a token: the ones with the highest scores
  int32_t expert_intermediate;
  int32_t share_scores;     // the scores of the chosen ones are divided by their sum
  int32_t sigmoid_scores;   // scores are sigmoids, else a softmax
  int32_t gated_attention;  // its output is multiplied by the sigmoid of the gates
  int32_t joint_norms;      // queries and keys are normed over all heads together, else each head
  int32_t norms_of_heads;     // each head of queries and keys has a LAYER norm with its own weights
  int32_t norms_behind_rope;  // those of each head of queries and keys, else in front of it
  int32_t norm;
  int32_t parallel;           // attention and MLP add to the same residual
  int32_t input_levels;     // of the first so many layers, what an input adds to the output
  float norm_eps;
  float attention_scale;    // usually 1 / sqrt(head_dim)
  float attention_softcap;  // x becomes cap * tanh(x / cap); 0: as it is
  float logit_softcap;
  float embedding_scale;
  float residual_scale;
  float gate_scale;
  float gate_limit;
  float expert_scale;       // of what the chosen experts add
};

// Keys and values in 16 or 32 bit floats, or in signed 8 bit codes, in pages of SLICE_PAGE_TOKENS
// tokens. The page table has the pages of each slot: short requests take few, and a shared prefix is
// stored once. With width = head_dim rounded up to 16:
//   keys   [layer][page][kv_head][page_tokens / 16][width][16 tokens]
//   values [layer][page][kv_head][page_tokens][width]
// Behind the codes of a kv head there are 16 bit scales, one for each 32 numbers of a token:
// [width / 32, rounded up][page_tokens]. A number is its code times its scale.
struct SliceCache {
  void* keys;
  void* values;
  const int32_t* page_table;  // [slots][pages_per_slot]; -1 = no page yet
  int32_t slots;
  int32_t pages_per_slot;
  int32_t pages;
  int32_t bits;  // 8, 16 or 32
  // Of layers that keep a state, [such layers][slots][the last taps - 1 inputs of the convolution,
  // then the states: [value_heads][key_dim][value_dim] of a delta rule, [heads][state][head_dim] of
  // Mamba-2]; null without. The pools above have none of the layers without attention.
  float* states;
};

struct SliceRunner;  // threads and work space of one model

SLICE_EXPORT int32_t slice_abi_version(void);
// The best instruction set of this machine, or `wanted` if this machine has it, else -1.
SLICE_EXPORT int32_t slice_isa(int32_t wanted);
SLICE_EXPORT const char* slice_isa_name(int32_t isa);

SLICE_EXPORT int64_t slice_packed_bytes(int32_t kind, int32_t outputs, int32_t inputs);
// Packs rows of fp32 weights [outputs][inputs]; quantises them when kind is Q8 or Q4.
SLICE_EXPORT int32_t slice_pack_floats(int32_t kind, int32_t outputs, int32_t inputs,
                                       const float* weights, void* packed);
// Packs ready codes [outputs][inputs] (Q8: code + 128) with fp16 scales and, for Q4, minimums
// [outputs][inputs / 32]; inputs must be a multiple of 32.
SLICE_EXPORT int32_t slice_pack_codes(int32_t kind, int32_t outputs, int32_t inputs,
                                      const uint8_t* codes, const uint16_t* scales,
                                      const uint16_t* minimums, void* packed);
// Weights of a GGUF file, in blocks of a type of ggml, as slice_pack_codes takes them. Types
// without integer codes and one scale for each 32 weights are rounded to Q8. `grid` has the points
// of types that have one, else null; `minimums` may be null for Q8. Numbers that are not finite
// stay such.
SLICE_EXPORT int32_t slice_gguf_codes(int32_t type, int64_t weights, const uint8_t* data,
                                      const int8_t* grid, uint8_t* codes, uint16_t* scales,
                                      uint16_t* minimums);
// The same as fp32, exactly.
SLICE_EXPORT int32_t slice_gguf_floats(int32_t type, int64_t weights, const uint8_t* data,
                                       const int8_t* grid, float* out);
// One row of W as fp32 [inputs]: an embedding, or for tests.
SLICE_EXPORT int32_t slice_unpack_row(const SliceMatrix* matrix, int32_t row, float* out);

// Bytes of the keys, or of the values, of a page in one layer; `bits` as in SliceCache.
SLICE_EXPORT int64_t slice_page_bytes(int32_t bits, int32_t kv_heads, int32_t head_dim);
// The model and cache structures are copied; the memory they point to stays the caller's.
// Null when an argument is out of range.
SLICE_EXPORT SliceRunner* slice_runner_create(const SliceModel* model, const SliceCache* cache,
                                              int32_t threads, int32_t max_rows, int32_t isa);
SLICE_EXPORT void slice_runner_destroy(SliceRunner* runner);

// One forward pass of `rows` tokens: row i is token[i] of slot[i] at position[i]. Rows of one slot
// must be neighbours, with consecutive positions. Writes logits [outputs][vocabulary] of the rows
// in output_row and, if best_token is not null, the index of the largest logit of each. If states is
// not null, the input of the head of every row is written there, [rows][hidden]. Row i is computed
// with adapter[i]; -1, or a null pointer: with none. Where input_row[i] is not -1, inputs [input_rows]
// [1 + input_levels][hidden] has what the row begins with instead of the embedding of its token, and
// what is added behind the first layers; null pointers: nowhere. rope_row[i] is the position of the
// rotary tables that row i is turned by; null: its own. Row i attends to positions up to
// last_seen[i], of a row of its slot in this step; null: to its own.
SLICE_EXPORT int32_t slice_step(SliceRunner* runner, int32_t rows, const int32_t* token,
                                const int32_t* slot, const int32_t* position, int32_t outputs,
                                const int32_t* output_row, float* logits, int32_t* best_token,
                                float* states, const int32_t* adapter, const int32_t* input_row,
                                int32_t input_rows, const float* inputs,
                                const int32_t* rope_row, const int32_t* last_seen);

// Single operators, for tests and measurements.
SLICE_EXPORT int32_t slice_matmul(int32_t isa, const SliceMatrix* matrix, int32_t rows,
                                  const float* in, float* out);
SLICE_EXPORT int32_t slice_rms_norm(int32_t isa, int32_t rows, int32_t width, float eps,
                                    const float* weight, const float* in, float* out);

// Attention of queries [queries][head_dim] over all of the keys and values [tokens][head_dim] of one
// kv head, stored with `bits` as in SliceCache. The dot products are not scaled.
SLICE_EXPORT int32_t slice_attend(int32_t isa, int32_t bits, int32_t queries, int32_t head_dim,
                                  int32_t tokens, const float* query, const float* keys,
                                  const float* values, float* out);

// Limits of this machine with so many threads, or a SliceError. Multiply-adds a second of the
// instructions that an instruction set uses for weights of `kind`, from registers:
SLICE_EXPORT int64_t slice_peak(int32_t isa, int32_t kind, int32_t threads);
// Bytes a second that are read from `data`, in the way of the matmul.
SLICE_EXPORT int64_t slice_read_rate(int32_t isa, int32_t threads, const uint8_t* data,
                                     int64_t bytes);
