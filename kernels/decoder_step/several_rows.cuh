// Several queries at once: products by tensor cores.
//
// An operand of 16 rows has 8 queries twice: rows 0 to 7 are their numbers rounded to half, rows 8 to 15 what the
// rounding left, as halves too. Together they have 22 bits, and the sum of both results is as exact as one in float
// (what is beyond half's range, infinite in torch's half, becomes NaN).
// The 8 columns of the other operand are 8 rows of weights. Rows of queries that there aren't repeat the last one;
// nobody reads their sums, and no row of a product depends on another.
#pragma once
#include "layout.cuh"

static_assert(2 <= kQueries && kQueries <= 8, "rows of an operand");
constexpr int kBlocksAtOnce = 2;  // on a multiprocessor: one begins beside one of the kernel before

// Numbers of every query along k: .x is a pair of neighbours rounded to half, .y what is left of them. Rows are as
// far apart as lets eight lanes read from two of them without a bank conflict.
template <int kWidth>
struct alignas(16) Operand {
  uint2 pairs[kQueries][kWidth / 2 + 2];

  __device__ __forceinline__ uint4 at(int query, int k) const {  // k: a multiple of 4
    return *reinterpret_cast<const uint4*>(&pairs[query][k / 2]);
  }
};

__device__ __forceinline__ uint32_t bits(__half2 halves) { return *reinterpret_cast<const uint32_t*>(&halves); }

__device__ __forceinline__ uint2 split(float first, float second) {
  const __half2 high = __floats2half2_rn(first, second);
  const float2 rounded = __half22float2(high);
  return {bits(high), bits(__floats2half2_rn(first - rounded.x, second - rounded.y))};
}

// One number as (what is left of it, itself rounded): the upper and lower half of a word.
__device__ __forceinline__ uint32_t split(float value) {
  const uint2 both = split(value, 0.f);
  return __byte_perm(both.x, both.y, 0x5410);
}

// Numbers of four lanes that follow each other become two pairs, in all of them.
__device__ __forceinline__ uint4 of_four_lanes(uint32_t both) {
  const int first = threadIdx.x % 32 / 4 * 4;
  const uint32_t a = __shfl_sync(kAllLanes, both, first), b = __shfl_sync(kAllLanes, both, first + 1);
  const uint32_t c = __shfl_sync(kAllLanes, both, first + 2), d = __shfl_sync(kAllLanes, both, first + 3);
  return {__byte_perm(a, b, 0x5410), __byte_perm(a, b, 0x7632), __byte_perm(c, d, 0x5410), __byte_perm(c, d, 0x7632)};
}

template <int kWidth>
__device__ __forceinline__ void store(Operand<kWidth>& operand, int query, int k, float value) {
  const uint32_t both = split(value);
  __half* const pair = reinterpret_cast<__half*>(&operand.pairs[query][k / 2]);
  pair[k % 2] = __ushort_as_half(both & 0xffff), pair[2 + k % 2] = __ushort_as_half(both >> 16);
}

// Two bytes that were made positive (by adding 128) become the low bits of halves from 1024 on: exact.
__device__ __forceinline__ uint32_t halves_of_bytes(uint32_t biased, int selector) {
  const uint32_t pair = __byte_perm(biased, 0x64, selector);
  return bits(__hsub2(*reinterpret_cast<const __half2*>(&pair), __half2half2(__ushort_as_half(0x6480))));
}
__device__ __forceinline__ uint4 halves(uint4 weights) { return weights; }
__device__ __forceinline__ uint4 halves(uint2 weights) {
  const uint32_t low = weights.x ^ 0x80808080u, high = weights.y ^ 0x80808080u;
  return {halves_of_bytes(low, 0x4140), halves_of_bytes(low, 0x4342), halves_of_bytes(high, 0x4140),
          halves_of_bytes(high, 0x4342)};
}

__device__ __forceinline__ int row_of_lane() { return threadIdx.x % 32 / 4; }  // of the operands; column of weights
__device__ __forceinline__ int query_of_lane() { return min(row_of_lane(), kQueries - 1); }

// What a warp multiplies at once is 32 numbers along k, 8 a lane. Their order is free, if it is the same on both
// sides: lane 4g + t has those from 8t on. Two sums, for the latency of an instruction.
using Sums = float[2][4];
__device__ __forceinline__ void multiply(Sums& sums, uint4 in, uint4 more, uint4 weights) {
  device::mma(sums[0], in, weights.x, weights.y);
  device::mma(sums[1], more, weights.z, weights.w);
}
// Of query row_of_lane(): columns 2t and 2t + 1.
__device__ __forceinline__ float2 total(const Sums& sums) {
  return {(sums[0][0] + sums[1][0]) + (sums[0][2] + sums[1][2]), (sums[0][1] + sums[1][1]) + (sums[0][3] + sums[1][3])};
}

constexpr int kGap = 32;  // weights between two rows in shared memory, for the banks

// Rows that lie together in global memory, copied apart, by a lane of every warp: the instruction takes one at a time.
template <int kRows, int kStride>
__device__ __forceinline__ void copy_rows(device::Mbarrier& barrier, Weight (&to)[kRows][kStride], const void* from) {
  const Weight* const rows = static_cast<const Weight*>(from);
  if (threadIdx.x % 32 == 0)
    for (int row = threadIdx.x / 32; row < kRows; row += kWarps)
      barrier.copy(to[row], rows + row * kD, kD * sizeof(Weight));
}

// Sums of one part of k for each warp: [query][row].
template <int kRows>
struct Parts {
  static constexpr int kSums = kQueries * kRows;
  static_assert(kRows % 8 == 0 && kSums <= kThreads, "one sum a thread");
  float of_warp[kWarps][kSums];

  __device__ __forceinline__ void store(const Sums& sums, int column) {
    const float2 both = ::total(sums);
    const int lane = threadIdx.x % 32;
    if (row_of_lane() < kQueries)
      *reinterpret_cast<float2*>(&of_warp[threadIdx.x / 32][row_of_lane() * kRows + column + lane % 4 * 2]) = both;
  }
  __device__ __forceinline__ float total(int which) const {
    float sum = 0.f;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) sum += of_warp[warp][which];
    return sum;
  }
};

// All rows of a matrix in shared memory times every query: this warp's part of k.
template <int kRows>
__device__ __forceinline__ void rows_times_x(const Weight (&rows)[kRows][kD + kGap], const Operand<kD>& x,
                                             Parts<kRows>& parts) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  Sums sums[kRows / 8] = {};
#pragma unroll
  for (int first = 0; first < kD; first += kWarps * 32) {
    const int k = first + warp * 32 + lane % 4 * 8;
    if (kD % (kWarps * 32) != 0 && k >= kD) break;  // all lanes of a warp alike
    const uint4 in = x.at(query_of_lane(), k), more = x.at(query_of_lane(), k + 4);
#pragma unroll
    for (int tile = 0; tile < kRows / 8; ++tile)
      multiply(sums[tile], in, more,
               halves(*reinterpret_cast<const Weights8*>(&rows[tile * 8 + row_of_lane()][k])));
  }
#pragma unroll
  for (int tile = 0; tile < kRows / 8; ++tile) parts.store(sums[tile], tile * 8);
}
