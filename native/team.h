// Threads for one call: they share out numbered pieces of work, meet, and one of them does the
// serial step in between. Nothing outlives the call, so forks and other libraries' threads are safe.
#pragma once
#include <atomic>
#include <thread>
#include <vector>

namespace stapes {

class Team {
 public:
  explicit Team(int n_threads) : n_(n_threads) {}

  // Every member calls this with the same work; returns when all of it and `serial` are done.
  template <class Work, class Serial>
  void phase(int count, Work&& work, Serial&& serial) {
    for (int i; (i = next_.fetch_add(1)) < count;) work(i);
    const int epoch = epoch_.load();
    if (arrived_.fetch_add(1) == n_ - 1) {
      serial();
      next_ = 0;
      arrived_ = 0;
      epoch_.store(epoch + 1, std::memory_order_release);
    } else {
      // Passes are well under a millisecond: wait awake, but give way where cores are short.
      for (int spins = 0; epoch_.load(std::memory_order_acquire) == epoch; spins++)
        if (spins > 1000) std::this_thread::yield();
    }
  }

  // Calls body(team, member) on n_threads threads, this one among them, and at least on this one.
  template <class Body>
  static void run(int n_threads, Body&& body) {
    Team team(n_threads < 1 ? 1 : n_threads);
    std::vector<std::thread> others;
    for (int i = 1; i < n_threads; i++) others.emplace_back([&, i] { body(team, i); });
    body(team, 0);
    for (auto& thread : others) thread.join();
  }

 private:
  const int n_;
  std::atomic<int> next_{0}, arrived_{0}, epoch_{0};
};

}  // namespace stapes
