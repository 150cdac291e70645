"""What a GPU would complain of, without one: tensors that lie elsewhere, and answers that the host waits for.

PyTorch's fake tensors have a device and no content. Whatever mixes devices, or reads a number back, fails on them; and every
operation that would be started on the device is counted, so that a step does not become slower unnoticed.
"""
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mnsp.augment import FinetuneAugment
from mnsp.finetune import CharacterLoss
from mnsp.guidance import GuidanceView
from mnsp.nsp import nsp_tasks
from mnsp.pretrain import Pretrainer, lmim, mae, mnsp
from mnsp.recognizer import Recognizer, recognizer_tiny


class Operations(TorchDispatchMode):
    "How many a device would be given: views and empty memory cost it nothing"
    n, free = 0, ('empty', '_unsafe_view')
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += func.namespace == 'aten' and not func.is_view and func.overloadpacket.__name__ not in self.free
        return func(*args, **(kwargs or {}))


@pytest.fixture
def on_gpu(monkeypatch):
    "A function (what builds, what is done with it) -> operations of the latter, on a GPU that is not there"
    monkeypatch.setattr(FakeTensorMode, '__deepcopy__', lambda self, memo: self, raising=False) # of a moving average
    def run(build, do):
        with FakeTensorMode():
            with torch.device('cuda'): thing = build()
            images = torch.randint(0, 256, (4, 3, 32, 128), dtype=torch.uint8, device='cuda')
            with Operations() as operations: out = do(thing, images)
        for x in out if isinstance(out, (list, tuple)) else [out]: assert x.device.type == 'cuda'
        return operations.n
    return run


naive = replace(mnsp('tiny'), tasks=nsp_tasks(3), guide=None, align=0.,
                decoder=replace(mnsp('tiny').decoder, guided=False))
configs = {
    'MAE': (mae('tiny'), 190), 'LMIM': (lmim('tiny'), 680), 'MNSP': (mnsp('tiny'), 1230), 'naive': (naive, 400),
    'moving average': (replace(mnsp('tiny'), teacher='ema'), 1350), 'blocks': (replace(mnsp('tiny'), mask='block'), 1340),
    'masked together': (replace(mnsp('tiny'), mask_together=True), 1130),
    'across views': (replace(mnsp('tiny'), across_views=True), 1220),
    'columns': (replace(mnsp('tiny'), align_on='columns'), 1320)}


@pytest.mark.parametrize('name', configs)
def test_pretraining(on_gpu, name):
    cfg, most = configs[name]
    n = on_gpu(lambda: Pretrainer(cfg), lambda model, images: model(images)['loss'])
    assert most*.9 < n <= most, n


def test_a_frozen_teacher(on_gpu):
    on_gpu(lambda: Pretrainer(lmim('tiny'), teacher=Pretrainer(mae('tiny')).encoder), lambda model, images: model(images)['loss'])


def test_fine_tuning(on_gpu):
    def step(reader, images):
        ids = reader.charset.encode_batch(['word', 'a', 'text', 'long'], 12).to('cuda')
        return CharacterLoss(reader.charset)(reader(FinetuneAugment()(images), ids), ids)
    n = on_gpu(lambda: Recognizer(recognizer_tiny()), step)
    assert 450 < n <= 520, n


@pytest.mark.parametrize('strength, most', [('weak', 150), ('medium', 340), ('strong', 340)])
def test_guidance_views(on_gpu, strength, most):
    assert on_gpu(lambda: GuidanceView(strength), lambda view, images: view(images)) <= most


def test_reading(on_gpu):
    "Decoding reads back whether all words have ended, and nothing else"
    def spell(stop_early):
        def do(reader, images):
            with torch.inference_mode(): return reader.eval().generate(images, stop_early=stop_early)
        return lambda: on_gpu(lambda: Recognizer(recognizer_tiny()), do)
    n = spell(False)()
    assert 800 < n <= 940, n
    with pytest.raises(DataDependentOutputException): spell(True)()
