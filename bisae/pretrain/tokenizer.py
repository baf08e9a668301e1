"""Train the tokenizer of a pre-training run: BPE with byte fallback, from the LM's training pairs only.

A space becomes a mark (U+2581) at the start of the next word, as in LLM-jp's tokenizer. Punctuation, digits and runs of
katakana are split off before the merges, so that a Japanese sentence, written without spaces, is not one long word.
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
    """Set NFKC, the marks for spaces, and the splits before the merges; and how to undo them."""
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
    """Train a tokenizer.

    Args:
        texts: to train on.
        vocabulary: number of tokens: 4 specials, 256 bytes, and BPE tokens.
        alphabet: the largest number of single characters among the BPE tokens. Another character becomes its UTF-8
            bytes, so that no text is lost.
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

    # Byte tokens are ordinary entries of the vocabulary. If they were added tokens, the text "<0x0A>" would become one.
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
    """Write the Hugging Face tokenizer files into a new `folder`."""
    with atomic_folder(folder) as temporary:
        tokenizer.save_pretrained(str(temporary))
