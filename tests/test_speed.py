"""The throughput script at its smallest: every row is complete, and is kept."""
import csv
import os
import subprocess
import sys
from pathlib import Path

root = Path(__file__).parents[1]


def test_throughput_rows(tmp_path):
    out = tmp_path / 'rows.csv'
    told = subprocess.run([sys.executable, 'experiments/throughput.py', '--device', 'cpu', '--sizes', 'tiny', '--methods', 'LMIM',
                           'MNSP', '--batch-size', '4', '--rounds', '1', '--steps', '1', '--out', str(out)], cwd=root,
                          env={**os.environ, 'PYTHONPATH': str(root)}, capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stderr
    rows = list(csv.DictReader(open(out, encoding='utf-8')))
    assert [(r['method'], r['variant']) for r in rows] == [(m, v) for m in ('LMIM', 'MNSP') for v in ('first loop', 'fast')]
    for r in rows:
        assert float(r['images_per_s']) > 0 and r['torch'] and r['commit'] is not None and '--sizes tiny' in r['command']
        spent = [float(r[f'ms {part}']) for part in ('views', 'masked pass', 'guide pass', 'teacher', 'decoder', 'backward')]
        assert min(spent) > 0
    for slow, fast in zip(rows[::2], rows[1::2]):
        assert int(fast['reads']) == 0 < int(slow['reads']) and int(fast['operations']) < int(slow['operations'])
    assert float(rows[3]['gflop_per_image']) < 1.35 * float(rows[1]['gflop_per_image'])   # MNSP costs little more than LMIM
    assert float(rows[2]['gflop coarse passes']) > 0
