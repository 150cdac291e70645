"A run that is killed at any moment goes on as if nothing had happened; one that cannot write says so and loses nothing."
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from importlib.util import find_spec

import pytest
import torch
from test_cli import write_words

from mnsp.checkpoints import checkpoints, flatten, heading, load_state

# children are forked from a process that has imported everything, so that a start takes no time
FORK = multiprocessing.get_context('forkserver')
FORK.set_forkserver_preload(['mnsp.cli', 'mnsp.checkpoints', 'mnsp.demo', 'mnsp.finetune', 'mnsp.guidance', 'mnsp.hub'])
pytestmark = pytest.mark.skipif(os.name == 'nt', reason='signals and limits differ on Windows')


def command(args, said, largest):
    "What the child does: `mnsp ARGS`, stderr into a file, no file larger than so many bytes if given"
    from mnsp import cli
    multiprocessing.set_start_method('fork', force=True)             # of reading processes: as in a process of its own
    torch.set_num_threads(1)
    sys.stderr = open(said, 'a', buffering=1)
    if largest: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    sys.argv = ['mnsp', *map(str, args)]
    cli.main()


def start(args, said=os.devnull, largest=None):
    process = FORK.Process(target=command, args=(args, said, largest))
    process.start()
    return process


def finish(process):
    process.join(120)
    assert process.exitcode is not None, 'hangs'
    return process.exitcode


def wait_for_checkpoint(process, out):
    "Until there is another one"
    before = checkpoints(out / 'checkpoints')[-1:]
    limit = time.monotonic() + 120
    while process.is_alive() and checkpoints(out / 'checkpoints')[-1:] == before and time.monotonic() < limit: time.sleep(.01)


def pace(out):
    "Seconds that a step of a finished run took, as its log has it"
    step, seconds, *_ = (out / 'log.csv').read_text().splitlines()[-1].split(',')
    return float(seconds) / float(step)


def run_with_deaths(args, out, deaths, seed, step=.08):
    "Resume and kill so many times, up to three steps of `step` seconds after a checkpoint; then to the end. Where it was killed"
    rng, killed = random.Random(seed), []
    while True:
        process = start([*args, '--out', out, '--resume'])
        if len(killed) < deaths:
            wait_for_checkpoint(process, out)
            time.sleep(rng.uniform(0, 3 * step))
            process.kill()
        code = finish(process)
        if code == 0: return killed
        assert code == -signal.SIGKILL
        killed.append(heading(checkpoints(out / 'checkpoints')[-1])['step'])


def log(out):
    "The log without its clock"
    rows = [line.split(',') for line in (out / 'log.csv').read_text().splitlines()]
    return [row[:1] + row[2:] for row in rows]


def same_end(a, b):
    "Two runs ended alike: weights and log, and in the last checkpoint optimizer, position and random states"
    assert (a / 'model.safetensors').read_bytes() == (b / 'model.safetensors').read_bytes()
    assert log(a) == log(b)
    (x, rest_x), (y, rest_y) = (flatten(load_state(checkpoints(out / 'checkpoints')[-1])) for out in (a, b))
    assert x.keys() == y.keys() and len(x) > 100
    for name in x: assert torch.equal(x[name], y[name]), name
    assert str(rest_x).count('seconds') == str(rest_y).count('seconds')


@pytest.fixture(scope='module')
def words(tmp_path_factory): return write_words(tmp_path_factory.mktemp('data') / 'words', 40)


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory, words):
    "An uninterrupted run, and its command"
    args = ['pretrain', '--data', words, '--preset', 'nano', '--optimizer', 'muon', '--steps', 41, '--batch-size', 8,
            '--workers', 2, '--checkpoint-every', 2, '--clip', 1.]
    out = tmp_path_factory.mktemp('once') / 'run'
    assert finish(start([*args, '--out', out])) == 0
    return args, out


def test_pretraining_survives_kills(pretrained, tmp_path):
    args, once = pretrained
    killed = run_with_deaths(args, tmp_path / 'run', 3, seed=0, step=pace(once))
    assert len(killed) >= 2
    same_end(once, tmp_path / 'run')
    assert [r[0] for r in log(once)] == ['step', '10', '20', '30', '40', '41']
    assert len(checkpoints(once / 'checkpoints')) == 2


def test_two_stages_by_epochs_from_a_stream_survive_kills(words, tmp_path):
    args = ['pretrain', '--data', words, '--method', 'lmim', '--preset', 'nano', '--teacher', 'mae', '--epochs', 5, '--stream',
            '--batch-size', 8, '--accumulate', 2, '--workers', 1, '--checkpoint-every', 1, '--seed', 3]
    assert finish(start([*args, '--out', tmp_path / 'once' / 'run'])) == 0
    # killed three times in the first stage, then in the second
    killed = run_with_deaths(args, tmp_path / 'run', 3, seed=1, step=.03)
    same_end(tmp_path / 'once' / 'run', tmp_path / 'run')
    same_end(tmp_path / 'once' / 'run' / 'teacher', tmp_path / 'run' / 'teacher')
    assert len(killed) >= 2


def test_fine_tuning_survives_kills(pretrained, words, tmp_path):
    args = ['finetune', '--data', words, '--encoder', pretrained[1] / 'encoder', '--steps', 60, '--batch-size', 8, '--workers', 2,
            '--short-first', .7, '--ctc', .5, '--average', .9, '--checkpoint-every', 2]
    assert finish(start([*args, '--out', once := tmp_path / 'once' / 'run'])) == 0
    killed = run_with_deaths(args, tmp_path / 'run', 3, seed=2, step=pace(once))
    assert len(killed) >= 2
    same_end(once, tmp_path / 'run')


@pytest.mark.parametrize('ask', [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_is_a_clean_stop(pretrained, tmp_path, ask):
    args, once = pretrained
    out = tmp_path / 'run'
    process = start([*args, '--out', out])
    wait_for_checkpoint(process, out)
    os.kill(process.pid, ask)
    assert finish(process) == 130
    stopped = heading(checkpoints(out / 'checkpoints')[-1])
    assert not stopped['done'] and (out / 'encoder' / 'model.safetensors').is_file()
    assert finish(start([*args, '--out', out])) == 1                # not overwritten without being asked
    assert heading(checkpoints(out / 'checkpoints')[-1]) == stopped
    assert finish(start([*args, '--out', out, '--resume'])) == 0
    same_end(once, out)


def test_a_full_disk_costs_nothing(pretrained, tmp_path):
    "Files may not grow beyond what the log and a batch need: writing a checkpoint breaks off half-way, as on a full disk"
    args, once = pretrained
    out, said = tmp_path / 'run', tmp_path / 'said'
    process = start([*args, '--out', out])
    wait_for_checkpoint(process, out)
    process.kill()
    finish(process)
    before = {p.name: p.read_bytes() for p in checkpoints(out / 'checkpoints')}
    assert finish(start([*args, '--out', out, '--resume'], said, largest=400_000)) == 1      # nor could the weights be written
    assert 'could not be written' in said.read_text() and f'the last good one is {list(before)[-1]}' in said.read_text()
    assert said.read_text().splitlines()[-1].startswith('mnsp: ') and 'Traceback' not in said.read_text()
    assert {p.name: p.read_bytes() for p in checkpoints(out / 'checkpoints')} == before
    assert all(p.stat().st_size < 400_000 for p in out.rglob('.*'))  # nothing half-written but what the kill left
    assert finish(start([*args, '--out', out, '--resume'])) == 0
    same_end(once, out)


def test_other_settings_are_refused(pretrained, tmp_path):
    args, once = pretrained
    other = [12 if a == 41 else a for a in args]
    assert finish(start([*other, '--out', once, '--resume'], tmp_path / 'said')) == 1
    assert 'steps was 41, is 12' in (tmp_path / 'said').read_text()
    assert json.loads((once / 'config.json').read_text())['kind'] == 'Pretrainer'


def test_curves_of_runs(pretrained, tmp_path):
    _, once = pretrained
    assert finish(start(['plot', once, once / 'log.csv', '--out', tmp_path / 'curves.png'])) == 0
    assert (tmp_path / 'curves.png').stat().st_size > 10_000
    assert finish(start(['plot', tmp_path], tmp_path / 'said')) == 1
    assert 'no log.csv' in (tmp_path / 'said').read_text()
    if find_spec('tensorboard'): assert list((once / 'tensorboard').glob('events.*'))
