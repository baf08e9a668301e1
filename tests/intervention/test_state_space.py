from pathlib import Path

import torch
from transformers import MambaConfig, MambaForCausalLM

from bisae.edits.operation import StreamPair
from bisae.edits.patched_lm import DonorReader, patched
from bisae.lm.causal_lm import load_causal_lm
from bisae.lm.generation import CausalLM
from bisae.lm.model import Checkpoint, EmbeddedModel
from bisae.lm.probe import decoder_blocks

CPU = torch.device("cpu")


def test_a_state_space_lm_generates_under_a_donor_as_it_does_alone(tmp_path: Path) -> None:
    config = MambaConfig(
        vocab_size=5120, hidden_size=16, num_hidden_layers=2, state_size=4, time_step_rank=4, bos_token_id=1,
        eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    for folder, seed in (("donor", 0), ("recipient", 1)):
        torch.manual_seed(seed)
        MambaForCausalLM(config).save_pretrained(tmp_path / folder)
    donor, recipient = (
        Checkpoint("mamba", 0, tmp_path / name, "w", "t", None, layers=2, d_model=16) for name in ("donor", "recipient")
    )
    lm = load_causal_lm(recipient, torch.float32, CPU)
    tokenizer = EmbeddedModel("embedded", str(tmp_path)).checkpoint("final").load_tokenizer()
    asked = CausalLM(lm, tokenizer, 2)
    prompts = [[1, 300, 301, 302], [1, 400, 401]]
    reads = DonorReader(donor, [1], torch.float32, CPU)

    def all_of_the_donor(streams: StreamPair) -> torch.Tensor:
        assert streams.donor is not None
        return streams.donor

    with patched(lm, {1: all_of_the_donor}, reads, {1}):
        together = asked.generate(prompts, None, 5)
        alone = [asked.generate([prompt], None, 5)[0] for prompt in prompts]
    assert together == alone
    # By hand, without a donor that reads along: its stream at layer 1 is put in behind BOS, token by token.
    for prompt, answer in zip(prompts, alone, strict=True):
        ids = list(prompt)
        for _ in range(5):
            stream = reads.read(torch.tensor([ids]))[1]

            def put_in(_: object, __: object, output: torch.Tensor, stream: torch.Tensor = stream) -> torch.Tensor:
                return torch.cat([output[:, :1], stream[:, 1:]], 1)

            hook = decoder_blocks(lm)[0].register_forward_hook(put_in)
            with torch.no_grad():
                ids.append(int(lm(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            hook.remove()
        assert tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True) == answer
