"""What differs on Windows and Macs, as far as it can be tried on Linux."""
import os
import subprocess
import sys

import pytest
from PIL import Image

fcntl = pytest.importorskip('fcntl')

SPAWNING = """
import multiprocessing, sys
if __name__ == '__main__':
    multiprocessing.set_start_method('spawn') # as on Windows and Macs
    from mnsp.cli import main
    main()
"""


@pytest.fixture
def words(tmp_path):
    "Eight labelled pictures"
    (tmp_path / 'words').mkdir()
    for k in range(8): Image.new('RGB', (40 + k, 16), (30 * k, 0, 0)).save(tmp_path / 'words' / f'{k}.png')
    (tmp_path / 'words' / 'labels.tsv').write_text(''.join(f'{k}.png\tword{k}\n' for k in range(8)))
    return tmp_path / 'words'


def spawning(tmp_path, *args):
    (tmp_path / 'spawning.py').write_text(SPAWNING)
    command = [sys.executable, tmp_path / 'spawning.py', *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stderr
    return done.stdout


def test_workers_that_are_spawned(words, tmp_path):
    from mnsp.stores import convert
    convert(words, tmp_path / 'words.lmdb', bar=False)
    assert spawning(tmp_path, 'data', 'check', words, '--workers', 1).startswith('pictures')
    spawning(tmp_path, 'finetune', '--data', words, '--data', tmp_path / 'words.lmdb', '--out', tmp_path / 'run', '--steps', 2,
             '--batch-size', 4, '--workers', 1, '--device', 'cpu')
    assert (tmp_path / 'run' / 'model.safetensors').is_file()


def test_windows_moves_no_folder_with_an_open_file(words, tmp_path, monkeypatch):
    from mnsp import files
    from mnsp.stores import cache, convert
    move = os.replace
    def replace(old, new):
        here = [os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}')]
        mapped = open('/proc/self/maps').read()
        assert not any(path.startswith(f'{old}/') for path in here) and f'{old}/' not in mapped, 'Windows would refuse'
        move(old, new)
    monkeypatch.setattr(files, 'fcntl', None)
    monkeypatch.setattr(os, 'replace', replace)
    if sys.platform != 'linux': pytest.skip('looks into /proc')
    convert(words, tmp_path / 'words.lmdb', bar=False)
    convert(words, tmp_path / 'folder', bar=False)
    cache(words, tmp_path / 'cache', bar=False)
    with files.locked(tmp_path), pytest.raises(BlockingIOError, match='by this process'), files.locked(tmp_path): pass


def test_windows_flushes_what_may_be_written(tmp_path, monkeypatch):
    from mnsp.files import write_atomically
    flush = os.fsync
    def fsync(descriptor):
        if os.path.isfile(f'/proc/self/fd/{descriptor}'): assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        flush(descriptor)
    monkeypatch.setattr(os, 'fsync', fsync)
    write_atomically(tmp_path / 'file', lambda p: p.write_text('whole'))
    assert (tmp_path / 'file').read_text() == 'whole'
