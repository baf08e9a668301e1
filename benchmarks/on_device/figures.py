"""What each stage of a step must compute and move on an H100, beside the bars. Arithmetic: nothing is measured."""

from collections.abc import Callable

from bisae.sae.kernels.paper import HALF, Ceilings, memory, stages, step_seconds

# Of an H100: products seen, of 989 and 67 TFLOP/s; copy seen, of 3.35 TB/s; the cache's speed is assumed.
H100 = Ceilings(bf16=750e12, float32=50e12, memory=3.0e12, cache=5.5e12)
LATENTS, K = 32768, 32
BARS = {(2048, 32768): 2.2, (512, 32768): 3.0}
MEMORY_BAR = 8e9


def show() -> None:
    say: Callable[..., None] = print
    say("H100 on paper, latents 32 768, k 32, bf16-mixed with kernels. Nothing here is measured.")
    say(f"{'stage, at d 2048 and batch 32 768':46} {'TFLOP':>7} {'GB moved':>9} {'GB gathered':>12} {'ms':>6}")
    for stage in stages(32768, LATENTS, 2048, K):
        sizes = f"{stage.flops / 1e12:7.2f} {stage.moved / 1e9:9.2f} {stage.gathered / 1e9:12.2f}"
        say(f"{stage.name:46} {sizes} {1e3 * H100.seconds(stage):6.2f}")
    batch = HALF * 32768 * 2048
    seconds = step_seconds(H100, 32768, LATENTS, 2048, K)
    say(f"{'copy of the next batch, beside the step':46} {0:7.2f} {batch / 1e9:9.2f}", end="")
    say(f"  is hidden from {batch / seconds / 1e9:.0f} GB/s on")
    say(f"\nMemory of one member at d 2048 and batch 32 768, in GB; the bar is {MEMORY_BAR / 1e9:.0f}")
    for kernels in (True, False):
        parts = memory(32768, LATENTS, 2048, K, kernels=kernels)
        say(f"{'with kernels' if kernels else 'with PyTorch':46} {sum(size for _, size in parts) / 1e9:7.2f}")
        for what, size in parts:
            say(f"  {what:60} {size / 1e9:6.2f}")
    say("\nA step, and in bf16 products: with kernels, the same with rows gathered from memory, with PyTorch; the bar")
    say(f"{'d_model':>7} {'batch':>6} {'ms':>6} {'kernels':>8} {'memory':>7} {'PyTorch':>8} {'bar':>4}")
    for d_model in (512, 1024, 1536, 2048, 3072):
        for batch in (8192, 32768):
            shape = batch, LATENTS, d_model, K
            product = 2 * batch * LATENTS * d_model / H100.bf16
            ours, plain = step_seconds(H100, *shape), step_seconds(H100, *shape, kernels=False)
            far = step_seconds(H100._replace(cache=H100.memory), *shape)
            figures = f"{ours / product:8.2f} {far / product:7.2f} {plain / product:8.2f}"
            say(f"{d_model:7} {batch:6} {1e3 * ours:6.2f} {figures} {BARS.get((d_model, batch), ''):>4}")
