// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// A team of threads that walk through a step together, phase by phase.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace slice {

// Offers the core to whoever waits for it, at most every 50 us. A kernel may otherwise take a core
// back at its clock tick only, every 4 ms at 250 Hz, so that the threads that pass tokens on, those
// who listen and the robot's other nodes wait that long for their moment. What is given is held to
// a share of the time, lest a process that never rests takes more than its part.
void give_way();

// A step has some 300 phases of a few microseconds. A phase is over when its pieces are done, not
// when every thread has come: on a busy robot the scheduler takes threads away at any moment, and
// one that was away finds the phases behind it finished, and catches up. Waiting is awake for some
// tens of microseconds, then asleep; between steps all but the caller sleep.
class Team {
 public:
  // Where one thread is in the current job; 0 is the caller of run().
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

  // Runs work on every thread and returns when its phases are done. Late threads may still be
  // walking through finished phases then: settle() before anything they read is changed.
  void run(Work work, void* context);
  void settle();

  // Inside work, called by every member alike: calls task(0 .. count - 1), each once, on whoever is
  // there, and returns when all are done. A member goes through a part of its own in order, since
  // what it reads is asked for ahead and what it wrote before lies near; then it helps the others.
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
  // Each on a cache line of its own, since any thread may write to it.
  struct alignas(64) Phase {
    std::atomic<int> done{0};
  };
  struct alignas(64) Part {
    std::atomic<int> taken{0};
  };
  static constexpr int kItems = 16;  // between two looks at the clock in a phase

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
  alignas(64) std::atomic<int> job_{0};     // counts jobs; wakes the threads
  alignas(64) std::atomic<bool> open_{false};  // the job may be entered
  alignas(64) std::atomic<int> inside_{0};  // threads that may be in the job, the caller aside
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

}  // namespace slice
