"""The packaged reader beside what people install, on the same word crops, by one scorer, at the same time.

    peers.py install ENVS                            environments of the peers, by pip; Tesseract comes with the system
    peers.py accuracy ENVS --data SET … [--out CSV]  words read right: WAICS, exact
    peers.py speed ENVS --data SET [--out CSV]       words/s from file to text, one core, batches of 1 and 32, interleaved

SET is a folder of word crops with labels, as the package opens it. Every reader runs in a process of its own and is given
the same files; only recognisers are compared, no detectors. Texts are compared without white space, since readers of words
differ in whether they write it. Weights of ours: --weights, the packaged ones if left out; `mnsp` reads as `mnsp read` does
(tall pictures in three rotations, unsure words in three crops, weighed by a list of words), `mnsp, no prior` without the
list, `mnsp, plain` without the crops as well; `mnsp, without PyTorch` and `mnsp, int8` read as `mnsp` does by the exported
reader, in float32 and in whole numbers; `mnsp, ONNX` reads every picture in one view.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

peers = { # name -> environment, what is installed there
    'PP-OCRv6 small': ('v6', ['rapidocr==3.10.*', 'onnxruntime']),
    'PP-OCRv4 mobile': ('v4', ['rapidocr_onnxruntime==1.4.4']),
    'Tesseract 5': (None, []),
    **{f'mnsp{how}': (None, []) for how in ('', ', no prior', ', plain', ', ONNX', ', without PyTorch', ', int8')}}

# ------------------------------------------------------------------------------- readers: files -> texts, in their process

def picture(file):
    "uint8 [H, W, 3], blue first, as OpenCV has it"
    import numpy as np
    from PIL import Image
    return np.ascontiguousarray(np.asarray(Image.open(file).convert('RGB'))[..., ::-1])

def ppocr_v6(batch, weights):
    from rapidocr import RapidOCR
    from rapidocr.ch_ppocr_rec.typings import TextRecInput
    engine = RapidOCR(params={'Global.log_level': 'critical', 'EngineConfig.onnxruntime.intra_op_num_threads': 1,
                              'Rec.rec_batch_num': batch})
    recognise = engine._load_rec_model()                            # its public way takes one picture at a time
    return lambda files: recognise(TextRecInput(img=[picture(f) for f in files])).txts

def ppocr_v4(batch, weights):
    from rapidocr_onnxruntime import RapidOCR
    engine = RapidOCR(intra_op_num_threads=1)
    engine.text_rec.rec_batch_num = batch
    return lambda files: [text for text, *_ in engine.text_rec([picture(f) for f in files])[0]]

def tesseract(batch, weights):
    def read(files): # one process for all of them: starting it takes longer than reading a word
        with tempfile.NamedTemporaryFile('w', suffix='.txt') as listed:
            listed.write('\n'.join(files)); listed.flush()
            out = subprocess.run(['tesseract', listed.name, '-', '--psm', '8', '-l', 'eng'], capture_output=True, text=True,
                                 env=dict(os.environ, OMP_THREAD_LIMIT='1'), check=True).stdout
        return out.split('\f')[:len(files)]
    return read

def ours(batch, weights, **how):
    import torch

    from mnsp import Recognizer
    from mnsp.decoding import rounded_weights
    torch.set_num_threads(1)
    reader = rounded_weights(Recognizer.from_pretrained(weights or None)) # as the command does
    return lambda files: [r.text for r in reader.read(files, batch_size=batch, **how)]

def exported(weights, **how):
    from mnsp import Recognizer
    from mnsp.graph import export_onnx
    from mnsp.onnx import OnnxReader
    with tempfile.TemporaryDirectory() as folder:
        return OnnxReader(export_onnx(Recognizer.from_pretrained(weights or None), Path(folder)/'reader.onnx', **how), threads=1)

def ours_as_read(batch, weights, **how):
    reader = exported(weights, **how)
    return lambda files: [r.text for r in reader.read(files, batch_size=batch)]

def ours_onnx(batch, weights):
    import numpy as np
    from PIL import Image
    reader = exported(weights)
    height, width = reader.cfg.encoder.img_size
    def resized(file): return np.asarray(Image.open(file).convert('RGB').resize((width, height), Image.BICUBIC))
    return lambda files: [t for t, _ in reader.read_batch(np.stack([resized(f) for f in files]).transpose(0, 3, 1, 2))]

readers = dict(zip(peers, (ppocr_v6, ppocr_v4, tesseract, ours, partial(ours, prior=False),
                           partial(ours, tta=False, prior=False), ours_onnx, ours_as_read, partial(ours_as_read, int8=True))))

def work(name, batch, weights):
    "Answer lines of JSON, lists of files, with texts and seconds, until there are no more"
    answer, sys.stdout = sys.stdout, sys.stderr                     # libraries may print what they like
    read = readers[name](batch, weights)
    for line in sys.stdin:
        files, start = json.loads(line), time.perf_counter()
        if name == 'Tesseract 5': batch = len(files)                # it takes a list by itself
        texts = [text for k in range(0, len(files), batch) for text in read(files[k:k+batch])]
        print(json.dumps(dict(texts=texts, seconds=time.perf_counter()-start)), file=answer, flush=True)

class Peer:
    "A reader in a process of its own"
    def __init__(self, name, envs, batch, weights):
        env = peers[name][0]
        python = Path(envs)/env/'bin'/'python' if env else sys.executable
        self.process = subprocess.Popen([python, __file__, 'work', str(envs), '--name', name, '--batch', str(batch),
                                         '--weights', weights or ''], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
    def read(self, files): # -> texts, seconds
        self.process.stdin.write(json.dumps([str(f) for f in files])+'\n'); self.process.stdin.flush()
        if not (line := self.process.stdout.readline()): raise RuntimeError(f'{self.process.args}: it ended')
        answer = json.loads(line)
        if len(answer['texts']) != len(files): raise RuntimeError(f'{self.process.args}: {len(files)} files, other texts')
        return answer['texts'], answer['seconds']

# ----------------------------------------------------------------------------------------------------------------- steps

def install(envs):
    for env, packages in peers.values():
        if not env or (envs/env/'done').exists(): continue
        subprocess.run([sys.executable, '-m', 'venv', envs/env], check=True)
        subprocess.run([envs/env/'bin'/'python', '-m', 'pip', 'install', '-q', *packages], check=True)
        (envs/env/'done').touch()

def words(folder, subset=None):
    "Files and texts of a set; those with case and marks where there are such"
    from mnsp.sources import open_source
    folder = Path(folder)
    cased = folder/'labels_casesensitive.tsv'
    source = open_source(cased if cased.exists() else folder)
    return [source.path_of(source.name(i)) for i in range(len(source))], [source.label(i) for i in range(len(source))]

def parts(folder, files):
    "The whole set, and what lists beside it choose (subset_1811.txt): name, indices"
    yield folder.name, range(len(files))
    for listed in sorted(folder.glob('subset_*.txt')):
        names = set(listed.read_text(encoding='utf-8').split())
        yield f'{folder.name} {listed.stem[7:]}', [i for i, file in enumerate(files) if Path(file).name in names]

def without_spaces(text): return ''.join(text.split())

def accuracy(envs, data, weights, only):
    "Rows of reader, set, words, WAICS, exact"
    from mnsp.evaluate import score
    for name in only or peers:
        peer, rows = Peer(name, envs, 32, weights), []
        for folder in data:
            files, true = words(folder)
            read, _ = peer.read(files)
            for part, chosen in parts(Path(folder), files):
                found = score([without_spaces(read[i]) for i in chosen], [without_spaces(true[i]) for i in chosen])
                rows.append(dict(reader=name, set=part, words=len(chosen), waics=round(found['waics'], 2),
                                 exact=round(found['exact'], 2)))
        whole = [row for row in rows if ' ' not in row['set']]
        mean = {k: round(sum(row[k] for row in whole)/len(whole), 2) for k in ('waics', 'exact')}
        yield from [*rows, dict(reader=name, set='average', words=sum(row['words'] for row in whole), **mean)]

def speed(envs, data, weights, only, n=256, rounds=5):
    "Rows of reader, batch, words/s: median of interleaved rounds, all on the core this process is pinned to"
    if hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    files = words(data[0])[0][:n]
    for batch in 1, 32:
        running = {name: Peer(name, envs, batch, weights) for name in only or peers}
        for peer in running.values(): peer.read(files[:32])         # warm up
        seconds = {name: [] for name in running}
        for _ in range(rounds):
            for name, peer in running.items(): seconds[name].append(peer.read(files)[1])
        for name, taken in seconds.items():
            taken = sorted(len(files)/s for s in taken)
            yield dict(reader=name, batch=batch, words=len(files), slowest=round(taken[0], 1),
                       median=round(taken[rounds//2], 1), fastest=round(taken[-1], 1))
        for peer in running.values(): peer.process.kill()

def main():
    "The command line"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('step', choices=['install', 'accuracy', 'speed', 'work'])
    parser.add_argument('envs', type=Path, help='folder of the environments')
    parser.add_argument('--data', nargs='+', default=[], help='folders of word crops')
    parser.add_argument('--weights', default='', help="of ours; left out: the packaged ones")
    parser.add_argument('--only', nargs='+', choices=peers, help='these readers')
    parser.add_argument('--out', type=Path, help='CSV file to add the rows to')
    parser.add_argument('--name', help=argparse.SUPPRESS)
    parser.add_argument('--batch', type=int, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.step == 'install': return install(a.envs)
    if a.step == 'work': return work(a.name, a.batch, a.weights)
    from mnsp.lab.study import append_rows  # a peer's environment has no mnsp
    for row in dict(accuracy=accuracy, speed=speed)[a.step](a.envs, a.data, a.weights, a.only):
        print(*row.values(), sep='\t', flush=True)
        if a.out: append_rows(a.out, [row])

if __name__ == '__main__': main()
