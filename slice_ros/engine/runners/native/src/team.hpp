// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// A team of threads that compute a step together, phase by phase.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace slice {

// Yields the core to other threads, at most every 50 us. Otherwise an operating system may preempt
// a thread only at its clock tick, every 4 ms at 250 Hz: the threads that deliver tokens, their
// subscribers and the other nodes of the robot would wait that long. The yielded time is limited
// to a share, so that a process that is always busy does not get more.
void give_way();

// A step has about 300 phases of a few microseconds. A phase is over when all its items are done,
// not when every thread has arrived: on a busy robot a thread may be preempted at any moment. It
// finds the phases that it missed finished, and catches up. Threads wait by spinning for some tens
// of microseconds, then by sleeping; between steps all but the caller sleep.
class Team {
 public:
  // The position of one thread in the current job; thread 0 is the caller of run().
  struct Member {
    int index;
    int phase;
  };
  using Work = void (*)(void* context, Member& member);

  // A job may have up to `phases` phases.
  Team(int threads, int phases);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return static_cast<int>(threads_.size()) + 1; }

  // Runs work on every thread and returns when its phases are done. Late threads may still go
  // through finished phases then: call settle() before changing anything that they read.
  void run(Work work, void* context);
  void settle();

  // Called by every member inside work: calls task(0 .. count - 1), each once, on the threads that
  // have arrived, and returns when all are done. A member first computes its own part in order,
  // which suits prefetching and its caches; then it helps the others.
  template <typename Task>
  void share(Member& member, int count, const Task& task) {
    const int phase = member.phase++;
    int mine = 0;
    for (int i = 0; i < size(); ++i) {
      const int owner = (member.index + i) % size();
      const int first = part_start(count, owner);
      const int items = part_start(count, owner + 1) - first;
      std::atomic<int>& taken = parts_[phase * size() + owner].taken;
      while (taken.load(std::memory_order_relaxed) < items) {
        const int item = taken.fetch_add(1, std::memory_order_relaxed);
        if (item >= items) break;
        task(first + item);
        if (++mine % kItems == 0) give_way();
      }
    }
    finish(phases_[phase], mine, count);
  }

 private:
  // Each on its own cache line, because any thread may write to it.
  struct alignas(64) Phase {
    std::atomic<int> done{0};
  };
  struct alignas(64) Part {
    std::atomic<int> taken{0};
  };
  static constexpr int kItems = 16;  // items of a phase between two reads of the clock

  int part_start(int count, int owner) const {
    return static_cast<int>(int64_t{count} * owner / size());
  }
  void finish(Phase& phase, int mine, int count);
  void serve(int index);

  const int phase_count_;
  std::unique_ptr<Phase[]> phases_;
  std::unique_ptr<Part[]> parts_;  // [phases][threads]
  Work work_ = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<int> job_{0};     // number of jobs so far; wakes the threads
  alignas(64) std::atomic<bool> open_{false};  // the job may be entered
  alignas(64) std::atomic<int> inside_{0};  // threads that may be in the job, without the caller
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

}  // namespace slice
