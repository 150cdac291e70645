"Two processes as one run: the same curve as one with twice the batch, one log, and a clean end when one of them is killed."
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from test_cli import write_words
from test_resume import log, same_end

from mnsp.checkpoints import checkpoints, heading

FORK = multiprocessing.get_context('forkserver')
pytestmark = pytest.mark.skipif(os.name == 'nt', reason='gloo and signals differ on Windows')


def child(rank, world, port, work, args):
    "What a process does; `torchrun` sets these variables too"
    multiprocessing.set_start_method('fork', force=True)             # of reading processes: as in a process of its own
    torch.set_num_threads(1)
    sys.stderr = sys.stdout = open(os.devnull, 'w')
    if world > 1: os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR='127.0.0.1',
                                     MASTER_PORT=str(port))
    work(*args)


def run(world, work, *args):
    "Exit codes of so many processes"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    processes = [FORK.Process(target=child, args=(rank, world, port, work, args)) for rank in range(world)]
    for p in processes: p.start()
    for p in processes: p.join(300)
    for p in processes: p.kill()                                     # where one waits for ever
    return [p.exitcode for p in processes]


def fixed_masks(out, batch_size):
    "A run in which nothing is drawn that depends on the process: MAE with one mask for all"
    from mnsp.data import WordDataset, word_loader
    from mnsp.machine import processes, rank
    from mnsp.pretrain import Pretrainer, mae
    from mnsp.scale_out import Parallel, together
    from mnsp.synth import SynthWords, demo_world
    from mnsp.training import History, pretrain
    with together():
        torch.manual_seed(0)
        model = Pretrainer(mae('nano'))
        model.draw_keep = lambda images, scale: torch.arange(0, 64, 4).expand(len(images), -1)
        words = WordDataset(SynthWords(demo_world(), 50, seed=0))
        loader = word_loader(words, batch_size, shuffle=True, drop_last=True, rank=rank(), world=processes())
        pretrain(model, loader, lr=1e-3, steps=10, clip=1., cbs=[Parallel()] if processes() > 1 else [],
                 history=History(every=1, path=out / 'log.csv' if rank() == 0 else None))


def test_same_curve_as_one_process_with_twice_the_batch(tmp_path):
    curves = []
    for world, batch_size in ((1, 16), (2, 8)):
        out = tmp_path / str(world)
        out.mkdir()
        assert run(world, fixed_masks, out, batch_size) == [0] * world
        curves.append(torch.tensor([float(row[1]) for row in log(out)[1:]]))
    assert len(curves[0]) == 10 and curves[0][-1] < curves[0][0]
    assert torch.allclose(*curves, rtol=1e-3), curves


def uneven_streams(out, batch_size):
    "A run by the clock over 31 words: a pass has two batches in one process and one in the other"
    from mnsp.data import word_loader
    from mnsp.machine import processes, rank
    from mnsp.pretrain import Pretrainer, mae
    from mnsp.scale_out import Parallel, together
    from mnsp.streams import SourceStream, WordStream
    from mnsp.synth import SynthWords, demo_world
    from mnsp.training import History, pretrain
    with together():
        stream = WordStream(SourceStream(SynthWords(demo_world(), 31, seed=0), rank(), processes(), True, 0))
        loader = word_loader(stream, batch_size, drop_last=True)
        pretrain(Pretrainer(mae('nano')), loader, lr=1e-3, minutes=.05, cbs=[Parallel()],
                 history=History(every=1, path=out / str(rank()) / 'log.csv'))


def test_a_budget_of_minutes_ends_streams_of_different_length(tmp_path):
    "What processes tell each other about time must not meet what they tell about gradients"
    for rank in '01': (tmp_path / rank).mkdir()
    assert run(2, uneven_streams, tmp_path, 8) == [0, 0]
    first, second = (log(tmp_path / rank) for rank in '01')
    assert len(first) == len(second) > 3


@pytest.fixture(scope='module')
def words(tmp_path_factory): return write_words(tmp_path_factory.mktemp('data') / 'words', 40)


def test_a_killed_process_ends_the_run_and_it_resumes(words, tmp_path):
    "By torchrun; afterwards the end is that of a run in which nothing happened"
    args = ['pretrain', '--data', words, '--preset', 'nano', '--steps', 12, '--batch-size', 4, '--workers', 1,
            '--checkpoint-every', 2, '--resume', '--out', tmp_path / 'run']
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2', '-m', 'mnsp']
    process = subprocess.Popen([*torchrun, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    folder, limit = tmp_path / 'run' / 'checkpoints', time.monotonic() + 240
    while not checkpoints(folder) and process.poll() is None and time.monotonic() < limit: time.sleep(.05)
    workers = children(process.pid)
    os.kill(workers[-1], signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0, said
    assert not [pid for pid in workers if os.path.exists(f'/proc/{pid}')]
    assert not heading(checkpoints(folder)[-1])['done']
    once = [tmp_path / 'once' / 'run' if a == tmp_path / 'run' else a for a in args]
    for command in (args, once): assert run(2, mnsp, command) == [0, 0]
    same_end(tmp_path / 'once' / 'run', tmp_path / 'run')
    assert [row[0] for row in log(tmp_path / 'run')] == ['step', '10', '12']


def children(pid):
    "Processes that `pid` started"
    with open(f'/proc/{pid}/task/{pid}/children') as f: return [int(p) for p in f.read().split()]


def mnsp(args):
    from mnsp import cli
    sys.argv = ['mnsp', *map(str, args)]
    cli.main()
