// The MLP of a decode step, for several queries at once.
#pragma once
#include "several_norm.cuh"

struct alignas(16) MlpMemory {
  Weight into[kUnits][kD + kGap];
  Weight out_of[kUnits][kD + 16 / sizeof(Weight)];
  MlpTileEnd end;
  union {  // the norm has been applied before there are parts
    float norm[2][kD];
    Parts<kUnits> parts;
  };
  union {  // x isn't needed any more in any block when the first sends its sums
    Operand<kD> x;
    alignas(16) float slices[kCluster][kQueries][kSlice];
  };
  Operand<kUnits> hidden;
  float carried[kQueries][kSlice];
  Moments moments;
  device::Mbarrier weights, summands;
};

// 4 columns of weights of two hidden units: pairs of both, a column each.
__device__ __forceinline__ void pairs_of_columns(const Weight* one, const Weight* other, uint32_t (&pairs)[4]) {
#if WEIGHT_BYTES == 1
  const uint32_t a = *reinterpret_cast<const uint32_t*>(one) ^ 0x80808080u;
  const uint32_t b = *reinterpret_cast<const uint32_t*>(other) ^ 0x80808080u;
  const uint32_t low = __byte_perm(a, b, 0x5140), high = __byte_perm(a, b, 0x7362);
  pairs[0] = halves_of_bytes(low, 0x4140), pairs[1] = halves_of_bytes(low, 0x4342);
  pairs[2] = halves_of_bytes(high, 0x4140), pairs[3] = halves_of_bytes(high, 0x4342);
#else
  const uint2 a = *reinterpret_cast<const uint2*>(one), b = *reinterpret_cast<const uint2*>(other);
  pairs[0] = __byte_perm(a.x, b.x, 0x5410), pairs[1] = __byte_perm(a.x, b.x, 0x7632);
  pairs[2] = __byte_perm(a.y, b.y, 0x5410), pairs[3] = __byte_perm(a.y, b.y, 0x7632);
#endif
}

// What the hidden units of this block add to 32 columns of the residual goes to the blocks that own the columns.
// Instruction i multiplies columns i, 4 + i, 8 + i, ..., so that a lane gets eight neighbours of one query.
__device__ __forceinline__ void send_columns(MlpMemory& memory, const uint4 (&hidden)[(kUnits + 15) / 16], int first,
                                             int rank) {
  const int lane = threadIdx.x % 32, mine = first + row_of_lane() * 4;
  float sum[4][4] = {};
#pragma unroll
  for (int step = 0; step < (kUnits + 15) / 16; ++step) {
    const int unit = step * 16 + lane % 4 * 2;
    uint32_t low[4], high[4] = {};
    pairs_of_columns(&memory.out_of[unit][mine], &memory.out_of[unit + 1][mine], low);
    if (step * 16 + 8 < kUnits) pairs_of_columns(&memory.out_of[unit + 8][mine], &memory.out_of[unit + 9][mine], high);
#pragma unroll
    for (int i = 0; i < 4; ++i) device::mma(sum[i], hidden[step], low[i], high[i]);
  }
  const int column = first + lane % 4 * 8, to = column / kSlice;
  if (row_of_lane() < kQueries) {
    float4* const there = reinterpret_cast<float4*>(&memory.slices[rank][row_of_lane()][column % kSlice]);
    device::send(there, to, {sum[0][0] + sum[0][2], sum[1][0] + sum[1][2], sum[2][0] + sum[2][2], sum[3][0] + sum[3][2]},
                 memory.summands);
    device::send(there + 1, to,
                 {sum[0][1] + sum[0][3], sum[1][1] + sum[1][3], sum[2][1] + sum[2][3], sum[3][1] + sum[3][3]},
                 memory.summands);
  }
}

// kUnits hidden units of the MLP by one block; the blocks of a cluster sum up before they add to the residual.
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, kBlocksAtOnce) mlp_block(const Mlp args) {
  extern __shared__ __align__(128) uint8_t raw_memory[];
  MlpMemory& memory = *reinterpret_cast<MlpMemory*>(raw_memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, rank = blockIdx.x % kCluster;
  if (threadIdx.x == 0) {
    memory.weights.init();
    memory.summands.init();
    memory.summands.expect(sizeof(memory.slices));
    memory.weights.expect(sizeof(MlpTile) + sizeof(memory.norm));
  }
  __syncthreads();
  const uint8_t* const tile = args.tiles + static_cast<int64_t>(blockIdx.x) * sizeof(MlpTile);
  constexpr int kBytes = kUnits * kD * sizeof(Weight);
  copy_rows(memory.weights, memory.into, tile);
  copy_rows(memory.weights, memory.out_of, tile + kBytes);
  if (threadIdx.x == 0) {
    memory.weights.copy(&memory.end, tile + 2 * kBytes, sizeof(memory.end));
    memory.weights.copy(memory.norm, args.norm, sizeof(memory.norm));
  }
  __syncwarp();
  device::cluster_arrive();
  device::wait_for_previous_kernel();
  device::let_next_kernel_begin();
  device::cluster_wait();
  float2 raw[kMine];
  load_residual(args.residual.in, raw);
  if (blockIdx.x < kCluster) keep_slice(raw, rank, memory.carried);
  if (blockIdx.x >= gridDim.x - kCluster) clear_slice(args.residual.clear, rank);
  memory.weights.wait(0);
  layer_norm(raw, memory.norm, memory.moments, memory.x);

  rows_times_x(memory.into, memory.x, memory.parts);
  __syncthreads();
  // x has been read: its numbers went into the sums that were stored before this barrier.
  device::cluster_arrive();
  if (threadIdx.x < Parts<kUnits>::kSums) {
    const int query = threadIdx.x / kUnits, unit = threadIdx.x % kUnits;
    const float value = memory.parts.total(threadIdx.x) * memory.end.into_scale[unit] + memory.end.into_bias[unit];
    store(memory.hidden, query, unit, 0.5f * value * (1.f + erff(value * 0.70710678f)));  // GELU
  }
  __syncthreads();
  uint4 hidden[(kUnits + 15) / 16];
#pragma unroll
  for (int step = 0; step < (kUnits + 15) / 16; ++step) {
    const uint2* const pairs = &memory.hidden.pairs[query_of_lane()][step * 8 + lane % 4];
    const uint2 low = pairs[0], high = step * 16 + 8 < kUnits ? pairs[4] : make_uint2(0, 0);
    hidden[step] = {low.x, low.y, high.x, high.y};
  }
  device::cluster_wait();
#pragma unroll 1
  for (int first = warp * 32; first < kD; first += kWarps * 32) send_columns(memory, hidden, first, rank);
  memory.summands.wait(0);
#pragma unroll
  for (int first = 0; first < kQueries * kSlice; first += kThreads) {
    const int i = first + threadIdx.x, q = i / kSlice, column = i % kSlice;
    if (i >= kQueries * kSlice) break;
    float value = 0.f;
#pragma unroll
    for (int from = 0; from < kCluster; ++from) value += memory.slices[from][q][column];
    value *= memory.end.out_scale[column];
    if (blockIdx.x < kCluster) value += memory.end.out_bias[column] + memory.carried[q][column];
    add(&args.residual.out[q * kD + rank * kSlice + column], to_fixed(value));
  }
}
