"The scripts that make the packaged weights, at a size of seconds"
import csv
import importlib.util
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from mnsp import hub
from mnsp.checkpoints import checkpoints, newest
from mnsp.lmdb_source import CacheSource
from mnsp.synth import SynthWords, font_files, street_world
from mnsp.training import read_log

spec = importlib.util.spec_from_file_location('reader', Path(__file__).parent.parent/'experiments'/'reader.py')
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

def call(*args):
    "Run the script, in this process"
    module.main([*map(str, args), '--threads', str(torch.get_num_threads())])

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "A run with rendered words and crops"
    folder = tmp_path_factory.mktemp('reader')
    (folder/'fonts').mkdir()
    for p in font_files(False):
        if 'DejaVu' in p: shutil.copy(p, folder/'fonts')
    call('fonts', folder, '--fonts', folder/'fonts')
    assert 4 <= len(set((folder/'fonts.txt').read_text().split('\n'))) <= 12
    words = SynthWords(street_world(fonts='own'), 60, seed=7)
    (folder/'crops'/'set'/'images').mkdir(parents=True)
    rows = []
    for i in range(60):
        words[i][0].save(folder/'crops'/'set'/'images'/f'{i}.png')
        rows.append(f'{i}.png\t{words.label(i)}\n')
    (folder/'crops'/'set'/'labels.tsv').write_text(''.join(rows))
    call('render', folder, '--fonts', folder/'fonts.txt', '--words', 50, '--per-part', 30)
    call('crops', folder, '--data', folder/'crops', '--sets', 'set')
    return folder

small = '--size', 'nano', '--batch-size', 8

def test_caches(run):
    "All words are there, and the two sides of the crops make up the whole"
    assert [len(CacheSource(run/f'street{k}')) for k in range(2)] == [30, 20]
    assert len(CacheSource(run/'real'))+len(CacheSource(run/'valid_set')) == 60

def test_machine_labels(run, tmp_path):
    "Only sure readings count, a photograph lies on one side, and labels of one's own stay"
    from mnsp.stores import convert
    sets = 'IC03_train', 'TEXTMASK', 'POSTERS', 'WIRES', 'PLATES', 'SROIE_words'
    for name in sets:
        convert(run/'crops'/'set', tmp_path/name, 'parquet')
        (tmp_path/name/'origin.tsv').write_text(''.join(f'{i}\tphoto-{i//5}.jpg\n' for i in range(60)))
    for name in sets[1:3]:
        (tmp_path/name/'machine.tsv').write_text(''.join(f'{i}\tRead {i}\t{.8+.005*i:.4f}\n' for i in range(60)))
    call('more', tmp_path/'run', '--data', tmp_path)
    found = {f.name: list(CacheSource(f).labels()) for f in sorted((tmp_path/'run').iterdir())}
    assert set(found) == {'real_IC03', 'valid_IC03_train', 'machine_TEXTMASK', 'machine_POSTERS', 'all_TEXTMASK',
                          'all_POSTERS', 'season_WIRES', 'season_PLATES', 'season_SROIE'}
    held = [module.zlib.crc32(f'photo-{i//5}.jpg'.encode()) % 10 == 0 for i in range(60)]
    assert len(found['all_POSTERS']) == 60-sum(held)
    assert found['machine_TEXTMASK'] == [f'Read {i}' for i in range(20, 60) if not held[i]]
    assert len(found['real_IC03']) == 60-sum(held) and len(found['valid_IC03_train']) == sum(held) > 0

    for name in sets[1:3]:                                              # with our own readings, some of them sure
        (tmp_path/'own'/name).mkdir(parents=True)
        rows = [dict(text=f'Ours {i}', confidence=.5 if 10 <= i < 30 else .95, rotation=0) for i in range(60)]
        (tmp_path/'own'/name/'readings.jsonl').write_text('\n'.join(map(module.json.dumps, rows))+'\n')
    call('more', tmp_path/'run', '--data', tmp_path, '--own', tmp_path/'own')
    found = {f.name: list(CacheSource(f).labels()) for f in sorted((tmp_path/'run').glob('*_POSTERS'))}
    assert found['self_POSTERS'] == [f'Ours {i}' for i in (*range(10), *range(30, 60)) if not held[i]]
    assert found['own_POSTERS'] == [f'Ours {i}' for i in range(10) if not held[i]] # a machine's label goes before

def test_grown_deeper():
    "A deeper encoder begun from another has its features, and every block of it learns"
    from dataclasses import replace

    from mnsp.encoder import Encoder, EncoderConfig
    cfg = EncoderConfig(**module.sizes['nano'])
    encoder, deeper = Encoder(cfg).eval(), Encoder(replace(cfg, depth=3)).eval()
    deeper.load_state_dict(module.refitted(encoder, deeper.cfg))
    images = torch.randint(256, (2, 3, 32, 128), dtype=torch.uint8)
    assert torch.equal(deeper(images), encoder(images))
    (deeper(images)*torch.randn(cfg.dim)).sum().backward()
    assert all(block.attn.proj.weight.grad.abs().sum() > 0 for block in deeper.blocks)

def interrupt_at_validation(n, monkeypatch):
    "Validate every two steps, and let the n-th of them end in SIGTERM"
    def validation(run, reader, whole=module.validation):
        calls.append(run)
        if len(calls) == n: os.kill(os.getpid(), signal.SIGTERM)
        return whole(run, reader)
    calls = []
    monkeypatch.setattr(module, 'validation', validation)
    monkeypatch.setattr(module, 'every', 2)

def test_the_way_to_weights(run, monkeypatch):
    """Pre-training and fine-tuning go on where they stopped, and end as without a stop; a run can be made longer; the package
    holds what was learnt"""
    call('pretrain', run, '--steps', 4, *small)
    begin = '--start-from', run/'pretrain'/'encoder'
    call('finetune', run, '--steps', 8, '--name', 'whole', *begin, *small)
    with monkeypatch.context() as patch:
        interrupt_at_validation(2, patch)
        with pytest.raises(KeyboardInterrupt): call('finetune', run, '--steps', 8, '--name', 'parts', *begin, *small)
        assert [p.stem for p in checkpoints(run/'parts'/'checkpoints')] == ['step-5']
    call('finetune', run, '--steps', 8, '--name', 'parts', *begin, *small)
    whole, parts = (newest(run/name/'checkpoints') for name in ('whole', 'parts'))
    assert whole['step'] == parts['step'] == 8
    assert all(torch.equal(v, parts['model'][k]) for k, v in whole['model'].items())
    with open(run/'whole'/'validation.csv') as f: columns = csv.DictReader(f).fieldnames
    assert {'step', 'mean', 'waics', 'exact', 'set'} <= set(columns)
    call('finetune', run, '--steps', 10, '--name', 'whole', *small)
    assert newest(run/'whole'/'checkpoints')['step'] == read_log(run/'whole'/'log.csv')[-1]['step'] == 10
    monkeypatch.setattr(module.fingerprint, '__defaults__', (0, 20))  # an untrained reader knows none of the words
    call('package', run, '--name', 'whole', '--out', run/'weights', '--note', 'a test')
    learnt, packaged = (hub.load_model(f, 'Recognizer').state_dict() for f in (run/'whole'/'reader', run/'weights'))
    for k, v in packaged.items(): assert torch.allclose(v, learnt[k], atol=1e-3), k
    call('pretrain', run, '--steps', 2, '--name', 'between', '--start-from', run/'weights', *small)
    call('finetune', run, '--steps', 2, '--name', 'on', '--start-from', run/'between'/'reader', '--real', 0, *small)

def test_narrower_patches(monkeypatch):
    "A reader goes on with narrower patches: where a picture does not change along a patch, features are nearly the same"
    torch.manual_seed(0)
    monkeypatch.setitem(module.sizes, 'narrow', module.sizes['nano'] | dict(patch_size=(8, 4), stored_positions=True))
    wide = module.Recognizer(module.recipe('nano')).eval()
    narrow = module.Recognizer(module.recipe('narrow')).eval()
    narrow.encoder.load_state_dict(module.refitted(wide.encoder, narrow.cfg.encoder))
    stripes = torch.randint(0, 256, (2, 3, 32, 1)).expand(-1, -1, -1, 128)
    with torch.no_grad(): one, two = wide.encoder(stripes), narrow.encoder(stripes)
    one, two = one[:, 1:].unflatten(1, (4, 16)), two[:, 1:].unflatten(1, (4, 16, 2)).mean(3)
    alike = torch.nn.functional.cosine_similarity
    assert alike(one, two, dim=-1).min() > .99
    assert alike(one[:, :, :6], two[:, :, 8:14], dim=-1).mean() < .97 # positions matter

def test_packs(run):
    "What is packed comes back: the same words, nearly the same pictures"
    call('pack', run, '--out', run/'packs', '--megabytes', .05)
    assert len(list((run/'packs').glob('street0-*.npz'))) > 1
    assert max(f.stat().st_size for f in (run/'packs').iterdir()) < 60_000
    call('unpack', run/'again', '--out', run/'packs')
    one, two = CacheSource(run/'street0'), CacheSource(run/'again'/'street0')
    assert list(one.labels()) == list(two.labels())
    assert np.abs(one.images.astype(int)-two.images).mean() < 8
