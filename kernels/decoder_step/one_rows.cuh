// One query: rows of weights times x, layer norm.
#pragma once
#include "layout.cuh"

// Three loops still compute the index q of their query, which is 0, over arrays of one: nvcc computes it, too, so that
// the code without it is another one, which has to be measured.
static_assert(kQueries == 1, "several queries have headers of their own");

__device__ __forceinline__ void unpack(uint4 packed, float (&value)[8]) {
  const __half2* halves = reinterpret_cast<const __half2*>(&packed);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 two = __half22float2(halves[i]);
    value[2 * i] = two.x, value[2 * i + 1] = two.y;
  }
}

// Bytes become the low bits of floats near 2^23: a permutation and a subtraction, where a conversion runs at a
// quarter of the speed (the trick of FasterTransformer's int8 kernels).
__device__ __forceinline__ void unpack(uint32_t packed, float* value) {
  const uint32_t biased = packed ^ 0x80808080u;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    value[i] = __uint_as_float(__byte_perm(biased, 0x4B000000u, 0x7540 + i)) - 8388736.f;
}
__device__ __forceinline__ void unpack(uint2 packed, float (&value)[8]) {
  unpack(packed.x, value);
  unpack(packed.y, value + 4);
}

// The product of one row with x, in one lane.
struct Product {
  int row;   // == the number of rows: none
  int copy;  // kCopies lanes hold the same product; which of them this is
  float value;
};

template <int kRows>
struct Products {
  static constexpr int kValues = power_of_two(kRows), kCopies = 32 / kValues;
  static_assert(1 <= kCopies, "one value a lane");
};

// kRows rows of a matrix in shared memory times x, by one warp.
template <int kRows>
__device__ __forceinline__ Product rows_times_x(const Weight (*rows)[kD], const float (&x)[kD]) {
  constexpr int kValues = Products<kRows>::kValues, kCopies = Products<kRows>::kCopies;
  const int lane = threadIdx.x % 32;
  float sum[kValues] = {};
#pragma unroll
  for (int first = 0; first < kD; first += 256) {
    const int column = first + lane * 8;
    if (kD % 256 != 0 && column >= kD) break;
    float weight[kRows][8];
#pragma unroll
    for (int r = 0; r < kRows; ++r) unpack(*reinterpret_cast<const Weights8*>(&rows[r][column]), weight[r]);
    float in[8];
    *reinterpret_cast<float4*>(in) = *reinterpret_cast<const float4*>(&x[column]);
    *reinterpret_cast<float4*>(in + 4) = *reinterpret_cast<const float4*>(&x[column + 4]);
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[r] = fmaf(weight[r][i], in[i], sum[r]);
  }
  const int row = lane / kCopies;
  const float value = device::sums_over_warp<kValues>(sum);
  return {min(row, kRows), lane % kCopies, value};
}

// What the warps tell each other for a layer norm.
struct Moments {
  float of_warp[kWarps][2];  // mean of its part, and sum of squared distances from it
};

constexpr int kPerThread = (kD + kThreads - 1) / kThreads;

// Layer norm of raw[i] (column threadIdx.x + i * kThreads) into x. Ends with a barrier.
__device__ __forceinline__ void layer_norm(const float (&raw)[kPerThread], const float* scale, const float* shift,
                                           Moments& moments, float (&x)[kD]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  // Threads beyond the width have nothing in their last place; all threads of a warp alike.
  const int mine = (kD - warp * 32 + kThreads - 1) / kThreads;
  float sum = 0.f, squares = 0.f;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i)
    if (i < mine) sum += raw[i];
  float mean = device::sum_over_lanes<32>(sum) / (32 * max(mine, 1));
#pragma unroll
  for (int i = 0; i < kPerThread; ++i)
    if (i < mine) squares += (raw[i] - mean) * (raw[i] - mean);
  squares = device::sum_over_lanes<32>(squares);
  if (lane == 0) moments.of_warp[warp][0] = mean, moments.of_warp[warp][1] = squares;
  __syncthreads();
  // Merging parts: Chan, Golub and LeVeque 1983, doi 10.1080/00031305.1983.10483115. Eight lanes have all of them.
  const float share = 32.f * ((kD - lane % kWarps * 32 + kThreads - 1) / kThreads);
  const float part = moments.of_warp[lane % kWarps][0];
  mean = device::sum_over_lanes<kWarps>(part * share) / kD;
  const float away = part - mean;
  squares = device::sum_over_lanes<kWarps>(moments.of_warp[lane % kWarps][1] + away * away * share);
  const float inverse = rsqrtf(squares / kD + 1e-5f);
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int column = threadIdx.x + i * kThreads;
    if (column < kD) x[column] = (raw[i] - mean) * inverse * scale[column] + shift[column];
  }
  __syncthreads();
}

__device__ __forceinline__ void load_residual(const Fixed* in, float (&raw)[kPerThread]) {
  Fixed loaded[kPerThread];  // all on their way before the first is needed
#pragma unroll
  for (int i = 0; i < kPerThread; ++i)
    if (const int column = threadIdx.x + i * kThreads; column < kD) loaded[i] = in[column];
#pragma unroll
  for (int i = 0; i < kPerThread; ++i)
    if (threadIdx.x + i * kThreads < kD) raw[i] = to_float(loaded[i]);
}

// Keep the slice of the residual that this block adds its results to; ordered by the barriers of layer_norm.
__device__ __forceinline__ void keep_slice(const float (&raw)[kPerThread], int rank, float (&carried)[kSlice]) {
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int column = threadIdx.x + i * kThreads;
    if (column < kD && column / kSlice == rank) carried[column % kSlice] = raw[i];
  }
}
