"Every kind of source, on small real files made here; every oddity of a picture file"
import http.server
import importlib
import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import threading
import zlib
from itertools import islice

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image

from mnsp import lists
from mnsp.charset import Charset
from mnsp.data import WordDataset, word_loader
from mnsp.hugging_face import HfSource, load_hf
from mnsp.images import BrokenImage, BrokenLabel, all_labels, open_image, picture
from mnsp.labels import DataError, json_items
from mnsp.lists import FolderSource, Lines, ListedSource
from mnsp.lmdb_source import CacheSource, LmdbSource
from mnsp.pretrain import Pretrainer, mae
from mnsp.sources import open_source
from mnsp.streams import WordStream, open_stream, open_words
from mnsp.training import pretrain
from mnsp.unions import Concat, Mixture, Subset, home, homes, split_source

datasets = pytest.importorskip('datasets', reason='the library `datasets` is optional')


def encoded(im, kind='png', **options):
    buffer = io.BytesIO()
    im.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(value, size=(40, 12)):
    "A picture of one grey level, as PNG"
    return encoded(Image.new('RGB', size, (value,)*3))


def level(im): return int(np.asarray(im)[0, 0, 0])


def opened(data, size=None): return open_image(io.BytesIO(data), 'x', size)


def reason(data):
    with pytest.raises(BrokenImage) as error:
        opened(data)
    return error.value.reason


def write_lmdb(path, images, labels=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(path), map_size=2**22) as env, env.begin(write=True) as t:
        for i, data in enumerate(images, 1):
            t.put(b'image-%09d' % i, data)
            if labels:
                t.put(b'label-%09d' % i, labels[i-1].encode())
        t.put(b'num-samples', b'%d' % len(images))
    return path


def write_pictures(folder, n=6, name='{}.png'):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        (folder/name.format(i)).write_bytes(grey(i))
    return folder


def levels(source): return [level(im) for im, _ in (source[i] for i in range(len(source)))]


def texts(source): return [source.label(i) for i in range(len(source))]


# One picture

@pytest.mark.parametrize('data, wanted', [
    (b'', 'empty'),
    (b'P6 0 12 255\n', 'unreadable'),
    (b'GIF89a'+struct.pack('<HH', 0, 12)+b'\0\0\0;', 'unreadable'),
    (b'BM'+struct.pack('<IHHIIiiHHIIiiII', 54, 0, 0, 54, 40, 0, 12, 1, 24, 0, 0, 0, 0, 0, 0), 'unreadable'),
])
def test_no_bytes_and_no_pixels(data, wanted):
    assert reason(data) == wanted


def test_decompression_bomb_is_refused_by_its_header_and_without_a_warning(recwarn):
    for side in (7000, 10_000, 20_000): # Pillow itself is silent, warns, and raises
        assert reason(encoded(Image.new('1', (side, side)))) == 'too large'
    assert not recwarn.list


@pytest.mark.parametrize('kind', ['jpeg', 'png', 'webp', 'gif', 'bmp', 'tiff', 'ppm', 'jpeg2000'])
def test_every_format_opens(kind):
    im = opened(encoded(Image.new('RGB', (40, 12), (200, 200, 200)), kind))
    assert im.mode == 'RGB' and im.size == (40, 12) and abs(level(im)-200) < 5


@pytest.mark.parametrize('kind', ['jpeg', 'png', 'webp', 'gif', 'bmp', 'tiff'])
def test_cut_off_anywhere(kind):
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 40, 3), np.uint8)), kind)
    for share in (.1, .5, .8):
        assert reason(data[:int(len(data)*share)]) == 'unreadable'


def test_documents_are_not_handed_to_other_programs():
    assert reason(encoded(Image.new('RGB', (9, 9)), 'eps')) == reason(encoded(Image.new('RGB', (9, 9)), 'pdf')) == 'unreadable'


def test_cmyk_keeps_its_colours():
    im = opened(encoded(Image.new('RGB', (40, 12), (250, 20, 20)).convert('CMYK'), 'jpeg'))
    red, green, blue = np.asarray(im)[5, 20]
    assert red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize('values, wanted', [
    (np.full((12, 40), 30_000, np.uint16), 117),
    (np.full((12, 40), 30_000, np.int32), 117),
    (np.full((12, 40), 117, np.int32), 117),
    (np.full((12, 40), .46, np.float32), 117),
    (np.full((12, 40), 117., np.float32), 117),
    (np.full((12, 40), np.nan, np.float32), 0),
])
def test_deep_grey_is_scaled_and_not_clipped(values, wanted):
    assert level(opened(encoded(Image.fromarray(values), 'tiff'))) == wanted


def test_transparency_becomes_white():
    assert level(opened(encoded(Image.new('RGBA', (9, 5), (0, 0, 0, 0))))) == 255
    assert level(opened(encoded(Image.new('RGBA', (9, 5), (0, 0, 0, 255))))) == 0
    assert level(opened(encoded(Image.new('LA', (9, 5), (0, 0))))) == 255
    palette = Image.new('P', (9, 5), 1)
    palette.putpalette([0, 0, 0, 10, 10, 10])
    assert level(opened(encoded(palette, transparency=1))) == 255
    assert level(opened(encoded(palette))) == 10


@pytest.mark.parametrize('kind', ['gif', 'webp', 'png', 'tiff'])
def test_of_an_animation_the_first_picture(kind):
    first, second = (Image.new('RGB', (40, 12), (v,)*3) for v in (30, 220))
    assert abs(level(opened(encoded(first, kind, save_all=True, append_images=[second])))-30) < 3


@pytest.mark.parametrize('turn', range(1, 9))
def test_every_exif_orientation_comes_out_upright(turn):
    "A picture with a bright left half, stored as a camera would that was held another way"
    upright = Image.new('L', (128, 48), 20)
    upright.paste(220, (0, 0, 64, 48))
    upright.paste(120, (0, 0, 128, 8)) # and a band above
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4} # PIL's transposition that undoes what the reader does
    stored = upright if turn == 1 else upright.transpose(Image.Transpose(back[turn]))
    exif = Image.Exif()
    exif[0x0112] = turn
    for size in (None, (8, 16)):
        im = opened(encoded(stored, 'jpeg', quality=95, exif=exif), size)
        x = np.asarray(im.resize((128, 48)).convert('L')).astype(int)
        assert abs(x[30, 20]-220) < 15 and abs(x[30, 110]-20) < 15 and abs(x[3, 110]-120) < 40


def test_damaged_exif_does_not_matter():
    assert opened(encoded(Image.new('RGB', (40, 12)), 'jpeg', exif=b'Exif\0\0garbage that is no TIFF')).size == (40, 12)


def test_hint_of_the_size_leaves_twice_the_pixels():
    data = encoded(Image.new('RGB', (1600, 400)), 'jpeg')
    assert opened(data).size == (1600, 400) and opened(data, (32, 128)).size == (400, 100)
    assert opened(encoded(Image.new('RGB', (1600, 400))), (32, 128)).size == (1600, 400) # PNG has no such thing


# Lines and lists

def test_lines_equal_splitlines_whatever_the_ends(tmp_path):
    rng = np.random.default_rng(0)
    for end in ('\n', '\r\n'):
        lines = [('x'*int(k)) for k in rng.integers(0, 3, 500)]
        file = tmp_path/'lines.txt'
        file.write_bytes(end.join(lines).encode())
        wanted = [x.encode() for x in lines if x]
        found = Lines(file)
        assert [found[i].rstrip(b'\r') for i in range(len(found))] == wanted
        assert [line for _, line in found.numbered()] == wanted
        assert pickle.loads(pickle.dumps(found))[3].rstrip(b'\r') == wanted[3]


def test_lines_longer_than_what_is_read_at_once(tmp_path):
    file = tmp_path/'long.txt'
    lines = ['a'*5_000_000, 'b', '', 'c'*4_194_303, 'd']
    file.write_text('\n'.join(lines))
    found = Lines(file)
    assert [len(found[i]) for i in range(len(found))] == [5_000_000, 1, 4_194_303, 1]


def test_lines_are_not_objects(tmp_path):
    "A hundred thousand lines keep three thousand places"
    file = tmp_path/'many.jsonl'
    file.write_text(''.join(f'{{"filename": "{i}.png", "text": "a"}}\n' for i in range(100_000)))
    lines = Lines(file)
    assert lines.marks.nbytes == 8*(100_000//32+1) and lines[99_999].startswith(b'{"filename": "99999')


@pytest.mark.parametrize('text, wanted', [
    ('0.png\tone\n1.png\ttwo words\n', ['one', 'two words']),
    ('0.png, "one"\n1.png, "say \\"two\\""\n', ['one', 'say "two"']),
    ('0.png one\n1.png two words\n', ['one', 'two words']),
])
def test_gt_txt(tmp_path, text, wanted):
    write_pictures(tmp_path)
    (tmp_path/'gt.txt').write_text(text)
    source = open_source(tmp_path)
    assert texts(source) == list(all_labels(source)) == wanted and levels(source) == [0, 1]


def test_labels_in_file_names(tmp_path):
    for name in ('12_Hello_7', '3_a_b_1', 'nothing'):
        (tmp_path/f'{name}.jpg').write_bytes(grey(5))
    source = FolderSource(tmp_path, pattern=r'\d+_(.+)_\d+')
    assert source.labelled and texts(source) == ['Hello', 'a_b', None]
    assert not FolderSource(tmp_path).labelled


@pytest.fixture
def union(tmp_path):
    "The layout of Union14M-L"
    top = tmp_path/'Union14M-L'
    write_pictures(top/'full_images/art')
    names = [f'full_images/art/{i}.png' for i in range(6)]
    words = ['one', 'Zwei', '三', 'f"our', None, 'six']
    old, new = top/'train_annos/mmocr-0.x', top/'train_annos/mmocr1.0.x'
    for place in (old, new):
        place.mkdir(parents=True)
    for part, which in dict(easy=range(4), hard=range(4, 6)).items():
        rows = [dict(filename=names[i], text=words[i]) for i in which]
        (old/f'train_{part}.jsonl').write_text(''.join(json.dumps(r, ensure_ascii=False)+'\n' for r in rows))
        items = [dict(instances=[dict(text=words[i], bbox=[0, 0, 1, 1])], img_path=names[i], height=12) for i in which]
        document = dict(metainfo=dict(dataset_type='TextRecogDataset', task_name='textrecog'), data_list=items)
        (new/f'train_{part}.json').write_text(json.dumps(document, indent=1))
    return top, words


def test_union14m_annotations_of_both_formats(union):
    top, words = union
    for part in ('mmocr-0.x', 'mmocr1.0.x'):
        source = open_source(top/'train_annos'/part)
        assert isinstance(source, Concat) and source.labelled
        assert texts(source) == list(all_labels(source)) == words and levels(source) == list(range(6))


def test_large_json_is_kept_as_lines(union, tmp_path, monkeypatch):
    top, words = union
    monkeypatch.setenv('MNSP_CACHE', str(tmp_path/'kept'))
    monkeypatch.setattr(lists.os.path, 'getsize', lambda _: 2**30)
    file = top/'train_annos/mmocr1.0.x/train_easy.json'
    assert texts(open_source(file)) == words[:4]
    kept, = (tmp_path/'kept').iterdir()
    kept.write_text(kept.read_text().replace('Zwei', 'zwei'))
    assert texts(open_source(file))[1] == 'zwei' # it is the kept one that is read
    os.utime(file, (1, 1))
    assert texts(open_source(file))[1] == 'Zwei' # but not when the file has changed


@pytest.mark.parametrize('size', [64, 100, 1000])
def test_json_items_in_pieces(tmp_path, size):
    file = tmp_path/'x.json'
    items = [dict(img_path=f'{i}.png', instances=[dict(text='}]"\\'*i)]) for i in range(20)]
    file.write_text(json.dumps(dict(metainfo={}, data_list=items)))
    assert list(json_items(file, size)) == items


@pytest.mark.parametrize('name, text, message', [
    ('x.jsonl', '{"filename": "0.png", "text": "a"}\n\n{"filename": "1.png", "te\n', 'line 3'),
    ('x.jsonl', '{"filename": "0.png", "text": {"a": 5}}\n', 'line 1.*boxes'),
    ('x.jsonl', '[]\n', 'lists no images'),
    ('x.json', '{"data_list": [{"img_path": "0.png"},', 'breaks inside'),
    ('x.json', '{"images": [{"id": 5}]}', 'entry 1: holds boxes'),
    ('x.json', '{"data_list": []}', 'lists no images'),
    ('x.tsv', 'nowhere.png\ta\n', "no image 'nowhere.png'"),
    ('x.txt', 'alone\n', 'line 1'),
])
def test_bad_lists_are_named(tmp_path, name, text, message):
    write_pictures(tmp_path)
    (tmp_path/name).write_text(text)
    with pytest.raises(DataError, match=message):
        list(texts(ListedSource(tmp_path/name)))


def test_long_lists_are_not_gone_through_at_the_start(tmp_path, monkeypatch):
    write_pictures(tmp_path)
    (tmp_path/'labels.tsv').write_text('0.png\ta\ngone.png\tb\n')
    with pytest.raises(DataError, match='gone.png'):
        open_source(tmp_path)
    monkeypatch.setattr(lists, 'checked', 1)
    words = WordDataset(open_source(tmp_path), max_broken=1.)
    list(word_loader(words))
    assert words.broken() == [('gone.png', 'missing')]


# LMDB

def test_several_lmdbs_in_a_folder(tmp_path):
    for k, part in enumerate(('book32_lmdb', 'cc_lmdb', 'openvino_lmdb')):
        write_lmdb(tmp_path/'Union14M-U'/part, [grey(10*k+i) for i in range(3)])
    source = open_source(tmp_path/'Union14M-U')
    assert levels(source) == [0, 1, 2, 10, 11, 12, 20, 21, 22] and not source.labelled


def test_chinese_lmdb(tmp_path):
    words = ['停車場', '出口 A', '１２３']
    source = open_source(write_lmdb(tmp_path/'scene_train', [grey(i) for i in range(3)], words))
    charset = Charset.from_text(words)
    ids = torch.stack([t for _, t in WordDataset(source, charset=charset, max_len=40)])
    assert charset.decode_batch(ids) == words == list(all_labels(source))


def test_lmdb_leaves_no_trace_and_needs_no_right_to_write(tmp_path):
    path = write_lmdb(tmp_path/'db', [grey(1)])
    (path/'lock.mdb').unlink()
    before = {p.name: p.stat().st_mtime_ns for p in path.iterdir()}
    os.chmod(path/'data.mdb', 0o444)
    os.chmod(path, 0o555)
    try:
        assert levels(LmdbSource(path)) == [1]
        assert {p.name: p.stat().st_mtime_ns for p in path.iterdir()} == before
    finally:
        os.chmod(path, 0o755)


def test_lmdb_label_that_cannot_be_read_is_left_out(tmp_path):
    path = write_lmdb(tmp_path/'db', [grey(i) for i in range(3)], ['a', 'b', 'c'])
    with lmdb.open(str(path), map_size=2**22) as env, env.begin(write=True) as t:
        t.put(b'label-000000002', b'caf\xe9')
    words = WordDataset(LmdbSource(path), charset=Charset('abc'))
    assert (len(words), words.left_out) == (2, 1) and '1 of 3 words left out' in words.report()


# Parts and unions

class Names:
    "A source of names; nothing else is asked for"
    labelled = True
    def __init__(self, name, n): self.called, self.n = name, n
    def __len__(self): return self.n
    def name(self, i): return f'{self.called}{i}'
    def label(self, i): return self.name(i)
    def __getitem__(self, i): return Image.new('L', (9, 5), i % 256), self.label(i)


def test_homes_agree_with_home():
    a, b, c = Names('a', 50), Names('b', 7), Names('c', 200)
    source = Concat([Subset(Concat([a, b]), range(56, 0, -2)), Mixture([b, c], [1, 2], seed=3), a])
    indices = np.random.default_rng(0).integers(0, len(source), 300)
    found = [None]*300
    for leaf, places, items in homes(source, indices):
        for place, i in zip(places, items):
            found[place] = leaf, i
    assert found == [home(source, int(i)) for i in indices]
    assert list(all_labels(source)) == [source.label(i) for i in range(len(source))]


@pytest.mark.parametrize('weights', [[1, 1], [3, 1], [.001, .999]])
def test_mixture_has_its_shares_and_leaves_nothing_out(weights):
    parts = [Names('a', 300), Names('b', 40)]
    source = Mixture(parts, weights, seed=1)
    names = [source.name(i) for i in range(len(source))]
    share = sum(n[0] == 'a' for n in names)/len(names)
    assert abs(share-weights[0]/sum(weights)) <= 1/len(names)
    assert set(names) == {p.name(i) for p in parts for i in range(len(p))}
    again, other = Mixture(parts, weights, seed=1), Mixture(parts, weights, seed=2)
    assert names == [again.name(i) for i in range(len(again))]
    assert names != [other.name(i) for i in range(len(other))]
    for k in range(2): # every source comes up evenly: no item again before all others
        own = [n for n in names if n[0] == 'ab'[k]]
        assert own == [parts[k].name(i % len(parts[k])) for i in range(len(own))]


def test_mixture_of_given_length_over_many_blocks():
    source = Mixture([Names('a', 10**6), Names('b', 5)], [9, 1], n=20_000)
    assert len(source) == 20_000 and source.name(19_999) in ('a17999', 'b4')
    with pytest.raises(IndexError):
        source.name(20_000)


def test_picture_of_a_source_of_other_peoples_making():
    assert picture(Names('a', 3), 2).mode == 'RGB' and level(picture(Concat([Names('a', 3)]), 2)) == 2


def test_split_is_stable_when_data_grow():
    small, large = (split_source(Names('x', n))[1] for n in (500, 700))
    assert list(small.rows) == [i for i in large.rows if i < 500] and 20 < len(small) < 80


# Hugging Face

@pytest.fixture
def table(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path/'hf')
    rows = [dict(bytes=grey(i) if i != 4 else b'no picture', path=None) for i in range(12)]
    data = datasets.Dataset.from_dict(dict(picture=rows, note=['-']*12, text=[f'word{i}' for i in range(12)]))
    return data.cast_column('picture', datasets.Image())


def right(source): return [level(source[i][0]) if i != 4 else None for i in range(12)]


def test_hugging_face_from_disk_and_parquet(table, tmp_path):
    table.save_to_disk(tmp_path/'saved')
    (tmp_path/'files').mkdir()
    for k in range(3):
        table.shard(3, k).to_parquet(tmp_path/f'files/{k}.parquet')
    table.to_parquet(tmp_path/'one.parquet')
    for path in ('saved', 'files', 'one.parquet'):
        source = open_source(tmp_path/path)
        assert isinstance(source, HfSource) and source.labelled and source.column == 'picture'
        assert texts(source) == [f'word{i}' for i in range(12)]
        assert right(source) == [*range(4), None, *range(5, 12)]
        words = WordDataset(source)
        assert len(list(word_loader(words, 4, workers=2))) == 3
        assert words.broken() == [('row-000000004', 'unreadable')]


def test_splits_are_asked_for(table, tmp_path):
    datasets.DatasetDict(big=table, small=table.select(range(3))).save_to_disk(tmp_path/'two')
    with pytest.raises(DataError, match='splits big, small'):
        open_source(tmp_path/'two')
    assert len(load_hf(tmp_path/'two', split='small')) == 3


def test_hub_name_reaches_the_library(table, monkeypatch):
    "What is asked for (the next test asks a server)"
    asked = []
    def load_dataset(name, split, streaming):
        asked.append((name, split, streaming))
        return datasets.DatasetDict(train=table) if split is None else table
    monkeypatch.setattr(datasets, 'load_dataset', load_dataset)
    assert len(open_source('hf:somebody/words')) == len(open_source('hf:somebody/words:test')) == 12
    assert asked == [('somebody/words', None, False), ('somebody/words', 'test', False)]


class Hub(http.server.BaseHTTPRequestHandler):
    "As much of the hub's interface as reading somebody/words takes, on this machine; `files`: name → bytes"
    commit = '0'*40
    def log_message(self, *args): pass
    def do_HEAD(self): self.do_GET()

    def answer(self, body, status=200, **headers):
        self.send_response(status)
        for key, value in {'Content-Length': str(len(body)), **headers}.items():
            self.send_header(key.replace('_', '-'), value)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.partition('?')[0]
        about = [dict(type='file', path=name, size=len(data), oid='1'*40) for name, data in self.files.items()]
        if path.endswith('/tree/'+self.commit):
            self.answer(json.dumps(about).encode())
        elif '/resolve/' in path and (name := path.rpartition('/')[2]) in self.files:
            data = self.files[name]
            known = dict(ETag=f'"{zlib.crc32(data)}"', X_Repo_Commit=self.commit, Accept_Ranges='bytes')
            found = re.match(r'bytes=(\d+)-(\d+)', self.headers.get('Range') or '')
            a, b = (int(found[1]), min(int(found[2]), len(data)-1)) if found else (0, len(data)-1)
            part = dict(Content_Range=f'bytes {a}-{b}/{len(data)}') if found else {}
            self.answer(data[a:b+1], 206 if found else 200, **known, **part)
        elif path in ('/api/datasets/somebody/words', f'/api/datasets/somebody/words/revision/{self.commit}'):
            self.answer(json.dumps(dict(id='somebody/words', sha=self.commit, private=False, gated=False, tags=[],
                                        siblings=[dict(rfilename=name) for name in self.files])).encode())
        else:
            self.answer(b'{}', 404, X_Error_Code='EntryNotFound')


def test_a_data_set_of_the_hub_opened_and_streamed(tmp_path):
    "Over HTTP, in a process that has the address of the server above for the hub's"
    rows = dict(image=[dict(bytes=grey(i), path=None) for i in range(30)], text=[f'w{i}' for i in range(30)])
    table = datasets.Dataset.from_dict(rows).cast_column('image', datasets.Image(decode=False))
    Hub.files = {'README.md': b'---\ndataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: text\n'
                              b'    dtype: string\n  splits:\n  - name: train\n    num_examples: 30\n---\n'}
    for k in range(3):
        table.shard(3, k).to_parquet(tmp_path/'part.parquet')
        Hub.files[f'train-{k:05d}-of-00003.parquet'] = (tmp_path/'part.parquet').read_bytes()
    code = """if True:
        from mnsp.data import word_loader
        from mnsp.sources import open_source
        from mnsp.streams import open_words
        loader = word_loader(open_words(['hf:somebody/words:train'], stream=True), 8, workers=2)
        print(len(loader), sum(len(x) for x, _ in loader))
        whole = open_source('hf:somebody/words')
        print(len(whole), whole.label(7), whole[7][0].getpixel((0, 0)))"""
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=300, cwd=tmp_path, env={
            **os.environ, 'HF_ENDPOINT': f'http://127.0.0.1:{server.server_port}', 'HF_HUB_OFFLINE': '0', 'no_proxy': '*',
            'HF_HOME': str(tmp_path/'home'), 'PYTHONPATH': os.pathsep.join(sys.path)})
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ['4 30', '30 w7 (7, 7, 7)']


def test_without_the_library(tmp_path, monkeypatch):
    def missing(name): raise ImportError(name)
    monkeypatch.setattr(importlib, 'import_module', missing)
    for path in ('hf:somebody/words', tmp_path):
        with pytest.raises(DataError, match='pip install datasets'):
            (tmp_path/'x.parquet').touch()
            open_source(path)


def test_broken_parquet_is_a_data_error(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path/'hf')
    (tmp_path/'x.parquet').write_bytes(b'no parquet')
    with pytest.raises(DataError, match='x.parquet: `datasets` cannot open it'):
        open_source(tmp_path/'x.parquet')


def test_columns_are_found_or_named(table):
    bare = table.rename_column('text', 'reading')
    assert not HfSource(bare).labelled and HfSource(bare, text='reading').label(3) == 'word3'
    with pytest.raises(DataError, match="no column 'x' among picture, note, text"):
        HfSource(table, text='x')


# Streams

@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    "The library waits five seconds after a shuffled stream"
    monkeypatch.setattr(datasets.config, 'SLEEP_TIME_ON_THREADS_SHUTDOWN', 0, raising=False)


def shards(table, folder, n):
    folder.mkdir()
    for k in range(n):
        table.shard(n, k).to_parquet(folder/f'{k}.parquet')
    return folder


@pytest.mark.parametrize('files, world, workers', [(1, 1, 0), (4, 1, 2), (4, 2, 2), (3, 2, 0), (4, 2, 1)])
def test_stream_is_dealt_out_without_overlap(table, tmp_path, files, world, workers):
    path, seen = shards(table, tmp_path/'files', files), []
    charset = Charset('word0123456789')
    for rank in range(world):
        stream = WordStream(open_stream(path, rank=rank, world=world), charset=charset)
        seen += [w for _, ids in word_loader(stream, 2, workers=workers) for w in charset.decode_batch(ids)]
        assert stream.n_words == len(seen) if world == 1 else True
    assert len(seen) == 12 and {f'word{i}' for i in range(12) if i != 4} <= set(seen)


def test_stream_order_changes_with_the_epoch(table, tmp_path):
    path = shards(table, tmp_path/'files', 2)
    def order(seed, epoch):
        stream = open_stream(path, shuffle=12, seed=seed)
        stream.set_epoch(epoch)
        return [text for _, _, text in stream]
    assert order(0, 0) == order(0, 0) != order(0, 1) and order(0, 0) != order(1, 0)
    assert sorted(order(0, 1)) == sorted(order(1, 2))


def test_stream_counts_and_limit(table, tmp_path):
    good = [dict(bytes=grey(i % 250), path=None) if i % 10 else dict(bytes=None, path=None) for i in range(300)]
    bad = [dict(bytes=b'', path=None)]*300
    for name, rows in dict(good=good, bad=bad).items():
        data = datasets.Dataset.from_dict(dict(image=rows)).cast_column('image', datasets.Image(decode=False))
        shards(data, tmp_path/name, 4)
    stream = WordStream(open_stream(tmp_path/'good'))
    assert sum(len(x) for x, _ in word_loader(stream, 32, workers=2)) == 300
    assert stream.counts() == dict(missing=30) and stream.report().startswith('30 of 300 pictures broken')
    with pytest.raises(DataError, match='100 of 100 pictures are broken'):
        list(word_loader(WordStream(open_stream(tmp_path/'bad')), 32))


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('after', [1, 4, 5, 6, 9])
def test_stream_resumes_at_the_next_unseen_sample(tmp_path, workers, after):
    "Batches of five; two files of different length, so that one worker ends before the other"
    rows = [dict(bytes=grey(i), path=None) for i in range(30)]
    data = datasets.Dataset.from_dict(dict(image=rows)).cast_column('image', datasets.Image(decode=False))
    (tmp_path/'files').mkdir()
    data.select(range(5)).to_parquet(tmp_path/'files/0.parquet')
    data.select(range(5, 30)).to_parquet(tmp_path/'files/1.parquet')
    def new(): return word_loader(WordStream(open_stream(tmp_path/'files', shuffle=10)), 5, workers=workers)
    def endless(loader):
        while True:
            yield from (x[:, 0, 0, 0].tolist() for x, _ in loader)
    whole, first, second = endless(new()), new(), new()
    wanted = [next(whole) for _ in range(18)]
    batches = endless(first)
    got = [next(batches) for _ in range(after)]
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    batches = endless(second)
    got += [next(batches) for _ in range(18-after)]
    assert got == wanted and wanted[:6] != wanted[6:12]
    for epoch in range(3):
        assert sorted(sum(got[6*epoch:6*epoch+6], [])) == list(range(30))
    with pytest.raises(ValueError, match='workers='):
        word_loader(WordStream(open_stream(tmp_path/'files')), 5, workers=1).load_state_dict(first.state_dict())


def broken_files(folder, n, files=4):
    "Parquet of `n` grey pictures, every seventh broken"
    rows = [dict(bytes=grey(i % 250) if i % 7 else b'', path=None) for i in range(n)]
    data = datasets.Dataset.from_dict(dict(image=rows)).cast_column('image', datasets.Image(decode=False))
    return shards(data, folder, files)


@pytest.mark.parametrize('workers', [0, 3])
def test_substitutes_of_a_stream_are_the_same_after_resuming(tmp_path, workers):
    path = broken_files(tmp_path/'files', 120)
    def new(): return word_loader(WordStream(open_stream(path, shuffle=20), recent=8), 4, workers=workers)
    def levels(batches): return [x[:, 0, 0, 0].tolist() for x, _ in batches]
    whole = levels(loader := new())
    assert len(sum(whole, [])) == 120 and loader.dataset.counts() == dict(empty=18)
    for after in 1, 5, 13, 27:
        first, second = new(), new()
        levels(islice(first, after))
        second.load_state_dict(first.state_dict())
        assert levels(second) == whole[after:]
    other = word_loader(WordStream(open_stream(path, shuffle=20), recent=8, seed=1), 4, workers=workers)
    assert levels(other) != whole


def test_states_of_a_stream_in_several_processes(tmp_path):
    "Each process has its own; a list of them goes everywhere"
    path = broken_files(tmp_path/'files', 120)
    def new(rank): return word_loader(WordStream(open_stream(path, rank=rank, world=2)), 7, workers=2)
    def numbers(batches): return [x[:, 0, 0, 0].tolist() for x, _ in batches]
    wholes, states, got = [numbers(new(rank)) for rank in range(2)], [], []
    for rank in range(2):
        loader = new(rank)
        got.append(numbers(islice(loader, 3)))
        states.append(loader.state_dict())
    for rank in range(2):
        loader = new(rank)
        loader.load_state_dict(pickle.loads(pickle.dumps(states)))
        assert got[rank]+numbers(loader) == wholes[rank]
    with pytest.raises(ValueError, match='rank=0, this loader has 1'):
        new(1).load_state_dict(states[0])


def test_length_of_a_stream(table, tmp_path):
    "The same in all processes; asked for, not needed"
    path = broken_files(tmp_path/'files', 101)
    def length(batch_size=10, **kwargs): return len(word_loader(WordStream(open_stream(path, **kwargs)), batch_size))
    assert (length(), length(world=2), length(rank=1, world=2), length(n=30)) == (11, 5, 5, 3)
    table.save_to_disk(tmp_path/'saved')
    assert open_stream(tmp_path/'saved').n == 12
    loader = word_loader(WordStream(open_stream(path, n=None)), 10)
    assert sum(len(x) for x, _ in loader) == 101
    with pytest.raises(DataError, match='how many items it has; give open_stream'):
        len(loader)


@pytest.mark.parametrize('workers', [0, 2])
def test_training_on_a_stream_goes_by_steps(tmp_path, workers):
    "Through the end of the stream, into the next pass"
    loader = word_loader(WordStream(open_stream(broken_files(tmp_path/'files', 60))), 16, workers=workers)
    rows = pretrain(Pretrainer(mae('nano')), loader, lr=1e-4, steps=10).history.rows
    assert rows[-1]['step'] == 10 and np.isfinite(rows[-1]['loss']) and loader.state_dict()['epoch'] == 2


def test_stream_needs_no_more_than_it_reads(table, tmp_path, monkeypatch):
    "Of eight files the first batch opens some, not all; and nothing is stored"
    rows = [dict(bytes=grey(i % 250), path=None) for i in range(800)]
    data = datasets.Dataset.from_dict(dict(image=rows)).cast_column('image', datasets.Image(decode=False))
    path = shards(data, tmp_path/'files', 8)
    (path/'7.parquet').write_bytes(b'no parquet')
    batches = iter(word_loader(WordStream(open_stream(path)), 32))
    assert next(batches)[0].shape == (32, 3, 32, 128)
    assert not [p for p in (tmp_path/'hf').rglob('*') if p.suffix == '.arrow']


def numbers(loader): return [x[:, 0, 0, 0].tolist() for x, _ in loader]


@pytest.mark.parametrize('world, workers', [(1, 0), (2, 0), (2, 3)])
def test_an_indexed_source_read_through(tmp_path, world, workers):
    "Everything once, in another order in every epoch, whole again after an interruption"
    write_lmdb(tmp_path/'a.lmdb', [grey(i) for i in range(50)], [f'w{i}' for i in range(50)])
    def new(rank): return word_loader(WordStream(open_stream(tmp_path/'a.lmdb', rank=rank, world=world, shuffle=1)), 3,
                                      workers=workers)
    passes = []
    for rank in range(world):
        whole, first, second = new(rank), new(rank), new(rank)
        passes.append(([*numbers(whole)], [*numbers(whole)]))
        assert numbers(islice(first, 4)) == passes[-1][0][:4]
        second.load_state_dict(first.state_dict())
        assert numbers(second) == passes[-1][0][4:]
    for epoch in range(2):
        assert sorted(sum((sum(p[epoch], []) for p in passes), [])) == list(range(50))
    assert passes[0][0] != passes[0][1] and len(new(0)) == -(-(50//world)//3)


def test_a_source_read_through_has_its_broken_pictures(tmp_path):
    write_lmdb(tmp_path/'a.lmdb', [b'' if i == 7 else b'x' if i == 9 else grey(i) for i in range(50)])
    stream = WordStream(open_stream(tmp_path/'a.lmdb'))
    levels = sum(numbers(word_loader(stream, 8)), [])
    assert len(levels) == 50 and not {7, 9} & set(levels) and stream.counts() == dict(empty=1, unreadable=1)


@pytest.mark.parametrize('workers', [0, 2])
def test_mixture_of_streams_keeps_its_shares_and_resumes(tmp_path, workers):
    "Parquet, an LMDB and rendered words, 1 : 3 : 1; each is gone through"
    data = datasets.Dataset.from_dict(dict(image=[dict(bytes=grey(i), path=None) for i in range(60)],
                                           text=['a']*60)).cast_column('image', datasets.Image(decode=False))
    shards(data, tmp_path/'files', 3)
    write_lmdb(tmp_path/'b.lmdb', [grey(100+i) for i in range(90)], ['b']*90)
    (tmp_path/'digits.json').write_text(json.dumps(dict(
        rendered=dict(alphabet='0123456789', words=0, strings=0, numbers=1, fonts='own', punctuation=0), n=40)))
    (tmp_path/'mix.json').write_text(json.dumps(dict(mixture=[
        dict(path='files'), dict(path='b.lmdb', weight=3), dict(path='digits.json')])))
    charset = Charset('ab0123456789')
    def new(): return word_loader(open_words([tmp_path/'mix.json'], stream=True, charset=charset), 10, workers=workers)
    def words(batches): return [charset.decode_batch(ids) for _, ids in batches]
    whole = words(loader := new())
    found = [t if t in 'ab' else 'digits' for t in sum(whole, [])]
    share = {t: found.count(t)/len(found) for t in ('a', 'b', 'digits')}
    assert share == pytest.approx(dict(a=.2, b=.6, digits=.2), abs=.07) and found.count('a') >= 60 and len(loader) == 30
    assert set(sum(whole, [])) == {'a', 'b', *texts(open_source(tmp_path/'digits.json'))}
    first, second = new(), new()
    assert words(islice(first, 7)) == whole[:7]
    second.load_state_dict(first.state_dict())
    assert words(second) == whole[7:]


# Descriptions, and everything through one door

def test_small_files_that_describe(tmp_path):
    write_lmdb(tmp_path/'a.lmdb', [grey(i) for i in range(4)], list('abcd'))
    write_pictures(tmp_path/'b', 8)
    (tmp_path/'mix.json').write_text(json.dumps(dict(
        mixture=[dict(path='a.lmdb', weight=1), dict(path='b', weight=3), dict(path='digits.json')], n=100, seed=2)))
    (tmp_path/'digits.json').write_text(json.dumps(dict(
        rendered=dict(alphabet='0123456789', words=0, strings=0, numbers=1, fonts='own', punctuation=0), n=50, seed=1)))
    np.save(tmp_path/'rows.npy', [3, 1])
    (tmp_path/'part.json').write_text(json.dumps(dict(source='a.lmdb', rows='rows.npy')))
    assert texts(open_source(tmp_path/'part.json')) == ['d', 'b']
    assert open_source(tmp_path/'digits.json').label(7).isdigit()
    mixed = open_source(tmp_path/'mix.json')
    counts = [sum(home(mixed, i)[0] is s for i in range(100)) for s in mixed.parts]
    assert counts == [20, 60, 20] and not mixed.labelled
    for wrong in ('{"mixture": [{"weight": 1}]}', '{"rendered": {"colour": 1}}', '{"source": "a.lmdb"}'):
        (tmp_path/'wrong.json').write_text(wrong)
        with pytest.raises(DataError):
            open_source(tmp_path/'wrong.json')


def test_every_source_survives_pickling_and_gives_the_same(table, tmp_path, union):
    from mnsp.stores import cache
    write_lmdb(tmp_path/'a.lmdb', [grey(i) for i in range(12)], [f'word{i}' for i in range(12)])
    cache(tmp_path/'a.lmdb', tmp_path/'a.cache', bar=False)
    kept = [LmdbSource(tmp_path/'a.lmdb'), CacheSource(tmp_path/'a.cache'), HfSource(table),
            open_source(union[0]/'train_annos/mmocr-0.x'), FolderSource(union[0]), open_source('rendered:demo')]
    for source in [*kept, Concat(kept), Mixture(kept), Subset(kept[0], [3, 2])]:
        again = pickle.loads(pickle.dumps(source))
        for i in (0, 1):
            assert again[i][0].tobytes() == source[i][0].tobytes() and again.label(i) == source.label(i)
            assert again.name(i) == source.name(i) and len(again) == len(source)
        with pytest.raises(IndexError):
            source[len(source)]


def test_a_bad_line_met_on_the_way_is_one_broken_item(tmp_path):
    "A list that is opened by itself is not checked line by line: what is wrong in it is met, counted and replaced"
    folder = write_pictures(tmp_path, 30)
    file = folder/'list.tsv'
    file.write_text(''.join(f'{i}.png\tword\n' if i != 24 else 'no tab here\n' for i in range(30)))
    words = WordDataset(open_source(file))
    assert words[24][1] != 24 and words[3][1] == 3
    (name, reason), = words.broken()
    assert reason == 'unreadable' and name.endswith('list.tsv, entry 25')
    with pytest.raises(BrokenLabel, match='entry 25'): words.label(24)
    with pytest.raises(DataError, match='line 25'): list(words.source.labels())


def test_labels_behind_a_damaged_page_of_an_lmdb(tmp_path):
    path = write_lmdb(tmp_path/'l', [b'x'*300]*600, ['word']*600)
    file = path/'data.mdb'
    data = bytearray(file.read_bytes())
    page = data.find(b'label-000000500') // 4096 * 4096
    data[page:page + 4096] = b'\xff' * 4096
    file.write_bytes(data)
    found = list(open_source(path).labels())
    assert len(found) == 600 and found[0] == found[-1] == 'word' and found[499] is None
    with pytest.raises(BrokenLabel, match='unreadable'): open_source(path).label(499)


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='named pipes are not to be had on Windows')
def test_pipes_in_a_folder_are_not_waited_for(tmp_path):
    "Beside pictures, as a list, and as a picture itself"
    folder = write_pictures(tmp_path, 4)
    for name in '0.txt', 'list.tsv', 'a.json', 'b.jsonl', '4.png': os.mkfifo(folder/name)
    source = open_source(folder)
    with pytest.raises(DataError, match='no labels'): WordDataset(source, charset=Charset('abc'))
    words = WordDataset(source, max_broken=1.)
    for i in range(5): words[i]
    assert words.broken() == [('4.png', 'unreadable')]
