// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// A model with its cache, threads and work space, all allocated once.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "kernels.hpp"
#include "kv_page.hpp"
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

constexpr int kMaxExperts = 1024;  // of a layer
constexpr int kRunRows = 8;  // of a run of an adapter: so many share its reading, others the threads
constexpr int kPhasesPerLayer = 25;  // calls of share() in a layer,
constexpr int kPhasesOfSpace = 10;   // more with a state space,
constexpr int kPhasesAround = 6;     // and before, between and after the layers

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
  float* states;  // of all rows, or null
  const int32_t* adapter;  // of all rows, or null
  const int32_t* input_row;  // of all rows, or null; -1: the row begins with its token's embedding
  int32_t input_rows;
  const float* inputs;  // [input_rows][1 + input_levels][hidden]
  const int32_t* rope_row;  // of all rows, or null: their positions
  const int32_t* last_seen;  // of all rows, or null: their positions
};

// Neighbouring rows with one adapter, whose factors are computed together.
struct AdapterRun {
  int first;
  int rows;
  int adapter;
};

// The rows that the layers compute, and their adapters; no run where none has one.
struct Adapters {
  std::vector<int32_t> of_row;
  std::vector<AdapterRun> runs;
};

// Rows of the inputs of experts that go through one expert.
struct ExpertRun {
  int expert;
  int first;
  int rows;
};

// Which experts the rows of a step go through in one layer: each row has `chosen_experts` choices,
// and each choice a place among the inputs of the experts, which are sorted by expert. Each layer
// has its own, since a late thread may still read that of the layer before.
struct Routing {
  std::vector<int32_t> expert;  // [rows][chosen]
  std::vector<float> weight;    // [rows][chosen]
  std::vector<int32_t> place;   // [rows][chosen]
  std::vector<int32_t> row;     // of each place
  std::vector<int32_t> run;     // of each place
  std::vector<ExpertRun> runs;
};

// Neighbouring rows of one slot, whose attention is one call.
struct RowGroup {
  int first;
  int rows;
};

// The input of what mixes tokens in a layer, but for a state space; whether it keeps keys and
// values, or a state.
inline const SliceMatrix& mixer_input(const SliceLayer& layer) {
  return layer.delta ? layer.delta->in : layer.short_conv ? layer.short_conv->in : layer.qkv;
}
inline bool attends(const SliceLayer& layer) { return layer.qkv.data != nullptr; }
inline bool recurrent(const SliceLayer& layer) {
  return layer.delta || layer.short_conv || layer.mamba;
}
// The channels of the convolution of a delta rule, and the numbers of its state.
int delta_channels(const SliceDelta& delta);
int64_t delta_numbers(const SliceDelta& delta);
// The same of a state space.
int mamba_channels(const SliceMamba& mamba);
int64_t mamba_numbers(const SliceMamba& mamba);

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
  void find_adapters(const Batch& batch);

  // The phases of a step; each is called by every member of the team.
  void forward(Member& member);
  void embed(Member& member, const Batch& batch);
  // Adds part `level` of the inputs of rows to the residual stream.
  void add_level(Member& member, const Batch& batch, int level);
  // Row i of `to` becomes the norm of hidden row row_of[i], or i where row_of is null.
  void normalize(Member& member, const float* weight, const SliceMatrix& next,
                 const int32_t* row_of, const Activations& to);
  void quantize(Member& member, const SliceMatrix& next, const Activations& in);
  // Writes the norm of a row of the residual stream, or of what is added to it.
  void norm_row(const float* in, const float* weight, float* out) const;
  Store mlp_store() const;   // of the product with gate_up
  // Adds the product to the residual stream: at once, or through `norm` and the residual scale by
  // way of `scratch`, [rows][hidden]. With `beside`, the sum goes there, to be added later.
  void add_product(Member& member, const SliceMatrix& matrix, int place, const Activations& in,
                   const float* norm, float* scratch, float* beside = nullptr);
  void add_beside(Member& member, int rows);
  // `place` of the matrix among those that adapters may add to: layer * SLICE_ADAPTED + its number
  // in the layer, or -1.
  void multiply(Member& member, const SliceMatrix& matrix, int place, const Activations& in,
                float* out, int out_stride, int out_width, Store store);
  // Computes the factors of the rows that have an adapter which adds to the matrix at `place`.
  AdaptedRows lower(Member& member, int place, const Activations& in);
  // The input of attention, or of what keeps a state, and all but the queries' attention.
  void mix(Member& member, const Batch& batch, int layer, const Activations& normed);
  // The MLP of a layer, from the norm to the sum.
  void add_mlp(Member& member, int layer, const Activations& normed);
  // The same with experts, and what every token goes through beside them.
  void add_experts(Member& member, int layer, const Activations& normed);
  void compute_shared(Member& member, const SliceLayer& layer, const Activations& normed);
  void rotate_and_keep(Member& member, const Batch& batch, int layer);
  void attend(Member& member, const Batch& batch, int layer);
  // In place of attention; the output is where that of attention is.
  void advance_states(Member& member, const Batch& batch, int layer);
  void convolve(Member& member, const Batch& batch, int layer);
  void advance_spaces(Member& member, const Batch& batch, int layer);
  MambaJob mamba_job(const Batch& batch, int layer, const RowGroup& group) const;
  // Moves the residual and the outputs of attention and state space of the wanted rows to the
  // front. After the keys and values of the last layer are stored, the other rows are not needed.
  void move_wanted(Member& member, const Activations& attended, const Activations& mixed);
  void write_states(Member& member, const Batch& batch);
  void cap_logits(Member& member, const Batch& batch);
  void pick_best(Member& member, const Batch& batch);

  // The work of a phase on one row or one item.
  void keep_row(const Batch& batch, int layer, int row);
  // Stores keys and values of a row.
  void keep(int layer, int row, int page, int position, int rope_row);
  float shared_weight(const SliceLayer& layer, int row) const;
  void choose_experts(const SliceLayer& layer, Routing& routing, int row);
  void group_by_expert(Routing& routing, int rows);
  // The rows of a run in one of the value buffers of the experts and their codes.
  Activations expert_rows(float* values, int inputs, const ExpertRun& run) const;
  void multiply_experts(Member& member, int layer, bool down);
  void add_choices(const SliceLayer& layer, const Routing& routing, int row, float* sum);
  void convolve_slot(const SliceShortConv& conv, const RowGroup& group, bool first, int channel,
                     int channels, float* inputs);
  static void forget(const DeltaJob& job, int64_t numbers);
  void norm_jointly(const SliceLayer& layer, float* qkv);
  // The weights of the norm of a head; null: it has none of its own.
  const float* norm_of_head(const float* norms, int head) const;
  void norm_head(const float* in, const float* weight, float* out) const;
  void rotate_head(const float* head, const float* norm, int rope, int rope_row, float scale,
                   float* out);
  void attend_group(const Batch& batch, int layer, const RowGroup& group, int kv_head,
                    float* scores, const void* next_keys);
  const int32_t* pages_of(const Batch& batch, const RowGroup& group) const;
  const float* input_of(const Batch& batch, int row, int level) const;
  int64_t page_stride() const { return model_.kv_heads * page_bytes_; }
  // The part of a kv head in a page, in the keys or values of a layer.
  void* page_at(void* pool, int layer, int kv_head, int page) const;
  // Activations with `inputs` columns, in one of the value buffers and the common codes.
  Activations activations(float* values, int inputs, int rows) const;

  SliceModel model_;
  std::vector<SliceLayer> layers_;
  std::vector<SliceLowRank> low_rank_;  // [layers][SLICE_ADAPTED][adapters]
  const SliceCache cache_;
  const Kernels& kernels_;
  const int max_rows_;
  const int head_width_;     // head_dim rounded up to 16
  const int widest_;         // the widest input, rounded up to a group
  const int score_stride_;
  const int64_t page_bytes_;  // of one kv head's page
  const int most_factors_;   // of a row
  const int choices_;        // of all rows together: inputs of experts

  Buffer<float> hidden_;    // [rows][hidden]: the residual stream
  Buffer<float> values_;    // [rows][inputs]: output of a norm, of attention or of the MLP
  Buffer<float> gated_;     // [rows][inputs]: gated values, or what attention adds
  Buffer<GroupCodes> codes_;  // [rows][groups]: input of the next matrix in 8 bits
  Buffer<float> qkv_;       // [rows][outputs of qkv, or of the input of a delta rule]
  Buffer<float> rates_;     // [rows][2 value_heads], or heads of a state space
  Buffer<float> streams_;   // [rows][outputs of the input of a state space]
  Buffer<float> mixed_;     // [rows][inputs]: output of a state space
  Buffer<float> queries_;   // [rows][heads][head_width]
  Buffer<float> scores_;    // [threads][kMaxQueries][score_stride]
  Buffer<float> factors_;   // [rows][most_factors]
  Buffer<float> beside_;    // [rows][hidden]: attention beside an MLP, or the shared MLP
  Buffer<float> scores_of_experts_;     // [rows][outputs of the router]
  Buffer<float> expert_values_;         // [choices][hidden]: input, then output of the experts
  Buffer<float> expert_gated_;          // [choices][expert_intermediate]
  Buffer<GroupCodes> expert_codes_;     // [choices][groups]
  std::vector<Routing> routing_;        // of each layer
  Batch batch_{};
  std::vector<int> key_layer_;    // of each layer: its number among those with keys and values,
  std::vector<int> state_layer_;  // and among those with a state
  std::vector<RowGroup> groups_;
  std::vector<RowGroup> slot_rows_;    // all neighbouring rows of a slot
  std::vector<int32_t> wanted_;        // rows that the end of the pass computes, each once, in order
  std::vector<int32_t> output_place_;  // index in wanted_ of each output's row
  Adapters adapters_;                  // of all rows,
  Adapters wanted_adapters_;           // of those in wanted_
  std::vector<uint64_t> slot_seen_;  // number of the last step of each slot
  uint64_t steps_ = 0;
  Team team_;  // last member: its threads end before what they read is freed
};

}  // namespace slice

struct SliceRunner : slice::Runner {
  using slice::Runner::Runner;
};
