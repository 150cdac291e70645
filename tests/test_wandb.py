"""Weights & Biases, by a stand-in that notes what it is told."""
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

import pytest
from PIL import Image

from mnsp import runs
from mnsp.training import read_log


@pytest.fixture
def words(tmp_path):
    "Eight pictures"
    (tmp_path / 'words').mkdir()
    for k in range(8): Image.new('RGB', (40 + k, 16), (30 * k, 0, 0)).save(tmp_path / 'words' / f'{k}.png')
    return tmp_path / 'words'


@pytest.fixture
def wandb(monkeypatch):
    "A module `wandb`; `started` has what every `init` was told, `rows` what was logged"
    module = ModuleType('wandb')
    module.__spec__, module.started, module.rows, module.ended = ModuleSpec('wandb', None), [], [], 0
    class Run:
        def log(self, row, step): module.rows.append(dict(step=step, **row))
        def finish(self): module.ended += 1
    def init(**how): module.started.append(how); return Run()
    module.init = init
    monkeypatch.setitem(sys.modules, 'wandb', module)
    return module


def pretrain(words, out, **more):
    how = dict(steps=25, batch_size=4, workers=0, bar=False, device='cpu', wandb=True, checkpoint_every=10, say=lambda text: None)
    return runs.run_pretraining(words, out, 'mae', 'nano', **(how | more))


def test_the_rows_are_those_of_the_log(words, tmp_path, wandb, monkeypatch):
    monkeypatch.setenv('WANDB_PROJECT', 'mine')
    pretrain(words, tmp_path / 'run')
    assert wandb.rows == read_log(tmp_path / 'run' / 'log.csv') and [r['step'] for r in wandb.rows] == [10, 20, 25]
    assert wandb.ended == 1 and (wandb.started[0]['project'], wandb.started[0]['name']) == ('mine', 'run')


def test_a_resumed_run_is_the_same_one(words, tmp_path, wandb, monkeypatch):
    def asked(interrupt): interrupt.ending = interrupt.budget.step() == 9
    with monkeypatch.context() as m:
        m.setattr('mnsp.training.Interrupt.before_batch', asked)
        assert pretrain(words, tmp_path / 'run').stopped
    pretrain(words, tmp_path / 'run', resume=True)
    first, second = (how['id'] for how in wandb.started)
    assert first == second and wandb.rows == read_log(tmp_path / 'run' / 'log.csv')
    pretrain(words, tmp_path / 'other')
    assert wandb.started[2]['id'] != first


def test_its_failure_does_not_end_the_run(words, tmp_path, wandb, monkeypatch):
    def down(**how): raise RuntimeError('no network')
    monkeypatch.setattr(wandb, 'init', down)
    with pytest.warns(match='WeightsAndBiases: no network'): run = pretrain(words, tmp_path / 'run')
    assert run.rows[-1]['step'] == 25


@pytest.mark.skipif(bool(find_spec('wandb')), reason='wandb is installed')
def test_without_the_package(words, tmp_path, capsys, monkeypatch):
    from mnsp.cli import main
    monkeypatch.setattr(sys, 'argv', ['mnsp', 'pretrain', '--data', str(words), '--out', str(tmp_path / 'run'), '--wandb'])
    with pytest.raises(SystemExit): main()
    assert capsys.readouterr().err == 'mnsp: --wandb: Weights & Biases is not installed: pip install wandb\n'
    assert not (tmp_path / 'run').exists()
