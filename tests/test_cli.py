"The command line as a user meets it: what works, what goes wrong, what is left behind."
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from contextlib import redirect_stderr, redirect_stdout

import lmdb
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mnsp.cli import app, main
from mnsp.data import WordDataset
from mnsp.decoder import DecoderConfig
from mnsp.encoder import EncoderConfig
from mnsp.hub import load_model
from mnsp.pretrain import PretrainConfig, Pretrainer
from mnsp.recognizer import Recognizer, RecognizerConfig
from mnsp.sources import open_source
from mnsp.synth import SynthWords, demo_world


def process(*args, **kwargs):
    "Exit code, stdout, stderr of `mnsp ARGS`, started as users start it"
    done = subprocess.run([sys.executable, '-m', 'mnsp', *map(str, args)], capture_output=True, text=True, timeout=600, **kwargs)
    return done.returncode, done.stdout, done.stderr


def run(*args):
    "The same in this process, where everything is imported already: seconds sooner"
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding='utf-8', write_through=True) for _ in range(2))
    def told(message, category, *_): err.write(warnings.formatwarning(message, category, '', 0))
    with (redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch):
        warnings.simplefilter('ignore')
        warnings.simplefilter('default', UserWarning)
        patch.setattr(sys, 'argv', ['mnsp', *map(str, args)])
        patch.setattr(warnings, 'showwarning', told)
        patch.setattr(warnings, 'formatwarning', warnings.formatwarning)              # `main` has its own
        try: main(); code = 0
        except SystemExit as e: code = e.code or 0
        except BaseException: traceback.print_exc(); code = 1
    return code, *(stream.buffer.getvalue().decode() for stream in (out, err))


def write_words(folder, n=48, seed=0, labels=True):
    "A folder of rendered words"
    folder.mkdir(parents=True, exist_ok=True)
    words = SynthWords(demo_world(), n, seed=seed)
    texts = []
    for i in range(n):
        image, text = words[i]
        image.save(folder / f'{i}.png')
        texts.append(f'{i}.png\t{text}\n')
    if labels: (folder / 'labels.tsv').write_text(''.join(texts), encoding='utf-8')
    return folder


@pytest.fixture(scope='module')
def words(tmp_path_factory): return write_words(tmp_path_factory.mktemp('data') / 'words')


@pytest.fixture(scope='module')
def trained(tmp_path_factory, words):
    "Weights of a miniature run of `pretrain`, then `finetune`"
    out = tmp_path_factory.mktemp('trained')
    code, stdout, stderr = process('pretrain', '--data', words, '--out', out / 'p', '--steps', 2, '--batch-size', 16,
                                   '--workers', 0)
    assert code == 0, stderr
    code, stdout, stderr = process('finetune', '--data', words, '--encoder', out / 'p' / 'encoder', '--out', out / 'r',
                                   '--steps', 2, '--batch-size', 16, '--workers', 0, '--short-first', .5)
    assert code == 0 and 'warning' not in stderr, stderr
    return out


def one_line_error(code, stdout, stderr, *parts):
    "The last line names what is wrong, and there is no traceback"
    assert code != 0
    assert 'Traceback' not in stderr, stderr
    last = stderr.strip().splitlines()[-1]
    assert last.startswith('mnsp: '), stderr
    for part in parts: assert part in last, last


def test_pretrain_finetune_evaluate_read(trained, words):
    assert (trained / 'p' / 'log.csv').read_text().startswith('step,seconds,loss,mim,cls_spread')   # MAE, the default
    assert (trained / 'r' / 'log.csv').read_text().startswith('step,seconds,loss,read,ctc')
    code, stdout, stderr = process('evaluate', '--weights', trained / 'r', '--data', words, '--json')
    assert code == 0, stderr
    result = json.loads(stdout)
    assert set(result) >= {'sets', 'avg', 'w_avg', 'convention'}
    assert result['sets']['words']['n'] == 48
    again = json.loads(run('evaluate', '--weights', trained / 'r', '--data', words, '--json')[1])
    assert again == result
    code, stdout, stderr = process('read', words / '0.png', '--weights', trained / 'r')
    assert code == 0, stderr
    assert stdout.split('\t')[0] == str(words / '0.png') and len(stdout.strip('\n').split('\t')) == 3


def test_a_run_says_what_it_was(words, tmp_path):
    "run.json: settings, data with counts, and for each beginning the command and the code"
    args = ['finetune', '--data', words, '--batch-size', 16, '--workers', 0, '--out', tmp_path / 'r', '--steps', 2]
    for more in ([], ['--resume']):
        assert run(*args, *more)[0] == 0
    said = json.loads((tmp_path / 'r' / 'run.json').read_text())
    assert said['data'] == [dict(path=str(words), pictures=48)]
    assert said['settings']['batch_size'] == 16 and set('aZ9!') <= set(said['settings']['charset'])
    chosen = [said['settings'][k] for k in ('optimizer', 'lr', 'short_first', 'ctc')] # for a small network, from nothing
    assert chosen == ['muon', 2e-3, 0., .5]
    assert ['--resume' in b['command'] for b in said['begun']] == [False, True]
    assert {b['torch'] for b in said['begun']} == {torch.__version__}
    with open(tmp_path / 'r' / 'log.csv') as f: assert 'lr' in csv.DictReader(f).fieldnames


def test_going_on_from_a_reader(trained, words, tmp_path):
    "Decoder and characters stay; a folder that holds a run is not written over"
    from mnsp.hub import load_model
    args = ['finetune', '--data', words, '--steps', 1, '--batch-size', 16, '--workers', 0, '--out', tmp_path / 'more', '--reader']
    code, stdout, stderr = run(*args, trained / 'r')
    assert code == 0, stderr
    before, after = (load_model(p).state_dict() for p in (trained / 'r', tmp_path / 'more')) # the first step's rate is nought
    assert all((before[k] == after[k]).all() for k in before)
    one_line_error(*(told := run(*args, trained / 'r')), 'ended at step 1', 'another folder')
    assert 'Exception' not in told[2]                                                # fastai would name its callback first
    one_line_error(*run(*args, trained / 'p'), 'Recognizer is needed')
    one_line_error(*run(*args, trained / 'r', '--encoder', trained / 'p'), 'give one of them')
    assert process('--version')[1].startswith('mnsp ')


def test_validation_chooses_the_weights(words, tmp_path):
    "Held-out words are read on the way; OUT holds what read most of them, and the log says which step's that is"
    valid, out = write_words(tmp_path / 'valid', 12, seed=1), tmp_path / 'out'
    args = ['finetune', '--data', words, '--steps', 3, '--batch-size', 16, '--workers', 0, '--out', out, '--valid-every', 2,
            '--valid']
    one_line_error(*run(*args, write_words(tmp_path / 'bare', 2, labels=False)), 'bare', 'no label')
    one_line_error(*run(*args, valid, '--out', words), 'is a folder of the data')
    labels = (valid / 'labels.tsv').read_text(encoding='utf-8')
    Image.new('RGB', (64, 32)).save(valid / 'bare.png')
    (valid / 'labels.tsv').write_text(labels + 'bare.png\t\n', encoding='utf-8')
    code, stdout, stderr = run(*args, valid)
    assert code == 0 and 'left out for want of a label that can be read: 1 of 13 pictures (bare.png)' in stderr, stderr
    with open(out / 'validation.csv') as f: rows = list(csv.DictReader(f))
    assert [row['step'] for row in rows] == ['2', '3']
    best = max(reversed(rows), key=lambda row: float(row['mean']))
    assert f"weights of step {best['step']}, which read {float(best['exact']):g} % of the held-out words exactly" in stdout
    said = json.loads((out / 'config.json').read_text())
    assert said['kind'] == 'Recognizer'
    code, stdout, stderr = run('evaluate', '--weights', out, '--data', valid, '--readings', tmp_path / 'new' / 'readings.csv')
    assert code == 0, stderr
    with open(tmp_path / 'new' / 'readings.csv', newline='') as f: readings = list(csv.DictReader(f))
    assert [r['true'] for r in readings] == [open_source(valid).label(i) for i in range(12)]
    assert all(r['set'] == 'valid' and r['right'] in ('True', 'False') for r in readings)
    one_line_error(*run('evaluate', '--data', valid, '--readings', tmp_path), 'a folder')
    assert '1 run' in run('plot', out, '--out', tmp_path / 'curves.png')[1] and (tmp_path / 'curves.png').stat().st_size > 10_000


def test_going_on_never_makes_a_reader_worse(words, tmp_path):
    "The start is measured too and kept if nothing read better; characters that the reader knows go only when told"
    valid, out, few = write_words(tmp_path / 'valid', 12, seed=1), tmp_path / 'out', tmp_path / 'few.txt'
    args = ['finetune', '--data', words, '--reader', 'packaged', '--batch-size', 16, '--workers', 0, '--out', out]
    few.write_text('abc')
    fewer = ['--charset', few, '--drop-characters', '--max-outside', 1, '--out', tmp_path / 'few']
    said = run(*args, *fewer, '--steps', 1, '--valid', valid)
    assert 'valid: 12 of 12 labels cannot be read right' in said[2]
    one_line_error(*run(*args, '--charset', few), 'few.txt lacks', '--drop-characters')
    code, stdout, stderr = run(*args, '--steps', 2, '--lr', 1, '--valid', valid)   # a rate that ruins it
    assert code == 0, stderr
    with open(out / 'validation.csv') as f: rows = list(csv.DictReader(f))
    assert [row['step'] for row in rows] == ['0', '2'] and float(rows[0]['mean']) > float(rows[1]['mean'])
    assert 'weights of the start, since no later ones read the held-out words better' in stdout
    assert 'before: exact' in stdout and 'step 2: exact' in stdout
    kept = load_model(out)
    texts = [text for text, _ in kept.read_batch(torch.stack([WordDataset(open_source(valid))[i][0] for i in range(12)]))]
    right = sum(a.lower() == open_source(valid).label(i).lower() for i, a in enumerate(texts))
    assert right >= 10


def test_a_reader_labels_pictures(tmp_path):
    "Sure readings become a data set that fine-tuning takes; a second call does not write over it"
    words = write_words(tmp_path / 'words')
    args = ['data', 'label', words, '--out', tmp_path / 'pseudo', '--least', .5]
    code, stdout, stderr = run(*args)
    assert code == 0, stderr
    labelled = open_source(tmp_path / 'pseudo' / 'labels.json')
    assert f'{len(labelled)} kept' in stdout and 'broken' in stdout and 30 < len(labelled) <= 48
    truth = {open_source(words).name(i): open_source(words).label(i) for i in range(48)}
    right = sum(labelled.label(i).lower() == truth[labelled.name(i)].lower() for i in range(len(labelled)))
    assert right > .9 * len(labelled)
    one_line_error(*run(*args), 'pseudo exists')
    bare = write_words(tmp_path / 'bare', 8, labels=False)
    assert run('data', 'label', bare, '--out', tmp_path / 'named', '--pattern', '(.+)')[0] == 0   # how the set is to be opened
    assert json.loads((tmp_path / 'named' / 'labels.json').read_text())['columns'] == dict(pattern='(.+)')
    assert open_source(tmp_path / 'named' / 'labels.json').name(0) in {f'{i}.png' for i in range(8)}
    code, stdout, stderr = run('finetune', '--data', words, '--data', tmp_path / 'pseudo' / 'labels.json', '--steps', 1,
                               '--batch-size', 16, '--workers', 0, '--out', tmp_path / 'again')
    assert code == 0, stderr
    (words / 'more.png').write_bytes((words / '0.png').read_bytes())
    with open(words / 'labels.tsv', 'a') as f: f.write('more.png\tmore\n')
    one_line_error(*run('evaluate', '--data', tmp_path / 'pseudo' / 'labels.json'), 'changed')


def test_export(trained, words, tmp_path):
    pytest.importorskip('onnxscript'); pytest.importorskip('onnxruntime')
    from mnsp.onnx import OnnxReader
    code, stdout, stderr = run('export', tmp_path / 'reader.onnx', '--weights', trained / 'r')
    assert code == 0 and str(tmp_path / 'reader.onnx') in stdout, stderr
    one_line_error(*run('export', tmp_path), 'a folder', '.onnx')
    images = torch.stack([WordDataset(open_source(words))[i][0] for i in range(8)])
    torch_texts = [text for text, _ in load_model(trained / 'r').float().read_batch(images)]
    same = sum(a == b for (a, _), b in zip(OnnxReader(tmp_path / 'reader.onnx').read_batch(images), torch_texts))
    assert same >= 6                                                                # the other in half precision perhaps


def test_bad_data(tmp_path, trained):
    out = tmp_path / 'out'
    empty = tmp_path / 'empty'
    empty.mkdir()
    one_line_error(*process('pretrain', '--data', empty, '--out', out), 'empty')
    missing = write_words(tmp_path / 'missing', 4)
    (missing / '2.png').unlink()
    one_line_error(*run('finetune', '--data', missing, '--out', out), 'labels.tsv', '2.png')
    bare = tmp_path / 'lmdb'
    lmdb.open(str(bare)).close()
    one_line_error(*run('pretrain', '--data', bare, '--out', out), 'lmdb')
    text = tmp_path / 'text'
    text.mkdir()
    (text / 'a.png').write_text('not a picture')
    one_line_error(*run('pretrain', '--data', text, '--out', out, '--steps', 1, '--workers', 0))
    one_line_error(*run('finetune', '--data', write_words(tmp_path / 'bare', 4, labels=False), '--out', out), 'no labels')
    assert not out.exists() or not any(out.rglob('*.safetensors'))    # nothing half-written


def test_bad_weights(trained, words, tmp_path):
    one_line_error(*run('evaluate', '--weights', trained / 'p', '--data', words), 'Recognizer is needed')
    one_line_error(*run('read', words / '0.png', '--weights', tmp_path), 'config.json')
    one_line_error(*run('finetune', '--data', words, '--out', tmp_path, '--encoder', words), 'config.json')


def test_export_encoder(trained, tmp_path):
    code, text, err = run('export-encoder', trained / 'p', tmp_path / 'timm', '--to', 'timm', '--finest')
    assert (code, err) == (0, '') and 'config.json' in text
    found, own = load_model(tmp_path / 'timm', 'Encoder'), load_model(trained / 'p').encoder
    x = torch.randint(0, 256, (1, 3, *own.cfg.img_size), dtype=torch.uint8)
    with torch.no_grad(): assert (found(x) - own(x)).abs().max() < 1e-5
    one_line_error(*run('export-encoder', trained / 'p', tmp_path / 'keras', '--to', 'keras'), '--to keras: must be one of timm')
    one_line_error(*run('export-encoder', trained / 'p', trained / 'r', '--finest'), 'a folder of its own')
    one_line_error(*run('export-encoder', tmp_path / 'none', tmp_path / 'x'), 'no such file or folder')


def test_out_not_writable(words, tmp_path):
    blocked = tmp_path / 'file'
    blocked.write_text('')
    one_line_error(*run('demo', '--data', words, '--out', blocked / 'out'), 'cannot write')
    one_line_error(*run('pretrain', '--data', words, '--out', blocked), 'cannot write')


def test_one_broken_picture_is_replaced_counted_and_reported(tmp_path):
    folder = write_words(tmp_path / 'words', 24)
    (folder / '7.png').write_bytes(b'\x89PNG broken')
    code, stdout, stderr = run('pretrain', '--data', folder, '--out', tmp_path / 'out', '--epochs', 2, '--batch-size', 8)
    assert code == 0, stderr
    assert '1' in stdout and '7.png' in stdout


def test_what_cannot_be_read_does_not_stop_the_rest(words, tmp_path):
    (tmp_path / 'empty').mkdir()
    names = [words / '0.png', 'a' * 300, tmp_path / 'empty', words / '1.png']
    code, stdout, stderr = run('read', *names, '--attention', tmp_path / 'sheets' / 'look.png')
    assert code == 1 and [line.split('\t')[0] for line in stdout.splitlines()] == [str(names[0]), str(names[3])], stderr
    assert 'a folder without pictures' in stderr and (tmp_path / 'sheets' / 'look.png').stat().st_size > 10_000
    one_line_error(*run('read', words / '0.png', '--attention', tmp_path / 'look.xyz'), 'give a .png')
    (tmp_path / 'latin').write_bytes(b'caf\xe9')
    one_line_error(*run('read', words / '0.png', '--lexicon', tmp_path / 'latin'), 'latin', 'UTF-8')
    one_line_error(*run('evaluate', '--data', words, '--peers'), 'no set of a known benchmark')
    blocked = tmp_path / 'file'
    blocked.write_text('')
    one_line_error(*run('evaluate', '--data', words, '--pictures', blocked), 'give another --pictures')


def test_an_interrupted_evaluation_keeps_the_sets_it_finished(words, tmp_path):
    code = """from mnsp.reading import Recognizer
read, calls = Recognizer.read_batch, []
def interrupted(self, images, **how):
    calls.append(0)
    if len(calls) == 2: raise KeyboardInterrupt
    return read(self, images, **how)
Recognizer.read_batch = interrupted
from mnsp.cli import main
main()"""
    told = ['evaluate', '--data', words, '--data', write_words(tmp_path / 'again', 4)]
    done = subprocess.run([sys.executable, '-c', code, *map(str, told)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 130 and 'words' in done.stdout and 'other sets are missing' in done.stdout, done
    assert 'again' not in done.stdout and 'Traceback' not in done.stderr


@pytest.fixture(scope='module')
def demo_out(tmp_path_factory, words):
    "A miniature of the demo on real folders"
    out = tmp_path_factory.mktemp('demo') / 'out'
    tests = write_words(out.parent / 'street', 10, seed=5)
    code, stdout, stderr = process('demo', '--data', words, '--test', tests, '--out', out, '--minutes', .5)
    assert code == 0, stderr
    return out


def test_demo_on_folders_gives_the_same_numbers_again(demo_out):
    numbers = json.loads((demo_out / 'metrics.json').read_text())
    assert numbers['evaluation']['sets']['street']['n'] == 10
    page = (demo_out / 'report.html').read_text()
    assert page.count('data:image/png') >= 8 and '<script' not in page
    code, stdout, stderr = run('evaluate', '--weights', demo_out, '--data', demo_out.parent / 'street', '--json')
    assert code == 0, stderr
    assert json.loads(stdout)['sets']['street'] == numbers['evaluation']['sets']['street']


@pytest.mark.skipif(os.name == 'nt', reason='signals differ on Windows')
def test_interrupted_demo_keeps_what_it_has(words, tmp_path):
    out = tmp_path / 'out'
    process = subprocess.Popen([sys.executable, '-m', 'mnsp', 'demo', '--data', str(words), '--out', str(out), '--minutes', '5'],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log, limit = out / 'pretraining.csv', time.time() + 120
    while not log.exists() and time.time() < limit and process.poll() is None: time.sleep(.2)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert 'interrupted while pre-training' in stdout and str(out) in stdout
    assert json.loads((out / 'metrics.json').read_text())['stopped'] == 'pre-training'
    assert (out / 'pretrained' / 'model.safetensors').exists() and (out / 'report.html').exists()


@pytest.mark.parametrize('command, extra', [('pretrain', ['--preset', 'nano']), ('finetune', [])])
def test_max_broken_says_how_many_broken_pictures_are_borne(tmp_path, command, extra):
    "One in three is broken: too many by default"
    folder = write_words(tmp_path / 'words', 24)
    for i in range(0, 24, 3): (folder / f'{i}.png').write_bytes(b'no picture')
    train = command, '--data', folder, '--steps', 4, '--batch-size', 8, '--workers', 0, *extra
    one_line_error(*run(*train, '--out', tmp_path / 'a'), 'are broken, more than 20%')
    code, stdout, stderr = run(*train, '--out', tmp_path / 'b', '--max-broken', .5)
    assert code == 0, stderr
    assert 'broken' in stdout and (tmp_path / 'b' / 'model.safetensors').is_file()


@pytest.mark.parametrize('command', ['pretrain', 'finetune'])
def test_compile_compiles_the_blocks(tmp_path, words, command, monkeypatch):
    "What compiling gains and keeps is tested with the loop; here, that the option arrives there"
    compiled = []
    monkeypatch.setattr('mnsp.training.compile_blocks', compiled.append)
    short = ['--data', str(words), '--steps', '1', '--batch-size', '8', '--workers', '0']
    for extra in ([], ['--compile']):
        done = CliRunner().invoke(app, [command, *short, '--out', str(tmp_path / str(len(extra))), *extra])
        assert done.exit_code == 0, done.output
    assert [type(model).__name__ for model in compiled] == [dict(pretrain='Pretrainer', finetune='Spelling')[command]]


def test_mnsp_predicts_the_next_scale(tmp_path, words):
    code, stdout, stderr = run('pretrain', '--data', words, '--out', tmp_path / 'p', '--method', 'mnsp', '--preset', 'nano',
                               '--steps', 2, '--batch-size', 16, '--workers', 0)
    assert code == 0, stderr
    assert (tmp_path / 'p' / 'log.csv').read_text().startswith('step,seconds,loss,mim,nsp,align')
    assert load_model(tmp_path / 'p', 'Pretrainer').cfg.encoder.n_scales == 3


def test_pretraining_goes_on_from_an_encoder(tmp_path, words, trained):
    "An encoder of one scale becomes MNSP's; what it knew is there at the first step, whose rate is nought"
    args = ['pretrain', '--data', words, '--out', tmp_path / 'p', '--method', 'mnsp', '--steps', 1, '--batch-size', 16,
            '--workers', 0]
    one_line_error(*run(*args, '--encoder', trained / 'p', '--preset', 'nano'), '128 wide', '--preset')
    one_line_error(*run(*args, '--encoder', trained / 'p', '--set', 'encoder.depth=2'), 'leave out')
    code, stdout, stderr = run(*args, '--encoder', trained / 'p')
    assert code == 0, stderr
    before, after = load_model(trained / 'p').encoder, load_model(tmp_path / 'p').encoder
    assert after.cfg.n_scales == 3
    for name, weight in before.blocks.state_dict().items(): assert torch.equal(weight, after.blocks.state_dict()[name])


def test_two_stages(tmp_path, words):
    "A MAE first, then LMIM with its encoder frozen as teacher: one command"
    out = tmp_path / 'lmim'
    code, stdout, stderr = run('pretrain', '--data', words, '--out', out, '--method', 'lmim', '--preset', 'nano',
                               '--teacher', 'mae', '--steps', 2, '--batch-size', 16, '--workers', 0,
                               '--set', 'mask_ratio=.5', '--set', 'decoder.order=ca-sa')
    assert code == 0, stderr
    mae, lmim = load_model(out / 'teacher', 'Pretrainer'), load_model(out, 'Pretrainer')
    assert mae.cfg.teacher == 'pixels' and lmim.cfg.teacher == 'frozen'
    for name, weight in mae.encoder.state_dict().items(): assert torch.equal(weight, lmim.teacher.encoder.state_dict()[name])
    assert not torch.equal(mae.encoder.cls_token, lmim.encoder.cls_token)
    assert (lmim.cfg.mask_ratio, lmim.cfg.decoder.order, mae.cfg.mask_ratio) == (.5, 'ca-sa', .75)
    assert (out / 'teacher' / 'log.csv').is_file() and (out / 'log.csv').is_file()
    one_line_error(*run('pretrain', '--data', words, '--out', out, '--preset', 'huge'), '--preset', 'nano, micro, tiny, small')
    one_line_error(*run('pretrain', '--data', words, '--out', out, '--teacher', tmp_path / 'nowhere'), 'nowhere')
    one_line_error(*run('pretrain', '--data', words, '--out', out, '--set', 'ratio=.5'), 'ratio=.5', 'mask_ratio')


def test_published_files(tmp_path, words, as_published):
    "A published file serves as teacher, as encoder to start from, and as reader"
    encoder, mae, reader = EncoderConfig(depth=1, stored_positions=True), tmp_path / 'mae.pth', tmp_path / 'reader.pth'
    mae_config = PretrainConfig(encoder, DecoderConfig(512, 1, 16, guided=False), teacher='pixels', guide=None)
    torch.save(dict(model=as_published(Pretrainer(mae_config), 'mae')), mae)
    torch.save(dict(model=as_published(Recognizer(RecognizerConfig(encoder, depth=1)), 'lmim recognizer')), reader)
    short = ['--steps', 1, '--batch-size', 8, '--workers', 0]
    code, _, stderr = run('pretrain', '--data', words, '--out', tmp_path / 'p', '--teacher', mae, *short)
    assert code == 0, stderr
    assert load_model(tmp_path / 'p').teacher.encoder.cfg == load_model(mae).encoder.cfg
    code, _, stderr = run('finetune', '--data', words, '--out', tmp_path / 'r', '--encoder', mae, *short)
    assert code == 0, stderr
    code, stdout, stderr = run('read', words / '0.png', '--weights', reader)
    assert code == 0, stderr
    one_line_error(*run('read', words / '0.png', '--weights', mae), 'Recognizer is needed')


def test_data_commands(tmp_path, words):
    "Check, convert, cache and split, each made openable for the next"
    code, stdout, stderr = run('data', 'check', words, '--out', tmp_path / 'check', '--workers', 0)
    assert code == 0, stderr
    assert '48' in stdout and (tmp_path / 'check' / 'sheet.png').is_file()
    for command, name in (('convert', 'words.lmdb'), ('convert', 'folder'), ('cache', 'cache')):
        code, stdout, stderr = run('data', command, words, tmp_path / name)
        assert code == 0, stderr
        assert '48 pictures' in stdout
        source = open_source(tmp_path / name)
        assert sorted(source.label(i) for i in range(len(source))) == sorted(open_source(words).label(i) for i in range(48))
    code, stdout, stderr = run('data', 'split', tmp_path / 'words.lmdb', tmp_path / 'split', '--valid', 4)
    assert code == 0, stderr
    assert sum(len(open_source(tmp_path / 'split' / f'{side}.json')) for side in ('train', 'valid')) == 48
    one_line_error(*run('data', 'convert', words, tmp_path / 'words.lmdb'), 'words.lmdb')
    one_line_error(*run('data', 'check', tmp_path / 'nowhere'), 'nowhere')
    (words.parent / 'bad').mkdir()
    (words.parent / 'bad' / 'a.png').write_text('no picture')
    code, stdout, stderr = run('data', 'check', words.parent / 'bad', '--workers', 0)
    assert code == 1 and 'a.png' in stdout


def test_evaluation_in_two_processes_equals_one(tmp_path, trained, words):
    "Two sets, of which one does not divide by two and one has a single picture, one of them broken; under torchrun"
    odd, single = write_words(tmp_path / 'odd', 13, seed=3), write_words(tmp_path / 'single', 1, seed=4)
    (odd / '5.png').write_text('no picture')
    command = 'evaluate', '--weights', trained / 'r', '--data', odd, '--data', single, '--json', '--batch-size', 4
    code, alone, stderr = run(*command)
    assert code == 0, stderr
    assert 'odd: 1 broken, counted wrong: 5.png (unreadable)' in stderr
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2', '-m', 'mnsp']
    two = subprocess.run([*torchrun, *map(str, command)], capture_output=True, text=True, timeout=600,
                         env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert two.returncode == 0, two.stderr
    assert json.loads(two.stdout) == (result := json.loads(alone))
    assert list(result) == ['sets', 'avg', 'w_avg', 'convention'] and list(result['sets']) == ['odd', 'single']
    assert list(result['sets']['odd']) == ['n', 'waics', 'case_insensitive', 'exact', 'ned']
    assert [s['n'] for s in result['sets'].values()] == [13, 1]


def test_ways_to_evaluate(tmp_path, trained, words):
    "A subset by list, pictures of the result, published peers, other rules"
    some = tmp_path / 'some.txt'
    some.write_text('0.png\n5.png\n', encoding='utf-8')
    command = 'evaluate', '--weights', trained / 'r', '--data', words
    code, stdout, stderr = run(*command, '--subset', some, '--json', '--pictures', tmp_path / 'pictures')
    assert code == 0, stderr
    assert json.loads(stdout)['sets']['words']['n'] == 2
    drawn = {p.name for p in (tmp_path / 'pictures').iterdir()}
    assert drawn == {'calibration.png', 'breakdown.png', 'confusions.png', 'worst.png'}
    code, stdout, stderr = run(*command, '--confusions', '--least-confidence', '0')
    assert code == 0 and 'with confidence from 0: 100.00 % of the pictures are read' in stdout, stderr
    assert 'changes from label to reading' in stdout
    one_line_error(*run(*command, '--confusions', '--json'), 'leave out --json')
    some.write_text('0.png\nnone.png\n', encoding='utf-8')
    one_line_error(*run(*command, '--subset', some), 'none.png')
    one_line_error(*run(*command, '--peers'), 'words')
    one_line_error(*run(*command, '--rules', 'german'), 'english or chinese')
    one_line_error(*run('evaluate', '--weights', trained / 'r', '--union14m', words), 'Union14M-Benchmark')
    code, stdout, stderr = run(*command, '--tta', '--json')
    assert code == 0 and json.loads(stdout)['sets']['words']['n'] == 48, stderr
    iiit = write_words(tmp_path / 'IIIT5K_test', 4)
    code, stdout, stderr = run('evaluate', '--weights', trained / 'r', '--data', iiit, '--peers')
    assert code == 0, stderr
    assert 'LMIM' in stdout and 'this result' in stdout


def test_read_many(tmp_path, trained):
    "A folder and paths from stdin, with a broken picture, a missing one and a name that is no UTF-8 among them"
    folder, weights = write_words(tmp_path / 'words', 40), ('--weights', trained / 'r')
    (folder / '7.png').write_bytes(b'no picture')
    odd = os.fsencode(folder) + b'/odd\xff.png'
    with open(odd, 'wb') as f: f.write((folder / '1.png').read_bytes())
    code, stdout, stderr = run('read', folder, *weights, '--batch-size', 16)
    assert code == 1 and 'Traceback' not in stderr
    rows = [line.split('\t') for line in stdout.splitlines()]
    assert len(rows) == 40 and all(len(row) == 3 for row in rows)      # 39 and the odd one
    assert [row[0] for row in rows[:3]] == [str(folder / f'{i}.png') for i in (0, 1, 10)]
    assert '7.png cannot be read: unreadable' in stderr
    done = subprocess.run([sys.executable, '-m', 'mnsp', 'read', '-', *map(str, weights)], capture_output=True,
                          input=(folder / '1.png').read_bytes())
    assert done.returncode == 0 and done.stdout.decode().split('\t')[0] == '-', done.stderr
    names = '\n'.join(map(str, [folder / '1.png', folder / 'none.png', folder / '2.png']))
    code, stdout, stderr = process('read', '-', *weights, '--json', '--no-tta', '--attention', tmp_path / 'a.png', input=names)
    first, missing, last = map(json.loads, stdout.splitlines())
    assert code == 1 and missing == dict(file=str(folder / 'none.png'), error='missing')
    assert (first['file'], last['file']) == (str(folder / '1.png'), str(folder / '2.png'))
    assert len(first['positions']) == len(first['confidences']) == len(first['text']) and 0 <= first['confidence'] <= 1
    assert (tmp_path / 'a.png').stat().st_size > 1000


def test_read_with_the_packaged_weights_and_a_lexicon(words, tmp_path):
    lexicon = tmp_path / 'words.txt'
    lexicon.write_text('One\ntwo\n', encoding='utf-8-sig')
    code, stdout, stderr = run('read', words / '0.png', words / '1.png', '--lexicon', lexicon)
    assert code == 0, stderr
    assert {line.split('\t')[1] for line in stdout.splitlines()} <= {'One', 'two'}


def test_read_into_a_closed_pipe(words):
    done = subprocess.run(f'"{sys.executable}" -m mnsp read "{words}" --batch-size 4 | head -1', shell=True, capture_output=True,
                          text=True)
    assert len(done.stdout.splitlines()) == 1 and 'Traceback' not in done.stderr and 'Broken pipe' not in done.stderr


def test_options_may_lie_in_a_file(tmp_path, words):
    "--save-config writes them, --config takes them, the command line goes first"
    file = tmp_path / 'run.toml'
    given = '--preset', 'nano', '--steps', 3, '--set', 'mask_ratio=.6', '--batch-size', 8, '--workers', 0
    given = *given, '--data', words, '--data', words, '--out', tmp_path / 'a'
    code, stdout, stderr = run('pretrain', *given, '--save-config', file)
    assert (code, (tmp_path / 'a').exists()) == (0, False), stderr
    code, stdout, stderr = run('pretrain', '--config', file, '--steps', 2, '--out', tmp_path / 'b')
    assert code == 0, stderr
    made = json.loads((tmp_path / 'b/run.json').read_text(encoding='utf-8'))['settings']
    assert [made[k] for k in ('steps', 'batch_size', 'preset', 'settings')] == [2, 8, 'nano', ['mask_ratio=.6']]
    assert len(made['data']) == 2
    wrong = {'stepz = 3': 'is it steps?', 'steps = [3]': 'one value', 'steps = "many"': 'steps', 'steps': 'as TOML'}
    for text, said in wrong.items():
        file.write_text(text, encoding='utf-8')
        code, stdout, stderr = run('pretrain', '--config', file, '--data', words, '--out', tmp_path / 'c')
        assert code and said in stderr and 'Traceback' not in stderr, stderr
