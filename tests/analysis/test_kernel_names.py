"""Names that people can read, and the attention that they give away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_export import Export

from analysis import Account, Trace, account
from analysis.accounting.kernels import short_name
from analysis.metrics import metrics

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


def attention(acc: Account) -> dict[str, float]:
    return {name: value for name, value in metrics(acc).items() if "attention_kernels" in name}


def test_attention_of_the_real_recordings(
    eager: tuple[Trace, Account], recorded: Callable[[str], Path]
) -> None:
    found = attention(eager[1])
    assert found["attention_kernels.other"] == found["attention_kernels.math"] > 0
    assert found["attention_kernels.flash_per_step"] == 0
    with Trace.open(recorded("h200_sdpa")) as sdpa:
        found = attention(account(sdpa))
    assert found["attention_kernels.cudnn"] > 0
    assert found["attention_kernels.flash"] == found["attention_kernels.efficient"] == 0


def test_attention_is_told_by_kernels_and_counted_per_phase(tmp_path: Path) -> None:
    flash = "void pytorch_flash::flash_fwd_splitkv_kernel<Flash_fwd_traits<64>>(Flash_fwd_params)"
    others = {
        "efficient": "fmha_cutlassF_f16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::Params)",
        "cudnn": "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x64_kernel0_0",
        "math": "triton_per_fused__softmax_3",
    }
    export = Export()
    export.domain("harness")
    export.range("encode", 0, 90)
    export.range("decode", 100, 190)
    export.range("decode.step", 100, 140)
    export.range("decode.step", 150, 190)
    launches = [(0, flash), (110, flash), (120, flash), (130, others["math"]), (160, flash)]
    launches += [(10 + 10 * n, name) for n, name in enumerate(others.values())]
    for correlation, (start, name) in enumerate([*launches, (170, "gemm")]):
        export.call(start, start + 1, correlation)
        export.kernel(start + 300, start + 305, correlation, name=name)  # long after its range has ended
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        found = attention(account(trace))
    assert found == {
        "attention_kernels.flash": 4,
        "attention_kernels.cudnn": 1,
        "attention_kernels.efficient": 1,
        "attention_kernels.math": 2,
        "attention_kernels.other": 4,
        "decode.attention_kernels.flash": 3,
        "decode.attention_kernels.cudnn": 0,
        "decode.attention_kernels.efficient": 0,
        "decode.attention_kernels.math": 1,
        "decode.attention_kernels.other": 1,
        "attention_kernels.flash_per_step": 1.5,
    }


def test_attention_inside_a_graph_traced_as_a_whole_is_unknown_not_zero(tmp_path: Path) -> None:
    export = Export()
    export.call(0, 1, 1)
    export.graph(2, 9, 1)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        assert attention(account(trace)) == {}
