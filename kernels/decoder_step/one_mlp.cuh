// The MLP of a decode step, for one query.
#pragma once
#include "one_rows.cuh"

struct alignas(16) MlpMemory {
  MlpTile tile;
  float norm[2][kD];
  alignas(16) float x[kD];
  float hidden[kUnits];
  float carried[1][kSlice];
  alignas(16) float slices[kCluster][1][kSlice];
  Moments moments;
  device::Mbarrier weights, summands;
};

// kUnits hidden units of the MLP by one block; the blocks of a cluster sum up before they add to the residual.
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads) mlp_block(const Mlp args) {
  constexpr int kRowsPerWarp = kUnits / kWarps;
  extern __shared__ __align__(128) uint8_t raw_memory[];
  MlpMemory& memory = *reinterpret_cast<MlpMemory*>(raw_memory);
  const int warp = threadIdx.x / 32, rank = blockIdx.x % kCluster;
  if (threadIdx.x == 0) {
    memory.weights.init();
    memory.summands.init();
    memory.summands.expect(sizeof(memory.slices));
    memory.weights.expect(sizeof(memory.tile) + sizeof(memory.norm));
    memory.weights.copy(&memory.tile, args.tiles + static_cast<int64_t>(blockIdx.x) * sizeof(MlpTile), sizeof(MlpTile));
    memory.weights.copy(memory.norm, args.norm, sizeof(memory.norm));
  }
  device::cluster_arrive();
  device::wait_for_previous_kernel();
  device::let_next_kernel_begin();
  device::cluster_wait();
  float raw[kPerThread];
  load_residual(args.residual.in, raw);
  if (blockIdx.x < kCluster) keep_slice(raw, rank, memory.carried[0]);
  if (blockIdx.x >= gridDim.x - kCluster) clear_slice(args.residual.clear, rank);
  memory.weights.wait(0);
  layer_norm(raw, memory.norm[0], memory.norm[1], memory.moments, memory.x);

  const Product product = rows_times_x<kRowsPerWarp>(&memory.tile.into[warp * kRowsPerWarp], memory.x);
  if (product.row < kRowsPerWarp && product.copy == 0) {
    const int unit = warp * kRowsPerWarp + product.row;
    const float value = product.value * memory.tile.end.into_scale[unit] + memory.tile.end.into_bias[unit];
    memory.hidden[unit] = 0.5f * value * (1.f + erff(value * 0.70710678f));  // GELU
  }
  __syncthreads();
  // Four columns a thread: what the units add to the residual goes to the block that owns the columns.
  for (int column = threadIdx.x * 4; column < kD; column += kThreads * 4) {
    float out[4] = {};
#pragma unroll
    for (int unit = 0; unit < kUnits; ++unit) {
      float weight[4];
#if WEIGHT_BYTES == 1
      unpack(*reinterpret_cast<const uint32_t*>(&memory.tile.out_of[unit][column]), weight);
#else
      const uint2 packed = *reinterpret_cast<const uint2*>(&memory.tile.out_of[unit][column]);
      const float2 low = __half22float2(*reinterpret_cast<const __half2*>(&packed.x));
      const float2 high = __half22float2(*reinterpret_cast<const __half2*>(&packed.y));
      weight[0] = low.x, weight[1] = low.y, weight[2] = high.x, weight[3] = high.y;
#endif
#pragma unroll
      for (int i = 0; i < 4; ++i) out[i] = fmaf(weight[i], memory.hidden[unit], out[i]);
    }
    device::send(reinterpret_cast<float4*>(&memory.slices[rank][0][column % kSlice]), column / kSlice,
                 {out[0], out[1], out[2], out[3]}, memory.summands);
  }
  memory.summands.wait(0);
  for (int i = threadIdx.x; i < kSlice; i += kThreads) {
    const int q = i / kSlice, column = i % kSlice;
    float value = 0.f;
#pragma unroll
    for (int from = 0; from < kCluster; ++from) value += memory.slices[from][q][column];
    value *= memory.tile.end.out_scale[column];
    if (blockIdx.x < kCluster) value += memory.tile.end.out_bias[column] + memory.carried[q][column];
    add(&args.residual.out[q * kD + rank * kSlice + column], to_fixed(value));
  }
}
