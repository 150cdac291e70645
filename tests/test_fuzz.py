"""Damaged pictures: whatever is done to a file, reading it gives a reading or a clear error, never anything else."""
import io
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mnsp import Reading, Recognizer
from mnsp.sources import DataError
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
