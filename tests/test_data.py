"Broken and odd data: what would not read well in the notebook"
import io
import os
import pickle
import subprocess
import sys
import time
import zlib
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image
from torch._utils import ExceptionWrapper

from mnsp import data
from mnsp.charset import Charset, english
from mnsp.data import Cached, EpochSampler, WordDataset, shuffled, to_tensor, word_loader
from mnsp.images import to_rgb
from mnsp.labels import DataError
from mnsp.lists import FolderSource
from mnsp.lmdb_source import LmdbSource
from mnsp.pretrain import Pretrainer, mae
from mnsp.sources import open_source
from mnsp.stores import cache
from mnsp.synth import SynthWords, World, demo_world, font_files
from mnsp.training import pretrain
from mnsp.unions import Concat, Mixture, Subset, home, split_source


def png(value=0, size=(40, 12)):
    buffer = io.BytesIO()
    Image.new('RGB', size, (value, value, value)).save(buffer, 'png')
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    "20 one-coloured pictures; number i has grey level i"
    for i in range(20):
        (tmp_path/f'{i}.png').write_bytes(png(i))
    (tmp_path/'labels.tsv').write_text(''.join(f'{i}.png\tword{i}\n' for i in range(20)))
    return tmp_path


def position(loader):
    "Its state, but for the digest of the data"
    return {key: value for key, value in loader.state_dict().items() if key != 'data'}


def write_lmdb(path, images, labels=None, count=None):
    with lmdb.open(str(path), map_size=2**22) as env, env.begin(write=True) as t:
        for i, data in enumerate(images, 1):
            if data is not None:
                t.put(b'image-%09d' % i, data)
            if labels:
                t.put(b'label-%09d' % i, labels[i-1])
        t.put(b'num-samples', str(len(images) if count is None else count).encode())
    return path


@pytest.mark.parametrize('damage, reason', [
    (lambda p: p.write_bytes(png()[:45]), 'unreadable'),
    (lambda p: p.write_text('a text'), 'unreadable'),
    (lambda p: p.write_bytes(b''), 'empty'),
    (lambda p: p.unlink(), 'missing'),
    (lambda p: (p.unlink(), p.mkdir()), 'unreadable'),
    (lambda p: Image.new('1', (6000, 6000)).save(p), 'too large'),
    (lambda p: p.write_bytes(png()[:8]+os.urandom(300)), 'unreadable'),
])
def test_every_kind_of_damage_has_its_reason(folder, damage, reason):
    source = FolderSource(folder)
    damage(folder/'4.png')
    words = WordDataset(source, charset=english)
    batches = list(word_loader(words, 8))
    assert sum(len(x) for x, _ in batches) == 20
    assert words.broken() == [('4.png', reason)]
    assert '1 of 20 pictures broken' in words.report() and '4.png' in words.report()


def test_substitute_brings_its_own_target_and_is_never_broken(folder):
    source = FolderSource(folder)
    for i in (2, 5, 9):
        (folder/f'{i}.png').write_bytes(b'no')
    words = WordDataset(source, seed=3)
    for i in range(20):
        x, target = words[i]
        assert x.float().mean().item() == target      # the grey level of the picture that is shown
        assert (target == i) == (i not in (2, 5, 9))
    assert [words[i][1] for i in (2, 5, 9)] == [WordDataset(source, seed=3)[i][1] for i in (2, 5, 9)]
    assert {WordDataset(source, seed=s)[2][1] for s in range(10)} != {words[2][1]}


@pytest.mark.parametrize('workers', [0, 2])
def test_workers_report_to_the_parent(folder, workers):
    source = FolderSource(folder)
    (folder/'4.png').write_bytes(b'')
    (folder/'17.png').unlink()
    words = WordDataset(source)
    cached = Cached(words, bar=False, workers=workers)
    assert cached.broken() == words.broken() == [('4.png', 'empty'), ('17.png', 'missing')]
    assert len(cached) == 20 and cached.report() == words.report()


def test_limit_of_broken_pictures(folder):
    source = FolderSource(folder)
    for i in range(4):
        (folder/f'{i}.png').write_bytes(b'')
    assert len(list(word_loader(WordDataset(source), 20))) == 1             # 4 of 20: just at the limit
    (folder/'4.png').write_bytes(b'')
    with pytest.raises(DataError, match='^5 of 20 pictures are broken'):
        list(word_loader(WordDataset(source), 20))
    assert len(WordDataset(source, max_broken=1.)) == 20


def test_error_of_a_worker_is_one_line():
    "As torch hands it over; a real worker would do, but torch takes 5 s to end it"
    try:
        raise DataError('5 of 20 pictures are broken')
    except DataError:
        wrapped = ExceptionWrapper(where='in DataLoader worker process 0')
    with pytest.raises(DataError) as error:
        wrapped.reraise()
    assert str(error.value) == '5 of 20 pictures are broken'


def test_all_broken_stays_in_place_when_blank(folder):
    source = FolderSource(folder)
    for i in range(20):
        (folder/f'{i}.png').write_bytes(b'')
    blank = WordDataset(source, on_broken='blank', max_broken=1.)
    (x, targets), = word_loader(blank, 20)
    assert x.unique().tolist() == [128] and targets.tolist() == list(range(20)) and len(blank.broken()) == 20
    with pytest.raises(DataError, match='no substitute'):
        WordDataset(source, max_broken=1.)[0]


@pytest.mark.parametrize('text, message', [
    ('0.png\tone\n\n1.png two\n', 'line 3: .*TAB'),
    ('0.png\n', 'line 1'),
    ('\tword\n', 'line 1'),
    ('0.png\tone\nx.png\ttwo\ny.png\tthree\n', "line 2: no image 'x.png' .*1 more"),
    ('', 'lists no images'),
])
def test_bad_labels_are_named(folder, text, message):
    (folder/'labels.tsv').write_text(text)
    with pytest.raises(DataError, match=message):
        open_source(folder)


def test_labels_as_windows_and_the_web_write_them(folder):
    "BOM, CRLF, no last line end, TAB inside the text, line separators that are no line ends"
    rows = ['0.png\tnaïve', '1.png\ta\tb', '2.png\tx\u2028y', '3.png\t停車場']
    (folder/'labels.tsv').write_bytes(('\ufeff'+'\r\n'.join(rows)).encode())
    source = FolderSource(folder)
    assert [source.label(i) for i in range(4)] == ['naïve', 'a\tb', 'x\u2028y', '停車場']


def test_labelled_files_in_folders(tmp_path):
    for place in ('a', 'images/b'):
        (tmp_path/place).mkdir(parents=True)
        (tmp_path/place/'1.png').write_bytes(png(7))
    (tmp_path/'labels.tsv').write_text('a/1.png\tone\nb/1.png\ttwo\nimages/b/1.png\ttwo\n')
    source = FolderSource(tmp_path)
    assert [t for _, t in source] == ['one', 'two', 'two'] and source.name(1) == 'b/1.png'


def test_unlabelled_folder_leaves_out_what_is_no_picture(tmp_path):
    (tmp_path/'deep/er').mkdir(parents=True)
    for name in ('b.PNG', 'deep/er/a.png', '._b.png', 'notes.txt'):
        (tmp_path/name).write_bytes(png())
    source = open_source(tmp_path)
    assert source.names == ['b.PNG', 'deep/er/a.png'] and not source.labelled and source.label(0) is None


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'I;16', 'I', 'F', 'YCbCr', 'HSV'])
def test_every_mode_becomes_rgb(mode):
    im = to_rgb(Image.new(mode, (9, 5)))
    assert im.mode == 'RGB' and to_tensor(im).shape == (3, 32, 128)


@pytest.mark.filterwarnings('error')
def test_palette_with_transparency_is_silent(tmp_path):
    im = Image.new('P', (9, 5))
    im.save(tmp_path/'x.png', transparency=bytes([0, 255]))
    assert FolderSource(tmp_path)[0][0].mode == 'RGB'


def test_lmdb_with_holes(tmp_path):
    path = write_lmdb(tmp_path/'db', [png(i) if i not in (3, 6) else [None, b''][i == 6] for i in range(12)])
    words = WordDataset(LmdbSource(path))
    list(word_loader(words, 4))
    assert words.broken() == [('image-000000004', 'missing'), ('image-000000007', 'empty')]


def test_lmdb_labels(tmp_path):
    source = open_source(write_lmdb(tmp_path/'db', [png()]*3, ['eins'.encode(), 'größe'.encode(), b'caf\xe9']))
    assert source.labelled and source.label(1) == 'größe'
    with pytest.raises(DataError, match='label-000000003: not UTF-8'):
        source.label(2)


@pytest.mark.parametrize('count', [0, 'many', ''])
def test_lmdb_without_a_number(tmp_path, count):
    with pytest.raises(DataError, match='num-samples'):
        open_source(write_lmdb(tmp_path/'db', [png()], count=count))


def test_lmdb_single_file_is_read_again_when_rewritten(tmp_path):
    path, new = tmp_path/'words.lmdb', tmp_path/'new'
    for n in (1, 2):
        with lmdb.open(str(new), subdir=False, map_size=2**22) as env, env.begin(write=True) as t:
            t.put(b'num-samples', b'%d' % n)
            t.put(b'image-000000001', png(n))
        os.replace(new, path)
        source = open_source(path)
        assert len(source) == n and np.asarray(source[0][0])[0, 0, 0] == n


def test_lmdb_in_workers_after_reading_in_the_parent(tmp_path):
    source = LmdbSource(write_lmdb(tmp_path/'db', [png(i) for i in range(30)]))
    assert source[0][0].size == (40, 12)
    x = torch.cat([x for x, _ in word_loader(WordDataset(Concat([source, LmdbSource(tmp_path/'db')])), 8, workers=2)])
    assert x[:, 0, 0, 0].tolist() == list(range(30))*2
    assert len(pickle.loads(pickle.dumps(source))) == 30


def test_split_follows_the_crc_of_the_path():
    class Names:
        labelled = False
        def __len__(self): return 500
        def name(self, i): return f'some/folder/{i}.png'

    train, valid = split_source(Names())
    assert list(valid.rows) == [i for i in range(500) if zlib.crc32(f'some/folder/{i}.png'.encode()) % 10 == 0]
    assert sorted([*train.rows, *valid.rows]) == list(range(500))


def test_left_out_words(folder):
    (folder/'labels.tsv').write_text('0.png\tabcd\n1.png\tabc\n2.png\tab\n')
    words = WordDataset(FolderSource(folder), charset=Charset('abc'), max_len=4)
    assert (len(words), words.left_out, words[0][1].tolist()) == (2, 1, [0, 1, 2, 3])
    assert '1 of 3 words left out' in words.report()
    with pytest.raises(DataError, match='all 3 words'):
        WordDataset(FolderSource(folder), charset=english, max_len=2)


def test_cached_batches_equal_single_items(folder):
    cached = Cached(WordDataset(FolderSource(folder), charset=english), bar=False)
    for workers in (0, 2):
        x, ids = next(iter(word_loader(cached, 20, workers=workers)))
        assert torch.equal(x, cached.images) and torch.equal(ids, cached.targets)
    assert Subset(FolderSource(folder), [3]).name(0) == '3.png'


def test_rendered_words_are_the_same_in_another_process():
    code = ("import zlib; from mnsp.synth import SynthWords, demo_world; w = SynthWords(demo_world(), 9, seed=2); "
            "print(zlib.crc32(b''.join(w[i][0].tobytes()+w.label(i).encode() for i in range(9))))")
    env = {**os.environ, 'PYTHONHASHSEED': '7'}
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env, check=True).stdout
    words = SynthWords(demo_world(), 9, seed=2)
    assert int(out) == zlib.crc32(b''.join(words[i][0].tobytes()+words.label(i).encode() for i in range(9)))


def damaged_font(path, to):
    "A copy of a TrueType font whose programs hold an instruction that does not exist"
    data = bytearray(Path(path).read_bytes())
    for at in range(12, 12+16*int.from_bytes(data[4:6], 'big'), 16):
        if data[at:at+4] in (b'fpgm', b'prep'):
            start, size = (int.from_bytes(data[at+k:at+k+4], 'big') for k in (8, 12))
            data[start:start+size] = b'\x28'*size
    to.write_bytes(data)
    return str(to)


def test_a_font_that_cannot_be_drawn_is_passed_over(tmp_path):
    "The next one of the list takes its place; words in the other fonts stay as they are"
    one, two, three = font_files(False)[:3]
    broken = damaged_font(two, tmp_path/'broken.ttf')
    with_broken, whole, instead = (SynthWords(replace(demo_world(), fonts=(one, f, three)), 40) for f in (broken, two, three))
    pictures, before, wanted = ([w[i][0].tobytes() for i in range(40)] for w in (with_broken, whole, instead))
    assert pictures == wanted and 10 < sum(a == b for a, b in zip(pictures, before)) < 40
    with pytest.raises(ValueError, match='none of its fonts can be drawn'):
        SynthWords(replace(demo_world(), fonts=(broken,)), 1)[0]


def test_extreme_worlds_render():
    for world in (World(min_len=20, max_len=24, words=0), World(min_len=1, max_len=1), World(size=(8, 8)),
                  World(geometry=1, size=(64, 256), contrast=.6)):
        words = SynthWords(world, 40)
        for i in range(40):
            image, text, mask = words.render(i)
            assert image.size == world.size[::-1] and mask.shape == tuple(world.size) and world.min_len <= len(text)


class Grey:
    "So many grey pictures"
    labelled = False
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def name(self, i): return f'{i}.png'
    def label(self, i): return None
    def __getitem__(self, i): return Image.new('L', (9, 5), i % 256), None


def broken_lmdb(path, n=600):
    "An LMDB of which one per cent is broken, in three ways"
    damage = {37: None, 111: b'', 205: b'no picture', 299: png()[:45], 480: None, 599: b''}
    return write_lmdb(path, [damage.get(i, png(i % 250)) for i in range(n)])


@pytest.mark.parametrize('workers', [0, 2])
def test_a_lmdb_of_which_one_per_cent_is_broken_trains_through(tmp_path, workers):
    words = WordDataset(LmdbSource(broken_lmdb(tmp_path/'db')), max_broken=.01)
    loader = word_loader(words, 50, shuffle=True, workers=workers)
    torch.manual_seed(0)
    rows = pretrain(Pretrainer(mae('tiny')), loader, lr=1e-4, epochs=2).history.rows
    assert rows[-1]['step'] == 24 and all(np.isfinite(row['loss']) for row in rows)
    assert words.counts() == dict(missing=2, empty=2, unreadable=2)
    assert [name for name, _ in words.broken()] == [f'image-{i+1:09d}' for i in (37, 111, 205, 299, 480, 599)]
    assert '6 of 600 pictures broken' in words.report()


def test_one_more_is_too_many(tmp_path):
    words = WordDataset(LmdbSource(broken_lmdb(tmp_path/'db')), max_broken=.009)
    with pytest.raises(DataError, match='6 of 600 pictures are broken, more than 1%; image-.*mnsp data check'):
        list(word_loader(words, 50))


@pytest.mark.parametrize('union', [Concat, Mixture])
def test_substitute_is_of_the_same_source(tmp_path, union):
    large, small = write_lmdb(tmp_path/'large', [png(9)]*200), write_lmdb(tmp_path/'small', [png(1), b'', png(2)])
    words = WordDataset(union([LmdbSource(large), LmdbSource(small)]), max_broken=1.)
    found = [(i, int(words[i][0][0, 0, 0])) for i in range(len(words))]
    assert {level for i, level in found if words.tally.codes[i]} <= {1, 2} and words.counts()['empty'] > 0


def test_order_is_a_permutation_and_nothing_but_a_function():
    for n in (1, 2, 5, 64, 65, 1000):
        orders = {tuple(shuffled(np.arange(n), n, seed, epoch)) for seed in range(3) for epoch in range(3)}
        assert all(sorted(o) == list(range(n)) for o in orders)
        assert n < 65 or len(orders) == 9
    n = 10_000_000
    some = shuffled(np.arange(0, n, 1000), n, 1, 2)
    assert len(set(some.tolist())) == 10_000 and 0 <= some.min() and some.max() < n
    assert shuffled([7_340_000], n, 1, 2)[0] == some[7340]
    assert abs(some.mean()/n-.5) < .02 and abs(np.corrcoef(np.arange(10_000), some)[0, 1]) < .04


@pytest.mark.parametrize('n', [1, 10, 11, 12, 13])
@pytest.mark.parametrize('world', [1, 2, 3, 4])
def test_processes_see_disjoint_data_and_everything_once(n, world):
    for epoch in range(3):
        parts = []
        for rank in range(world):
            sampler = EpochSampler(n, seed=5, rank=rank, world=world)
            sampler.epoch = epoch
            parts.append(list(sampler))
            assert len(parts[-1]) == len(sampler)
        assert sorted(sum(parts, [])) == list(range(n))


@pytest.mark.parametrize('n, world, size', [(129, 2, 64), (130, 2, 64), (20, 3, 4), (23, 3, 4)])
def test_processes_that_train_together_make_the_same_number_of_steps(n, world, size):
    "With drop_last; and a state of any process says the same when all have made their steps"
    words, parts = WordDataset(Grey(n)), []
    loaders = [word_loader(words, size, shuffle=True, drop_last=True, rank=r, world=world) for r in range(world)]
    for loader in loaders:
        parts.append([t.tolist() for _, t in loader])
    assert len({len(loader) for loader in loaders}) == 1 and {len(p) for p in parts} == {len(loaders[0])}
    items = sum((t for p in parts for t in p), [])
    assert len(set(items)) == len(items) == n//world//size*size*world
    assert [position(loader) for loader in loaders] == [dict(epoch=1, position=0, seed=0, n=n)]*world


@pytest.mark.parametrize('workers', [0, 2])
def test_weighted_mixture_is_loaded_and_resumed(folder, tmp_path, workers):
    "A folder, an LMDB and rendered words, 1 : 2 : 5, exactly so in every epoch, in two processes, over an interruption"
    lmdb_ = LmdbSource(write_lmdb(tmp_path/'db', [png(200+i) for i in range(30)]))
    parts, weights = [FolderSource(folder), lmdb_, SynthWords(demo_world(), 50)], [1, 2, 5]
    def new(rank): return word_loader(WordDataset(Mixture(parts, weights, n=160)), 10, shuffle=True, seed=4, rank=rank,
                                      world=2, workers=workers)
    wholes, rest = [[seen(loader) for _ in range(2)] for loader in (new(0), new(1))], []
    for epoch in range(2):
        items = wholes[0][epoch]+wholes[1][epoch]
        assert sorted(items) == list(range(160))
        mixed = new(0).dataset.source
        assert Counter(parts.index(home(mixed, i)[0]) for i in items) == {0: 20, 1: 40, 2: 100}
    assert wholes[0][0] != wholes[0][1]
    first = new(0)
    before = seen(islice(first, 3))
    for rank in range(2):
        second = new(rank)
        second.load_state_dict(first.state_dict())
        rest.append(seen(second))
    assert [before+rest[0], wholes[1][0][30:]] == [wholes[0][0], rest[1]]


@pytest.mark.parametrize('drop_last', [False, True])
def test_state_after_the_last_batch_begins_the_next_epoch(drop_last):
    "Also when the pass was left before the loader knew that it is over"
    for rank in range(2):
        first, second = (word_loader(WordDataset(Grey(23)), 4, shuffle=True, drop_last=drop_last, rank=rank, world=2)
                         for _ in range(2))
        batches = iter(first)
        for _ in range(len(first)):
            next(batches)
        state = first.state_dict()
        assert position(first) == dict(epoch=1, position=0, seed=0, n=23)
        second.load_state_dict(state)
        assert seen([next(iter(second))]) == seen([next(iter(first))])


def seen(batches): return sum((t.tolist() for _, t in batches), [])


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('after', [1, 3, 5, 6, 9])
def test_resume_continues_at_the_next_unseen_sample(folder, after, workers):
    "Batches of four out of twenty; interrupted after so many, in the middle and at the end of an epoch"
    def new(): return word_loader(WordDataset(FolderSource(folder)), 4, shuffle=True, seed=2, workers=workers)
    def endless(loader):
        while True:
            yield from loader
    whole, first, second = endless(new()), new(), new()
    wanted = seen(next(whole) for _ in range(14))
    batches = endless(first)
    got = seen(next(batches) for _ in range(after))
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    batches = endless(second)
    assert got+seen(next(batches) for _ in range(14-after)) == wanted


def test_resume_with_other_processes_and_batches(folder):
    loader = word_loader(WordDataset(FolderSource(folder)), 6, shuffle=True)
    before = seen([next(iter(loader))])
    rest = []
    for rank in range(3):
        other = word_loader(WordDataset(FolderSource(folder)), 1, shuffle=True, rank=rank, world=3)
        other.load_state_dict(loader.state_dict())
        rest += seen(other)
    assert sorted(before+rest) == list(range(20)) and len(rest) == 14


def test_what_is_left_of_an_epoch_with_drop_last(folder):
    loader = word_loader(WordDataset(FolderSource(folder)), 8, drop_last=True)
    assert len(seen(loader)) == 16 and position(loader) == dict(epoch=1, position=0, seed=0, n=20)
    with pytest.raises(ValueError, match="sampler: only the loader's own order"):
        word_loader(WordDataset(FolderSource(folder)), sampler=[1, 2]).state_dict()
    with pytest.raises(ValueError, match='seed=1, this loader has 0'):
        loader.load_state_dict(dict(epoch=0, position=0, seed=1, n=20))


def test_cached_with_other_targets(folder):
    (folder/'4.png').write_bytes(b'')
    cached = Cached(WordDataset(FolderSource(folder)), bar=False)
    ids = cached.with_charset(Charset('word0123456789'), max_len=6)
    short = sum(i < 10 for i in cached.shown.tolist()) # 'word9' fits into six places with its end mark, 'word10' does not
    assert ids.images is cached.images and len(ids) == short
    x, targets = next(iter(word_loader(ids, 30)))
    for image, text in zip(x, ids.charset.decode_batch(targets)):
        assert text == f'word{int(image[0, 0, 0])}'
    assert ids.left_out+len(ids) == 20 and cached.charset is None
    back = ids.with_charset()
    assert torch.equal(back.targets, cached.targets) and len(back) == 20
    odd = cached.with_charset(Charset('abc'), max_len=9, change=lambda text: 'a' if text[-1] in '13579' else '')
    assert len(odd) == sum(i % 2 for i in cached.shown.tolist()) and {odd.label(k) for k in range(len(odd))} == {'a'}


def test_caches_on_disk_alone_and_together(folder, tmp_path_factory):
    "Batches out of the map equal those decoded, broken ones included, in any union"
    (folder/'4.png').write_bytes(b'')
    place = tmp_path_factory.mktemp('caches')
    for name in 'ab':
        cache(folder, place/name, bar=False)
    a, b, slow = open_source(place/'a'), open_source(place/'b'), FolderSource(folder)
    for make in (lambda x, y: x, lambda x, y: Concat([x, y]), lambda x, y: Mixture([x, y], [1, 2]),
                 lambda x, y: Subset(Concat([x, y]), range(39, 0, -3))):
        for charset in (None, english):
            fast, plain = (WordDataset(make(*s), charset=charset) for s in ((a, b), (slow, slow)))
            assert fast.ready and not plain.ready
            for workers in (0, 2):
                (x, s), = word_loader(fast, 99, workers=workers)
                (y, t), = word_loader(plain, 99)
                good = [i for i in range(len(fast)) if not plain.tally.codes[i]]
                assert torch.equal(x[good], y[good]) and torch.equal(s[good], t[good])
                assert fast.broken() == plain.broken() != []
    assert not WordDataset(a, size=(16, 64)).ready and WordDataset(a, size=(16, 64))[3][0].shape == (3, 16, 64)


# Labels that are not gone through at the start

letters = Charset('abcdefghijklmnopqrst')


@pytest.fixture
def misfits(folder):
    "Of 20 words number 3 and 12 are too long for five places, 8 has no label; picture 5 is broken"
    text = {i: 5*c if i in (3, 12) else c for i, c in enumerate(letters.chars)}
    write_lmdb(folder/'db', [png(i) if i != 5 else b'no' for i in range(20)])
    with lmdb.open(str(folder/'db'), map_size=2**22) as env, env.begin(write=True) as t:
        for i in set(text)-{8}:
            t.put(b'label-%09d' % (i+1), text[i].encode())
    return folder/'db'


def drawn(dataset, workers=0):
    "{index: (grey level, text)} of one epoch"
    batches = [*word_loader(dataset, 6, workers=workers)]
    levels, ids = torch.cat([x[:, 0, 0, 0] for x, _ in batches]).tolist(), torch.cat([ids for _, ids in batches])
    return dict(zip(map(int, dataset.kept), zip(levels, letters.decode_batch(ids))))


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('kind', ['decoded', 'copied', 'union'])
def test_lazy_and_eager_give_the_same_words_but_for_the_substitutes(misfits, tmp_path, kind, workers):
    def opened():
        if kind == 'decoded':
            return LmdbSource(misfits)
        if not (tmp_path/'cache').exists():
            cache(misfits, tmp_path/'cache', bar=False)
        return open_source(tmp_path/'cache') if kind == 'copied' else Concat([open_source(tmp_path/'cache')]*2)
    eager, lazy = (WordDataset(opened(), charset=letters, max_len=5, scan=scan) for scan in (True, False))
    copies = 1+(kind == 'union')
    assert lazy.ready == (kind != 'decoded') and (len(eager), len(lazy)) == (17*copies, 20*copies)
    assert (eager.left_out, lazy.left_out) == (3*copies, 0)
    a, b = drawn(eager, workers), drawn(lazy, workers)
    assert {i: a[i] for i in a if i % 20 != 5} == {i: b[i] for i in a if i % 20 != 5}
    for level, text in b.values():
        assert text == letters.chars[level] and level not in (3, 5, 8, 12)  # a substitute brings its own label
    assert lazy.counts() == {'unreadable': copies, 'does not fit': 3*copies} and lazy.left_out == eager.left_out
    assert lazy.broken() == eager.broken() == [('image-000000006', 'unreadable')]*copies
    assert f'{3*copies} of {20*copies} words met so far' in lazy.report() and b == drawn(lazy, workers)


def test_words_that_do_not_fit_are_no_broken_pictures(tmp_path):
    "However many there are, they stop nothing; the limit of broken pictures is what it was"
    labels = [b'a' if i % 10 == 0 else b'long word' for i in range(200)]
    words = WordDataset(LmdbSource(write_lmdb(tmp_path/'db', [png()]*200, labels)), charset=letters, max_len=5, scan=False)
    assert set(drawn(words).values()) == {(0, 'a')}
    assert (words.left_out, words.broken(), words.counts()) == (180, [], {'does not fit': 180})
    source = LmdbSource(write_lmdb(tmp_path/'bad', [b'no']*60+[png()]*140, [b'a']*200))
    with pytest.raises(DataError, match='of 200 pictures are broken, more than 20%'):
        drawn(WordDataset(source, charset=letters, scan=False))


def test_when_labels_are_gone_through(misfits, monkeypatch):
    source = LmdbSource(misfits)
    assert not WordDataset(source, charset=letters).lazy
    monkeypatch.setattr(data, 'scanned', 19)
    lazy = WordDataset(source, charset=letters, max_len=5)
    assert lazy.lazy and not WordDataset(source).lazy and not WordDataset(source, charset=letters, scan=True).lazy
    assert not WordDataset(source, charset=letters, on_broken='blank').lazy # has to keep every word in its place
    with pytest.raises(ValueError, match='scan=False needs'):
        WordDataset(source, charset=letters, on_broken='blank', scan=False)
    cached = Cached(lazy, bar=False)
    assert (len(cached), cached.left_out, len(cached.with_charset(letters, 5))) == (17, 3, 17)
    with pytest.raises(DataError, match='no substitute .*words met so far'):
        WordDataset(source, charset=letters, max_len=1)[0]


def test_ten_million_labelled_words_start_quickly():
    class Endless:
        labelled, grey = True, Image.new('RGB', (128, 32))
        def __len__(self): return 10_000_000
        def __getitem__(self, i): return self.grey, self.label(i)
        def label(self, i): return f'{i}'
        def name(self, i): return f'{i}.png'
    begin = time.perf_counter()
    words = WordDataset(Endless(), charset=english, max_len=8)
    _, ids = next(iter(word_loader(words, 2000, shuffle=True)))
    assert time.perf_counter()-begin < 5 and len(words) == 10_000_000
    assert max(map(len, english.decode_batch(ids))) == 7 and words.left_out == 0
    words = WordDataset(Endless(), charset=english, max_len=7)               # nine of ten have seven digits
    _, ids = next(iter(word_loader(words, 200, shuffle=True)))
    assert max(map(len, english.decode_batch(ids))) <= 6 and words.left_out > 1000
