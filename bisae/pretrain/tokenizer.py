"""The tokenizer of a pre-training run: BPE with byte fallback, trained on the LM's own split only.

Words carry their space as a leading mark (U+2581) as in LLM-jp's tokenizer; punctuation, digits and katakana runs are
split off before the merges, so that an unsegmented Japanese sentence does not become one long word.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from bisae.runtime.atomic import atomic_folder

SPECIALS = ("<unk>", "<s>", "</s>", "<pad>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


def _shape(tokenizer: Tokenizer) -> None:
    """Everything around the merges: NFKC, space marks, splits before, and BOS first."""
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" ", "▁")])
    runs = r"[\u30a1-\u30faー]+|\p{N}|[^\p{L}\p{N}\p{M}▁]"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("▁", "merged_with_next"),
            pre_tokenizers.Split(Regex(runs), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])


def train_tokenizer(texts: Iterable[str], vocabulary: int, alphabet: int) -> PreTrainedTokenizerFast:
    """A tokenizer of `vocabulary` tokens: specials, 256 bytes, then BPE with at most `alphabet` single characters.

    A character outside the alphabet becomes its UTF-8 bytes, so no text is lost.
    """
    learner = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    _shape(learner)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(BYTES),
        special_tokens=list(SPECIALS),
        limit_alphabet=min(alphabet, vocabulary - len(SPECIALS) - len(BYTES)),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)

    # Byte tokens are ordinary entries of the vocabulary: as added tokens, the text "<0x0A>" would match one.
    model = json.loads(learner.to_str())["model"]
    learnt = sorted(model["vocab"], key=model["vocab"].__getitem__)[len(SPECIALS) :]
    ids = {token: index for index, token in enumerate((*SPECIALS, *BYTES, *learnt))}
    merges = [(left, right) for left, right in model["merges"]]
    tokenizer = Tokenizer(models.BPE(ids, merges, byte_fallback=True, unk_token="<unk>"))
    _shape(tokenizer)
    tokenizer.add_special_tokens(list(SPECIALS))
    bos = SPECIALS[1]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, ids[bos])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the ordinary Hugging Face tokenizer files into a new `folder`."""
    with atomic_folder(folder) as temporary:
        tokenizer.save_pretrained(str(temporary))
