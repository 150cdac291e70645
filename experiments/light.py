"""What reading one word costs from the start of the process: `python experiments/light.py ENVS`, a minute; a table and a CSV.

Processor time and largest memory of a process that starts, loads a reader, reads a word and ends: the best of so many
interleaved rounds, on one core. Commands of ours, and readers that people install (ENVS is what `peers.py install` made;
those that are missing are left out). Below, sizes of what is downloaded or loaded: the weights, the exported reader, this
package as a wheel, and with `--site docs/_build/html`, which `make docs` builds, all that the page that reads words loads.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mnsp.files import write_rows
from mnsp.graph import export_onnx
from mnsp.lab.study import script_options
from mnsp.pictures import packaged_weights
from mnsp.reading import Recognizer, samples

ours = [sys.executable, '-m', 'mnsp', 'read']
v6 = 'from rapidocr import RapidOCR; import sys; RapidOCR()(sys.argv[1], use_det=False, use_cls=False, use_rec=True)'
v4 = 'from rapidocr_onnxruntime import RapidOCR; import sys; RapidOCR()(sys.argv[1], use_det=False, use_cls=False)'

def commands(word, envs, folder):
    "name -> what is run"
    found = {'mnsp read': [*ours, word], 'mnsp read, int8': [*ours, word, '--weights', folder/'reader-int8.onnx'],
             'mnsp read, with PyTorch': [*ours, word, '--beams', '2']}
    for name, env, program in (('PP-OCRv6 small', 'v6', v6), ('PP-OCRv4 mobile', 'v4', v4)):
        python = envs/env/'bin'/'python'
        if python.exists(): found[name] = [python, '-c', program, word]
    if shutil.which('tesseract'): found['Tesseract 5'] = ['tesseract', word, '-', '--psm', '8']
    return found

# in a small process of its own, since a child begins with the memory of what started it
measure = """import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(code, used.ru_utime+used.ru_stime, used.ru_maxrss/1e3)"""

def cost(command):
    "Seconds of the processor, megabytes"
    done = subprocess.run([sys.executable, '-S', '-c', measure, *map(str, command)], capture_output=True, text=True, check=True)
    code, seconds, megabytes = map(float, done.stdout.split())
    if code: raise RuntimeError(f'{command}: exit code {code:g}')
    return seconds, megabytes

def wheel(folder):
    "The package as a wheel, built from a copy, so that nothing is left in the tree"
    root, tree = Path(__file__).parent.parent, folder/'tree'
    shutil.copytree(root/'mnsp', tree/'mnsp', ignore=shutil.ignore_patterns('__pycache__'))
    for name in 'settings.ini setup.py pyproject.toml MANIFEST.in LICENSE README.md CHANGELOG.md constraints.txt'.split():
        shutil.copy(root/name, tree)
    command = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-index', '--no-build-isolation']
    subprocess.run([*command, '--wheel-dir', folder, tree], check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob('*.whl'))

def page(site):
    "All files that the page which reads words loads"
    named = re.findall(r'(?:src|href)="(_static/[^"?#]+)', (site/'try.html').read_text(encoding='utf-8'))
    found = [site/'try.html', *(site/name for name in set(named)), *(site/'_static/reader').iterdir(),
             *(site/'_static/onnxruntime').iterdir()]
    return [file for file in found if file.is_file()]

def sizes(folder, site):
    "name -> megabytes"
    files = {'weights': [packaged_weights()/'model.safetensors'], 'their graph': [packaged_weights()/'graph.onnx'],
             'exported': [folder/'reader.onnx'], 'exported, int8': [folder/'reader-int8.onnx'], 'wheel': [wheel(folder)]}
    if site: files['page that reads'] = page(site)
    return {name: sum(file.stat().st_size for file in some)/1e6 for name, some in files.items()}

def main():
    parser = script_options(__doc__, __file__)
    parser.add_argument('envs', type=Path, nargs='?', default=Path('envs'))
    parser.add_argument('--site', type=Path, help="folder of the built site; left out: the page is not measured")
    parser.add_argument('--rounds', type=int, default=5)
    given = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS='1')
    if hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        folder, reader = Path(name), Recognizer.from_pretrained()
        for file, how in (('reader.onnx', {}), ('reader-int8.onnx', dict(int8=True))): export_onnx(reader, folder/file, **how)
        run = commands(samples()[0], given.envs, folder)
        found = {name: [] for name in run}
        for _ in range(given.rounds):
            for name, command in run.items(): found[name].append(cost(command))
        rows = [dict(what=name, seconds=round(min(s for s, _ in c), 2), megabytes=round(min(m for _, m in c)))
                for name, c in found.items()]
        rows += [dict(what=name, seconds='', megabytes=round(size, 2)) for name, size in sizes(folder, given.site).items()]
    for row in rows: print(f"{row['what']:26}{row['seconds']!s:>8} s {row['megabytes']:>8} MB")
    write_rows(given.out, rows)

if __name__ == '__main__': main()
