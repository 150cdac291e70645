"The scripts that make the packaged weights, at a size of seconds"
import csv
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mnsp import hub
from mnsp.data import CacheSource
from mnsp.synth import SynthWords, font_files, street_world

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

def test_the_way_to_weights(run):
    "Pre-training and fine-tuning go on where they stopped, and end as without a stop; the package holds what was learnt"
    call('pretrain', run, '--steps', 4, *small)
    call('finetune', run, '--steps', 3, '--name', 'whole', *small)
    call('finetune', run, '--steps', 3, '--name', 'parts', '--minutes', 0, *small) # stops before the first step
    call('finetune', run, '--steps', 3, '--name', 'parts', *small)
    whole, parts = (torch.load(run/name/'last.pt', weights_only=True) for name in ('whole', 'parts'))
    assert whole['step'] == parts['step'] == 3
    assert all(torch.equal(v, parts['model'][k]) for k, v in whole['model'].items())
    with open(run/'whole'/'log.csv') as f: assert {'step', 'loss', 'all', 'ned', 'set'} <= set(csv.DictReader(f).fieldnames)
    call('package', run, '--size', 'nano', '--name', 'whole', '--out', run/'weights', '--note', 'a test')
    reader = hub.load_model(run/'weights', 'Recognizer')
    for k, v in reader.state_dict().items():
        assert torch.allclose(v, whole['average'][f'recognizer.{k}'], atol=1e-3), k

def test_packs(run):
    "What is packed comes back: the same words, nearly the same pictures"
    call('pack', run, '--out', run/'packs', '--megabytes', .05)
    assert len(list((run/'packs').glob('street0-*.npz'))) > 1
    assert max(f.stat().st_size for f in (run/'packs').iterdir()) < 60_000
    call('unpack', run/'again', '--out', run/'packs')
    one, two = CacheSource(run/'street0'), CacheSource(run/'again'/'street0')
    assert list(one.labels()) == list(two.labels())
    assert np.abs(one.images.astype(int)-two.images).mean() < 8
