"Faults of disks, memory, schedulers and people: no work is lost, no data are mixed, and one line tells what happened."
import csv
import errno
import io
import json
import os
import random
import shutil
import signal
import socket
import struct
import time
import warnings
import weakref
import zlib
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import run, write_words
from test_resume import FORK, command, finish, log, pace, same_end, start, wait_for_checkpoint
from test_resume import pretrained as pretrained
from test_resume import words as words

from mnsp import hub
from mnsp.checkpoints import checkpoints, heading, load_state, newest
from mnsp.data import WordDataset, word_loader
from mnsp.encoder import Encoder, EncoderConfig
from mnsp.files import locked
from mnsp.images import BrokenImage, open_image
from mnsp.labels import DataError
from mnsp.lmdb_source import LmdbSource
from mnsp.recognizer import Recognizer, recognizer_tiny
from mnsp.sources import open_source
from mnsp.stores import cache, convert
from mnsp.unions import digest_of

pytestmark = pytest.mark.skipif(os.name == 'nt', reason='signals and locks differ on Windows')
NANO = ['--preset', 'nano', '--optimizer', 'muon', '--batch-size', 8, '--workers', 0]


def short(words, out, *more, steps=4):
    "A run of a second or two in this process, with a checkpoint at each step: exit code, what was printed, what was said"
    return run('pretrain', '--data', words, *NANO, '--steps', steps, '--checkpoint-every', 1, '--out', out, *more)


def complaint(err):
    "The last line of what was said; the bar is left out"
    return err.replace('\r', '\n').strip().splitlines()[-1]


# Signals and deaths

def grouped(*args):
    "What a child does that leads a group of processes of its own, as under a scheduler"
    os.setsid()
    command(*args)


def start_group(args, said=os.devnull):
    process = FORK.Process(target=grouped, args=(args, said, None))
    process.start()
    return process


def readers_of(process):
    "The processes that read pictures for it"
    return [int(pid) for pid in Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()]


def ended_by_groups(pretrained, out, ends, seed):
    "End a run's whole group so many times at random moments, resume each time; then to the end"
    (args, once), rng = pretrained, random.Random(seed)
    for _ in range(ends):
        process = start_group([*args, '--out', out, '--resume'])
        wait_for_checkpoint(process, out)
        time.sleep(rng.uniform(0, 3 * pace(once)))
        try: os.killpg(process.pid, signal.SIGTERM)
        except ProcessLookupError: pass
        if finish(process) == 0: break
        assert process.exitcode == 130
    assert finish(start_group([*args, '--out', out, '--resume'])) == 0
    same_end(once, out)


def test_a_signal_to_all_processes_is_a_clean_stop(pretrained, tmp_path):
    (args, once), out, said = pretrained, tmp_path / 'run', tmp_path / 'said'
    process = start_group([*args, '--out', out], said)
    wait_for_checkpoint(process, out)
    assert len(readers_of(process)) == 2
    os.killpg(process.pid, signal.SIGTERM)
    assert finish(process) == 130 and 'Traceback' not in said.read_text() and 'reset' not in said.read_text()
    assert not heading(checkpoints(out / 'checkpoints')[-1])['done'] and (out / 'model.safetensors').is_file()
    assert finish(start([*args, '--out', out, '--resume'])) == 0
    same_end(once, out)


@pytest.mark.slow
def test_a_hundred_signals_to_all_processes(pretrained, tmp_path):
    "20 minutes on a busy core"
    for k in range(10): ended_by_groups(pretrained, tmp_path / str(k) / 'run', 10, seed=k)


@pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='looks for processes in /proc')
def test_a_reader_that_the_system_kills(pretrained, tmp_path):
    (args, once), out, said = pretrained, tmp_path / 'run', tmp_path / 'said'
    process = start([*args[:-4], '--checkpoint-every', 1000, *args[-2:], '--out', out], said)
    limit = time.monotonic() + 120
    while not (out / 'log.csv').is_file() and time.monotonic() < limit: time.sleep(.01)   # ten steps are done
    os.kill(readers_of(process)[0], signal.SIGKILL)
    assert finish(process) == 1
    last = complaint(said.read_text())
    assert last.startswith('mnsp: a process that read pictures is gone (SIGKILL)') and '--resume' in last
    assert 'Traceback' not in said.read_text()
    assert heading(checkpoints(out / 'checkpoints')[-1])['step'] >= 10
    assert finish(start([*args, '--out', out, '--resume'])) == 0
    same_end(once, out)


# What only watches

@pytest.mark.skipif(not find_spec('tensorboard'), reason='tensorboard is not installed')
def test_tensorboard_on_a_full_disk(words, tmp_path, monkeypatch):
    from tensorboard.summary.writer import record_writer
    def full(*_): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(record_writer.RecordWriter, 'write', full)
    code, _, err = short(words, tmp_path / 'run')
    assert code == 0 and err.count('TensorBoard: [Errno 28]') == 1 and 'Traceback' not in err
    assert checkpoints(tmp_path / 'run' / 'checkpoints') and len(log(tmp_path / 'run')) == 2


def test_out_that_is_deleted_meanwhile(pretrained, tmp_path):
    (args, once), out, said = pretrained, tmp_path / 'run', tmp_path / 'said'
    process = start([*args, '--out', out], said)
    wait_for_checkpoint(process, out)
    for _ in range(100): # it may be writing
        shutil.rmtree(out, ignore_errors=True)
        if not out.exists(): break
    assert finish(process) == 0, said.read_text()
    assert 'Traceback' not in said.read_text()
    same_end(once, out)


@pytest.mark.parametrize('damage', [lambda d: b'\xff\xfe\x00' * 50, lambda d: b'', lambda d: d.replace(b'loss', b'lo,s'),
                                    lambda d: d.replace(b',', b'"', 1), lambda d: d[:20] + b'\n1,2\nx,y\n'])
def test_a_damaged_log_does_not_stop_a_run(words, tmp_path, damage):
    out = tmp_path / 'run'
    assert short(words, out, steps=11)[0] == 0
    checkpoints(out / 'checkpoints')[-1].unlink()
    whole = (out / 'log.csv').read_bytes()
    (out / 'log.csv').write_bytes(damage(whole))
    code, _, err = short(words, out, '--resume', steps=11)
    assert code == 0 and 'is damaged or gone: 0 of its rows are taken over' in err and 'Traceback' not in err
    assert (out / 'log.csv.damaged').read_bytes() == damage(whole) and [row[0] for row in log(out)] == ['step', '11']


# Data that are not the same

def interrupt(monkeypatch, after):
    "Ctrl-C after so many pictures"
    from mnsp import images
    decode, left = images.decode, [after]
    def until(*args):
        left[0] -= 1
        if left[0] < 0: raise KeyboardInterrupt
        return decode(*args)
    monkeypatch.setattr(images, 'decode', until)


def make(kind, source, dst):
    if kind == 'cache': return cache(source, dst, every=1, bar=False)
    return convert(source, dst, kind, every=50, bar=False)


@pytest.mark.parametrize('kind', ['lmdb', 'folder', 'parquet', 'cache'])
@pytest.mark.parametrize('other', ['elsewhere', 'replaced'])
def test_no_half_of_another_source(tmp_path, kind, other):
    if kind == 'parquet': pytest.importorskip('pyarrow')
    a, b = (write_words(tmp_path / name, 300, seed) for seed, name in enumerate('ab'))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, 290)
        make(kind, a, tmp_path / 'out')
    if other == 'replaced':
        shutil.move(a, tmp_path / 'gone')
        shutil.move(b, a)
        b = a
    with pytest.raises(DataError, match='begun from another source'): make(kind, b, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    if other == 'elsewhere': # the right one goes on
        assert make(kind, a, tmp_path / 'out').n == 300
        found, wanted = open_source(tmp_path / 'out'), open_source(a)
        assert [found.label(i) for i in range(300)] == [wanted.label(i) for i in range(300)]


def test_a_run_goes_on_with_its_own_data_wherever_they_lie(tmp_path):
    a, out = write_words(tmp_path / 'words', 40), tmp_path / 'run'
    assert short(a, out)[0] == 0
    checkpoints(out / 'checkpoints')[-1].unlink()
    other = write_words(tmp_path / 'other' / 'words', 40, seed=1)
    code, _, err = short(other, out, '--resume')
    assert code == 1 and 'other data of the same number' in complaint(err) and 'Traceback' not in err
    shutil.copytree(a, moved := tmp_path / 'moved' / 'words')
    assert short(moved, out, '--resume')[0] == 0


def store(path, words):
    "An LMDB of a folder's words"
    return convert(open_source(words), path, 'lmdb', bar=False).path


def test_an_lmdb_replaced_under_a_run(tmp_path):
    a, b = (store(tmp_path / f'{k}.lmdb', write_words(tmp_path / str(k), 30, k)) for k in range(2))
    source = LmdbSource(a)
    before, loader = digest_of(source), word_loader(WordDataset(source), 4, workers=1)
    os.replace(b / 'data.mdb', a / 'data.mdb')
    with pytest.raises(DataError, match='changed or replaced after it was opened'): list(loader)
    with pytest.raises(DataError, match='changed or replaced after it was opened'): source[0]
    assert len(LmdbSource(a)) == 30 and digest_of(LmdbSource(a)) != before


# One at a time

def test_one_run_at_a_time(pretrained, tmp_path):
    (args, once), out, said = pretrained, tmp_path / 'run', tmp_path / 'said'
    process = start([*args, '--out', out])
    wait_for_checkpoint(process, out)
    for more in [], ['--resume']:
        assert finish(start([*args, '--out', out, *more], said)) == 1
        assert f'is in use by process {process.pid} on ' in said.read_text() and 'Traceback' not in said.read_text()
    process.kill()
    assert finish(process) == -signal.SIGKILL
    assert finish(start([*args, '--out', out, '--resume'])) == 0     # a lock dies with its process
    same_end(once, out)
    assert not (out / '.lock').exists()


@pytest.mark.parametrize('kind', ['lmdb', 'cache'])
def test_one_conversion_at_a_time(words, tmp_path, kind):
    (tmp_path / 'out.part').mkdir()
    with locked(tmp_path / 'out.part'), pytest.raises(BlockingIOError, match='out.part is in use'):
        make(kind, words, tmp_path / 'out')
    assert make(kind, words, tmp_path / 'out').n == 40 and not (tmp_path / 'out' / '.lock').exists()


# Files that are cut

def test_an_lmdb_cut_anywhere(words, tmp_path):
    path = store(tmp_path / 'w.lmdb', words)
    whole = (path / 'data.mdb').read_bytes()
    for size in np.linspace(0, len(whole) - 1, 24).astype(int).tolist():
        (path / 'data.mdb').write_bytes(whole[:size])
        with pytest.raises(DataError, match='cut short|not a readable LMDB'): open_source(path)
    code, _, err = run('data', 'check', path, '--workers', 0)
    assert code == 1 and complaint(err).startswith(f'mnsp: {path}: the LMDB is cut short')
    (path / 'data.mdb').write_bytes(whole)
    assert len(open_source(path)) == 40


def with_free_pages(path, seed):
    "An LMDB in which much was written and removed again; is its file shorter than its pages?"
    rng = random.Random(seed)
    with lmdb.open(str(path), map_size=2**26) as env:
        for _ in range(rng.randint(1, 4)):
            with env.begin(write=True) as t:
                for name in 'image-000000001', 'image-000000002': t.put(name.encode(), b'x' * 10)
                t.put(b'num-samples', b'2')
                keys = []
                for _ in range(rng.randint(1, 300)):
                    keys.append(b'%06d' % rng.randint(0, 400))
                    t.put(keys[-1], bytes(rng.choice([10, 300, 3000, 9000])))
                    if rng.random() < .4: t.delete(rng.choice(keys))
                if rng.random() < .3:
                    for key in keys: t.delete(key)
        return (path / 'data.mdb').stat().st_size < (env.info()['last_pgno'] + 1) * env.stat()['psize']


def test_an_lmdb_with_free_pages_at_its_end_is_whole(tmp_path):
    "LMDB need not write them, so a file may be shorter than its pages and lack nothing"
    short = [path for seed in range(40) if with_free_pages(path := tmp_path / f'{seed}.lmdb', seed)]
    assert short and all(len(LmdbSource(path)) == 2 for path in short)


def test_a_list_and_a_cache_that_shrink(words, tmp_path):
    rows = shutil.copytree(words, tmp_path / 'words') / 'labels.tsv'
    source, mapped = open_source(tmp_path / 'words'), open_source(make('cache', words, tmp_path / 'c').path)
    assert source.label(39) and mapped.image(39)
    os.truncate(rows, 50)
    os.truncate(tmp_path / 'c' / 'images.npy', 5000)
    with pytest.raises(DataError, match='labels.tsv was changed'): source.label(39)
    with pytest.raises(DataError, match='images.npy was changed'): mapped.image(39)
    with pytest.raises(DataError, match='images.npy is damaged or cut short'): open_source(tmp_path / 'c')


def test_a_cache_on_a_full_disk(words, tmp_path):
    said = tmp_path / 'said'
    assert finish(start(['data', 'cache', words, tmp_path / 'c', '--workers', 0], said, 300_000)) == 1
    assert 'images.npy: 0.492 MB are needed' in said.read_text() and 'Traceback' not in said.read_text()
    assert not list((tmp_path / 'c.part').glob('images.npy'))
    assert make('cache', words, tmp_path / 'c').n == 40


# Checkpoints and weights

def test_a_bit_that_flips_in_a_checkpoint(pretrained, tmp_path):
    (args, once), rng = pretrained, random.Random(0)
    out = shutil.copytree(once, tmp_path / 'run')
    file = checkpoints(out / 'checkpoints')[-1]
    whole = file.read_bytes()
    for _ in range(20):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        try: load_state(file)
        except OSError as e: assert 'is damaged' in str(e)
        else: raise AssertionError('taken for whole')
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        assert newest(out / 'checkpoints')['step'] == 40
    assert 'trying the one before' in str(caught[0].message)
    assert finish(start([*args, '--out', out, '--resume'], tmp_path / 'said')) == 0
    assert 'trying the one before' in (tmp_path / 'said').read_text()
    same_end(once, out)


@pytest.mark.parametrize('value, why', [(float('nan'), 'norm.weight has values that are not finite'),
                                        (float('inf'), 'norm.weight has values that are not finite'),
                                        (None, 'norm.weight holds int64')])
def test_weights_that_are_none(tmp_path, value, why):
    from safetensors.torch import load_file, save_file
    folder = hub.save_model(Encoder(EncoderConfig(dim=16, depth=1, heads=2, patch_size=(16, 16))), tmp_path)
    state = load_file(folder / 'model.safetensors')
    state['norm.weight'] = torch.ones(16, dtype=torch.int64) if value is None else state['norm.weight'] * value
    save_file(state, folder / 'model.safetensors')
    with pytest.raises(hub.WeightsError, match=why): hub.load_model(folder)


def test_out_that_holds_a_reader_stays_as_it_is(words, tmp_path):
    out = hub.save_model(Encoder(EncoderConfig(dim=16, depth=1, heads=2, patch_size=(16, 16))), tmp_path / 'reader')
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    for more in [], ['--resume']:
        code, _, err = short(words, out, *more)
        assert code == 1 and 'holds weights' in complaint(err) and 'another --out' in complaint(err)
        assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_a_run_that_dies_between_its_first_reading_and_its_first_checkpoint(words, tmp_path, monkeypatch):
    "The weights that its validation kept are its own: --resume begins it again; a finished run's stay as they are"
    from mnsp.finetune import Validation
    tiny = replace(recognizer_tiny(), encoder=EncoderConfig(dim=16, depth=1, heads=2, patch_size=(16, 16)), dim=16, depth=1,
                   heads=2, ffn_dim=16)
    reader, out = hub.save_model(Recognizer(tiny), tmp_path / 'reader'), tmp_path / 'run'
    args = ['finetune', '--data', words, '--valid', words, '--valid-every', 2, '--steps', 3, '--batch-size', 16, '--workers', 0,
            '--reader', reader, '--out', out]
    validate = Validation.validate
    def last(self): validate(self); raise SystemExit(9)
    with monkeypatch.context() as m:
        m.setattr(Validation, 'validate', last)
        assert run(*args)[0] == 9
    kept = (out / 'model.safetensors').read_bytes()
    assert not checkpoints(out / 'checkpoints')
    code, _, err = run(*args)
    assert code == 1 and 'before its first checkpoint: --resume' in complaint(err)
    assert (out / 'model.safetensors').read_bytes() == kept
    code, _, err = run(*args, '--resume')
    assert code == 0, err
    assert [line.split(',')[0] for line in (out / 'validation.csv').read_text().splitlines()] == ['step', '0', '2', '3']
    code, _, err = run(*args)
    assert code == 1 and complaint(err).endswith('ended at step 3: give another folder (--out) to start anew')
    kept = (out / 'model.safetensors').read_bytes()
    for path in checkpoints(out / 'checkpoints'): path.unlink()
    for gone in False, True:                                        # without its checkpoints, then without their folder
        if gone: shutil.rmtree(out / 'checkpoints')
        for more in [], ['--resume']:
            code, _, err = run(*args, *more)
            assert code == 1 and 'holds weights' in complaint(err) and 'another --out' in complaint(err)
        assert (out / 'model.safetensors').read_bytes() == kept


@pytest.mark.parametrize('option, value', [('--lr', 'nan'), ('--lr', 'inf'), ('--lr', -1), ('--clip', 'nan'), ('--clip', -1),
                                           ('--clip', 0), ('--minutes', 'nan'), ('--minutes', 'inf'), ('--max-broken', 'nan')])
def test_numbers_that_are_none(words, tmp_path, option, value):
    code, _, err = short(words, tmp_path / 'run', option, value)
    assert code in (1, 2) and 'Traceback' not in err                # 2: typer knows the range
    assert option.strip('-').replace('-', '') in err.replace('\n', '').replace('-', '').replace('_', '')
    assert not (tmp_path / 'run' / 'model.safetensors').exists()


@pytest.mark.parametrize('method', ['mae', 'mnsp'])
def test_divergence_ends_with_advice(words, tmp_path, method):
    code, _, err = short(words, tmp_path / 'run', '--method', method, '--lr', 1e30, steps=60)
    assert code == 1 and 'lower the learning rate' in complaint(err) and 'Traceback' not in err


# Every write, rename, fsync and removal fails once, or is the last thing a process does

def faults_of(words, out, fault, call, how):
    "A short run for each k; what each said"
    k = 1
    while True:
        shutil.rmtree(out, ignore_errors=True)
        with fault(call, k, how) as f: code, _, err = short(words, out)
        yield k, code, err
        if not f.met: return
        k += 1


def dying(args, fault):
    "What a child does: `mnsp ARGS`, which dies in the k-th call"
    from faults import Fault
    with Fault(*fault): command(args, os.devnull, None)


@pytest.fixture(scope='module')
def undisturbed(words, tmp_path_factory):
    out = tmp_path_factory.mktemp('undisturbed') / 'run'
    assert short(words, out)[0] == 0
    return out


@pytest.mark.parametrize('call, k', [('fsync', 3), ('fsync', 11),
                                     ('rename', 2), ('rename', 7), ('write', 4), ('write', 8), ('unlink', 3)])
def test_a_disk_that_fails_once(words, undisturbed, tmp_path, fault, call, k):
    "Checkpoints, log and weights, one fault each"
    out = tmp_path / 'run'
    with fault(call, k, errno.EIO) as f: code, _, err = short(words, out)
    assert f.met and 'Traceback' not in err and 'nput/output error' in err
    assert code == 0 or str(out) in complaint(err)
    assert short(words, out, '--resume')[0] == 0
    same_end(undisturbed, out)


@pytest.mark.slow
@pytest.mark.parametrize('call', ['fsync', 'rename', 'write', 'unlink'])
@pytest.mark.parametrize('how', [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_anywhere(words, undisturbed, tmp_path, fault, call, how):
    out = tmp_path / 'run'
    for k, code, err in faults_of(words, out, fault, call, how):
        assert 'Traceback' not in err and (code == 0 or complaint(err).startswith('mnsp: ')), (k, err)
        assert short(words, out, '--resume')[0] == 0, k
        same_end(undisturbed, out)


@pytest.mark.slow
@pytest.mark.parametrize('call', ['fsync', 'rename', 'write', 'unlink'])
def test_death_anywhere(words, undisturbed, tmp_path, call):
    args = ['pretrain', '--data', words, *NANO, '--steps', 4, '--checkpoint-every', 1, '--out', tmp_path / 'run']
    for k in range(1, 100):
        shutil.rmtree(tmp_path / 'run', ignore_errors=True)
        process = FORK.Process(target=dying, args=(args, (call, k, 'kill')))
        process.start()
        if finish(process) == 0: break
        assert process.exitcode == -signal.SIGKILL
        assert short(words, tmp_path / 'run', '--resume')[0] == 0, k
        same_end(undisturbed, tmp_path / 'run')
    assert k > 3


# Pictures that make more work than they are worth

def chunk(kind, data=b''):
    "A part of a PNG"
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png(width, height, more=b''):
    "A black PNG with more parts"
    head = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0))
    return head + more + chunk(b'IDAT', zlib.compress(bytes((1 + width) * height))) + chunk(b'IEND')


def jpeg(size=(320, 96), scans=1, more=b''):
    "A progressive JPEG whose last scan comes so many times"
    file = io.BytesIO()
    Image.new('RGB', size, 'white').save(file, 'JPEG', progressive=True)
    data, last = file.getvalue(), file.getvalue().rindex(b'\xff\xda')
    return data[:2] + more + data[2:last] + data[last:-2] * scans + data[-2:]


def tiff(tags, data=b''):
    "A TIFF of {tag: (type, how many, value)}"
    entries = b''.join(struct.pack('<HHII', tag, *entry) for tag, entry in sorted(tags.items()))
    return b'II*\0' + struct.pack('<IH', 8, len(tags)) + entries + bytes(4) + data


def tiff_of_tile(side):
    "64×64 pixels in one tile"
    data = zlib.compress(bytes(2**20))
    sizes = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 134, 325: len(data)}
    return tiff({tag: (4, 1, value) for tag, value in sizes.items()}, data)


def greedy(n=5000, each=60_000):
    "Every entry claims nearly all of the file"
    return tiff({1000 + k: (7, each, 100) for k in range(n)}, bytes(each))


def webp(width, height):
    "An animation whose canvas is larger than its pictures"
    file = io.BytesIO()
    Image.new('RGB', (8, 8)).save(file, 'WEBP', save_all=True, append_images=[Image.new('RGB', (8, 8), 'red')])
    data = bytearray(file.getvalue())
    data[24:30] = (width - 1).to_bytes(3, 'little') + (height - 1).to_bytes(3, 'little')
    return bytes(data)


GIF = b'GIF89a' + struct.pack('<HHBBB', 100, 32, 0, 0, 0)
COSTLY = { # seconds of work and MB before there were limits
    'a JPEG of 1500 scans (14 s)': lambda: jpeg((4000, 4000), 1500),
    'a TIFF of one large tile (2 s, 460 MB)': lambda: tiff_of_tile(26_000),
    'entries of TIFF that claim the file (1 s, 390 MB)': greedy,
    'a WebP of a large canvas (2 GB reserved)': lambda: webp(16_383, 16_383),
    'a PNG of 700,000 parts (4 s)': lambda: png(100, 32, chunk(b'abCD') * 700_000),
    'a PNG whose pixels come in a million parts (2 s)': lambda: png(100, 32, chunk(b'IDAT') * 10**6),
    'a PPM of a long comment (3 s)': lambda: b'P5\n#' + b'a' * 8_000_000 + b'\n100 32 255\n' + bytes(3200),
    'a GIF of comments (minutes)': lambda: GIF + b'!\xfe\1a\0' * 1_600_000,
    'a GIF of long comments': lambda: GIF + (b'!\xfe\xff' + b'a' * 255 + b'\0') * 30_000,
    'a JPEG of comments (4 s)': lambda: jpeg(more=b'\xff\xfe\0\2' * 2_000_000)}


@pytest.mark.parametrize('kind', COSTLY)
def test_pictures_that_make_much_work(kind):
    data = COSTLY[kind]()
    assert len(data) < 2**23.1 or 'PNG' in kind
    begin = time.process_time()
    with pytest.raises(BrokenImage, match='too large'): open_image(io.BytesIO(data), 'x')
    assert time.process_time() - begin < 1.5


def test_pictures_with_much_around_them_are_read():
    "An EXIF block that claims much, a large one, many entries, as many scans as cameras and programs write"
    exif = Image.Exif()
    exif[0x0112], exif[0x010e] = 6, 'a' * 60_000
    turned = jpeg((320, 96), more=b'\xff\xe1' + struct.pack('>H', len(exif.tobytes()) + 2) + exif.tobytes())
    assert open_image(io.BytesIO(turned), 'x').size == (96, 320)
    begin = time.process_time()
    for data in (png(320, 96, chunk(b'eXIf', greedy())), jpeg(scans=40), jpeg(more=b'\xff\xe2\xff\xff' + bytes(65_533)),
                 png(320, 96, chunk(b'abCD', b'x') * 4000), webp(320, 96), jpeg() + bytes(range(256)) * 20_000):
        assert open_image(io.BytesIO(data), 'x').size == (320, 96)
    assert time.process_time() - begin < 1.5
    assert open_image(io.BytesIO(tiff_of_tile(1024)), 'x').size == (64, 64)


def test_many_photographs_at_once(monkeypatch):
    "A few are open at a time"
    from mnsp import Recognizer, pictures
    made, most = [], []
    def photograph(*_):
        im = Image.new('RGB', (4000, 3000))
        made.append(weakref.ref(im))
        most.append(sum(ref() is not None for ref in made))
        return im
    monkeypatch.setattr(pictures, 'to_picture', photograph)
    network = replace(recognizer_tiny(), encoder=EncoderConfig(dim=16, depth=1, heads=2), dim=16, depth=1, heads=2, ffn_dim=16)
    assert len(Recognizer(network).read(['photograph.jpg'] * 12)) == 12 and max(most) <= 4


def test_a_tall_picture_is_not_turned_for_each_window():
    from mnsp import Recognizer
    network = replace(recognizer_tiny(), encoder=EncoderConfig(dim=16, depth=1, heads=2), dim=16, depth=1, heads=2, ffn_dim=16)
    tall, begin = Image.open(io.BytesIO(png(550, 60_000))), time.process_time()
    Recognizer(network).read(tall)
    assert time.process_time() - begin < 12                         # it was 18 s


# Names and labels that hold anything

ODD = [b'\xff\xfe.png', b'red\x1b[31m.png', b'\xef\xbb\xbfbom.png', b'tab\t.png', b'=1+1.png', b'two\nlines.png',
       b'n' * 240 + b'.png']


@pytest.fixture(scope='module')
def odd(tmp_path_factory):
    "A folder of pictures with odd names, one of them broken; a list with odd labels"
    top = tmp_path_factory.mktemp('odd')
    words = write_words(top / 'words', 10)
    (top / 'folder').mkdir()
    for k, name in enumerate(ODD): shutil.copy(next(words.rglob(f'{k}.png')), os.fsencode(top / 'folder') + b'/' + name)
    (top / 'folder' / 'bad\x1b[2J.png').write_bytes(b'no picture')
    labels = ['word', '\ud800x', 'a\x1b[31mb', '=1+1', 'x\0y', 'a\u2028b', '\ufeffx', 'é', 'x' * 5000, '\x07bell']
    rows = [dict(image=str(next(words.rglob(f'{k}.png'))), text=text) for k, text in enumerate(labels)]
    (words / 'labels.tsv').unlink()
    (words / 'labels.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return top


@pytest.mark.parametrize('what', ['folder', 'words'])
def test_odd_names_and_labels(odd, tmp_path, what):
    "Everything goes on, names them readably, and sends no control character to the terminal"
    broken, data = what == 'folder', odd / what
    for code, *args in [(broken, 'data', 'check', data, '--workers', 0), (0, 'data', 'split', data, tmp_path / 'split'),
                        (0, 'data', 'convert', data, tmp_path / 'w.lmdb', *([] if broken else ['--outside'])),
                        (0, 'data', 'cache', data, tmp_path / 'c', '--workers', 0), (broken, 'read', data),
                        (0, 'pretrain', '--data', data, *NANO, '--steps', 2, '--out', tmp_path / 'run', '--max-broken', .5)]:
        found, out, err = run(*args)
        assert found == code and 'Traceback' not in err, (args, err)
        assert not set(out + err) & {'\x1b', '\x07', '\0'}, args
        if broken: assert r"1 left out whose names hold a line break ('two\nlines.png')" in err
    if broken: assert '\\udcff\\udcfe.png\t' in run('read', data)[1]
    assert len(open_source(tmp_path / 'w.lmdb')) == (6 if broken else 10)
    if not broken: assert open_source(tmp_path / 'w.lmdb').label(1) == '\ufffdx'


def test_no_formula_in_a_table_of_readings(odd, tmp_path):
    code, _, err = run('evaluate', '--data', odd / 'words', '--readings', tmp_path / 'r.csv', '--pictures', tmp_path)
    assert code == 0, err
    rows = list(csv.DictReader((tmp_path / 'r.csv').open(encoding='utf-8', newline='')))
    assert {row['true'] for row in rows} >= {"'=1+1", 'word'} and len(rows) == 10


def test_what_lies_outside_is_not_copied(odd, tmp_path):
    secret = next((odd / 'words').rglob('0.png'))
    for name in str(secret), os.path.relpath(secret, tmp_path / 'list'):
        shutil.rmtree(tmp_path / 'list', ignore_errors=True)
        (tmp_path / 'list').mkdir()
        (tmp_path / 'list' / 'labels.tsv').write_text(f'{name}\tword\n')
        code, _, err = run('data', 'convert', tmp_path / 'list', tmp_path / 'w')
        assert code == 1 and 'lies outside the data set; pass --outside' in complaint(err) and not (tmp_path / 'w').exists()
        assert open_source(tmp_path / 'list')[0]                    # it may be looked at
    assert run('data', 'convert', tmp_path / 'list', tmp_path / 'w', '--outside')[0] == 0
    assert len(open_source(tmp_path / 'w')) == 1


def test_a_server_that_never_ends(monkeypatch):
    "A byte now and then keeps a connection open"
    from mnsp import pictures
    server = socket.create_server(('127.0.0.1', 0))
    def drip():
        connection, _ = server.accept()
        with suppress(OSError):
            for _ in range(600): connection.sendall(b'H'); time.sleep(.1)
    Thread(target=drip, daemon=True).start()
    monkeypatch.setattr(pictures, 'most_seconds', .5)
    begin = time.monotonic()
    with pytest.raises(BrokenImage, match='more than 0.5 seconds'):
        pictures.fetch(f'http://127.0.0.1:{server.getsockname()[1]}/x.png')
    assert time.monotonic() - begin < 5
    server.close()


def test_descriptions_that_multiply(odd, tmp_path):
    "Six files of fifty parts each, every one the next file"
    for k in range(7):
        parts = [dict(path=f'{k + 1}.json')] * 50 if k < 6 else [dict(path=str(odd / 'words'))]
        (tmp_path / f'{k}.json').write_text(json.dumps(dict(mixture=parts)))
    begin = time.process_time()
    with pytest.raises(DataError, match='leads to more than 200 descriptions'): open_source(tmp_path / '0.json')
    assert time.process_time() - begin < 10
