"The weights that come with the package read what they are said to read"
import csv
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from safetensors import safe_open
from torch import nn
from typer.testing import CliRunner

from mnsp import reading
from mnsp.checkpoints import Checkpoints, random_state
from mnsp.cli import app
from mnsp.decoder import Decoder
from mnsp.graph import export_onnx
from mnsp.hub import WeightsError, header, load_model, load_weights, save_model
from mnsp.pretrain import Pretrainer, mae
from mnsp.reading import Recognizer, packaged_weights
from mnsp.recognizer import recognizer_tiny
from mnsp.surgery import with_charset
from mnsp.synth import SynthWords, street_world

folder = packaged_weights()
data = Path(os.environ.get('MNSP_DATA', Path(__file__).parent.parent.parent/'shared'/'data'))
fingerprint = json.loads((folder/'fingerprint.json').read_text())

def test_the_graph_beside_the_weights_is_theirs():
    "It finds every weight where it lies, and reads with them what PyTorch reads"
    onnx, OnnxReader = pytest.importorskip('onnx'), pytest.importorskip('mnsp.onnx').OnnxReader
    pytest.importorskip('onnxruntime')
    model, tensors = onnx.load(folder/'graph.onnx', load_external_data=False), header(folder/'model.safetensors')
    linked = {w.name.removeprefix('recognizer.').removesuffix('_half'): {e.key: e.value for e in w.external_data}
              for w in model.graph.initializer if w.data_location == onnx.TensorProto.EXTERNAL}
    assert set(tensors)-set(linked) == {name for name in tensors if name.endswith('num_batches_tracked')}
    for name, where in linked.items():
        assert where == dict(location='model.safetensors', offset=str(tensors[name][2]), length=str(tensors[name][3]))
    words = SynthWords(street_world(fonts='own'), 1000, seed=fingerprint['seed'])
    found = OnnxReader().read([words[i][0] for i in fingerprint['words']])
    assert [r.text for r in found] == fingerprint['readings']

def test_fingerprint():
    "Ten words, rendered in the fonts that come with matplotlib, are read exactly as when the weights were made"
    words = SynthWords(street_world(fonts='own'), 1000, seed=fingerprint['seed'])
    pictures = [words[i][0] for i in fingerprint['words']]
    assert [str(r) for r in Recognizer.from_pretrained().read(pictures)] == fingerprint['readings']
    assert len(set(fingerprint['readings'])) == 10

def test_half_precision_and_small():
    "Half precision, and less than 16 MB"
    with safe_open(folder/'model.safetensors', 'pt') as f:
        assert {f.get_slice(k).get_dtype() for k in f.keys()} <= {'F16', 'I64'}
    assert (folder/'model.safetensors').stat().st_size < 16e6

def test_one_class_whatever_loads_it(tmp_path, monkeypatch):
    "From the package, a folder or the Hub: the same class, note and weights, and it reads"
    monkeypatch.setattr(reading, 'snapshot_download', lambda name, **how: str(folder))
    own = Recognizer.from_pretrained()
    own.save_pretrained(tmp_path/'saved')
    for other in load_model(folder), Recognizer.from_pretrained(tmp_path/'saved'), Recognizer.from_pretrained('some/reader'):
        assert type(other) is type(own) is Recognizer and other.note == own.note != ''
        assert other.read(reading.samples()[0]).text == 'TANIA'

def test_a_checkpoint_of_an_earlier_version_is_taken_up():
    "The attention's matrices had other names"
    then, now = Recognizer(recognizer_tiny()), Recognizer(recognizer_tiny())
    was = dict(query='w_qs', key='w_ks', value='w_vs', out='fc')
    earlier = {re.sub(r'(attn)\.(\w+)\.', lambda m: f'{m[1]}.{was[m[2]]}.' if m[2] in was else m[0], k): v
               for k, v in then.state_dict().items()}
    assert 'layers.0.self_attn.w_qs.weight' in earlier
    state = dict(settings={}, step=3, train_iter=3, model=earlier, optimizer={},
                 processes=[dict(loader={}, callbacks={}, random=random_state())])
    Checkpoints.restore(Mock(settings={}, model=now, learn=SimpleNamespace(cbs=[]), generators=dict, folder=Path('run')), state)
    assert all((now.state_dict()[k] == v).all() for k, v in then.state_dict().items())

def test_the_card_says_what_evaluation_says():
    "The row of SVT in the card's table, as read, to three words: processors round in different ways"
    if not (data/'SVT_test').is_dir(): pytest.skip(f"needs {data.name}/SVT_test; set MNSP_DATA to a folder that holds it")
    row = next(line for line in (folder/'README.md').read_text().splitlines() if line.startswith('| SVT'))
    said = CliRunner().invoke(app, ['evaluate', '--weights', str(folder), '--data', str(data/'SVT_test'), '--as-read', '--json'])
    found = json.loads(said.stdout)['sets']['SVT_test']
    assert abs(found['waics']-float(row.split('|')[3]))*found['n']/100 < 3.5

def test_the_tables_of_the_card_are_rows_of_the_experiments():
    "Every figure of the readers side by side, of the sets, and of the list of words"
    card = (folder/'README.md').read_text(encoding='utf-8')
    def table(head): # -> cells of its rows
        lines = card[card.index(head):].split('\n\n')[0].splitlines()[2:]
        return [[c.strip(' *') for c in line.strip('|').split('|')] for line in lines]
    def rows(name):
        with open(Path(__file__).parent.parent/'experiments'/f'{name}.csv', encoding='utf-8') as f: return list(csv.DictReader(f))
    def percent(*values): return [f'{float(v):.1f}' for v in values]
    peers = {(r['reader'], r['set']): percent(r['waics'], r['exact']) for r in rows('peers')}
    sets = {'IIIT5K': 'IIIT5K_test', 'SVT': 'SVT_test', 'IC13, all': 'IC13_test', 'IC13, 1015': 'IC13_test 1015',
            'IC13, 857': 'IC13_test 857', 'IC15, all': 'IC15_test', 'IC15, 1811': 'IC15_test 1811'}
    ways = 'mnsp', 'mnsp, no prior', 'mnsp, ONNX'
    for name, _, *figures in table('| set | words |'):
        assert figures == sum((peers[way, sets.get(name, 'average')] for way in ways), [])
    whole = 'IIIT5K_test', 'SVT_test', 'IC13_test', 'IC15_test', 'average'
    for name, *figures in table('| reader | IIIT5K |'): assert figures == [' / '.join(peers[name, s]) for s in whole]
    speed = {(r['reader'], r['batch']): r['median'] for r in rows('peers_speed')}
    for name, one, many in table('| words/s |'):
        assert one == speed[name, '1'] and many in (speed[name, '32'], '—')
    tried = [percent(r['waics'], r['exact'], r['codes']) for r in rows('prior')]
    assert [figures for _, _, *figures in table('| words | weight |')] == [a+b for a, b in zip(tried[::2], tried[1::2])]

def test_decoders_of_an_earlier_version_are_read():
    "Their parts had LMIM's names; they still come in the order that an optimizer's state has them in"
    earlier = Path(__file__).parent.parent/'nbs'/'fillers'/'lmim'
    with safe_open(earlier/'model.safetensors', 'pt') as f: assert 'decoder.decoder_embed2.weight' in f.keys()
    names = [name for name, _ in load_model(earlier).decoder.named_parameters()]
    assert names[:7] == ['mask_token', 'embed.weight', 'embed.bias', 'embed_guide.weight', 'embed_guide.bias',
                         'blocks.0.self_attn.qkv.weight', 'blocks.0.self_attn.qkv.bias']
    assert names[9:17] == [f'blocks.0.{part}.{kind}' for part in ('guide_attn.qkv', 'guide_attn.proj', 'mlp.fc1', 'mlp.fc2')
                           for kind in ('weight', 'bias')]


class Parallel(Recognizer):
    "A decoder of PyTorch's layers that writes all characters at once; one of its arguments is its own"
    def __init__(self, cfg, note='', depth=2):
        super().__init__(cfg, note)
        self.queries = nn.Parameter(torch.randn(1, cfg.max_len, cfg.dim)*.02)
        self.layers = nn.ModuleList(nn.TransformerDecoderLayer(cfg.dim, cfg.heads, cfg.ffn_dim, 0., batch_first=True)
                                    for _ in range(depth))
    def keys_values(self, features):
        memory = self.linear_norm(features)[:, None]
        return [(memory, memory)]
    def scores(self, pictures, length):
        memory, x = pictures[0][0][:, 0], self.queries.expand(len(pictures[0][0]), -1, -1)
        for layer in self.layers: x = layer(x, memory)
        return self.classifier(self.norm(x))[:, :length]
    def predict(self, pictures, ids): return self.scores(pictures, ids.shape[1])
    def step(self, written, pictures, caches): return self.scores(pictures, written.shape[1])[:, -1].float()


def test_a_decoder_of_one_s_own(tmp_path):
    "Saved and loaded by its own names, read with in every way, and refused where it would become another one"
    torch.manual_seed(0)
    mine, picture = Parallel(recognizer_tiny(), depth=3).eval(), torch.randint(0, 256, (1, 3, 32, 128), dtype=torch.uint8)
    assert 'layers.0.linear1.weight' in mine.state_dict()
    save_model(mine, tmp_path/'mine')
    again = Parallel(mine.cfg, depth=3)
    load_weights(again, tmp_path/'mine')
    assert all(torch.equal(a, b) for a, b in zip(mine.state_dict().values(), again.state_dict().values()))
    with pytest.raises(WeightsError, match='holds a Parallel'): load_model(tmp_path/'mine')
    with pytest.raises(ValueError, match='Parallel decodes in its own way'): export_onnx(mine, tmp_path/'mine.onnx')
    text, confidence = mine.read_batch(picture)[0]
    found = mine.read(picture[0], tta=False)
    assert (found.text, found.confidence) == (text.replace(' ', ''), pytest.approx(confidence, rel=1e-3))
    assert mine.read(picture[0], beams=3).text and mine.read(picture[0], lexicon=['a', 'word']).text in ('a', 'word')
    copied = with_charset(mine, mine.charset)
    assert len(copied.layers) == 3 and copied is not mine


class Halved(Decoder):
    "Its weights have the names and shapes of the package's decoder"
    def forward(self, *args, **kwargs): return super().forward(*args, **kwargs)/2


def test_a_pretraining_decoder_of_one_s_own(tmp_path):
    save_model(Pretrainer(mae('nano'), decoder=Halved), tmp_path/'own')
    with pytest.raises(WeightsError, match='holds a Halved'): load_model(tmp_path/'own')
    save_model(Pretrainer(mae('nano')), tmp_path/'usual')
    assert type(load_model(tmp_path/'usual').decoder) is Decoder
