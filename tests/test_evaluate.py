"Evaluation: cases counted by hand, several processes, Chinese rules, the package's published rows, real sets"
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from mnsp import evaluate as e
from mnsp.benchmarks import benchmarks, beside_peers, published, subset_from_list
from mnsp.diagnosis import by_length
from mnsp.labels import DataError, clean
from mnsp.lists import FolderSource


class Words:
    "One-coloured pictures whose colour is their place, so that a reader can know which it sees"
    labelled = True
    def __init__(self, texts, height=32): self.texts, self.height = texts, height
    def __len__(self): return len(self.texts)
    def __getitem__(self, i): return Image.new('RGB', (64, self.height), (i % 256, i // 256, 0)), self.texts[i]
    def label(self, i): return self.texts[i]
    def name(self, i): return f'{i}.png'


def place(image): return int(image[0, 0, 0]) + 256 * int(image[1, 0, 0])


# label, reading, then by hand: waics, case-insensitive, exact, similarity
CASES = [
    ('Hello', 'Hello', 1, 1, 1, 1),
    ('Hello', 'hello', 1, 1, 0, 4/5),                       # the case of one letter in five
    ("Don't", 'dont', 1, 0, 0, 3/5),                        # D/d and the apostrophe
    ('!?', '...', 1, 0, 0, 0),                              # punctuation only: WAICS sees two empty texts
    ('!?', '!?', 1, 1, 1, 1),
    ('!?', 'a', 0, 0, 0, 0),
    ('a', '', 0, 0, 0, 0),                                  # nothing read
    ('-', '', 1, 0, 0, 0),
    ('', '', 1, 1, 1, 1),                                   # an empty label, as sets of signs without text have
    ('', 'a', 0, 0, 0, 0),
    ('café', 'cafe', 0, 0, 0, 3/4),                         # é is dropped, e is not: caf against cafe
    ('café', 'CAFÉ', 1, 1, 0, 0),
    ('１２', '12', 0, 0, 0, 0),                               # full-width digits are no 0-9
    ('北京', '上海', 1, 0, 0, 0),
    ('c\ufffdt', 'ct', 1, 0, 0, 2/3),                       # an unknown character
    ('cat', 'c\ufffdt', 0, 0, 0, 2/3),
    ('K', '\u212a', 1, 1, 1, 1),                            # the Kelvin sign is the letter K, in another Unicode form
    ('café', 'cafe\u0301', 1, 1, 1, 1),                     # one character, or a letter and an accent
    ('word\r\n', ' word', 1, 1, 1, 1),                      # what stands around a label is no part of it
    ('x' * 24, 'x' * 24, 1, 1, 1, 1),
    ('x' * 25, 'x' * 24, 0, 0, 0, 24/25),                   # one more than fits into 25 places with the end mark
    ('x' * 25, 'x' * 25, 1, 1, 1, 1),
]


@pytest.mark.parametrize('true, pred, waics, lower, exact, ned', CASES)
def test_cases_counted_by_hand(true, pred, waics, lower, exact, ned):
    got = e.score([pred], [true])
    assert got == dict(n=1, waics=100 * waics, case_insensitive=100 * lower, exact=100 * exact,
                       ned=pytest.approx(100 * ned))


def test_all_cases_through_a_reader():
    "Long labels and unknown characters are neither left out nor cut; empty labels are left out, and told"
    source, told = Words([c[0] for c in CASES]), [c for c in CASES if c[0]]
    with pytest.warns(UserWarning, match='left out for want of a label that can be read: 2 of 22 pictures'):
        result = e.evaluate(lambda images: [(CASES[place(x)][1], .5) for x in images], {'cases': source}, batch_size=5,
                            bar=False)
    columns = list(zip(*told))
    assert result.sets['cases']['n'] == len(told) == len(CASES)-2
    for key, values in zip(('waics', 'case_insensitive', 'exact', 'ned'), columns[2:]):
        assert result.sets['cases'][key] == pytest.approx(100 * sum(values) / len(told))
    assert [(r.true, r.pred, r.index) for r in result.readings] == [
        (clean(c[0]), clean(c[1]) or '', i) for i, c in enumerate(CASES) if c[0]]
    assert 'labels without a letter' in result.table() and result.table().endswith('w_avg: mean over words')
    assert sum(g.n for g in by_length(result.readings)) == len(told)


def test_json_of_a_result():
    result = e.evaluate(lambda images: [('a', 1.)] * len(images), {'x': Words(['a', 'b']), 'y': Words(['a'])}, bar=False)
    d = json.loads(json.dumps(result.to_dict()))
    assert set(d) >= {'sets', 'avg', 'w_avg', 'convention'}
    assert d['sets']['x'] == dict(n=2, waics=50, case_insensitive=50, exact=50, ned=50)
    assert (d['avg'], d['w_avg']) == (75, pytest.approx(200 / 3))


def test_scores_of_everything_right_are_exactly_100():
    for n in (3, 7, 49, 857, 1015): assert e.score(['a'] * n, ['a'] * n)['waics'] == 100


# The worker of a real process: reads its share, gathers, and the first one writes what all have.
WORKER = '''
import json, sys
import torch.distributed as dist
from mnsp.evaluate import evaluate_distributed
sys.path.insert(0, sys.argv[1])
from test_evaluate import place, two_sets
rank, world, store, out = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=world)
result = evaluate_distributed(lambda images: [(f'w{place(x)}', .5) for x in images], two_sets(), batch_size=4, bar=False)
with open(f'{out}.{rank}', 'w') as f: json.dump(result.to_dict(readings=True), f)
dist.destroy_process_group()
'''


def two_sets():
    "One set that does not divide by two, and one smaller than the number of processes"
    return {'odd': Words([f'w{i}' if i % 3 else 'other' for i in range(21)], height=20), 'single': Words(['w0'])}


def test_two_processes_equal_one(tmp_path, root):
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(root), os.environ.get('PYTHONPATH', '')])}
    run = [subprocess.Popen([sys.executable, '-c', WORKER, str(Path(__file__).parent), str(rank), '2',
                             str(tmp_path / 'store'), str(tmp_path / 'out')], env=env, stderr=subprocess.PIPE, text=True)
           for rank in range(2)]
    for process in run:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    alone = e.evaluate(lambda images: [(f'w{place(x)}', .5) for x in images], two_sets(), bar=False)
    for rank in range(2):
        assert e.Evaluation.from_dict(json.loads((tmp_path / f'out.{rank}').read_text())) == alone
    assert alone.sets['odd']['n'] == 21 and alone.readings[0].height == 20


def test_parts_that_lack_or_repeat_a_picture_are_refused():
    def part(r): return e.read_words(lambda images: [('w', .5)] * len(images), two_sets(), bar=False, part=(r, 2))
    with pytest.raises(ValueError, match=r"'odd': picture 0 was read by no process \(12 such\)"):
        e.merge_readings([part(1)], two_sets())                 # 11 of the odd set and the single one
    with pytest.raises(ValueError, match='more than once'):
        e.merge_readings([part(0), part(1), part(1)], two_sets())
    with pytest.raises(ValueError, match='picture 20 is not in the set'):
        e.merge_readings([part(0), part(1)], {**two_sets(), 'odd': Words(['w'] * 20)})


def test_heights_and_broken_pictures_from_worker_processes(tmp_path):
    for i in range(6): Image.new('RGB', (40, 10 + i)).save(tmp_path / f'{i}.png')
    (tmp_path / '3.png').write_bytes(b'no picture')
    (tmp_path / 'labels.tsv').write_text(''.join(f'{i}.png\tw\n' for i in range(6)))
    results = [e.evaluate(lambda images: [('w', 1.)] * len(images), {'x': FolderSource(tmp_path)}, batch_size=2, bar=False,
                          workers=workers) for workers in (0, 2)]
    assert results[0] == results[1]
    assert [r.height for r in results[0].readings] == [10, 11, 12, 0, 14, 15]
    assert results[0].broken == {'x': [['3.png', 'unreadable']]} and results[0].avg == pytest.approx(500 / 6)


def test_chinese_with_a_stub_table():
    rules = e.chinese_rules(lambda s: s.translate(str.maketrans('陳車', '陈车')))
    preds, trues = ['陳Ａ', '车 门', '', '中\ufffd', 'ａＢｃ１'], ['陈a', '車門', '　', '中', 'ABC 1']
    by_hand = [1, 0, 1, 0, 1]                                   # 門 is not in the stub's table
    assert [rules.right(p, t) for p, t in zip(preds, trues)] == by_hand
    assert e.score(preds, trues, rules)['sentence'] == 60
    result = e.evaluate(lambda images: [(preds[place(x)], 1.) for x in images], {'scene': Words(trues)}, bar=False,
                        rules=rules)
    assert result.avg == 50 and result.metric == 'sentence'  # of four: the label that is a space is none
    assert 'waics' not in result.table()
    assert e.Evaluation.from_dict(json.loads(json.dumps(result.to_dict(readings=True)))) == result
    assert 'LMIM' in beside_peers(result) and 'scene has 4 words here' in beside_peers(result)


def test_chinese_with_zhconv():
    pytest.importorskip('zhconv', reason='zhconv is not installed (optional: pip install zhconv)')
    rules = e.chinese_rules()
    assert rules.right('陳希爾思', '陈希尔思') and rules.right('計算機', '计算机') and not rules.right('陳', '东')


def test_chinese_without_zhconv_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'zhconv', None)
    with pytest.raises(ImportError, match='pip install zhconv'): e.chinese_rules()


def test_published_rows():
    assert {r.benchmark for r in published()} == set(benchmarks)
    lmim, = [r for r in published('union14m') if r.method == 'LMIM, 20 epochs']
    assert (lmim.values['avg'], lmim.values['w_avg'], lmim.values['curve']) == (86.3, 85.1, 90.3)
    mnsp = {r.benchmark: r.values for r in published() if r.method == 'MNSP (abstract)'}
    assert mnsp == {'union14m': {'avg': 86.2}, 'common': {'avg': 96.7}}


def data():
    "Where the real sets are, or a skip"
    folder = Path(os.environ.get('MNSP_DATA', Path(__file__).resolve().parents[2] / 'shared' / 'data'))
    if not folder.is_dir(): pytest.skip(f'no real data at {folder} (set MNSP_DATA)')
    return folder


def test_ic13_lists():
    "The 857 are those of the 1015 that have three or more letters or digits and nothing else"
    folder = data() / 'IC13_test'
    whole = FolderSource(folder)
    large, small = [subset_from_list(whole, folder / f'subset_{n}.txt') for n in (1015, 857)]
    assert (len(whole), len(large), len(small)) == (1095, 1015, 857)
    names = {large.name(i) for i in range(1015) if len(t := large.label(i)) >= 3 and e.waics_text(t) == t.lower()}
    assert names == {small.name(i) for i in range(857)}
    result = e.evaluate(lambda images: [('w', 1.)] * len(images), {'IC13_test': small}, bar=False)
    assert 'ic13 1015, here 857' in beside_peers(result)


def test_list_of_another_set_is_refused():
    folder = data()
    with pytest.raises(DataError, match='subset_1015.txt names'):
        subset_from_list(FolderSource(folder / 'SVT_test'), folder / 'IC13_test' / 'subset_1015.txt')


def test_a_recogniser_reads_the_same_in_parts():
    "A real model: texts do not depend on how pictures are shared out"
    from mnsp.recognizer import Recognizer, recognizer_tiny
    torch.manual_seed(0)
    model, sources = Recognizer(recognizer_tiny(max_len=5)).eval(), two_sets()
    whole = e.evaluate(model.read_batch, sources, bar=False)
    parts = e.merge_readings([e.read_words(model.read_batch, sources, bar=False, part=(r, 2)) for r in (0, 1)], sources)
    assert [r.pred for r in parts.readings] == [r.pred for r in whole.readings] and parts.sets == whole.sets
    assert [r.confidence for r in parts.readings] == pytest.approx([r.confidence for r in whole.readings], rel=1e-3)
