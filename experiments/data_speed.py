"""How fast pictures become batches, and what ten million of them cost in memory and seconds.

    python experiments/data_speed.py            # about a minute; writes experiments/data_speed.csv

Rates are pictures per second of processor time in one process on one core, the best of some passes over 2000 JPEG crops
(rendered words of 30 to 250 pixels width). The machine matters, so each has its ratio to a bare loop in the same run:
Pillow decodes bytes that lie in memory, resizes (bicubic) and makes an array, nothing else. (Parquet needs the library
`datasets`.) The ten million are simulated: a JSON-lines file with that many entries, an LMDB that says it has so many, a
source that repeats one picture; seconds are those to the first batch, memory is what a fresh process holds after 21
batches beyond the same process with a hundred thousand entries (Linux only).
"""
import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import datasets
import lmdb
import numpy as np
import torch
from PIL import Image

from mnsp.charset import english
from mnsp.data import Cached, WordDataset, word_loader
from mnsp.files import write_rows
from mnsp.lists import FolderSource, ListedSource
from mnsp.lmdb_source import CacheSource, LmdbSource
from mnsp.sources import open_source
from mnsp.stores import cache, convert
from mnsp.streams import open_words
from mnsp.synth import SynthWords, varied_world
from mnsp.unions import Concat, Mixture

N, DISTINCT, BATCH, LARGE, SMALL = 2000, 500, 256, 10_000_000, 100_000


def jpegs():
    "2000 crops of different sizes as (bytes, text)"
    rng, words = np.random.default_rng(0), SynthWords(varied_world(), DISTINCT)
    pictures = [(words[i][0], words.label(i)) for i in range(DISTINCT)]
    for i in range(N):
        im, text = pictures[i % DISTINCT]
        height = int(rng.integers(16, 64))
        buffer = io.BytesIO()
        im.resize((int(height*rng.uniform(2, 4)), height)).save(buffer, 'jpeg', quality=90)
        yield buffer.getvalue(), text


def write_lmdb(path, items, count=None):
    with lmdb.open(str(path), map_size=2**28) as env, env.begin(write=True) as t:
        for i, (data, text) in enumerate(items, 1):
            t.put(b'image-%09d' % i, data)
            t.put(b'label-%09d' % i, text.encode())
        t.put(b'num-samples', b'%d' % (count or len(items)))


def rate(run, least=1.2):
    "Pictures per second of the best pass; passes for at least `least` seconds, three or more"
    best, passes, begin = 0, 0, time.perf_counter()
    while passes < 3 or time.perf_counter()-begin < least:
        start = time.process_time()
        n = run()
        best, passes = max(best, n/(time.process_time()-start)), passes+1
    return best


def bare_loop(items):
    "Pillow and nothing else"
    for data, _ in items:
        np.asarray(Image.open(io.BytesIO(data)).convert('RGB').resize((128, 32), Image.Resampling.BICUBIC))
    return len(items)


def through_loader(dataset):
    return lambda: sum(len(x) for x, _ in word_loader(dataset, BATCH, shuffle=True))


def rates(folder):
    "Rows of (what, pictures per second)"
    items = list(jpegs())
    write_lmdb(folder/'words.lmdb', items)
    source = LmdbSource(folder/'words.lmdb')
    convert(source, folder/'words', bar=False)
    convert(source, folder/'words.parquet', bar=False)
    cache(source, folder/'words.cache', bar=False)
    stored = CacheSource(folder/'words.cache')
    unlabelled, labelled = (Cached(WordDataset(source, charset=c), bar=False) for c in (None, english))
    yield 'bare Pillow loop, bytes in memory', rate(lambda: bare_loop(items))
    yield 'LMDB of JPEGs → batches', rate(through_loader(WordDataset(source)))
    yield 'LMDB of JPEGs → batches with ids', rate(through_loader(WordDataset(source, charset=english)))
    yield 'folder of JPEGs → batches', rate(through_loader(WordDataset(FolderSource(folder/'words'))))
    yield 'parquet → batches', rate(through_loader(WordDataset(open_source(folder/'words.parquet'))))
    yield 'parquet, streamed', rate(through_loader(open_words([folder/'words.parquet'], stream=True)))
    yield 'LMDB of JPEGs, streamed', rate(through_loader(open_words([folder/'words.lmdb'], stream=True)))
    yield 'cache on disk → batches', rate(through_loader(WordDataset(stored)))
    yield 'cache on disk, as the commands open it', rate(through_loader(WordDataset(Concat([stored]))))
    yield 'cache on disk → batches with ids', rate(through_loader(WordDataset(stored, charset=english)))
    yield 'the same, labels not gone through', rate(through_loader(WordDataset(stored, charset=english, scan=False)))
    yield 'mixture of two caches → batches', rate(through_loader(WordDataset(Mixture([stored, stored], [1, 3], n=4*N))))
    yield 'cache in memory → batches', rate(through_loader(unlabelled))
    yield 'cache in memory → batches with ids', rate(through_loader(labelled))


class Repeated:
    "One picture, `n` times"
    labelled, picture = False, Image.new('RGB', (128, 32))
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i): return self.picture, None
    def label(self, i): return None
    def name(self, i): return f'{i}.png'


def measured(kind, path, n):
    "In a process of its own: seconds to the first batch, MB held after 21 batches"
    start = time.perf_counter()
    opened = Repeated(n) if kind == 'simulated' else ListedSource(path)
    dataset = WordDataset(opened, charset=english, scan=False) if kind == 'labels' else WordDataset(opened)
    batches = iter(word_loader(dataset, 64, shuffle=True))
    next(batches)
    seconds = time.perf_counter()-start
    for _ in range(20):
        next(batches)
    print(seconds, held_mb())


def held_mb():
    "Memory that this process keeps; mapped pages of files are left out, the system takes those back when it likes"
    status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())
    return sum(int(status[key].split()[0]) for key in ('RssAnon', 'RssShmem'))/1024


def apart(kind, path, n):
    out = subprocess.run([sys.executable, __file__, kind, str(path), str(n)], capture_output=True, text=True)
    if out.returncode:
        raise RuntimeError(out.stderr)
    return map(float, out.stdout.split())


def sizes(folder):
    "Rows of (what, seconds, MB more than with a hundred thousand)"
    Image.new('RGB', (128, 32)).save(folder/'one.jpg')
    picture = (folder/'one.jpg').read_bytes()
    for n in SMALL, LARGE:
        write_lmdb(folder/f'{n}.lmdb', [(picture, 'word')], count=n)
        with open(folder/f'{n}.jsonl', 'w') as f: # every entry is the same picture, under a name of usual length
            f.writelines(f'{{"filename": ".{"/"*30}/one.jpg", "text": "word{i}"}}\n' for i in range(n))
    for kind, about in dict(simulated='simulated source', lines='JSON lines', labels='JSON lines with ids').items():
        _, small = apart(kind, folder/f'{SMALL}.jsonl', SMALL)
        seconds, large = apart(kind, folder/f'{LARGE}.jsonl', LARGE)
        yield f'{about}, {LARGE:,} entries', seconds, large-small
    start = time.perf_counter()
    loader = word_loader(WordDataset(LmdbSource(folder/f'{LARGE}.lmdb'), max_broken=1.), 64, shuffle=True)
    next(iter(loader.sampler))
    yield f'LMDB, {LARGE:,} entries, opened', time.perf_counter()-start, float('nan')
    start = time.perf_counter()
    WordDataset(ListedSource(folder/f'{SMALL}.jsonl'), charset=english)
    yield f'going through the labels of {SMALL:,} JSON lines', time.perf_counter()-start, float('nan')


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0 # seconds the library waits after a shuffled stream
    rows, columns = [], dict.fromkeys(('what', 'pictures_per_second', 'ratio', 'seconds', 'more_mb'))
    with tempfile.TemporaryDirectory() as name:
        folder, base = Path(name), None
        for what, value in rates(folder):
            base = base or value
            rows.append(columns | dict(what=what, pictures_per_second=round(value), ratio=round(value/base, 2)))
            print(f'{what:48}{value:12,.0f} pictures/s {value/base:8.2f} × the bare loop', flush=True)
        for what, seconds, more in sizes(folder):
            rows.append(columns | dict(what=what, seconds=round(seconds, 2), more_mb=None if more != more else round(more, 1)))
            print(f'{what:48}{seconds:12.2f} s'+(f'{more:18.1f} MB more than with {SMALL:,}' if more == more else ''), flush=True)
    write_rows(Path(__file__).with_suffix('.csv'), rows)


if __name__ == '__main__':
    if len(sys.argv) == 4:
        measured(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
