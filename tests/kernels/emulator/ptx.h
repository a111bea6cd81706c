// PTX instructions, one function each: translate.py makes calls of the asm statements, and of `unknown` for those that
// have none here. Fences do nothing: memory is seen by all in the order of the writes.
#pragma once
#include <cmath>
#include <cstring>

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "threads.h"

namespace ptx {

using emulator::Where;

inline void unknown(const char* instruction, WHERE) {
  emulator::fail(std::string("an instruction without a function in ptx.h: ") + instruction, where);
}

template <typename T>
void check_aligned(const T* pointer, size_t bytes, Where where) {
  if (reinterpret_cast<uintptr_t>(pointer) % bytes) emulator::fail("an access that is not aligned to its size", where);
}

inline void ex2_approx_ftz_f32(float& to, float x) {
  const float result = exp2f(x);
  to = result < 1.17549435e-38f ? 0.f : result;
}
inline void ld_global_nc_L1_no_allocate_L2_256B_v4_u32(unsigned& x, unsigned& y, unsigned& z, unsigned& w,
                                                       const void* from, WHERE) {
  check_aligned(from, 16, where);
  unsigned value[4];
  memcpy(value, from, 16);
  x = value[0], y = value[1], z = value[2], w = value[3];
}

// Kernels follow one another here.
inline void griddepcontrol_wait() {}
inline void griddepcontrol_launch_dependents() {}

// Copies without an mbarrier: they arrive when the thread that made them waits for them.
inline void cp_async_cg_shared_global(uint32_t to, const void* from, int bytes, WHERE) {
  if (bytes != 16) emulator::fail("cp.async.cg of other than 16 bytes", where);
  check_aligned(from, 16, where);
  uint8_t* target = emulator::shared_memory(to, 16, where);
  check_aligned(target, 16, where);
  uint4 value;
  memcpy(&value, from, 16);
  emulator::self().copies.emplace_back(target, value);
}
inline void cp_async_wait_all() {
  for (auto& [to, value] : emulator::self().copies) memcpy(to, &value, 16);
  emulator::self().copies.clear();
}

inline void fence_mbarrier_init_release_cluster() {}
inline void mbarrier_init_shared_cta_b64(uint32_t barrier, unsigned count, WHERE) {
  emulator::init_barrier(barrier, count, where);
}
inline void mbarrier_arrive_expect_tx_shared_cta_b64(uint32_t barrier, uint32_t bytes, WHERE) {
  emulator::expect_bytes(barrier, bytes, where);
}
// With the loop around it.
inline void mbarrier_try_wait_parity_acquire_cluster_shared_cta_b64(uint32_t barrier, uint32_t parity, WHERE) {
  emulator::wait_for_barrier(barrier, parity, where);
}
inline void cp_async_bulk_shared_cluster_global_mbarrier_complete_tx_bytes(uint32_t to, const void* from, uint32_t bytes,
                                                                           uint32_t barrier, WHERE) {
  if (bytes % 16 || bytes == 0) emulator::fail("a bulk copy of " + std::to_string(bytes) + " bytes", where);
  check_aligned(from, 16, where);
  emulator::send(to, barrier, from, bytes, where);
}
inline void st_async_weak_shared_cluster_mbarrier_complete_tx_bytes_b32(uint32_t to, unsigned value, uint32_t barrier,
                                                                        WHERE) {
  emulator::send(to, barrier, &value, 4, where);
}
inline void st_async_weak_shared_cluster_mbarrier_complete_tx_bytes_v4_f32(uint32_t to, float x, float y, float z, float w,
                                                                           uint32_t barrier, WHERE) {
  const float value[4] = {x, y, z, w};
  emulator::send(to, barrier, value, 16, where);
}

inline void st_async_weak_shared_cluster_mbarrier_complete_tx_bytes_v4_b32(uint32_t to, unsigned x, unsigned y, unsigned z,
                                                                           unsigned w, uint32_t barrier, WHERE) {
  const unsigned value[4] = {x, y, z, w};
  emulator::send(to, barrier, value, 16, where);
}
inline void st_async_weak_shared_cluster_mbarrier_complete_tx_bytes_v2_b32(uint32_t to, unsigned x, unsigned y,
                                                                           uint32_t barrier, WHERE) {
  const unsigned value[2] = {x, y};
  emulator::send(to, barrier, value, 8, where);
}

inline void barrier_cluster_arrive_relaxed_aligned(WHERE) { emulator::cluster_arrive(where); }
inline void barrier_cluster_arrive_release_aligned(WHERE) { emulator::cluster_arrive(where); }
inline void barrier_cluster_wait_acquire_aligned(WHERE) { emulator::cluster_wait(where); }
inline void mapa_shared_cluster_u32(uint32_t& to, uint32_t address, unsigned rank, WHERE) {
  if (rank >= emulator::block->cluster->blocks.size())
    emulator::fail("rank " + std::to_string(rank) + " in a cluster of " +
                       std::to_string(emulator::block->cluster->blocks.size()), where);
  to = (address & 0xffffff) | (rank + 1) << 24;
}
template <typename T>
void mapa_u64(T*& to, T* pointer, unsigned rank, WHERE) {
  to = static_cast<T*>(emulator::in_block(const_cast<void*>(static_cast<const void*>(pointer)), rank, where));
}

// Four matrices [8][8] of 16 bits: lane l gives where row l % 8 of matrix l / 8 is. Lane 4g + t gets the two elements
// from 2t on of row g of each; transposed: of column g.
inline void ldmatrix(uint32_t* (&to)[4], uint32_t from, bool transposed, Where where) {
  const unsigned lane = emulator::self().index.x % 32;
  const uint64_t* rows = emulator::exchange(from, "ldmatrix", where);
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    uint16_t two[2];
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned minor = lane % 4 * 2 + i;
      const unsigned row = transposed ? minor : lane / 4, column = transposed ? lane / 4 : minor;
      const uint8_t* given = emulator::shared_memory(static_cast<uint32_t>(rows[matrix * 8 + row]), 16, where);
      check_aligned(given, 16, where);
      memcpy(&two[i], given + 2 * column, 2);
    }
    memcpy(to[matrix], two, 4);
  }
}
inline void ldmatrix_sync_aligned_m8n8_x4_shared_b16(uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d, uint32_t from,
                                                     WHERE) {
  uint32_t* to[4] = {&a, &b, &c, &d};
  ldmatrix(to, from, false, where);
}
inline void ldmatrix_sync_aligned_m8n8_x4_trans_shared_b16(uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d,
                                                           uint32_t from, WHERE) {
  uint32_t* to[4] = {&a, &b, &c, &d};
  ldmatrix(to, from, true, where);
}

// The lanes of a warp multiply [16, 16] by [16, 8]; see "Matrix Fragments for mma.m16n8k16" in the PTX manual.
template <typename T>
void multiply(float* (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4], Where where) {
  const unsigned lane = emulator::self().index.x % 32;
  float left[4][32][2], right[2][32][2];
  const auto gather = [&](uint32_t mine, float (&all)[32][2]) {
    const uint64_t* given = emulator::exchange(mine, "mma", where);
    for (int from = 0; from < 32; ++from)
      for (int half = 0; half < 2; ++half) {
        T value;
        value.bits = static_cast<uint16_t>(given[from] >> 16 * half);
        all[from][half] = value;
      }
  };
  for (int i = 0; i < 4; ++i) gather(a[i], left[i]);
  for (int i = 0; i < 2; ++i) gather(b[i], right[i]);
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    float sum = c[i];
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned pair = k % 8 / 2;  // which of four lanes has the two elements that k is one of
      sum += left[row / 8 + k / 8 * 2][row % 8 * 4 + pair][k % 2] * right[k / 8][column * 4 + pair][k % 2];
    }
    *d[i] = sum;
  }
}
#define MMA(name, type)                                                                                           \
  inline void name(float& d0, float& d1, float& d2, float& d3, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, \
                   uint32_t b0, uint32_t b1, float c0, float c1, float c2, float c3, WHERE) {                      \
    float* d[4] = {&d0, &d1, &d2, &d3};                                                                           \
    multiply<type>(d, {a0, a1, a2, a3}, {b0, b1}, {c0, c1, c2, c3}, where);                                        \
  }
MMA(mma_sync_aligned_m16n8k16_row_col_f32_f16_f16_f32, __half)
MMA(mma_sync_aligned_m16n8k16_row_col_f32_bf16_bf16_f32, __nv_bfloat16)
#undef MMA

}  // namespace ptx
