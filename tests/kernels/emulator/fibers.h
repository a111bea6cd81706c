// What fibers need of the operating system: stacks, contexts, and where thread_local variables lie.
#pragma once
#include <cstddef>
#include <cstdint>

#include "threads.h"

namespace emulator {

constexpr size_t kMaxThreads = 1024;  // of a block

// Stacks for the threads of a block.
uint8_t* take_stacks();
void give_back(uint8_t* stacks);

// `entry` must not return.
void prepare(Context& context, uint8_t* stacks, size_t thread, void (*entry)());
void go(Context& from, Context& to);

// The memory of the calling thread's thread_local variables of this library, which are its block's __shared__ ones.
void find_fixed_memory(uint8_t*& begin, size_t& bytes);

}  // namespace emulator
