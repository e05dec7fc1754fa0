// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The C interface of the runner and of single kernels.

#include <algorithm>
#include <memory>
#include <new>
#include <numeric>
#include <system_error>
#include <vector>

#include "kv_page.hpp"
#include "runner.hpp"

namespace {
constexpr int kMaxThreads = 256;
constexpr int kMaxRows = 65536;
constexpr int kMaxTokens = 1 << 20;  // of slice_attend
}  // namespace

int32_t slice_abi_version(void) { return SLICE_ABI_VERSION; }

int64_t slice_page_bytes(int32_t bits, int32_t kv_heads, int32_t head_dim) {
  if (!slice::valid_bits(bits) || kv_heads < 1 || head_dim < 1) return SLICE_BAD_ARGUMENT;
  return kv_heads * slice::head_page_bytes(bits, slice::head_width(head_dim));
}

SliceRunner* slice_runner_create(const SliceModel* model, const SliceCache* cache, int32_t threads,
                                 int32_t max_rows, int32_t isa) {
  const slice::Kernels* kernels = slice::kernels_for(isa);
  if (!model || !cache || !kernels || threads < 1 || threads > kMaxThreads || max_rows < 1 ||
      max_rows > kMaxRows || !slice::valid(*model, *cache)) {
    return nullptr;
  }
  // An exception must not cross the C interface; memory or threads may run out.
  try {
    return new SliceRunner(*model, *cache, *kernels, threads, max_rows);
  } catch (const std::bad_alloc&) {
    return nullptr;
  } catch (const std::system_error&) {
    return nullptr;
  }
}

void slice_runner_destroy(SliceRunner* runner) { delete runner; }

int32_t slice_step(SliceRunner* runner, int32_t rows, const int32_t* token, const int32_t* slot,
                   const int32_t* position, int32_t outputs, const int32_t* output_row,
                   float* logits, int32_t* best_token, float* states, const int32_t* adapter,
                   const int32_t* input_row, int32_t input_rows, const float* inputs,
                   const int32_t* rope_row, const int32_t* last_seen) {
  if (!runner) return SLICE_BAD_ARGUMENT;
  return runner->step({rows, token, slot, position, outputs, output_row, logits, best_token, states,
                       adapter, input_row, input_rows, inputs, rope_row, last_seen});
}

int32_t slice_matmul(int32_t isa, const SliceMatrix* matrix, int32_t rows, const float* in,
                     float* out) {
  const slice::Kernels* kernels = slice::kernels_for(isa);
  if (!kernels || !matrix || !matrix->data || rows < 1 || !in || !out ||
      !slice::valid_shape(matrix->kind, matrix->outputs, matrix->inputs)) {
    return SLICE_BAD_ARGUMENT;
  }
  const int groups = slice::groups_of(matrix->inputs);
  const int stride = groups * slice::kGroup;
  const size_t size = static_cast<size_t>(rows) * stride;
  std::vector<float> values(size);
  for (int row = 0; row < rows; ++row) {
    const float* source = in + static_cast<size_t>(row) * matrix->inputs;
    std::copy(source, source + matrix->inputs, values.data() + static_cast<size_t>(row) * stride);
  }
  std::vector<slice::GroupCodes> codes(size / slice::kGroup);
  const slice::Activations activations{values.data(), codes.data(), stride, groups, rows};
  if (slice::is_quantized(matrix->kind)) {
    for (int row = 0; row < rows; ++row) {
      kernels->quantize(values.data() + static_cast<size_t>(row) * stride, matrix->inputs,
                        activations, row);
    }
  }
  const slice::MatmulJob job{matrix, &activations, out, matrix->outputs, matrix->outputs,
                             slice::Store::kWrite, {}};
  kernels->matmul(job, 0, slice::units_of(matrix->outputs));
  return SLICE_OK;
}

int32_t slice_rms_norm(int32_t isa, int32_t rows, int32_t width, float eps, const float* weight,
                       const float* in, float* out) {
  const slice::Kernels* kernels = slice::kernels_for(isa);
  if (!kernels || rows < 1 || width < 1 || !weight || !in || !out) return SLICE_BAD_ARGUMENT;
  for (int row = 0; row < rows; ++row) {
    const size_t at = static_cast<size_t>(row) * width;
    kernels->rms_norm(in + at, weight, eps, width, out + at);
  }
  return SLICE_OK;
}

int32_t slice_attend(int32_t isa, int32_t bits, int32_t queries, int32_t head_dim, int32_t tokens,
                     const float* query, const float* keys, const float* values, float* out) {
  const slice::Kernels* kernels = slice::kernels_for(isa);
  if (!kernels || !slice::valid_bits(bits) || queries < 1 || queries > slice::kMaxQueries ||
      head_dim < 1 || head_dim > slice::kMaxHeadWidth || tokens < 1 || tokens > kMaxTokens ||
      !query || !keys || !values || !out) {
    return SLICE_BAD_ARGUMENT;
  }
  const int width = slice::head_width(head_dim);
  const int64_t page_bytes = slice::head_page_bytes(bits, width);
  const int pages = (tokens + slice::kPage - 1) / slice::kPage;
  std::vector<uint8_t> kept(2 * page_bytes * pages);
  uint8_t* kept_values = kept.data() + page_bytes * pages;
  std::vector<float> padded(static_cast<size_t>(std::max(queries, 1)) * width);
  for (int token = 0; token < tokens; ++token) {
    const int at = token % slice::kPage;
    const int64_t page = token / slice::kPage * page_bytes;
    std::copy_n(keys + int64_t{token} * head_dim, head_dim, padded.data());
    slice::put_token(*kernels, bits, padded.data(), width, at, slice::key_place(at, width),
                     kept.data() + page);
    std::copy_n(values + int64_t{token} * head_dim, head_dim, padded.data());
    slice::put_token(*kernels, bits, padded.data(), width, at, slice::value_place(at, width),
                     kept_values + page);
  }
  std::vector<int32_t> table(pages);
  std::iota(table.begin(), table.end(), 0);
  std::vector<float> scores(static_cast<size_t>(queries) * pages * slice::kPage);
  slice::AttentionJob job{};
  job.queries = queries;
  job.width = width;
  job.head_dim = head_dim;
  job.bits = bits;
  job.keys = job.next_keys = kept.data();
  job.values = kept_values;
  job.page_stride = page_bytes;
  job.pages = table.data();
  job.scores = scores.data();
  job.score_stride = pages * slice::kPage;
  for (int q = 0; q < queries; ++q) {
    std::copy_n(query + int64_t{q} * head_dim, head_dim, padded.data() + int64_t{q} * width);
    job.query[q] = padded.data() + int64_t{q} * width;
    job.out[q] = out + int64_t{q} * head_dim;
    job.length[q] = tokens;
  }
  kernels->attend(job);
  return SLICE_OK;
}
