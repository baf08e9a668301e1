"""Bad input of train.py, refused by key."""

from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from bisae.cli.train import train
from bisae.lm.lm_pass import LMPass
from bisae.runtime.errors import ConfigError

Config = Callable[..., DictConfig]


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("layer=5", "layer"),
        ("layer=-1", "layer"),
        ("layer=[1,1]", "layer"),
        ("layer=middle", "layer"),
        ("checkpoint=513", "checkpoint"),
        ("checkpoint=last", "checkpoint"),
        ("sae.k=65", "sae.k"),
        ("sae.k=0", "sae.k"),
        ("sae.latents=0", "sae.latents"),
        ("sae.lr=0", "sae.lr"),
        ("sae.lr=[]", "sae.lr"),
        ("sae.lr=[0.1,0.1]", "sae.lr"),
        ("sae.dead_after=0", "sae.dead_after"),
        ("data.tokens=10000000", "data.tokens"),
        ("data.batch=7000", "data.batch"),
        ("data.batch=0", "data.batch"),
        ("data.epochs=0", "data.epochs"),
        ("data.split=test", "data.split"),
        ("data.validation_tokens=0", "data.validation_tokens"),
        ("optimizer.warmup=0", "optimizer.warmup"),
        ("save_every=0", "save_every"),
        ("trainer.devices=2", "trainer.devices"),
        ("activations.disk_gib=0.0001", "activations.disk_gib"),
        ("activations.pass.context=0", "activations.pass.context"),
        ("activations.pass.shortest=999", "activations.pass.shortest"),
        ("activations.pass.lm_dtype=float64", "activations.pass.lm_dtype"),
        ("+trainer.max_epochs=5", "trainer.max_epochs"),
        ("+trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches"),
        ("+trainer.gradient_clip_val=much", "trainer.gradient_clip_val"),
        ("+trainer.gradient_clip_val=-1", "trainer.gradient_clip_val"),
        ("+trainer.val_check_interval=5", "trainer.val_check_interval"),
        ("+trainer.gradient_clip_val=1 optimizer=blocked", "trainer.gradient_clip_val"),
        ("trainer.precision=16-true", "trainer.precision"),
        ("trainer.precision=16-mixed sae.aux_k=8", "trainer.precision"),
        ("+trainer.max_time=soon", "trainer.max_time"),
        ("+callbacks.stop._target_=mine.Nothing", "callbacks.stop._target_"),
        ("+callbacks.stop._target_=torch.nn.Linear", "callbacks.stop._target_"),
        ("+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping", "callbacks.stop.monitor"),
        ("+callbacks.saves._target_=lightning.pytorch.callbacks.ModelCheckpoint", "callbacks.saves._target_"),
        ("trainer.accelerator=abacus", "trainer.accelerator"),
        ("sae.lr=fast", "sae.lr"),
        ("sae.lr=null", "sae.lr"),
        ("sae.lr=inf", "sae.lr"),
        ("sae.k=four", "sae.k"),
        ("sae.k=2.0", "sae.k"),
        ("sae.k=[1,two]", "sae.k"),
        ("sae.latents=64.5", "sae.latents"),
        ("sae.seed=-1", "sae.seed"),
        ("sae.dead_after=soon", "sae.dead_after"),
        ("+sae.foo=1", "sae.foo"),
        ("sae.name=a/b", "sae.name"),
        ("data.tokens=many", "data.tokens"),
        ("data.batch=2.5", "data.batch"),
        ("data.batch=null", "data.batch"),
        ("data.epochs=1.5", "data.epochs"),
        ("data.seed=-1", "data.seed"),
        ("data.block=2.5", "data.block"),
        ("optimizer.warmup=x", "optimizer.warmup"),
        ("optimizer=own", "optimizer.partial._target_"),
        ("+optimizer.partial.lr=1", "optimizer.partial.lr"),
        ("scheduler=linear scheduler.begin=1.5", "scheduler.begin"),
        ("scheduler=linear +scheduler.warmup=5", "scheduler.warmup"),
        ("scheduler=own scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau", "scheduler"),
        ("+scheduler.foo=1", "scheduler.foo"),
        ("sae.encoder_norm=0", "sae.encoder_norm"),
        ("sae.baseline=frozen", "sae.baseline"),
        ("optimized_metric=val/fvu/fr", "optimized_metric"),
        ("optimizer.partial.betas=[2,3]", "optimizer.partial"),
        ("activations.disk_gib=x", "activations.disk_gib"),
        ("activations.pass.context=100000", "activations.pass.context"),
        ("activations.pass.device=tpu", "activations.pass.device"),
        ("activations.folder=/proc/x", "activations.folder"),
        ("runs=/proc/x", "runs"),
        ("runs=null", "runs"),
        ("model=hf", "model.name"),
        ("+model.foo=1", "model.foo"),
        ("logger.mode=foo", "logger.mode"),
        ("logger.upload=no", "logger.upload"),
        ("force=1", "force"),
        ("trainer.devices=0", "trainer.devices"),
        ("trainer.devices=many", "trainer.devices"),
        ("trainer.devices=3", "data.batch"),
        ("data.window_pools=0", "data.window_pools"),
        ("activations=rolling activations.disk_gib=0.0001", "activations.disk_gib"),
        ("activations=rolling data.tokens=10000000 data.window_pools=9999", "data.tokens"),
        ("activations=streaming data.validation_tokens=10000000", "data.validation_tokens"),
        ("corpus.seed=x", "corpus.seed"),
        ("layer=[]", "layer"),
        ("checkpoint=1e3", "checkpoint"),
    ],
)
def test_bad_input_is_refused_with_its_key_before_any_lm_work(
    config: Config, monkeypatch: pytest.MonkeyPatch, override: str, key: str
) -> None:
    monkeypatch.setattr(LMPass, "activations", lambda *_: pytest.fail("ran the LM"))
    with pytest.raises(ConfigError) as refused:
        train(config(*override.split()))
    assert refused.value.key == key
