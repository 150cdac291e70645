"The four small models to look at: the script at a size of seconds, and what lies in the repository"
import importlib.util
import sys

import torch

from mnsp.hub import load_model, read_config


def script(root):
    spec = importlib.util.spec_from_file_location('fillers', root/'experiments'/'fillers.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script(root, tmp_path, monkeypatch):
    how = f'--out {tmp_path}/out --run {tmp_path}/run --methods nsp --steps 2 --words 16 --batch-size 8'
    monkeypatch.setattr(sys, 'argv', ['fillers.py', *how.split()])
    script(root).main()
    assert read_config(tmp_path/'out'/'nsp')['steps'] == 2
    assert (tmp_path/'run'/'nsp'/'log.csv').is_file()


def test_what_lies_there(root):
    "Models of the script's configurations, small, and trained: they fill in far better than the mean colour would"
    from mnsp.data import Cached, WordDataset, word_loader
    from mnsp.synth import SynthWords, clear_world
    folder = root/'nbs'/'fillers'
    assert sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) < 3e6
    images, _ = next(iter(word_loader(Cached(WordDataset(SynthWords(clear_world(), 16, seed=6, split='valid')), bar=False), 16)))
    for name, cfg in script(root).methods().items():
        model = load_model(folder/name, 'Pretrainer')
        assert model.cfg == cfg
        torch.manual_seed(0)
        for fill in model(images)['fills']:
            target, hidden = fill['target'], fill['mask']
            error = (fill['pred']-target).square().mean(-1)[hidden].mean()
            spread = (target-target.mean((1, 2), keepdim=True)).square().mean(-1)[hidden].mean()
            assert error < .7*spread, (name, fill['task'])
