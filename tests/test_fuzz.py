"""Damaged files: whatever is done to one, reading it gives what is in it or a clear error, never anything else."""
import copy
import io
import json
import random
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mnsp import Reading, hub
from mnsp.decoder import DecoderConfig
from mnsp.encoder import EncoderConfig
from mnsp.images import BrokenImage, BrokenLabel, picture
from mnsp.labels import DataError
from mnsp.pretrain import PretrainConfig, Pretrainer
from mnsp.published import from_published
from mnsp.recognizer import Recognizer, recognizer_tiny
from mnsp.sources import open_source
from mnsp.stores import cache
from mnsp.synth import SynthWords, demo_world

FORMATS = [('JPEG', {}), ('PNG', {}), ('WEBP', {}), ('GIF', {}), ('BMP', {}), ('TIFF', dict(compression='tiff_lzw')),
           ('PPM', {}), ('JPEG2000', {}), ('PNG', dict(optimize=True)), ('JPEG', dict(progressive=True, quality=30))]


def encoded():
    "One small picture in every format and in several modes"
    picture, seeds = SynthWords(demo_world(), 3, seed=1)[2][0], []
    for name, how in FORMATS:
        for mode in ('RGB', 'L') + (('P', 'RGBA', '1', 'I;16') if name in ('PNG', 'TIFF') else ()) + ('CMYK',) * (name == 'JPEG'):
            file = io.BytesIO()
            (picture.convert('L').convert(mode) if mode == 'I;16' else picture.convert(mode)).save(file, name, **how)
            seeds.append(file.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    picture.save(file, 'JPEG', exif=exif)
    return [*seeds, file.getvalue()]


SEEDS = encoded()
mutations = st.lists(st.one_of(
    st.tuples(st.just('flip'), st.integers(0, 2**20), st.integers(1, 255)),
    st.tuples(st.just('number'), st.integers(0, 200), st.sampled_from([0, 1, 0x7f, 0x80, 0xff, 0xffff, 2**31 - 1, 2**32 - 1])),
    st.tuples(st.just('cut'), st.integers(0, 2**20), st.just(0)),
    st.tuples(st.just('drop'), st.integers(0, 2**20), st.integers(1, 64)),
    st.tuples(st.just('double'), st.integers(0, 2**20), st.integers(1, 64)),
    st.tuples(st.just('noise'), st.integers(0, 2**20), st.integers(0, 2**32)),
), min_size=1, max_size=8)


def mutated(data, changes):
    "A file with bytes flipped, numbers in its head overwritten, parts cut off, left out, doubled or made noise"
    data = bytearray(data)
    for kind, at, value in changes:
        at %= max(len(data), 1)
        if kind == 'flip' and data: data[at] ^= value
        elif kind == 'number': data[at:at + 4] = value.to_bytes(4, 'big' if value % 2 else 'little')
        elif kind == 'cut': del data[at:]
        elif kind == 'drop': del data[at:at + value]
        elif kind == 'double': data[at:at] = data[at:at + value]
        elif kind == 'noise': data[at:at + 16] = random.Random(value).randbytes(16)
    return bytes(data)


@pytest.fixture(scope='module')
def reader(): return Recognizer.from_pretrained()


seen = dict(pictures=0, read=0, refused=0)


def read_all(reader, files):
    "Read mutated files; only readings and clear errors may come of it"
    for answer in reader.read_each(files):
        seen['pictures'] += 1
        if isinstance(answer, DataError):
            seen['refused'] += 1
            assert str(answer).startswith('picture ') and '\n' not in str(answer)
        else:
            seen['read'] += 1
            assert isinstance(answer, Reading) and 0 <= answer.confidence <= 1


batches = st.lists(st.tuples(st.sampled_from(SEEDS), mutations), min_size=25, max_size=25)
quietly = dict(deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


def test_seeds_are_read(reader):
    assert all(isinstance(answer, Reading) for answer in reader.read_each(SEEDS))


@settings(max_examples=12, **quietly)
@given(batch=batches)
def test_a_few_hundred_mutated_pictures(reader, batch): read_all(reader, [mutated(*one) for one in batch])


@pytest.mark.slow
def test_ten_thousand_mutated_pictures(reader, capsys):
    "About 3 minutes"
    seen.update(pictures=0, read=0, refused=0)

    @settings(max_examples=450, **quietly)
    @given(batch=batches)
    def fuzz(batch): read_all(reader, [mutated(*one) for one in batch])
    fuzz()
    with capsys.disabled(): print('\n', seen)
    assert seen['pictures'] >= 10_000 and min(seen['read'], seen['refused']) > 1000


# Weights, their configurations, caches, lists, descriptions

SMALL = EncoderConfig(dim=16, depth=2, heads=2, patch_size=(16, 16))
odd = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.sampled_from([2**20, 10**9, 10**30, -2**63, 1e300]),
                st.text(max_size=5), st.lists(st.integers(-2, 10**12), max_size=3), st.just({}), st.just([[[[]]]]),
                st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))


def places(config, above=()):
    "The keys of a nested configuration, as paths"
    for key, value in config.items() if isinstance(config, dict) else enumerate(config):
        yield (*above, key)
        if isinstance(value, (dict, list)): yield from places(value, (*above, key))


def changed(config, changes):
    "A configuration with other values in some places"
    config = json.loads(json.dumps(config))
    for at, value in changes:
        path = list(places(config))
        *above, key = path[at % len(path)]
        inside = config
        for k in above: inside = inside[k]
        inside[key] = copy.deepcopy(value)                              # `just` hands out one and the same list
    return config


def told(action, *kinds):
    "Did it work? Else it must have been one line of one of these kinds"
    try: action()
    except kinds as e:
        assert str(e) and '\n' not in str(e), repr(e)
        return False
    return True


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    "Folders with small weights of each kind"
    folder = tmp_path_factory.mktemp('models')
    nets = dict(reader=Recognizer(replace(recognizer_tiny(), encoder=SMALL, dim=16, depth=1, heads=2, ffn_dim=16)),
                run=Pretrainer(PretrainConfig(SMALL, DecoderConfig(16, 1, 2, 16))))
    return [hub.save_model(net, folder / name) for name, net in nets.items()]


def fuzz_models(models, work, as_published, n):
    "Change configurations and bytes of n models; only models and one-line errors may come of it"
    seen = dict(fine=0, refused=0)
    mae = PretrainConfig(replace(SMALL, stored_positions=True), DecoderConfig(16, 1, 2, 16, guided=False), guide=None)
    torch.save(as_published(Pretrainer(mae), 'mae'), work / 'mae.pth')
    published = (work / 'mae.pth').read_bytes()

    @settings(max_examples=n, **quietly)
    @given(which=st.integers(0, 1), changes=st.lists(st.tuples(st.integers(0, 999), odd), min_size=1, max_size=3),
           file=st.sampled_from(['values', 'config.json', 'model.safetensors', 'mae.pth']), damage=mutations)
    def fuzz(which, changes, file, damage):
        parts = {name: (models[which] / name).read_bytes() for name in ('config.json', 'model.safetensors')}
        if file == 'values': parts['config.json'] = json.dumps(changed(json.loads(parts['config.json']), changes)).encode()
        elif file != 'mae.pth': parts[file] = mutated(parts[file], damage)
        for name, data in parts.items(): (work / name).write_bytes(data)
        if file == 'mae.pth':
            (work / 'bad.pth').write_bytes(mutated(published, damage))
            fine = told(lambda: from_published(work / 'bad.pth', encoder_heads=2, decoder_heads=2), hub.WeightsError)
        else: fine = told(lambda: hub.load_model(work), hub.WeightsError)
        seen['fine' if fine else 'refused'] += 1
    fuzz()
    return seen


def test_a_few_hundred_odd_models(models, tmp_path, as_published):
    seen = fuzz_models(models, tmp_path, as_published, 200)
    assert min(seen.values()) > 2


@pytest.mark.slow
def test_ten_thousand_odd_models(models, tmp_path, as_published, capsys):
    seen = fuzz_models(models, tmp_path, as_published, 10_000)
    with capsys.disabled(): print('\n', seen)


@pytest.fixture(scope='module')
def stores(tmp_path_factory):
    "Small data sets whose description is to be damaged: (what to open, file to damage)"
    folder, words = tmp_path_factory.mktemp('stores'), SynthWords(demo_world(), 12)
    names = [f'{k}.png' for k in range(12)]
    for k, name in enumerate(names): words[k][0].save(folder / name)
    texts = [words.label(k) for k in range(12)]
    rows = {'a.tsv': ''.join(f'{n}\t{t}\n' for n, t in zip(names, texts)),
            'b.jsonl': ''.join(json.dumps(dict(filename=n, text=t)) + '\n' for n, t in zip(names, texts)),
            'c.csv': 'file,text\n' + ''.join(f'{n},{t}\n' for n, t in zip(names, texts)),
            'd.json': json.dumps(dict(data_list=[dict(img_path=n, instances=[dict(text=t)]) for n, t in zip(names, texts)])),
            'e.json': json.dumps(dict(mixture=[dict(path='a.tsv', weight=2), dict(path='b.jsonl')], seed=1)),
            'f.json': json.dumps(dict(rendered='demo', n=20, seed=1))}
    for name, text in rows.items(): (folder / name).write_text(text)
    cache(open_source(folder / 'a.tsv'), folder / 'cache', bar=False)
    return [(folder / name, folder / name) for name in rows] + [
        (folder / 'cache', folder / 'cache' / name) for name in ('cache.json', 'rows.jsonl', 'images.npy', 'codes.npy')]


def look_through(path):
    "Every picture and label; single ones may be broken"
    source = open_source(path)
    for i in range(min(len(source), 30)):
        for ask in source.name, source.label, partial(picture, source):
            try: ask(i)
            except (BrokenImage, BrokenLabel): pass


def fuzz_stores(stores, n):
    seen = dict(fine=0, refused=0)

    @settings(max_examples=n, **quietly)
    @given(which=st.integers(0, len(stores) - 1), damage=mutations)
    def fuzz(which, damage):
        path, file = stores[which]
        whole = file.read_bytes()
        try:
            file.write_bytes(mutated(whole, damage))
            seen['fine' if told(lambda: look_through(path), DataError, OSError, ValueError) else 'refused'] += 1
        finally: file.write_bytes(whole)
    fuzz()
    return seen


def test_a_few_hundred_damaged_stores(stores):
    seen = fuzz_stores(stores, 200)
    assert min(seen.values()) > 5


@pytest.mark.slow
def test_ten_thousand_damaged_stores(stores, capsys):
    seen = fuzz_stores(stores, 10_000)
    with capsys.disabled(): print('\n', seen)
