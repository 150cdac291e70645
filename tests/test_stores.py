"Checking, converting, caching, splitting: killed in the middle, odd labels, what is left behind"
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnsp.data import WordDataset, word_loader
from mnsp.labels import DataError
from mnsp.sources import open_source
from mnsp.stores import cache, check, convert, split
from mnsp.synth import SynthWords, demo_world


def jpeg(value, size=(40, 12)):
    buffer = io.BytesIO()
    Image.new('RGB', size, (value,)*3).save(buffer, 'jpeg')
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    "40 pictures, number 7 broken"
    for i in range(40):
        (tmp_path/f'{i:02d}.jpg').write_bytes(jpeg(6*i) if i != 7 else b'no')
    (tmp_path/'labels.tsv').write_text(''.join(f'{i:02d}.jpg\tword{i}\n' for i in range(40)))
    return tmp_path


class List:
    "A source of given pictures and texts"
    labelled = True
    def __init__(self, items): self.items = items
    def __len__(self): return len(self.items)
    def name(self, i): return f'item-{i}'
    def label(self, i): return self.items[i][1]
    def __getitem__(self, i): return Image.open(io.BytesIO(self.items[i][0])), self.items[i][1]


def content(source): return [(source[i][0].tobytes(), source.label(i)) for i in range(len(source))]


@pytest.mark.parametrize('kind', ['lmdb', 'folder', 'parquet'])
def test_texts_that_are_hard_to_write(kind, tmp_path):
    pytest.importorskip('datasets')
    texts = ['plain', 'tab\there', 'line\nbreak', '', None, '停車場', ' space ', '"quoted", \\']
    source = List([(jpeg(30*k), text) for k, text in enumerate(texts)])
    result = convert(source, tmp_path/'out', kind, bar=False)
    cleaned = ['space' if t == ' space ' else t for t in texts]
    wanted = [t for t in cleaned if kind != 'folder' or t and '\n' not in t]
    assert result.cleaned == 1 and str(result).endswith('1 label cleaned')
    assert [open_source(tmp_path/'out').label(i) for i in range(result.n)] == wanted
    assert [name for name, _ in result.left_out] == ([] if kind != 'folder' else ['item-2', 'item-3', 'item-4'])


@pytest.mark.parametrize('kind', ['lmdb', 'folder', 'parquet'])
def test_unlabelled_stays_unlabelled(folder, kind, tmp_path_factory):
    pytest.importorskip('datasets')
    (folder/'labels.tsv').unlink()
    out = tmp_path_factory.mktemp('out')/'x'
    assert convert(folder, out, kind, bar=False).n == 39
    assert not open_source(out).labelled and len(open_source(out)) == 39


def test_rendered_words_become_pngs(tmp_path):
    words = SynthWords(demo_world(), 12)
    convert(words, tmp_path/'w.lmdb', bar=False)
    assert content(open_source(tmp_path/'w.lmdb')) == content(words)


def test_odd_formats_get_a_name_that_is_found(tmp_path):
    def data(kind):
        buffer = io.BytesIO()
        Image.new('RGB', (9, 5), (10, 20, 30)).save(buffer, kind)
        return buffer.getvalue()
    kinds = ['jpeg', 'png', 'webp', 'gif', 'bmp', 'tiff', 'ppm', 'jpeg2000']
    for k, kind in enumerate(kinds):
        (tmp_path/'src').mkdir(exist_ok=True)
        (tmp_path/f'src/{k}.png').write_bytes(data(kind))
    assert convert(tmp_path/'src', tmp_path/'dst', bar=False).n == len(kinds)
    names = open_source(tmp_path/'dst').names
    assert [Path(n).suffix for n in names] == ['.jpg', '.png', '.webp', '.gif', '.bmp', '.tiff', '.ppm', '.png']


@pytest.mark.parametrize('kind', ['lmdb', 'folder', 'parquet', 'cache'])
def test_killed_and_called_again(kind, tmp_path):
    "SIGKILL while it writes; the second call goes on and the result equals an uninterrupted one"
    pytest.importorskip('datasets')
    source = SynthWords(demo_world(), 700, seed=1)
    call = "cache(s, 'out', bar=False, every=1)" if kind == 'cache' else f"convert(s, 'out', '{kind}', every=60, bar=False)"
    code = ("from mnsp.stores import cache, convert; from mnsp.synth import *; "
            f"s = SynthWords(demo_world(), 700, seed=1); {call}")
    process = subprocess.Popen([sys.executable, '-c', code], cwd=tmp_path)
    note = tmp_path/'out.part/progress.json'
    until = time.monotonic()+60
    while not note.exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert note.exists() and not (tmp_path/'out').exists()
    if kind == 'cache':
        cache(source, tmp_path/'out', bar=False), cache(source, tmp_path/'whole', bar=False)
    else:
        convert(source, tmp_path/'out', kind, every=60, bar=False), convert(source, tmp_path/'whole', kind, bar=False)
    assert content(open_source(tmp_path/'out')) == content(open_source(tmp_path/'whole'))
    assert not (tmp_path/'out.part').exists()


def test_what_was_written_after_the_last_note_is_written_again(folder, tmp_path_factory):
    "As if the power had failed between the pictures and the note"
    out = tmp_path_factory.mktemp('out')
    class Stop(Exception): pass
    class Failing(List):
        def __getitem__(self, i):
            if i >= 25: raise Stop
            return super().__getitem__(i)
    items = [(jpeg(6*i), f'word{i}') for i in range(40)]
    for kind in ('lmdb', 'folder'):
        with pytest.raises(Stop):
            convert(Failing(items), out/kind, kind, every=10, bar=False)
        if kind == 'folder':
            with open(out/'folder.part/labels.tsv', 'a') as f:
                f.write('images/00000/000000020.png\thalf a li')
        convert(List(items), out/kind, kind, every=10, bar=False)
        assert [open_source(out/kind).label(i) for i in range(40)] == [f'word{i}' for i in range(40)]


def test_large_pieces_fit_into_the_lmdb(tmp_path, monkeypatch):
    "The map grows: pieces of more than what was there before"
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 255, (600, 800, 3), np.uint8)) for _ in range(3)]
    class Noise(List):
        def __getitem__(self, i): return noise[i % 3], 'x'
    source = Noise([(b'', 'x')]*30)
    convert(source, tmp_path/'big.lmdb', every=4, bar=False)
    assert len(open_source(tmp_path/'big.lmdb')) == 30 and open_source(tmp_path/'big.lmdb')[29][0].size == (800, 600)


def test_refusals(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp('out')
    convert(folder, out/'a.lmdb', bar=False)
    for call in (lambda: convert(folder, out/'a.lmdb', bar=False), lambda: cache(folder, out/'a.lmdb', bar=False),
                 lambda: split(folder, out/'a.lmdb')):
        with pytest.raises(DataError, match='a.lmdb exists; remove it'):
            call()
    with pytest.raises(ValueError, match="kind='tar'"):
        convert(folder, out/'b', 'tar')


def test_cache_with_workers_and_what_is_read_back(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp('out')/'c'
    result = cache(folder, out, size=(16, 64), workers=2, bar=False)
    assert (result.n, result.left_out) == (39, [('07.jpg', 'unreadable')])
    assert str(result).endswith('39 pictures; left out: 1 unreadable')
    words = WordDataset(open_source(out), size=(16, 64))
    assert words.ready and sum(len(x) for x, _ in word_loader(words, 16)) == 40
    assert words.broken() == [('07.jpg', 'unreadable')]


def test_split_is_the_same_after_growing_and_moving(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp('out')
    sizes = split(folder, out/'s', valid=4)
    assert sum(sizes.values()) == 40 and set(os.listdir(out/'s')) == {'train.json', 'train.npy', 'valid.json', 'valid.npy'}
    train, valid = (open_source(out/f's/{side}.json') for side in ('train', 'valid'))
    names = [{s.name(i) for i in range(len(s))} for s in (train, valid)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 40
    (folder/'99.jpg').write_bytes(jpeg(1))
    with open(folder/'labels.tsv', 'a') as f:
        f.write('99.jpg\tnew\n')
    split(folder, out/'t', valid=4)
    valid = open_source(out/'t/valid.json')
    assert {valid.name(i) for i in range(len(valid))}-{'99.jpg'} == names[1]


def test_check_of_everything(folder, tmp_path_factory):
    (folder/'08.jpg').write_bytes((folder/'09.jpg').read_bytes())
    with open(folder/'labels.tsv', 'a') as f:
        f.write('08.jpg\t'+'é'*30+'\n')
    result = check(folder, workers=2, bar=False)
    assert result.broken == [('07.jpg', 'unreadable')] and result.duplicates == [['08.jpg', '09.jpg', '08.jpg']]
    assert result.labels.outside == {'é': 30} and result.labels.too_long == 1
    for words in ('pictures            41', 'broken               1  1 unreadable: 07.jpg', "'é' 30×", '█'):
        assert words in result.table()
    out = tmp_path_factory.mktemp('out')/'report'
    result.save(out)
    assert Image.open(out/'sheet.png').size[0] > 500 and (out/'broken.tsv').read_text() == '07.jpg\tunreadable\n'


def test_check_without_labels_and_of_one_picture(tmp_path):
    (tmp_path/'1.jpg').write_bytes(jpeg(1))
    result = check(tmp_path, bar=False)
    assert 'without labels' in result.table() and 'characters' not in result.table() and not result.duplicates
    assert result.sheet(n=2) is not None
