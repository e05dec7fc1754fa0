// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// One forward pass, phase by phase. Every member of the team runs forward(); a phase distributes
// its rows, outputs or heads over the members, and ends when all of them are done.

#include <algorithm>
#include <cstring>

#include "runner.hpp"

namespace slice {

int32_t Runner::step(const Batch& batch) {
  team_.settle();
  const int32_t error = check(batch);
  if (error != SLICE_OK) return error;
  group_rows(batch);
  find_wanted(batch);
  batch_ = batch;
  team_.run([](void* self, Member& member) { static_cast<Runner*>(self)->forward(member); }, this);
  return SLICE_OK;
}

void Runner::forward(Member& member) {
  const Batch& batch = batch_;
  const int rows = batch.rows;
  const int hidden = model_.hidden;
  Activations normed = activations(values_.get(), hidden, rows);
  Activations attended = activations(values_.get(), model_.heads * model_.head_dim, rows);
  Activations gated = activations(gated_.get(), model_.intermediate, rows);
  float* residual = hidden_.get();
  embed(member, batch);
  for (int i = 0; i < model_.layers; ++i) {
    const SliceLayer& layer = layers_[i];
    const int qkv_width = layer.qkv.outputs;
    normalize(member, layer.attention_norm, layer.qkv, nullptr, normed);
    multiply(member, layer.qkv, normed, qkv_.get(), qkv_width, qkv_width, Store::kWrite);
    rotate_and_keep(member, batch, i);
    if (i == model_.layers - 1 && wanted_.empty()) return;
    attend(member, batch, i);
    if (i == model_.layers - 1) {
      move_wanted(member, attended);
      normed.rows = attended.rows = gated.rows = static_cast<int>(wanted_.size());
    }
    quantize(member, layer.attention_out, attended);
    multiply(member, layer.attention_out, attended, residual, hidden, hidden, Store::kAdd);
    normalize(member, layer.mlp_norm, layer.gate_up, nullptr, normed);
    multiply(member, layer.gate_up, normed, gated.values, gated.value_stride, model_.intermediate,
             Store::kSwiGlu);
    quantize(member, layer.down, gated);
    multiply(member, layer.down, gated, residual, hidden, hidden, Store::kAdd);
  }
  const Activations last = activations(values_.get(), hidden, batch.outputs);
  normalize(member, model_.final_norm, model_.head, output_place_.data(), last);
  multiply(member, model_.head, last, batch.logits, model_.vocabulary, model_.vocabulary,
           Store::kWrite);
  if (batch.best_token) pick_best(member, batch);
}

void Runner::move_wanted(Member& member, const Activations& attended) {
  if (static_cast<int>(wanted_.size()) == attended.rows) return;
  const auto move = [](float* rows, int64_t stride, int64_t from, int64_t to) {
    std::copy_n(rows + from * stride, stride, rows + to * stride);
  };
  team_.share(member, 1, [&](int) {  // in order: a row that was moved is overwritten later
    for (int place = 0; place < static_cast<int>(wanted_.size()); ++place) {
      if (wanted_[place] == place) continue;
      move(hidden_.get(), model_.hidden, wanted_[place], place);
      move(attended.values, attended.value_stride, wanted_[place], place);
    }
  });
}

Activations Runner::activations(float* values, int inputs, int rows) const {
  const int groups = groups_of(inputs);
  return {values, codes_.get(), groups * kGroup, groups, rows};
}

void Runner::embed(Member& member, const Batch& batch) {
  team_.share(member, batch.rows, [&](int row) {
    unpack_row(model_.embedding, batch.token[row], hidden_.get() + int64_t{row} * model_.hidden);
  });
}

void Runner::normalize(Member& member, const float* weight, const SliceMatrix& next,
                       const int32_t* row_of, const Activations& to) {
  team_.share(member, to.rows, [&](int row) {
    const int64_t from = row_of ? row_of[row] : row;
    float* out = to.values + int64_t{row} * to.value_stride;
    kernels_.rms_norm(hidden_.get() + from * model_.hidden, weight, model_.norm_eps,
                      model_.hidden, out);
    if (is_quantized(next.kind)) kernels_.quantize(out, model_.hidden, to, row);
  });
}

void Runner::quantize(Member& member, const SliceMatrix& next, const Activations& in) {
  if (!is_quantized(next.kind)) return;
  team_.share(member, in.rows, [&](int row) {
    kernels_.quantize(in.values + int64_t{row} * in.value_stride, next.inputs, in, row);
  });
}

void Runner::multiply(Member& member, const SliceMatrix& matrix, const Activations& in, float* out,
                      int out_stride, int out_width, Store store) {
  const MatmulJob job{&matrix, &in, out, out_stride, out_width, store};
  team_.share(member, units_of(matrix.outputs),
              [&](int unit) { kernels_.matmul(job, unit, unit + 1); });
}

void* Runner::page_at(void* pool, int layer, int kv_head, int page) const {
  const int64_t numbers = (int64_t{layer} * cache_.pages * model_.kv_heads + kv_head) * page_size_;
  const int64_t size = cache_.wide ? sizeof(float) : sizeof(uint16_t);
  return static_cast<uint8_t*>(pool) + (numbers + page * page_stride()) * size;
}

void Runner::rotate_head(const float* head, const float* norm, int position, float scale,
                         float* out) {
  const int size = model_.head_dim;
  if (norm) {
    kernels_.rms_norm(head, norm, model_.norm_eps, size, out);
  } else {
    std::memcpy(out, head, sizeof(float) * size);
  }
  const int64_t row = int64_t{position} * (model_.rotary_dim / 2);
  kernels_.rotate(out, model_.rope_cos + row, model_.rope_sin + row, model_.rotary_dim);
  for (int i = 0; i < size; ++i) out[i] *= scale;
  std::fill(out + size, out + head_width_, 0.0f);
}

void Runner::rotate_and_keep(Member& member, const Batch& batch, int layer) {
  team_.share(member, batch.rows, [&](int row) {
    keep_row(layer, row, batch.slot[row], batch.position[row]);
  });
}

void Runner::keep_row(int layer, int row, int slot, int position) {
  const int size = model_.head_dim;
  const int width = head_width_;
  const SliceLayer& weights = layers_[layer];
  const float* from = qkv_.get() + int64_t{row} * weights.qkv.outputs;
  float* query = queries_.get() + int64_t{row} * model_.heads * width;
  for (int head = 0; head < model_.heads; ++head, from += size, query += width) {
    rotate_head(from, weights.query_norm, position, model_.attention_scale, query);
  }
  const int page = cache_.page_table[int64_t{slot} * cache_.pages_per_slot +
                                     position / SLICE_PAGE_TOKENS];
  if (cache_.wide) {
    keep<float>(layer, row, page, position);
  } else {
    keep<uint16_t>(layer, row, page, position);
  }
}

template <typename Number>
void Runner::keep(int layer, int row, int page, int position) {
  const int size = model_.head_dim;
  const int width = head_width_;
  const SliceLayer& weights = layers_[layer];
  const float* from = qkv_.get() + int64_t{row} * weights.qkv.outputs + model_.heads * size;
  const int token = position % SLICE_PAGE_TOKENS;
  float head_values[kMaxHeadWidth];
  const auto store = [&](Number* to) {
    if constexpr (sizeof(Number) == sizeof(float)) {
      std::memcpy(to, head_values, sizeof(float) * width);
    } else {
      kernels_.to_half(head_values, width, to);
    }
  };
  for (int head = 0; head < model_.kv_heads; ++head, from += size) {
    Number kept[kMaxHeadWidth];
    rotate_head(from, weights.key_norm, position, 1.0f, head_values);
    store(kept);
    Number* keys = static_cast<Number*>(page_at(cache_.keys, layer, head, page)) +
                   token / 16 * 16 * width + token % 16;
    for (int i = 0; i < width; ++i) keys[i * 16] = kept[i];
  }
  for (int head = 0; head < model_.kv_heads; ++head, from += size) {
    std::memcpy(head_values, from, sizeof(float) * size);
    std::fill(head_values + size, head_values + width, 0.0f);
    store(static_cast<Number*>(page_at(cache_.values, layer, head, page)) + token * width);
  }
}

void Runner::attend(Member& member, const Batch& batch, int layer) {
  float* scores = scores_.get() + int64_t{member.index} * kMaxQueries * score_stride_;
  const int kv_heads = model_.kv_heads;
  const int items = static_cast<int>(groups_.size()) * kv_heads;
  team_.share(member, items, [&](int item) {
    const int next = std::min(item + 1, items - 1);  // probably this member's too
    const void* next_keys = page_at(cache_.keys, layer, next % kv_heads,
                                    pages_of(batch, groups_[next / kv_heads])[0]);
    attend_group(batch, layer, groups_[item / kv_heads], item % kv_heads, scores, next_keys);
  });
}

const int32_t* Runner::pages_of(const Batch& batch, const RowGroup& group) const {
  return cache_.page_table + int64_t{batch.slot[group.first]} * cache_.pages_per_slot;
}

void Runner::attend_group(const Batch& batch, int layer, const RowGroup& group, int kv_head,
                          float* scores, const void* next_keys) {
  const int shared = model_.heads / model_.kv_heads;
  const Activations to = activations(values_.get(), model_.heads * model_.head_dim, batch.rows);
  AttentionJob job;
  job.width = head_width_;
  job.head_dim = model_.head_dim;
  job.wide = cache_.wide != 0;
  job.keys = page_at(cache_.keys, layer, kv_head, 0);
  job.values = page_at(cache_.values, layer, kv_head, 0);
  job.next_keys = next_keys;
  job.page_stride = page_stride();
  job.pages = pages_of(batch, group);
  job.scores = scores;
  job.score_stride = score_stride_;
  job.queries = 0;
  for (int row = group.first; row < group.first + group.rows; ++row) {
    for (int head = kv_head * shared; head < (kv_head + 1) * shared; ++head) {
      job.query[job.queries] = queries_.get() + (int64_t{row} * model_.heads + head) * head_width_;
      job.out[job.queries] = to.values + int64_t{row} * to.value_stride + head * model_.head_dim;
      job.length[job.queries] = batch.position[row] + 1;
      if (++job.queries == kMaxQueries) {
        kernels_.attend(job);
        job.queries = 0;
      }
    }
  }
  if (job.queries > 0) kernels_.attend(job);
}

void Runner::pick_best(Member& member, const Batch& batch) {
  team_.share(member, batch.outputs, [&](int row) {
    const float* logits = batch.logits + int64_t{row} * model_.vocabulary;
    batch.best_token[row] = kernels_.arg_max(logits, model_.vocabulary);
  });
}

}  // namespace slice
