// The last norm and the logits of a decode step, for several queries at once.
#pragma once
#include "several_norm.cuh"

constexpr int kVocabRows = 16;  // that a block takes at a time

struct alignas(16) VocabularyMemory {
  Weight rows[kStages][kVocabRows][kD + kGap];
  alignas(16) float scale[kStages][kVocabRows];
  union {  // the norm has been applied before there are parts
    float norm[2][kD];
    Parts<kVocabRows> parts[2];
  };
  Operand<kD> x;
  Moments moments;
  device::Mbarrier norm_barrier;
  device::Mbarrier barrier[kStages];
};

// Logits of all tokens: blocks take turns at kVocabRows rows, each with kStages copies under way. A warp has its
// part of x in registers.
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce) vocabulary(const Vocabulary args) {
  constexpr bool kScaled = sizeof(Weight) == 1;
  constexpr int kPieces = (kD / 32 + kWarps - 1) / kWarps;  // of 32 numbers along k, for a warp
  extern __shared__ __align__(128) uint8_t raw_memory[];
  VocabularyMemory& memory = *reinterpret_cast<VocabularyMemory*>(raw_memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  auto fetch = [&](int first, int stage) {  // by one warp
    const int rows = min(kVocabRows, args.size - first);
    if (rows <= 0) return;
    device::Mbarrier& barrier = memory.barrier[stage];
    const uint32_t row_bytes = kD * sizeof(Weight), scale_bytes = kScaled ? (rows + 3) / 4 * 16 : 0;
    if (lane == 0) barrier.expect(rows * row_bytes + scale_bytes);
    __syncwarp();
    if (lane < rows)
      barrier.copy(memory.rows[stage][lane], args.rows + static_cast<int64_t>(first + lane) * kD, row_bytes);
    if (kScaled && lane == kVocabRows) barrier.copy(memory.scale[stage], args.scale + first, scale_bytes);
  };
  const int begin = blockIdx.x * kVocabRows, turns = gridDim.x * kVocabRows;
  if (threadIdx.x == 0) {
    memory.norm_barrier.init();
    memory.norm_barrier.expect(sizeof(memory.norm));
    memory.norm_barrier.copy(memory.norm, args.norm, sizeof(memory.norm));
    for (int stage = 0; stage < kStages; ++stage) memory.barrier[stage].init();
  }
  if (warp == 0) {
    __syncwarp();
    for (int stage = 0; stage < kStages; ++stage) fetch(begin + stage * turns, stage);
  }
  device::wait_for_previous_kernel();
  device::let_next_kernel_begin();
  float2 raw[kMine];
  load_residual(args.in, raw);
  __syncthreads();
  memory.norm_barrier.wait(0);
  layer_norm(raw, memory.norm, memory.moments, memory.x);
  uint4 in[kPieces][2] = {};
#pragma unroll
  for (int i = 0; i < kPieces; ++i)
    if (const int k = (warp + i * kWarps) * 32 + lane % 4 * 8; k < kD)
      in[i][0] = memory.x.at(query_of_lane(), k), in[i][1] = memory.x.at(query_of_lane(), k + 4);

  int stage = 0, phase = 0, turn = 0;
  for (int first = begin; first < args.size; first += turns) {
    memory.barrier[stage].wait(phase);
    Sums sums[kVocabRows / 8] = {};
#pragma unroll
    for (int i = 0; i < kPieces; ++i)
      if (const int k = (warp + i * kWarps) * 32 + lane % 4 * 8; k < kD)  // all lanes of a warp alike
#pragma unroll
        for (int tile = 0; tile < kVocabRows / 8; ++tile)
          multiply(sums[tile], in[i][0], in[i][1],
                   halves(*reinterpret_cast<const Weights8*>(&memory.rows[stage][tile * 8 + row_of_lane()][k])));
#pragma unroll
    for (int tile = 0; tile < kVocabRows / 8; ++tile) memory.parts[turn].store(sums[tile], tile * 8);
    const float scale = kScaled ? memory.scale[stage][threadIdx.x % kVocabRows] : 1.f;
    __syncthreads();  // the next writes the other parts, and begins after these have been read
    if (warp == kWarps - 1) fetch(first + kStages * turns, stage);
    const int query = threadIdx.x / kVocabRows, row = first + threadIdx.x % kVocabRows;
    if (query < kQueries && row < args.size)
      args.logits[static_cast<int64_t>(query) * args.size + row] = memory.parts[turn].total(threadIdx.x) * scale;
    turn ^= 1;
    if (++stage == kStages) stage = 0, phase ^= 1;
  }
}
