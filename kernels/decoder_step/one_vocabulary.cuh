// The last norm and the logits of a decode step, for one query.
#pragma once
#include "one_rows.cuh"

constexpr int kVocabRows = 4;  // that a warp takes at a time

struct alignas(16) VocabularyMemory {
  Weight rows[kWarps][kStages][kVocabRows][kD];
  float norm[2][kD];
  alignas(16) float x[kD];
  alignas(16) float scale[kWarps][kStages][kVocabRows];
  Moments moments;
  device::Mbarrier norm_barrier;
  device::Mbarrier barrier[kWarps][kStages];
};

// Logits of all tokens: warps take turns at kVocabRows rows, each with kStages copies of its own under way.
__global__ void __launch_bounds__(kThreads) vocabulary(const Vocabulary args) {
  constexpr bool kScaled = sizeof(Weight) == 1;
  extern __shared__ __align__(128) uint8_t raw_memory[];
  VocabularyMemory& memory = *reinterpret_cast<VocabularyMemory*>(raw_memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int pieces = (args.size + kVocabRows - 1) / kVocabRows, turns = gridDim.x * kWarps;
  const int begin = warp * gridDim.x + blockIdx.x;
  auto fetch = [&](int piece, int stage) {
    if (piece >= pieces) return;
    const int first = piece * kVocabRows;
    const uint32_t bytes = min(kVocabRows, args.size - first) * kD * sizeof(Weight);
    device::Mbarrier& barrier = memory.barrier[warp][stage];
    barrier.expect(bytes + (kScaled ? 16 : 0));
    barrier.copy(memory.rows[warp][stage], args.rows + static_cast<int64_t>(first) * kD, bytes);
    if (kScaled) barrier.copy(memory.scale[warp][stage], args.scale + first, 16);
  };
  if (threadIdx.x == 0) {
    memory.norm_barrier.init();
    memory.norm_barrier.expect(sizeof(memory.norm));
    memory.norm_barrier.copy(memory.norm, args.norm, sizeof(memory.norm));
  }
  if (lane == 0) {
    for (int stage = 0; stage < kStages; ++stage) memory.barrier[warp][stage].init();
    for (int stage = 0; stage < kStages; ++stage) fetch(begin + stage * turns, stage);
  }
  device::wait_for_previous_kernel();
  device::let_next_kernel_begin();
  float raw[kPerThread];
  load_residual(args.in, raw);
  __syncthreads();
  memory.norm_barrier.wait(0);
  layer_norm(raw, memory.norm[0], memory.norm[1], memory.moments, memory.x);
  int stage = 0, phase = 0;
  for (int piece = begin; piece < pieces; piece += turns) {
    memory.barrier[warp][stage].wait(phase);
    const Product product = rows_times_x<kVocabRows>(memory.rows[warp][stage], memory.x);
    const int row = piece * kVocabRows + product.row;
    const float scale = kScaled ? memory.scale[warp][stage][row % kVocabRows] : 1.f;
    __syncwarp();
    if (lane == 0) fetch(piece + kStages * turns, stage);
    if (product.copy == 0 && product.row < kVocabRows && row < args.size)
      args.logits[row] = product.value * scale;
    if (++stage == kStages) stage = 0, phase ^= 1;
  }
}
