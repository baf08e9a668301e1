"""Caching activations against the LM's own forward pass: LLM-jp-3-150M's shape, random weights.

The LM is transformers' Llama where that is installed, else the same blocks written out. Caching keeps the stream of
every layer as bf16, copies it to pinned memory, and a thread writes it, as bisae's reader and writer do.
"""

import importlib.util
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

from on_device.about import DEVICE
from on_device.timing import Budget, in_turn, ratio, wait

VOCABULARY, D_MODEL, LAYERS, HEADS, FFN, CONTEXT = 99_584, 512, 12, 8, 2048, 65  # BOS and 64 tokens


class Block(nn.Module):
    """A block of Llama."""

    def __init__(self, d_model: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.heads = heads
        sizes = {"qkv": (3 * d_model, d_model), "out": (d_model, d_model), "up": (2 * ffn, d_model)}
        for name, size in {**sizes, "down": (d_model, ffn)}.items():
            setattr(self, name, nn.Parameter(torch.randn(size) * 0.02))

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        batch, length, d_model = x.shape
        mixed = linear(rms_norm(x, (d_model,)), self.qkv).view(batch, length, 3, self.heads, -1)  # type: ignore[arg-type]
        q, k, v = mixed.permute(2, 0, 3, 1, 4)
        q, k = (
            part * turn[0] + torch.cat((-part.chunk(2, -1)[1], part.chunk(2, -1)[0]), -1) * turn[1] for part in (q, k)
        )
        seen = scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        x = x + linear(seen, self.out)  # type: ignore[arg-type]
        gate, up = linear(rms_norm(x, (d_model,)), self.up).chunk(2, -1)  # type: ignore[arg-type]
        return x + linear(silu(gate) * up, self.down)  # type: ignore[arg-type]


class Llama(nn.Module):
    """Llama without its head."""

    def __init__(self, vocabulary: int, d_model: int, layers: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, d_model)
        self.layers = nn.ModuleList(Block(d_model, heads, ffn) for _ in range(layers))
        self.width = d_model // heads

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        angle = torch.arange(ids.shape[1], device=ids.device)[:, None] * 10_000 ** -(
            torch.arange(0, self.width, 2, device=ids.device) / self.width
        )
        turn = tuple(torch.cat((part, part), -1).to(x.dtype) for part in (angle.cos(), angle.sin()))
        for layer in self.layers:
            x = layer(x, turn)
        return x


def lm(smoke: bool) -> tuple[nn.Module, str]:
    """The LM in bf16, and what it is."""
    sizes = (256, 64, 2, 2, 128) if smoke else (VOCABULARY, D_MODEL, LAYERS, HEADS, FFN)
    torch.manual_seed(0)
    if importlib.util.find_spec("transformers") is None or smoke:
        return Llama(*sizes).to(DEVICE, torch.bfloat16).eval(), "blocks written out"
    from transformers import LlamaConfig, LlamaModel

    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    settings: dict[str, Any] = dict(zip(names, sizes, strict=True))
    model: nn.Module = LlamaModel(LlamaConfig(**settings, use_cache=False))
    return model.to(DEVICE, torch.bfloat16).eval(), "transformers"


class Cache:
    """Runs the LM over one batch of ids: alone, with all streams kept, copied to the host, and written."""

    def __init__(self, model: nn.Module, ids: Tensor, folder: Path) -> None:
        self.model, self.ids, self.folder, self.blocks = model, ids, folder, cast(Any, model.layers)
        self.streams: list[Tensor] = []
        self.kept()
        shape = len(self.streams), ids.shape[0] * (CONTEXT - 1), self.streams[0].shape[-1]
        cuda = DEVICE.type == "cuda"
        self.pinned = [torch.empty(shape, dtype=torch.bfloat16, pin_memory=cuda) for _ in range(2)]
        self.writer, self.pending, self.number = ThreadPoolExecutor(1), [Future[int](), Future[int]()], 0
        for future in self.pending:
            future.set_result(0)

    @torch.no_grad()
    def forward(self) -> None:
        self.model(self.ids)

    @torch.no_grad()
    def kept(self) -> None:
        self.streams = []
        hooks = [block.register_forward_hook(self._keep) for block in self.blocks]
        self.model(self.ids)
        for hook in hooks:
            hook.remove()

    def _keep(self, _: object, __: object, output: Any) -> None:
        self.streams.append((output if isinstance(output, Tensor) else output[0])[:, 1:])

    def copied(self) -> None:
        """Into the pinned memory that the writer does not read."""
        self.kept()
        self.number = 1 - self.number
        self.pending[self.number].result()
        for layer, stream in enumerate(self.streams):
            self.pinned[self.number][layer].copy_(stream.reshape(-1, stream.shape[-1]), non_blocking=True)
        wait()

    def cached(self) -> None:
        self.copied()
        rows = self.pinned[self.number].view(torch.uint8).numpy().data
        self.pending[self.number] = self.writer.submit((self.folder / f"{self.number}.bin").write_bytes, rows)

    def flops(self) -> int:
        """Operations of a forward pass."""
        weights = sum(weight.numel() for block in self.blocks for weight in block.parameters())
        attention = 4 * len(self.blocks) * self.streams[0].shape[-1] * CONTEXT
        return self.ids.numel() * (2 * weights + attention)


def caching(budget: Budget) -> Iterator[dict[str, Any]]:
    """A row a batch size: caching and its parts against the forward pass, and operations a second of that."""
    model, kind = lm(budget.smoke)
    for sequences in (4,) if budget.smoke else (512, 2048):
        if not budget.allows(5):
            return
        with TemporaryDirectory() as folder:
            cache = Cache(model, torch.randint(0, 256, (sequences, CONTEXT), device=DEVICE), Path(folder))
            works = {"forward": cache.forward, "kept": cache.kept, "copied": cache.copied, "cached": cache.cached}
            times = in_turn(works, 2 if budget.smoke else 8)
            cache.writer.shutdown()
        took = median(times["forward"])
        yield {
            "lm": kind,
            "sequences": sequences,
            "tokens": sequences * (CONTEXT - 1),
            "forward_seconds": took,
            "lm_tflops": cache.flops() / took / 1e12,
            **{f"{name}_of_forward": ratio(times, name, "forward") for name in ("kept", "copied", "cached")},
        }
