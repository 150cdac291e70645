"Faults on demand: the k-th fsync, rename, unlink or write fails as on a sick disk, or the process dies in it."
import builtins
import errno
import io
import os
import signal
from contextlib import ExitStack
from unittest import mock

CALLS = {'fsync': ['os.fsync'], 'rename': ['os.rename', 'os.replace'], 'unlink': ['os.unlink', 'os.remove'], 'write': []}


class Fault:
    """The `k`-th `call` (and, if it `lasts`, each one after it) fails: `how` is an errno, or 'kill'.

    'write' counts what Python's own files write, and safetensors' files, of which half gets written."""
    def __init__(self, call, k=1, how=errno.EIO, lasts=False):
        if call not in CALLS: raise ValueError(f"{call!r}: give one of {', '.join(CALLS)}")
        self.call, self.k, self.how, self.lasts, self.seen = call, k, how, lasts, 0

    @property
    def met(self): return self.seen >= self.k

    def strikes(self):
        self.seen += 1
        return self.seen == self.k or self.lasts and self.seen > self.k

    def fail(self, path=None):
        if self.how == 'kill': os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(self.how, os.strerror(self.how), *([os.fspath(path)] if isinstance(path, (str, os.PathLike)) else []))

    def instead(self, original):
        def call(*args, **kwargs):
            if self.strikes(): self.fail(args[0] if args else None)
            return original(*args, **kwargs)
        return call

    def __enter__(self):
        with ExitStack() as stack:
            for name in CALLS[self.call]:
                stack.enter_context(mock.patch(name, self.instead(getattr(os, name.partition('.')[2]))))
            if self.call == 'write':
                for module in builtins, io: stack.enter_context(mock.patch.object(module, 'open', self.opened(open)))
                import safetensors.torch
                stack.enter_context(mock.patch('safetensors.torch.serialize_file',
                                               self.serialized(safetensors.torch.serialize_file)))
            self.patches = stack.pop_all()
        return self

    def __exit__(self, *_): self.patches.close()

    def opened(self, original):
        "`open` whose files count what they write"
        fault = self
        class Raw(io.FileIO):
            def write(self, data):
                if fault.strikes(): fault.fail(self.name)
                return super().write(data)
        def call(file, mode='r', buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
            if not set(mode) & set('wax+') or buffering == 0:
                return original(file, mode, buffering, encoding, errors, newline, closefd, opener)
            raw = Raw(file, mode.replace('b', '').replace('t', ''), closefd, opener)
            buffered = (io.BufferedRandom if '+' in mode else io.BufferedWriter)(raw)
            if 'b' in mode: return buffered
            return io.TextIOWrapper(buffered, encoding, errors, newline, line_buffering=buffering == 1)
        return call

    def serialized(self, original):
        "safetensors' writer, which is not Python's"
        def call(tensors, path, metadata=None):
            original(tensors, path, metadata)
            if self.strikes():
                os.truncate(path, os.path.getsize(path) // 2)
                if self.how == 'kill': self.fail()
                from safetensors import SafetensorError
                raise SafetensorError(f'I/O error: {os.strerror(self.how)} (os error {self.how})')
        return call

