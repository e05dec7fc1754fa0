// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// A model with its cache, threads and work space, all allocated once.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "kernels.hpp"
#include "layout.hpp"
#include "team.hpp"

namespace slice {

// Cache line aligned memory that lives as long as the runner.
template <typename T>
class Buffer {
 public:
  explicit Buffer(size_t count)
      : data_(static_cast<T*>(::operator new(count * sizeof(T) + 64, std::align_val_t(64)))) {}
  T* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* data) const { ::operator delete(data, std::align_val_t(64)); }
  };
  std::unique_ptr<T, Free> data_;
};

constexpr int kMaxHeadWidth = 512;
constexpr int kPhasesPerLayer = 12;  // calls of share() in a layer,
constexpr int kPhasesAround = 6;     // before, between and after the layers

// The arguments of one step.
struct Batch {
  int rows;
  const int32_t* token;
  const int32_t* slot;
  const int32_t* position;
  int outputs;
  const int32_t* output_row;
  float* logits;
  int32_t* best_token;
};

// Neighbouring rows of one slot, whose attention is one call.
struct RowGroup {
  int first;
  int rows;
};

// The widest input of the matrices of the model.
int widest_input(const SliceModel& model);
// The checks of slice_runner_create.
bool valid(const SliceModel& model, const SliceCache& cache);

class Runner {
 public:
  Runner(const SliceModel& model, const SliceCache& cache, const Kernels& kernels, int threads,
         int max_rows);

  // Returns a SliceError; nothing is computed unless it is SLICE_OK.
  int32_t step(const Batch& batch);

 private:
  using Member = Team::Member;

  int32_t check(const Batch& batch);
  bool pages_present(int slot, int position) const;
  void group_rows(const Batch& batch);
  void find_wanted(const Batch& batch);

  // The phases of a step; each is called by every member of the team.
  void forward(Member& member);
  void embed(Member& member, const Batch& batch);
  // Row i of `to` becomes the norm of hidden row row_of[i], or i where row_of is null.
  void normalize(Member& member, const float* weight, const SliceMatrix& next,
                 const int32_t* row_of, const Activations& to);
  void quantize(Member& member, const SliceMatrix& next, const Activations& in);
  // Adds the product to the residual stream: at once, or through `norm` and the residual scale by
  // way of `scratch`, [rows][hidden].
  void add_product(Member& member, const SliceMatrix& matrix, const Activations& in,
                   const float* norm, float* scratch);
  void multiply(Member& member, const SliceMatrix& matrix, const Activations& in, float* out,
                int out_stride, int out_width, Store store);
  void rotate_and_keep(Member& member, const Batch& batch, int layer);
  void attend(Member& member, const Batch& batch, int layer);
  // Moves the residual and the attention output of the wanted rows to the front. After the keys
  // and values of the last layer are stored, the other rows are not needed.
  void move_wanted(Member& member, const Activations& attended);
  void cap_logits(Member& member, const Batch& batch);
  void pick_best(Member& member, const Batch& batch);

  // The work of a phase on one row or one item.
  void keep_row(int layer, int row, int slot, int position);
  // Stores keys and values of a row. Number is that of the cache: uint16_t (16 bit float) or
  // float.
  template <typename Number>
  void keep(int layer, int row, int page, int position);
  void norm_jointly(const SliceLayer& layer, float* qkv);
  void rotate_head(const float* head, const float* norm, int rope, int position, float scale,
                   float* out);
  void attend_group(const Batch& batch, int layer, const RowGroup& group, int kv_head,
                    float* scores, const void* next_keys);
  const int32_t* pages_of(const Batch& batch, const RowGroup& group) const;
  int64_t page_stride() const { return model_.kv_heads * page_size_; }
  // The part of a kv head in a page, in the keys or values of a layer.
  void* page_at(void* pool, int layer, int kv_head, int page) const;
  // Activations with `inputs` columns, in one of the value buffers and the common codes.
  Activations activations(float* values, int inputs, int rows) const;

  SliceModel model_;
  std::vector<SliceLayer> layers_;
  const SliceCache cache_;
  const Kernels& kernels_;
  const int max_rows_;
  const int head_width_;     // head_dim rounded up to 16
  const int widest_;         // the widest input, rounded up to a group
  const int score_stride_;
  const int64_t page_size_;  // elements of one kv head's page

  Buffer<float> hidden_;    // [rows][hidden]: the residual stream
  Buffer<float> values_;    // [rows][inputs]: output of a norm, of attention or of the MLP
  Buffer<float> gated_;     // [rows][inputs]: gated values, or what attention adds
  Buffer<GroupCodes> codes_;  // [rows][groups]: input of the next matrix in 8 bits
  Buffer<float> qkv_;       // [rows][qkv outputs]
  Buffer<float> queries_;   // [rows][heads][head_width]
  Buffer<float> scores_;    // [threads][kMaxQueries][score_stride]
  Batch batch_{};
  std::vector<RowGroup> groups_;
  std::vector<int32_t> wanted_;        // rows whose logits are wanted, each once, in order
  std::vector<int32_t> output_place_;  // index in wanted_ of each output's row
  std::vector<uint64_t> slot_seen_;  // number of the last step of each slot
  uint64_t steps_ = 0;
  Team team_;  // last member: its threads end before what they read is freed
};

}  // namespace slice

struct SliceRunner : slice::Runner {
  using slice::Runner::Runner;
};
