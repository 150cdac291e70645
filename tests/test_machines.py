"Threads, devices, memory and permissions: what a process that uses the package for other things too may expect of it"
import os
import random
import stat
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
import pytest
import sympy  # noqa: F401, PyTorch imports it when it is first needed, and it adds a filter of warnings
import torch
from fastai.callback.core import Callback
from PIL import Image
from torch.backends.cuda import (
    flash_sdp_enabled,
    fp16_bf16_reduction_math_sdp_allowed,
    math_sdp_enabled,
    mem_efficient_sdp_enabled,
)
from typer.testing import CliRunner

from mnsp import hub, machine
from mnsp.app import drawing
from mnsp.cli import app
from mnsp.data import WordDataset, word_loader
from mnsp.decoding import framed, next_size, unsure_below
from mnsp.evaluate import evaluate
from mnsp.labels import DataError
from mnsp.lists import FolderSource
from mnsp.pretrain import Pretrainer, mnsp
from mnsp.reading import Recognizer
from mnsp.synth import SynthWords, demo_world
from mnsp.training import compile_blocks, pretrain

words = SynthWords(demo_world(), 40, seed=5, split='valid')


@pytest.fixture(scope='module')
def reader(): return Recognizer.from_pretrained()


def switches():
    "What of the process a library could change without being seen"
    generators = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()
    attention = math_sdp_enabled(), flash_sdp_enabled(), mem_efficient_sdp_enabled(), fp16_bf16_reduction_math_sdp_allowed()
    return dict(attention=attention, threads=torch.get_num_threads(), grad=torch.is_grad_enabled(),
                warnings=list(warnings.filters), figures=dict(plt.rcParams), generators=generators,
                compiler=torch._dynamo.config.recompile_limit, environment=dict(os.environ),
                autocast=torch.is_autocast_enabled('cpu'), default=torch.get_default_dtype(),
                precision=torch.get_float32_matmul_precision(), largest=Image.MAX_IMAGE_PIXELS)


@contextmanager
def nothing_changes():
    "An AssertionError that names the switches that are not as they were"
    before = switches()
    yield
    after = switches()
    assert not [name for name in before if before[name] != after[name]]


@pytest.fixture
def two_threads():
    "As many threads as on a machine of two cores"
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_reading_in_threads_leaves_the_process_as_it_was(reader, two_threads):
    "Readings, drawings and pictures that do not open, in eight threads; each thread keeps its number of threads, too"
    pictures = [words[i][0] for i in range(12)]
    alone = [r.text for r in reader.read(pictures)]
    def one(i):
        if i % 4 == 3:
            with pytest.raises(DataError): reader.read(b'no picture')
        reading = reader.read(pictures[i % 12], tta=i % 2 == 0)
        if i % 12 == 5: drawing(pictures[5], reading)
        return torch.get_num_threads()
    with nothing_changes(), ThreadPoolExecutor(8) as pool: assert set(pool.map(one, range(48))) == {2}
    with ThreadPoolExecutor(8) as pool: many = list(pool.map(reader.read, pictures))
    assert sum(r.text != text for r, text in zip(many, alone)) <= 1  # batches of other sizes round otherwise


def test_words_take_one_thread_and_large_batches_more(reader, two_threads, monkeypatch):
    "Seen from inside encoder and decoder"
    seen = {}
    def note(name): return lambda *_: seen.setdefault(name, set()).add(torch.get_num_threads())
    hooks = [reader.encoder.register_forward_pre_hook(note('encoder')),
             reader.classifier.register_forward_pre_hook(note('decoder'))]
    reader.read(words[0][0])
    assert seen == dict(encoder={1}, decoder={1})
    monkeypatch.setattr('mnsp.decoding.threads_that_pay', lambda operations: 2)
    reader.read(words[0][0])
    for hook in hooks: hook.remove()
    assert seen == dict(encoder={1, 2}, decoder={1})
    assert torch.get_num_threads() == 2


def test_large_products_pay(two_threads, monkeypatch):
    "More threads for more work, sooner where waiting threads sleep, never more than PyTorch has"
    monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
    assert [machine.threads_that_pay(n) for n in (0, 2e9, 1e10, 1e15)] == [1, 1, 2, 2]
    monkeypatch.setenv('OMP_WAIT_POLICY', 'PASSIVE')
    assert [machine.threads_that_pay(n) for n in (0, 7e7, 2e9)] == [1, 1, 2]


def test_training_leaves_the_process_as_it_was():
    "Pre-training, compiled, with an interrupt and with an error as well"
    loader = word_loader(WordDataset(words), 16, drop_last=True)
    model = Pretrainer(mnsp('tiny'))
    def keeps_all(**how):
        before = switches()
        try: pretrain(model, loader, steps=1, **how)
        except ZeroDivisionError: pass
        after = switches()
        assert not [name for name in before if name != 'generators' and before[name] != after[name]]
    class Fails(Callback):
        def after_loss(self): return 1 / 0
    keeps_all()
    keeps_all(cbs=[Fails()])
    with nothing_changes(): compile_blocks(model, backend='eager')
    keeps_all()


def test_commands_leave_the_generators_as_they_were(tmp_path):
    "--seed is for the command alone; the same one gives the same weights"
    for i in range(8): words[i][0].save(tmp_path/f'{i}.png')
    for out in ('a', 'b'):
        args = ['pretrain', '-d', str(tmp_path), '-o', str(tmp_path/'out'/out), '--preset', 'nano', '--steps', '1',
                '--batch-size', '4', '--workers', '0', '--seed', '3', '--device', 'cpu']
        with nothing_changes():
            done = CliRunner().invoke(app, args)
            assert done.exit_code == 0, done.output
    a, b = (hub.load_model(tmp_path/'out'/out).state_dict() for out in 'ab')
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_importing_changes_no_warnings():
    "Whatever is imported, warnings that are about other things are shown as before; fastai's own deprecation is not"
    code = ("import warnings, torch, numpy, pandas, scipy, matplotlib.pyplot, spacy, sklearn; before = list(warnings.filters);"
            "import mnsp.training, mnsp.reading, mnsp.checkpoints, mnsp.finetune;"
            "print([f for f in warnings.filters if f not in before and 'jit' in str(f)])")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == '[]' and 'torch.jit.script' not in done.stderr, done


def test_few_sizes_of_batch(reader, monkeypatch):
    "Requests of 1 to 32 pictures reach the network in at most ten sizes, and what fills them up is not read out"
    sizes = []
    look = Recognizer.look
    def noted(self, images):
        sizes.append(len(images))
        return look(self, images)
    monkeypatch.setattr(Recognizer, 'look', noted)
    pictures = [words[i][0] for i in range(32)]
    whole = [r.text for r in reader.read(pictures, tta=False, prior=False)]
    different = 0
    for n in (*range(1, 12), 13, 17, 23, 31):
        for tta in (False, True):
            found = reader.read(pictures[:n], tta=tta, prior=tta)
            assert len(found) == n
            different += not tta and sum(r.text != text for r, text in zip(found, whole))
    assert different <= 3 and set(sizes) <= {1, 2, 3, 4, 6, 8, 12, 16, 24, 32}
    assert [len(reader.read_batch(torch.zeros(n, 3, 32, 128, dtype=torch.uint8))) for n in (1, 5, 7)] == [1, 5, 7]
    assert {next_size(n) for n in range(1, 33)} == {1, 2, 3, 4, 6, 8, 12, 16, 24, 32}


def test_tta_reads_only_what_is_unsure(reader, monkeypatch):
    "Other crops where confidence is low; never a less sure reading, and attention to the picture as it is"
    pictures = [im.resize((40, 12)) for im, _ in (words[i] for i in range(32))]
    plain = reader.read(pictures, attention=True, tta=False, prior=False)
    asked = []
    def noted(images, share):
        asked.append(len(images))
        return framed(images, share)
    monkeypatch.setattr('mnsp.decoding.framed', noted)
    found = reader.read(pictures, attention=True, prior=False)
    unsure = sum(r.per_character < unsure_below for r in plain)
    assert 0 < unsure and len(asked) == 2 and all(abs(n - unsure) <= 1 for n in asked)
    for once, again in zip(plain, found):
        assert again.per_character > once.per_character - .01
        assert len(again.text) == len(again.positions) == len(again.looks)
        assert all(0 <= x <= 40 and 0 <= y <= 12 for x, y in again.positions)


def test_as_read_is_what_read_gives(reader, tmp_path):
    "Tall pictures in three rotations, long ones in windows; a broken one is named and counted wrong"
    pictures = [words[i][0] for i in range(6)]
    pictures[1] = pictures[1].transpose(Image.Transpose.ROTATE_90)
    pictures[2] = Image.fromarray(np.concatenate([np.array(im.resize((100, 32))) for im, _ in (words[i] for i in range(4))], 1))
    labels = [words[i][1] for i in range(6)]
    for i, im in enumerate(pictures): im.save(tmp_path/f'{i}.png')
    (tmp_path/'6.png').write_text('no picture')
    (tmp_path/'labels.tsv').write_text(''.join(f'{i}.png\t{text}\n' for i, text in enumerate([*labels, 'x'])))
    found = evaluate(reader.read_each, {'set': FolderSource(tmp_path)}, bar=False, as_read=True)
    files = [tmp_path/f'{i}.png' for i in range(6)]
    assert [r.pred for r in found.readings] == [*map(str, reader.read(files)), '']
    assert found.broken == {'set': [['6.png', 'unreadable']]}
    told = CliRunner().invoke(app, ['evaluate', '-w', 'packaged', '-d', str(tmp_path), '--as-read', '--device', 'cpu',
                                    '--readings', str(tmp_path/'out'/'readings.csv')])
    assert told.exit_code == 0, told.output
    rows = (tmp_path/'out'/'readings.csv').read_text().splitlines()[1:]
    assert [row.split(',')[4] for row in rows] == [r.pred for r in found.readings]


def test_a_device_that_is_not_there():
    "One line that names the option and what there is, before any work"
    absent = 'cuda' if not torch.cuda.is_available() else 'mps'
    for args in (['demo'], ['pretrain', '-d', 'x', '-o', 'y'], ['finetune', '-d', 'x', '-o', 'y'], ['evaluate'],
                 ['read', 'x.png'], ['app'], ['data', 'label', 'x', '-o', 'y']):
        for device in (absent, 'cuda:99', 'tpu'):
            done = CliRunner().invoke(app, [*args, '--device', device])
            assert isinstance(done.exception, ValueError), (args, done.output)
            assert f'--device {device}: there is no such device here; give cpu' in str(done.exception)
    with pytest.raises(ValueError, match='device tpu: there is no such device here'):
        pretrain(Pretrainer(mnsp('tiny')), word_loader(WordDataset(words), 16), steps=1, device='tpu')


@pytest.mark.skipif(os.name == 'nt', reason='permissions are those of POSIX')
def test_permissions_are_the_users(tmp_path):
    "Weights and whatever is written beside them may be read by whom the umask lets read"
    code = ("import os, sys; os.umask(0o027)\n"
            "from mnsp import hub; from mnsp.recognizer import Recognizer, recognizer_tiny\n"
            "hub.save_model(Recognizer(recognizer_tiny()), sys.argv[1])\n"
            "open(sys.argv[1]+'/any', 'w').close()")
    subprocess.run([sys.executable, '-c', code, str(tmp_path/'weights')], check=True, timeout=300)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path/'weights').iterdir()}
    assert set(modes) == {'any', 'config.json', 'model.safetensors'} and set(modes.values()) == {0o640}
    done = CliRunner().invoke(app, ['pretrain', '-d', str(save_words(tmp_path)), '-o', str(tmp_path/'run'), '--preset', 'nano',
                                    '--steps', '1', '--batch-size', '4', '--workers', '0'])
    assert done.exit_code == 0, done.output
    (tmp_path/'any').touch()
    files = [p for p in (tmp_path/'run').rglob('*') if p.is_file()]
    assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {stat.S_IMODE((tmp_path/'any').stat().st_mode)}, files


def save_words(folder):
    "A folder of eight words"
    (folder/'words').mkdir()
    for i in range(8): words[i][0].save(folder/'words'/f'{i}.png')
    return folder/'words'


def test_the_command_lets_waiting_threads_sleep():
    "Set before PyTorch is loaded, by the command alone, and not against what the user says"
    command = "import sys; from mnsp.cli import main; sys.argv = ['mnsp', '--version']; main()"
    def policy(code, **given):
        env = {k: v for k, v in os.environ.items() if k != 'OMP_WAIT_POLICY'} | given
        code = f"import atexit, os; atexit.register(lambda: print(os.environ.get('OMP_WAIT_POLICY'))); {code}"
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
        return done.stdout.split()[-1]
    assert policy(command) == 'PASSIVE' and policy(command, OMP_WAIT_POLICY='ACTIVE') == 'ACTIVE'
    assert policy('import mnsp.reading') == 'None'


def test_hints_and_formats(tmp_path, reader):
    "A photograph gets a hint once, and what is no picture is told what is one"
    Image.effect_noise((900, 700), 90).convert('RGB').save(tmp_path/'photo.png')
    (tmp_path/'text.png').write_text('no picture')
    done = CliRunner().invoke(app, ['read', str(tmp_path)])
    assert 'one word per picture, cut out closely' in done.stderr and 'higher than 400 pixels' in done.stderr
    assert 'text.png cannot be read: unreadable: damaged, or none of JPEG, PNG' in done.stderr
    done = CliRunner().invoke(app, ['read', 'https://example.org/a.png'])
    assert 'pass --urls' in done.stderr and 'urls=True' not in done.stderr
