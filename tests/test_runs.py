"""Runs as functions are the commands, bit for bit, and take what is open already."""
import json

import pytest
import torch
from test_cli import one_line_error, run, write_words

from mnsp import run_finetuning, run_pretraining
from mnsp.hub import load_model, load_weights
from mnsp.pretrain import Pretrainer, mae, with_settings
from mnsp.recognizer import Recognizer, recognizer_tiny
from mnsp.runs import RunOptions
from mnsp.sources import open_source

TINY = dict(steps=3, batch_size=16, workers=0)
ASKED = '--steps', 3, '--batch-size', 16, '--workers', 0


@pytest.fixture(scope='module')
def words(tmp_path_factory): return write_words(tmp_path_factory.mktemp('data') / 'words')


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def settings(out): return json.loads((out / 'run.json').read_text())['settings']


@pytest.mark.parametrize('how, asked', [
    ({}, ()),
    (dict(method='mnsp', settings=['mask_ratio=.6'], seed=3, clip=1., lr=1e-3),
     ('--method', 'mnsp', '--set', 'mask_ratio=.6', '--seed', 3, '--clip', 1, '--lr', 1e-3)),
    (dict(method='lmim', teacher='mae'), ('--method', 'lmim', '--teacher', 'mae'))])
def test_pretraining(words, tmp_path, how, asked):
    "The same weights, log and record by a call and by the command"
    made = run_pretraining(str(words), tmp_path / 'a' / 'out', preset='nano', bar=False, **TINY, **how)
    code, stdout, stderr = run('pretrain', '--data', words, '--out', tmp_path / 'b' / 'out', '--preset', 'nano', *ASKED, *asked)
    assert code == 0, stderr
    assert same(made.model, load_model(tmp_path / 'b' / 'out')) and same(made.model, load_model(made.out))
    assert settings(made.out) == settings(tmp_path / 'b' / 'out') == made.record['settings']
    assert made.rows[-1]['step'] == 3 and not made.stopped
    assert same(made.model.encoder, load_model(tmp_path / 'b' / 'out' / 'encoder'))


def test_finetuning(words, tmp_path):
    "From an encoder and from a reader, with validation"
    valid = write_words(tmp_path / 'valid', 12, seed=1)
    encoder = run_pretraining(words, tmp_path / 'encoder', 'mae', 'nano', bar=False, **TINY)
    start = dict(encoder=dict(encoder=encoder.out / 'encoder'), packaged=dict(reader='packaged'))
    said = []
    made = {name: run_finetuning(words, tmp_path / name / 'out', valid=[str(valid)], valid_every=2, bar=False, say=said.append,
                                 **TINY, **how) for name, how in start.items()}
    for name, how in dict(encoder=('--encoder', encoder.out / 'encoder'), packaged=('--reader', 'packaged')).items():
        out = tmp_path / 'command' / name / 'out'
        code, stdout, stderr = run('finetune', '--data', words, '--out', out, '--valid', valid, '--valid-every', 2, *ASKED, *how)
        assert code == 0, stderr
        assert same(made[name].model, load_model(out)) and settings(out) == settings(made[name].out)
        lines = [line for line in said if line in stdout.splitlines()]
        assert len(lines) >= len(made[name].validation) >= 2
        assert made[name].validation[-1]['step'] == 3
    assert [line.startswith('weights of ') for line in said].count(True) == 2


def test_open_sources_and_a_configuration(words, tmp_path):
    "Nothing needs to lie at a path, and what is handed in stays what it was"
    cfg, start = with_settings(mae('nano'), ['encoder.depth=2']), Pretrainer(mae('nano')).encoder
    before = {k: v.clone() for k, v in start.state_dict().items()}
    made = run_pretraining(open_source(words), tmp_path / 'own', cfg, 'nano', bar=False, **TINY)
    assert len(made.model.encoder.blocks) == 2 and made.record['data'] == [dict(path='FolderSource', pictures=48)]
    again = run_pretraining(open_source(words), tmp_path / 'own', cfg, 'nano', bar=False, resume=True, **TINY)
    assert same(made.model, again.model) and len(again.record['begun']) == 2
    run_pretraining([open_source(words)], tmp_path / 'stream', 'mae', 'nano', encoder=start, stream=True, bar=False, **TINY)
    run_finetuning(open_source(words), tmp_path / 'reader', encoder=start, valid={'own': open_source(words)}, bar=False, **TINY)
    assert all(torch.equal(before[k], v) for k, v in start.state_dict().items())


def test_every_option_of_the_commands_is_one_of_the_functions():
    "And has the same default"
    from dataclasses import fields
    from inspect import signature

    from mnsp import cli
    for command, function in ((cli.pretrain, run_pretraining), (cli.finetune, run_finetuning)):
        known = {name: p.default for name, p in signature(function).parameters.items()}
        known |= {f.name: f.default for f in fields(RunOptions)}
        own = {'context', 'config', 'save_config', 'image_column', 'text_column', 'pattern', 'device'}
        options = {name: p.default for name, p in signature(command).parameters.items() if name not in own}
        assert {name: known.get(name, 'unknown') for name in options} == options


def test_lr_find(words, tmp_path):
    "A suggestion and a picture; nothing else is written, and the reader it starts from stays"
    encoder = run_pretraining(words, tmp_path / 'encoder', 'mae', 'nano', bar=False, **TINY).out
    before = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
    args = '--steps', 30, '--batch-size', 16, '--workers', 0
    for k, how in enumerate((('--method', 'mae', '--preset', 'nano'), ('--method', 'finetune'))):
        code, stdout, stderr = run('lr-find', words, *args, *how, '--encoder', encoder, '--out', tmp_path / f'{k}.png')
        assert code == 0 and stdout.startswith('--lr '), stderr
        assert 1e-5 < float(stdout.split()[1]) < 1 and (tmp_path / f'{k}.png').stat().st_size > 10_000
    assert {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file() and p.suffix != '.png'} == before
    one_line_error(*run('lr-find', words, *args, '--out', tmp_path), 'a .png file')
    one_line_error(*run('lr-find', words, *args, '--reader', 'packaged', '--out', tmp_path / 'x.png'), 'finetune')


def test_a_class_of_ones_own_keeps_its_best_weights(words, tmp_path, monkeypatch):
    "The run gives back the class that it was given, with the weights in the folder, which are not the last"
    class Wider(Recognizer):
        def __init__(self, cfg, note=''):
            super().__init__(cfg, note)
            self.norm = torch.nn.Sequential(self.norm, torch.nn.Linear(cfg.dim, cfg.dim))

    scores = iter([0., 9., 5.])
    measure = lambda reader: dict.fromkeys(('mean', 'exact', 'waics', 'ned'), next(scores))
    monkeypatch.setattr('mnsp.runs.reading_scores', lambda sources, **how: measure)
    torch.manual_seed(0)
    made = run_finetuning(words, tmp_path / 'out', reader=Wider(recognizer_tiny()), lr=1e-3, valid=[str(words)],
                          valid_every=2, bar=False, say=lambda text: None, **TINY)
    assert type(made.model) is Wider and [row['step'] for row in made.validation] == [0, 2, 3]
    back = Wider(made.model.cfg)
    load_weights(back, made.out)
    assert same(made.model, back)
