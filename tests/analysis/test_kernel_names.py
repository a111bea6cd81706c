"""Names that people can read, and the attention that they give away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_export import Export

from analysis import Account, Trace, account
from analysis.kernels import attention_backends, short_name

CUTLASS = "cutlass_80_tensorop_f16_s16816gemm_f16_128x256_32x3_tn_align2"


@pytest.mark.parametrize(
    ("full", "short"),
    [
        (
            "void at::native::vectorized_elementwise_kernel<(int)8, at::native::CUDAFunctor_add<c10::Half>, "
            "std::array<char *, (unsigned long)3>>(int, T2, T3)",
            "vectorized_elementwise_kernel [add]",
        ),
        (
            "void at::native::vectorized_elementwise_kernel<(int)8, at::native::AUnaryFunctor<c10::Half, "
            "c10::Half, c10::Half, at::native::binary_internal::MulFunctor<float>>>(int, T2, T3)",
            "vectorized_elementwise_kernel [mul]",
        ),
        (
            "void at::native::elementwise_kernel<(int)128, (int)4, void at::native::gpu_kernel_impl_nocast<"
            "at::native::direct_copy_kernel_cuda(at::TensorIteratorBase &)::[lambda() (instance 3)]::"
            "operator ()() const::[lambda(c10::Half) (instance 1)]>(at::TensorIteratorBase &)>(int, T3)",
            "elementwise_kernel [copy]",
        ),
        (f"void cutlass::Kernel2<{CUTLASS}>(T1::Params)", CUTLASS),
        (
            "std::enable_if<!T7, void>::type internal::gemvx::kernel<int, int, __half, (bool)0>(T13)",
            "gemvx::kernel",
        ),
        (
            "void <unnamed>::softmax_warp_forward<c10::Half, float, (int)11>(T2 *, const T1 *, bool)",
            "softmax_warp_forward",
        ),
        ("nvjet_sm90_hsh_8x64_64x16_4x1_v_bz_bias_TNN", "nvjet_sm90_hsh_8x64_64x16_4x1_v_bz_bias_TNN"),
        ("[memcpy HtoD]", "[memcpy HtoD]"),
        ("my_kernel(float*, int)", "my_kernel"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("", "(unnamed kernel)"),
    ],
)
def test_short_names(full: str, short: str) -> None:
    assert short_name(full) == short


def test_attention_of_the_real_recordings(
    eager: tuple[Trace, Account], recorded: Callable[[str], Path]
) -> None:
    trace, acc = eager
    assert attention_backends(acc) == attention_backends(trace)
    assert attention_backends(acc)["math"] > 0 and attention_backends(acc)["cudnn"] == 0
    with Trace.open(recorded("h200_sdpa")) as sdpa:
        backends = attention_backends(sdpa)
    assert backends["cudnn"] > 0 and backends["flash"] == backends["efficient"] == 0


def test_each_fused_attention_is_told_by_its_kernels(tmp_path: Path) -> None:
    names = {
        "flash": "void pytorch_flash::flash_fwd_splitkv_kernel<Flash_fwd_traits<64>>(Flash_fwd_params)",
        "efficient": "fmha_cutlassF_f16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::Params)",
        "cudnn": "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x64_kernel0_0",
        "math": "triton_per_fused__softmax_3",
    }
    export = Export()
    for correlation, name in enumerate(names.values()):
        export.kernel(10 * correlation, 10 * correlation + 5, correlation, name=name)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        assert attention_backends(trace) == attention_backends(account(trace)) == dict.fromkeys(names, 1)
