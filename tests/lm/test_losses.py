import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from bisae.corpus.tokens import TokenizedDocument
from bisae.lm.batches import batches
from bisae.lm.losses import document_losses, token_loss, token_losses, windows
from bisae.runtime.errors import Refused
from tests.pair_of_lms import BOS, CPU


def document(language: int, length: int, seed: int = 0) -> TokenizedDocument:
    ids = np.random.default_rng([seed, length]).integers(4, 5000, length)
    return TokenizedDocument(language, seed, ids.astype(np.int32))


@given(st.integers(0, 60), st.integers(2, 20), st.data(), st.sampled_from([BOS, None]))
def test_windows_predict_every_token_once_and_in_order(
    length: int, context: int, data: st.DataObject, bos: int | None
) -> None:
    stride = data.draw(st.integers(1, context - 1))
    ids, prefix = list(range(100, 100 + length)), [] if bos is None else [bos]
    made = list(windows(ids, bos, context, stride))
    predicted = [token for window in made for token in window.ids[window.given :]]
    assert predicted == (ids if bos is not None else ids[1:])
    for window in made:
        assert len(window.ids) <= context and window.ids[: len(prefix)] == prefix
        begin = window.ids[len(prefix)] - 100
        assert window.ids[len(prefix) :] == ids[begin : begin + len(window.ids) - len(prefix)]
    for window in made[1:]:
        assert len(window.ids) - window.given <= stride
        assert len(window.ids) == context  # as much context as fits
    if made:
        assert len(made[0].ids) == min(len(prefix) + length, context)


@pytest.mark.parametrize("stride", [0, 16])
def test_a_stride_that_leaves_no_token_or_no_context_is_refused(stride: int) -> None:
    with pytest.raises(Refused, match=f"^stride={stride}: must be between 1 and 15"):
        list(windows([5], BOS, 16, stride))


def test_batches_hold_every_sequence_once_right_padded_and_none_alone() -> None:
    sequences = [[5] * length for length in (3, 1, 7, 2, 2)]
    made = list(batches(sequences, 2, CPU))
    assert sorted(number for batch in made for number in batch.numbers) == [0, 1, 2, 3, 4]
    for batch in made:
        lengths = torch.tensor([len(sequences[number]) for number in batch.numbers])
        assert torch.equal(batch.mask, (torch.arange(batch.ids.shape[1]) < lengths[:, None]).long())
        assert torch.equal(batch.ids, 5 * batch.mask)
    assert [len(batch.numbers) for batch in batches([[1]] * 9, 4, CPU)] == [3, 3, 3]
    assert list(batches([], 4, CPU)) == []


def test_the_loss_of_a_batch_is_transformers_own_and_that_of_the_pretraining_code(
    lm: PreTrainedModel, prompts: list[list[int]]
) -> None:
    (batch,) = batches(prompts, 8, CPU)
    labels = batch.ids.masked_fill(batch.mask == 0, -100)
    with torch.no_grad():
        mean = lm(input_ids=batch.ids, attention_mask=batch.mask, labels=labels).loss.item()
    documents = [TokenizedDocument(0, 0, np.array(prompt[1:], np.int32)) for prompt in prompts]
    found = document_losses(lm, documents, ("en",), BOS, context=64, stride=8, batch=8)
    assert found.tokens.tolist() == [len(prompt) - 1 for prompt in prompts]
    assert found.nats.sum() / found.tokens.sum() == pytest.approx(mean, rel=1e-6)
    assert found.nats.sum() == pytest.approx(token_loss(lm, prompts).nats, rel=1e-6)


def test_a_long_document_has_the_losses_of_its_tokens_each_in_its_own_window(lm: PreTrainedModel) -> None:
    text = document(0, 23)
    found = document_losses(lm, [text], ("en",), BOS, context=12, stride=5, batch=2)
    expected = 0.0
    with torch.no_grad():
        for place, token in enumerate(text.ids):
            stop = next(stop for stop in (11, 16, 21, 23) if place < stop)  # end of the token's window
            before = torch.tensor([[BOS, *text.ids[max(0, stop - 11) : place]]])
            expected -= lm(before).logits[0, -1].log_softmax(-1)[token].item()
    assert found.tokens.tolist() == [23]
    assert found.nats[0] == pytest.approx(expected, rel=1e-6)


def test_documents_keep_their_losses_in_whatever_company(lm: PreTrainedModel) -> None:
    documents = [document(1, 30), document(0, 9), document(1, 0), document(0, 41, 1), document(1, 9, 2)]
    alone = [document_losses(lm, [one], ("en", "ja"), BOS, 16, 8, 1) for one in documents]
    together = document_losses(lm, documents, ("en", "ja"), BOS, context=16, stride=8, batch=3)
    assert together.language.tolist() == [1, 0, 1, 0, 1]
    assert together.tokens.tolist() == [30, 9, 0, 41, 9]
    assert together.nats == pytest.approx(np.concatenate([one.nats for one in alone]), rel=1e-5)


def test_token_losses_are_in_the_order_of_the_sequences_and_their_tokens(lm: PreTrainedModel) -> None:
    sequences = [[BOS, 50, 60, 70], [BOS], [BOS, 80]]
    found = token_losses(lm, sequences, batch=2)
    with torch.no_grad():
        log_p = lm(torch.tensor(sequences[:1])).logits[0].log_softmax(-1)
    expected = [-log_p[place, token].item() for place, token in enumerate(sequences[0][1:])]
    assert found[0] == pytest.approx(expected, rel=1e-5)
    assert [len(one) for one in found] == [3, 0, 1]


def test_a_batch_is_of_one_language_and_of_several_documents(lm: PreTrainedModel) -> None:
    seen = []
    hook = lm.register_forward_pre_hook(lambda _, __, inputs: seen.append(inputs["input_ids"]), with_kwargs=True)
    texts = [
        TokenizedDocument(language, 0, np.full(30, 10 * language + 10 + n, np.int32))
        for language in (0, 1)
        for n in (0, 1)
    ]
    document_losses(lm, texts, ("en", "ja"), BOS, context=9, stride=4, batch=2)
    hook.remove()
    assert {tuple(sorted(ids[:, 1].tolist())) for ids in seen} == {(10, 11), (20, 21)}
