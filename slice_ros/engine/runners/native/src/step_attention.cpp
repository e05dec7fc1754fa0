// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The phases of a step between the projections of attention: keys and values go to their pages,
// and queries attend to them.

#include <algorithm>
#include <cstring>

#include "runner.hpp"

namespace slice {

void* Runner::page_at(void* pool, int layer, int kv_head, int page) const {
  const int64_t first = int64_t{key_layer_[layer]} * cache_.pages * model_.kv_heads + kv_head;
  return static_cast<uint8_t*>(pool) + first * page_bytes_ + page * page_stride();
}

void Runner::norm_jointly(const SliceLayer& layer, float* qkv) {
  const int queries = model_.heads * model_.head_dim;
  kernels_.rms_norm(qkv, layer.query_norm, model_.norm_eps, queries, qkv);
  kernels_.rms_norm(qkv + queries, layer.key_norm, model_.norm_eps,
                    model_.kv_heads * model_.head_dim, qkv + queries);
}

const float* Runner::norm_of_head(const float* norms, int head) const {
  if (!norms || model_.joint_norms) return nullptr;
  return model_.norms_of_heads ? norms + int64_t{head} * model_.head_dim : norms;
}

void Runner::norm_head(const float* in, const float* weight, float* out) const {
  const int size = model_.head_dim;
  if (model_.norms_of_heads) {
    return kernels_.layer_norm(in, weight, nullptr, model_.norm_eps, size, out);
  }
  kernels_.rms_norm(in, weight, model_.norm_eps, size, out);
}

void Runner::rotate_head(const float* head, const float* norm, int rope, int rope_row, float scale,
                         float* out) {
  const int size = model_.head_dim;
  const float* norm_behind = model_.norms_behind_rope ? norm : nullptr;
  if (norm && !norm_behind) {
    norm_head(head, norm, out);
  } else {
    std::memcpy(out, head, sizeof(float) * size);
  }
  if (rope >= 0) {
    const int64_t at = (int64_t{rope} * model_.positions + rope_row) * (model_.rotary_dim / 2);
    kernels_.rotate(out, model_.rope_cos + at, model_.rope_sin + at, model_.rotary_dim);
  }
  if (norm_behind) norm_head(out, norm_behind, out);
  for (int i = 0; i < size; ++i) out[i] *= scale;
  std::fill(out + size, out + head_width_, 0.0f);
}

void Runner::rotate_and_keep(Member& member, const Batch& batch, int layer) {
  team_.share(member, batch.rows, [&](int row) { keep_row(batch, layer, row); });
}

void Runner::keep_row(const Batch& batch, int layer, int row) {
  const int slot = batch.slot[row];
  const int position = batch.position[row];
  const int rope_row = batch.rope_row ? batch.rope_row[row] : position;
  const int size = model_.head_dim;
  const int width = head_width_;
  const SliceLayer& weights = layers_[layer];
  float* qkv = qkv_.get() + int64_t{row} * weights.qkv.outputs;
  if (model_.joint_norms) norm_jointly(weights, qkv);
  const float* from = qkv;
  float* query = queries_.get() + int64_t{row} * model_.heads * width;
  const float scale =
      model_.attention_scale * (model_.query_scale ? model_.query_scale[position] : 1.0f);
  for (int head = 0; head < model_.heads; ++head, from += size, query += width) {
    rotate_head(from, norm_of_head(weights.query_norm, head), weights.rope, rope_row, scale, query);
  }
  const int page = cache_.page_table[int64_t{slot} * cache_.pages_per_slot +
                                     position / SLICE_PAGE_TOKENS];
  keep(layer, row, page, position, rope_row);
}

void Runner::keep(int layer, int row, int page, int position, int rope_row) {
  const int size = model_.head_dim;
  const int width = head_width_;
  const SliceLayer& weights = layers_[layer];
  const float* from = qkv_.get() + int64_t{row} * weights.qkv.outputs + model_.heads * size;
  const int token = position % SLICE_PAGE_TOKENS;
  float numbers[kMaxHeadWidth];
  const auto put = [&](void* pool, int head, const Place& place) {
    put_token(kernels_, cache_.bits, numbers, width, token, place,
              page_at(pool, layer, head, page));
  };
  for (int head = 0; head < model_.kv_heads; ++head, from += size) {
    rotate_head(from, norm_of_head(weights.key_norm, head), weights.rope, rope_row, 1.0f, numbers);
    put(cache_.keys, head, key_place(token, width));
  }
  for (int head = 0; head < model_.kv_heads; ++head, from += size) {
    std::memcpy(numbers, from, sizeof(float) * size);
    std::fill(numbers + size, numbers + width, 0.0f);
    put(cache_.values, head, value_place(token, width));
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
  if (!model_.gated_attention) return;
  const int width = model_.heads * model_.head_dim;
  const int stride = layers_[layer].qkv.outputs;
  const Activations to = activations(values_.get(), width, batch.rows);
  team_.share(member, batch.rows, [&](int row) {
    kernels_.gate(qkv_.get() + int64_t{row + 1} * stride - width, width,
                  to.values + int64_t{row} * to.value_stride);
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
  job.bits = cache_.bits;
  job.keys = page_at(cache_.keys, layer, kv_head, 0);
  job.values = page_at(cache_.values, layer, kv_head, 0);
  job.next_keys = next_keys;
  job.page_stride = page_stride();
  // Whole pages in front of the window of the first row are left out.
  const int window = layers_[layer].window;
  const int first_token = window ? std::max(batch.position[group.first] + 1 - window, 0) : 0;
  const int left_out = first_token / SLICE_PAGE_TOKENS * SLICE_PAGE_TOKENS;
  job.pages = pages_of(batch, group) + left_out / SLICE_PAGE_TOKENS;
  job.softcap = model_.attention_softcap;
  job.scores = scores;
  job.score_stride = score_stride_;
  const float* sinks = layers_[layer].sinks;
  job.sinks = sinks != nullptr;
  job.queries = 0;
  for (int row = group.first; row < group.first + group.rows; ++row) {
    for (int head = kv_head * shared; head < (kv_head + 1) * shared; ++head) {
      job.query[job.queries] = queries_.get() + (int64_t{row} * model_.heads + head) * head_width_;
      job.out[job.queries] = to.values + int64_t{row} * to.value_stride + head * model_.head_dim;
      const int length = (batch.last_seen ? batch.last_seen[row] : batch.position[row]) + 1;
      const int begin = window ? std::max(batch.position[row] + 1 - window, 0) : left_out;
      job.begin[job.queries] = begin - left_out;
      job.length[job.queries] = length - left_out;
      job.sink[job.queries] = sinks ? sinks[head] : 0.0f;
      if (++job.queries == kMaxQueries) {
        kernels_.attend(job);
        job.queries = 0;
      }
    }
  }
  if (job.queries > 0) kernels_.attend(job);
}

}  // namespace slice
