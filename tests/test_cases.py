"Files as people have them: lists that nobody quoted, other tools' exports, other machines' names, other trainers' weights"
import io
import json
import re
import subprocess
import sys
import types
import unicodedata
import warnings
from dataclasses import replace
from pathlib import Path

import lmdb
import pytest
import torch
from PIL import Image, features

from mnsp.charset import Charset, english
from mnsp.data import WordDataset
from mnsp.evaluate import known_labels, score
from mnsp.hub import WeightsError, load_model
from mnsp.hugging_face import HfSource
from mnsp.images import Source, all_labels
from mnsp.labels import DataError, layout_of_list
from mnsp.lists import ListedSource, find_images
from mnsp.published import from_published, published_state
from mnsp.sources import open_source
from mnsp.stores import cache, check, convert, split
from mnsp.streams import check_labels, open_words
from mnsp.unions import Concat, photographs, split_source

WORDS = ['pier', 'lantern', 'rye', 'Quay', 'ferry', 'tide']


def png(level=0):
    buffer = io.BytesIO()
    Image.new('RGB', (40, 12), (level % 256,)*3).save(buffer, 'png')
    return buffer.getvalue()


def pictures(folder, names):
    "Picture files; the k-th is of grey level k"
    for k, name in enumerate(names):
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        (folder/name).write_bytes(png(k))
    return folder


def numbered(folder, n=6): return pictures(folder, [f'{k}.png' for k in range(n)])


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(path, **how):
    "(labels, grey levels) of a data set: the right text with the right picture"
    source = open_source(path, **how)
    return list(all_labels(source)), [source.image(i).getpixel((0, 0))[0] for i in range(len(source))]


def right(path, labels=WORDS, levels=None, **how):
    assert read(path, **how) == (labels, list(range(len(labels))) if levels is None else levels)


def write_lmdb(path, labels, first=1, count=None):
    path.mkdir(parents=True)
    with lmdb.open(str(path), map_size=2**22) as env, env.begin(write=True) as t:
        for k, text in enumerate(labels):
            t.put(b'image-%09d' % (k+first), png(k))
            t.put(b'label-%09d' % (k+first), text.encode())
        t.put(b'num-samples', b'%d' % (len(labels) if count is None else count))
    return path


# Tables that nobody quoted

COMMAS = ['Rye, Sussex', '2,450.00', 'ferry', 'Mr. Reed, Esq., of Deal', 'oil,', 'a;b']


@pytest.mark.parametrize('titles', ['filename,words\n', '', 'FILE NAME,Ground truth\n'])
def test_only_the_first_comma_separates(tmp_path, titles):
    write(numbered(tmp_path)/'labels.csv', titles+''.join(f'{k}.png,{t}\n' for k, t in enumerate(COMMAS)))
    right(tmp_path, COMMAS)


def test_the_last_column_takes_its_commas_and_another_refuses(tmp_path):
    rows = ''.join(f'{k},{k}.png,{t}\n' for k, t in enumerate(COMMAS))
    write(numbered(tmp_path)/'labels.csv', 'id,file,text\n'+rows)
    right(tmp_path, COMMAS)
    write(tmp_path/'labels.csv', 'file,text,page\n0.png,pier,1\n1.png,Rye, Sussex,1\n')
    with pytest.raises(DataError, match='line 3: has more fields than there are titles'):
        open_source(tmp_path)


@pytest.mark.parametrize('end', ['\n', '\r\n'])
@pytest.mark.parametrize('mark', [',', ';', '\t'])
def test_quoted_and_unquoted_texts_together(tmp_path, mark, end):
    rows = ['0.png{}"Rye, Sussex"', '1.png{}"half open', '2.png{}"say ""ah"""', '3.png{}5" pipe', '4.png{}"one" and "two"',
            '5.png{} last']
    write(numbered(tmp_path)/'labels.csv', end.join(['file{}text', *rows, '']).format(*mark*7))
    right(tmp_path, ['Rye, Sussex', '"half open', 'say "ah"', '5" pipe', '"one" and "two"', 'last'])


def test_texts_that_look_like_nothing_stay(tmp_path):
    texts = ['null', 'NA', '007', '1e5', 'TRUE', '3.10']
    write(numbered(tmp_path)/'labels.csv', 'file,text\n'+''.join(f'{k}.png,{t}\n' for k, t in enumerate(texts)))
    right(tmp_path, texts)


@pytest.mark.parametrize('text, message', [
    ('file,text\n0.png,"two\nlines"\n', 'line 2: has a text that spans lines'),
    ('0.png,pier,1\n1.png,rye,1\n2.png,tide,2\n', 'every line has 3 fields'),
    ('0.png\tpier\t.9\n1.png\trye\t.8\n2.png\ttide\t.9\n', 'every line has 3 fields'),
    ('file,text\n0.png\n', "line 2: is not 'file,text'"),
])
def test_tables_that_cannot_be_understood_are_named(tmp_path, text, message):
    write(numbered(tmp_path)/'labels.csv', text)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path)


def test_an_empty_text_is_no_label(tmp_path):
    lists = {'labels.tsv': '0.png\t\n1.png\trye\n', 'labels.csv': '0.png,\n1.png,rye\n', 'gt.txt': '0.png,\n1.png, "rye"\n',
             'labels.jsonl': '{"file": "0.png", "text": ""}\n{"file": "1.png", "text": "rye"}\n'}
    for name, text in lists.items():
        right(write(numbered(tmp_path/name)/name, text), [None, 'rye'])


# Other tools' lists

def test_paddle_lists_several_pictures_of_one_text(tmp_path):
    write(numbered(tmp_path, 4)/'rec_gt.txt', '0.png\tpier\n["1.png", "2.png"]\trye\n3.png\ttide\n')
    right(tmp_path/'rec_gt.txt', ['pier', 'rye', 'rye', 'tide'])


@pytest.mark.parametrize('name, text', [
    ('Label.txt', '0.png\t[{"transcription": "OPEN", "points": [[1, 2], [3, 4]], "difficult": false}]\n'),
    ('labels.json', '{"0.png": {"img_dimensions": [9, 9], "polygons": [[[1, 2], [3, 4]]]}}'),
    ('x.jsonl', '{"file": "0.png", "text": [{"x": 1, "y": 2}]}\n'),
    ('export.json', json.dumps([dict(data=dict(ocr='0.png'), annotations=[
        dict(result=[dict(value=dict(x=1, width=9, text=['a']))])])])),
])
def test_boxes_are_no_text(tmp_path, name, text):
    with pytest.raises(DataError, match='boxes of words in a whole picture'):
        open_source(write(numbered(tmp_path)/name, text))


@pytest.mark.parametrize('name, text', [
    ('a.json', '{"data_list": [{"img_path": "0.png", "instances": [{"text": "one"}, {"text": "two"}]}]}'),
    ('b.jsonl', '{"file": "0.png", "text": ["one", "two"]}\n'),
    ('c.json', '[{"image": "0.png", "transcription": ["one", "two"]}]'),
])
def test_several_texts_of_one_picture_are_refused(tmp_path, name, text):
    with pytest.raises(DataError, match='(entry|line) 1: .*several texts'):
        open_source(write(numbered(tmp_path)/name, text))


@pytest.mark.parametrize('name, text', [
    ('a.txt', ''.join(json.dumps(dict(filename=f'{k}.png', text=w))+'\n' for k, w in enumerate(WORDS))),
    ('b.json', ''.join(json.dumps(dict(image=f'{k}.png', label=w))+'\n' for k, w in enumerate(WORDS))),
    ('c.jsonl', json.dumps([dict(img=f'{k}.png', words=w) for k, w in enumerate(WORDS)])),
    ('d.json', json.dumps({f'{k}.png': w for k, w in enumerate(WORDS)})),
    ('e.json', json.dumps({f'{k}.png': dict(text=w, page=1) for k, w in enumerate(WORDS)}, indent=2)),
    ('f.tsv', 'file_name\ttext\n'+''.join(f'{k}.png\t{w}\n' for k, w in enumerate(WORDS))),
    ('g.txt', ''.join(f'{k}.png,{w}\n' for k, w in enumerate(WORDS))),
    ('h.csv', 'pic;reading\n'+''.join(f'{k}.png;{w}\n' for k, w in enumerate(WORDS))),
    ('i.json', json.dumps([dict(id=k, data=dict(image=f'/data/upload/7/{k}.png'), annotations=[
        dict(result=[dict(value=dict(text=[w]), type='textarea')])]) for k, w in enumerate(WORDS)])),
])
def test_a_list_is_known_by_its_content(tmp_path, name, text):
    right(write(numbered(tmp_path)/name, text))


def test_mjsynths_numbers_are_lines_of_its_lexicon(tmp_path):
    names = [f'{k//3}/1/{k}_{w}_{70+k}.jpg' for k, w in enumerate(WORDS)]
    for name, mark in {'annotation_train.txt': ' ', 'a.csv': ',', 'a.tsv': '\t'}.items():
        write(pictures(tmp_path, names)/name, ''.join(f'./{n}{mark}{70+k}\n' for k, n in enumerate(names)))
        right(tmp_path/name)
    write(tmp_path/'odd.txt', ''.join(f'./{n} {70+k}\n' for k, n in enumerate(names)).replace(' 75', ' 4')*5)
    with pytest.raises(DataError, match='line 6: .*no word in its name'):
        list(all_labels(open_source(tmp_path/'odd.txt')))
    write(tmp_path/'other.txt', ''.join(f'./{n} {k}\n' for k, n in enumerate(names)))
    with pytest.warns(UserWarning, match='all labels are numbers'):
        open_source(tmp_path/'other.txt')


def test_texts_in_names_and_beside_pictures(tmp_path):
    pictures(tmp_path/'names', [f'{w}_{k}.png' for k, w in enumerate(sorted(WORDS))])
    right(tmp_path/'names', sorted(WORDS), pattern=r'(.+)_\d+')
    for side in '.txt', '.gt.txt':
        numbered(tmp_path/side)
        for k, w in enumerate(WORDS): write(tmp_path/side/f'{k}{side}', f'\ufeff{w}\r\n')
        right(tmp_path/side)
    numbered(tmp_path/'boxes', 2)
    for k in range(2): write(tmp_path/f'boxes/{k}.txt', '0 0.5 0.5 0.1 0.1\n')
    assert not open_source(tmp_path/'boxes').labelled
    with pytest.raises(DataError, match='0.png has a box beside it'):
        WordDataset(open_source(tmp_path/'boxes'), charset=english)
    for pattern, message in {r'\d+': 'no group', '(': 'no regular expression', '(x+)': 'found in no name'}.items():
        with pytest.raises(DataError, match=message): open_source(tmp_path/'names', pattern=pattern)


@pytest.mark.parametrize('name, text', [
    ('labels.txt', '0.png pier\n'), ('rec_gt.txt', '0.png\tpier\n'), ('train.csv', 'file,text\n0.png,pier\n'),
    ('labels.json', '{"0.png": "pier"}'), ('set/labels.csv', 'file,text\n0.png,pier\n')])
def test_lists_under_other_names_are_pointed_out(tmp_path, name, text):
    numbered((tmp_path/name).parent)
    write(tmp_path/name, text)
    source = open_source(tmp_path)
    for ask in (lambda: WordDataset(source, charset=english), lambda: known_labels('x', source)):
        with pytest.raises(DataError, match=f'{re.escape(name)} lies there: give it as --data'): ask()


# Names as other machines write them

@pytest.mark.parametrize('prefix', ['crops\\', '.\\crops\\', 'C:\\Users\\me\\set\\crops\\', '\\\\server\\share\\crops\\',
                                    '/data/upload/crops/', 'http://here:80/data/crops/', '/data/local-files/?d=crops/'])
@pytest.mark.parametrize('form', ['tsv', 'csv', 'jsonl'])
def test_slashes_drives_and_addresses(tmp_path, prefix, form):
    pictures(tmp_path, [f'crops/{k}.png' for k in range(6)])
    rows = [(f'{prefix}{k}.png', w) for k, w in enumerate(WORDS)]
    lines = dict(tsv=[f'{n}\t{w}' for n, w in rows], csv=['file,text', *(f'{n},{w}' for n, w in rows)],
                 jsonl=[json.dumps(dict(file=n, text=w)) for n, w in rows])[form]
    write(tmp_path/f'labels.{form}', '\ufeff'+'\r\n'.join(lines))
    right(tmp_path)


def test_only_absolute_names_are_shortened(tmp_path):
    "train/0.png and test/0.png are two pictures, and 0.png is neither"
    write(numbered(tmp_path)/'a.tsv', 'train/0.png\tpier\ntest/0.png\trye\n')
    with pytest.raises(DataError, match="no image 'train/0.png'"): open_source(tmp_path/'a.tsv')


def test_the_other_unicode_form_of_a_name(tmp_path):
    names = ['réserve.png', 'Übergang/größe.png', '역.png', 'plain.png']
    for disk, said in (('NFD', 'NFC'), ('NFC', 'NFD')):
        folder = pictures(tmp_path/disk, [unicodedata.normalize(disk, n) for n in names])
        write(folder/'labels.tsv', ''.join(f'{unicodedata.normalize(said, n)}\t{w}\n' for n, w in zip(names, WORDS)))
        right(folder, WORDS[:4])


# Columns

def test_one_table_of_names_serves_json_csv_and_parquet(tmp_path, monkeypatch):
    datasets = pytest.importorskip('datasets')
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path/'hf')
    kind = datasets.Features(jpg=datasets.Value('binary'), label=datasets.Value('int64'), ocr_text=datasets.Value('string'),
                             word=datasets.List(datasets.Value('string')), number=datasets.Value('int64'))
    rows = dict(jpg=[png(k) for k in range(6)], label=[0, 1]*3, ocr_text=WORDS, word=[[w.upper()] for w in WORDS],
                number=[10, 11, 12, 13, 14, 15])
    table = datasets.Dataset.from_dict(rows, features=kind)
    for k, (columns, how, wanted) in enumerate([
        (['jpg', 'label', 'ocr_text'], {}, WORDS), (['jpg', 'word'], {}, [w.upper() for w in WORDS]),
        (['jpg', 'number'], dict(text='number'), ['10', '11', '12', '13', '14', '15']),
        (['jpg', 'label', 'ocr_text'], dict(text='label'), ['0', '1']*3),
    ]):
        table.select_columns(columns).to_parquet(tmp_path/f'{k}/x.parquet') if (tmp_path/f'{k}').mkdir() is None else 0
        right(tmp_path/f'{k}', wanted, **how)
    table.select_columns(['jpg', 'label']).to_parquet(tmp_path/'classes.parquet')
    with pytest.raises(DataError, match='say which of the columns jpg, label holds texts with --text-column'):
        WordDataset(open_source(tmp_path/'classes.parquet'), charset=english)
    several = table.select_columns(['jpg', 'word']).map(lambda row: dict(word=row['word']*2))
    several.to_parquet(tmp_path/'several.parquet')
    with pytest.raises(DataError, match='several texts'): open_source(tmp_path/'several.parquet')
    paths = datasets.Dataset.from_dict(dict(image=[f'{k}.png' for k in range(6)], text=WORDS))
    paths.to_parquet(numbered(tmp_path/'paths')/'x.parquet')
    right(tmp_path/'paths/x.parquet')


def test_numbers_are_texts_as_they_are_written(tmp_path):
    write(numbered(tmp_path, 3)/'metadata.jsonl', '{"file_name": "0.png", "text": 3.10}\n{"file_name": "1.png", "text": 100}\n'
          '{"file_name": "2.png", "text": "007"}\n')
    right(tmp_path, ['3.10', '100', '007'])
    write(tmp_path/'c.jsonl', '{"file_name": "0.png", "label": 3}\n{"file_name": "1.png", "label": 4}\n')
    with pytest.raises(DataError, match='line 1: .*number 3 as its label.*--text-column'): open_source(tmp_path/'c.jsonl')
    right(tmp_path/'c.jsonl', ['3', '4'], text='label')


def test_columns_that_are_asked_for(tmp_path):
    write(numbered(tmp_path)/'a.csv', 'text,scan,file,clear\n'+''.join(f'no,{k}.png,x.png,{w}\n' for k, w in enumerate(WORDS)))
    right(tmp_path/'a.csv', image='scan', text='clear')
    write(tmp_path/'b.csv', 'file,lesung,seite\n0.png,pier,1\n')
    with pytest.raises(DataError, match='b.csv names pictures and no texts; say which column'):
        WordDataset(open_source(tmp_path/'b.csv'), charset=english)
    with pytest.raises(DataError, match="no column 'other' among text, scan"): open_source(tmp_path/'a.csv', text='other')
    with pytest.raises(DataError, match='--text-column cannot be said of it'):
        open_source(write_lmdb(tmp_path/'db', WORDS), text='word')


# Folders

def test_lmdbs_at_any_depth_are_one_data_set(tmp_path):
    for k, name in enumerate(('training/MJ/MJ_train', 'training/MJ/MJ_valid', 'training/ST', 'training/.cache/old')):
        write_lmdb(tmp_path/name, [f'{WORDS[k]}{j}' for j in range(3)])
    assert sorted(all_labels(open_source(tmp_path))) == sorted(f'{w}{j}' for w in WORDS[:3] for j in range(3))
    assert len(open_source(tmp_path/'training/MJ')) == 6


@pytest.mark.parametrize('names', [('A/train', 'A/val'), ('train', 'test'), ('scene_train', 'scene_test'),
                                   ('x/train', 'y/deep/eval')])
def test_splits_are_not_mixed(tmp_path, names):
    for name in names: write_lmdb(tmp_path/name, WORDS[:2])
    with pytest.raises(DataError, match=r'several splits \(.*\), which are not to be mixed'): open_source(tmp_path)
    for name in names: assert len(open_source(tmp_path/name)) == 2


def test_lists_of_several_splits_are_not_mixed(tmp_path):
    for name in 'train_a', 'train_b', 'test':
        write(numbered(tmp_path)/f'{name}.jsonl', '{"filename": "0.png", "text": "pier"}\n')
    with pytest.raises(DataError, match=r'several splits \(test, train\)'): open_source(tmp_path)
    (tmp_path/'test.jsonl').unlink()
    assert list(all_labels(open_source(tmp_path))) == ['pier', 'pier']


def test_lmdbs_counted_from_zero_or_wrongly(tmp_path):
    right(write_lmdb(tmp_path/'zero', WORDS, first=0))
    for count, message in ((9, 'image-000000009 is missing'), (4, 'image-000000004 is not the last')):
        with pytest.warns(UserWarning, match=message): open_source(write_lmdb(tmp_path/f'n{count}', WORDS, count=count))
    with lmdb.open(str(tmp_path/'other')) as env, env.begin(write=True) as t: t.put(b'0', b'{"filename": "0.png"}')
    with pytest.raises(DataError, match='keys such as 0: another kind of LMDB'): open_source(tmp_path/'other')


def test_hidden_folders_and_other_formats(tmp_path):
    pictures(tmp_path, ['a.png', '.ipynb_checkpoints/a-checkpoint.png', '__MACOSX/._a.png', '@eaDir/a.png', '.b.png', 'c/d.JFIF'])
    Image.new('RGB', (40, 12)).save(tmp_path/'c/d.JFIF', 'jpeg')
    assert find_images(tmp_path) == ['a.png', 'c/d.JFIF']
    write(tmp_path/'c/phone.HEIC', b'x')
    with pytest.warns(UserWarning, match=r'1 \.heic left out \(c/phone\.HEIC\).*save them as'): find_images(tmp_path)
    if features.check_module('avif'):
        Image.new('RGB', (40, 12), (200,)*3).save(tmp_path/'c/e.avif')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            assert abs(open_source(tmp_path).image(2).getpixel((0, 0))[0]-200) < 5


def test_archives_and_tables_are_pointed_out(tmp_path):
    write(tmp_path/'x/words.tar.gz', b'x')
    for path, message in {'x/words.tar.gz': 'is an archive: unpack it', 'x': 'words.tar.gz is an archive: unpack it'}.items():
        with pytest.raises(DataError, match=message): open_source(tmp_path/path)
    write(tmp_path/'y/data/0.parquet', b'x')
    with pytest.raises(DataError, match='data/0.parquet is a table: give .*y/data as --data'): open_source(tmp_path/'y')


# Labels: one form, and only what the character set has

ODD = ['pier\n', 'rye\r\n', ' tide\u00a0', 'cafe\u0301', '\ufeffquay', 'ferry']
CLEAN = ['pier', 'rye', 'tide', 'café', 'quay', 'ferry']


def test_labels_are_clean_wherever_they_come_in(tmp_path):
    source = write_lmdb(tmp_path/'db', ODD)
    right(source, CLEAN)
    with pytest.warns(UserWarning, match='5 of 6 labels cleaned'): assert known_labels('x', open_source(source)) == CLEAN
    words = open_words([source], charset=Charset('abcdefghijklmnopqrstuvwxyzé'))
    assert [words.charset.decode(words[k][1]) for k in range(6)] == CLEAN
    assert check_labels(words)[0].startswith('5 of 6 labels cleaned')
    stream = open_words([source], stream=True, charset=words.charset)
    assert sorted(words.charset.decode(ids) for _, ids in stream) == sorted(CLEAN)
    for kind in 'lmdb', 'folder', 'parquet':
        if kind == 'parquet': pytest.importorskip('datasets')
        assert convert(source, tmp_path/kind, kind, bar=False).cleaned == 5
        right(tmp_path/kind, CLEAN)
    cache(source, tmp_path/'cache', bar=False)
    right(tmp_path/'cache', CLEAN)
    assert '5  labels with line ends' in check(source, bar=False).table()


def test_a_source_of_other_peoples_making_says_its_labels_in_either_way():
    class Said(Source):
        labelled, n = True, 2
        def label(self, i): return ODD[i]

    class Written(Source):
        labelled, n = True, 2
        def written(self, i): return ODD[i]

    for source in Said(), Written(), Concat([Said()]): assert list(all_labels(source)) == CLEAN[:2]


def test_readings_and_labels_are_compared_in_one_form():
    assert score(['cafe\u0301', 'rye '], ['café', 'rye\n'])['exact'] == 100
    assert Charset.from_text(['cafe\u0301']) == Charset('acfé')


def test_characters_outside_the_set_are_told_before_the_first_step(tmp_path):
    write(numbered(tmp_path)/'labels.tsv', ''.join(f'{k}.png\t{w} {w}\n' for k, w in enumerate(WORDS)))
    words = WordDataset(open_source(tmp_path), charset=english)
    with pytest.raises(DataError, match=r"^6 of 6 labels hold characters outside the set: ' ' 6×; more than 20%.*--charset"):
        check_labels(words)
    line, = check_labels(words, 1)
    assert "6 of 6 labels hold characters outside the set: ' ' 6×" in line and 'learnt as unknown' in line
    assert check_labels(WordDataset(open_source(tmp_path), charset=Charset(english.chars+' '))) == []


# Splits

def sides(path, **how):
    "The shares of validation, and what both sides have in common"
    train, valid = split_source(open_source(path), **how)
    def photos(side): return {side.name(i).rpartition('/')[0] for i in range(len(side))}
    return len(valid)/(len(train)+len(valid)), photos(train) & photos(valid)


@pytest.mark.parametrize('pages, crops, name', [(60, 1, 'crop.png'), (60, 5, 'word_{}.png'), (45, 4, '{}.png')])
def test_crops_of_one_photograph_stay_on_one_side(tmp_path, pages, crops, name):
    pictures(tmp_path, [f'page_{p:03d}/{name.format(k)}' for p in range(pages) for k in range(crops)])
    share, both = sides(tmp_path)
    assert .07 < share < .14 and not both


def test_a_photograph_in_the_name_or_in_a_column(tmp_path):
    names = [f'shop{p:02d}_{k}.png' for p in range(50) for k in range(4)]
    train, valid = split_source(open_source(pictures(tmp_path/'flat', names)))
    def photos(side): return {side.name(i)[:6] for i in range(len(side))}
    assert not photos(train) & photos(valid) and .07 < len(valid)/200 < .14
    write(numbered(tmp_path/'column', 200)/'labels.csv', 'file,text,photo\n'+''.join(f'{k}.png,w,{k % 50}\n' for k in range(200)))
    keys = photographs(open_source(tmp_path/'column'))
    assert len(set(keys.tolist())) == 50 and all(keys[k] == keys[k % 50] for k in range(200))
    datasets = pytest.importorskip('datasets')
    rows = dict(image=[png()]*200, text=['w']*200, page=[k % 50 for k in range(200)])
    table = datasets.Dataset.from_dict(rows)
    keys = photographs(HfSource(table))
    assert len(set(keys.tolist())) == 50 and all(keys[k] == keys[k % 50] for k in range(200))


def test_large_folders_are_no_photographs_and_lmdbs_count_each(tmp_path):
    pictures(tmp_path/'a', [f'{part}/{k}.png' for part in ('x', 'y') for k in range(100)])
    share, both = sides(tmp_path/'a')
    assert .07 < share < .14 and both == {'x', 'y'}
    for name in 'x', 'y': write_lmdb(tmp_path/'b'/name, WORDS*20)
    train, valid = split_source(open_source(tmp_path/'b'))
    held = [{i % 120 for i in valid.rows if (i < 120) == first} for first in (True, False)]
    assert held[0] != held[1] and .07 < len(valid)/240 < .14 # alike in name, not in fate


def test_a_split_remembers_what_was_said(tmp_path):
    pictures(tmp_path/'words', [f'{w}_{k}.png' for k in range(10) for w in WORDS])
    split(tmp_path/'words', tmp_path/'sides', pattern=r'(.+)_\d+')
    assert set(all_labels(open_source(tmp_path/'sides/train.json'))) == set(WORDS)


# Weights

@pytest.fixture(scope='module')
def mae_file():
    "A small MAE's tensors under the published names"
    from mnsp.pretrain import Pretrainer, mae
    torch.manual_seed(0)
    cfg = mae('tiny')
    model = Pretrainer(replace(cfg, encoder=replace(cfg.encoder, stored_positions=True)))
    return model, published_state(model.state_dict(), 'mae')


@pytest.mark.parametrize('change', [
    lambda s: {f'module.{k}': v for k, v in s.items()}, lambda s: {f'module._orig_mod.{k}': v for k, v in s.items()},
    lambda s: {k.replace('blocks.0.', 'blocks.0._orig_mod.'): v for k, v in s.items()},
    lambda s: dict(state_dict={f'model.{k}': v for k, v in s.items()}, epoch=3),
    lambda s: dict(model_state_dict={f'net.{k}': v.half() for k, v in s.items()})])
def test_names_of_other_trainers(tmp_path, mae_file, change):
    model, state = mae_file
    torch.save(change(state), tmp_path/'x.pth')
    found = from_published(tmp_path/'x.pth', encoder_heads=2, decoder_heads=2)
    assert (found.encoder.positions0-model.encoder.positions0).abs().max() < 1e-3


def test_what_lies_beside_the_model(tmp_path, mae_file):
    _, state = mae_file
    inside = {f'model.{k}': v for k, v in state.items()}
    torch.save(dict(state_dict={**inside, 'loss.weight': torch.ones(2)}), tmp_path/'x.ckpt')
    with pytest.warns(UserWarning, match='1 tensors beside model.… are left out'):
        from_published(tmp_path/'x.ckpt', encoder_heads=2, decoder_heads=2)
    torch.save(dict(state_dict={**inside, **{f'ema.{k}': v for k, v in state.items()}}), tmp_path/'x.ckpt')
    with pytest.raises(WeightsError, match='several models'): from_published(tmp_path/'x.ckpt')


def test_objects_of_trainers_are_left_where_they_are(tmp_path, mae_file, monkeypatch):
    "A history of losses whose class is not installed where the file is read"
    module = types.ModuleType('mmengine')
    module.History = type('History', (), dict(__module__='mmengine', __init__=lambda self: setattr(self, 'log', [1.])))
    monkeypatch.setitem(sys.modules, 'mmengine', module)
    torch.save(dict(state_dict=mae_file[1], message_hub=dict(loss=module.History())), tmp_path/'x.pth')
    monkeypatch.delitem(sys.modules, 'mmengine')
    assert from_published(tmp_path/'x.pth', encoder_heads=2, decoder_heads=2).cfg.encoder.img_size == (32, 128)


def test_an_encoder_alone_and_its_grid(tmp_path, mae_file):
    from safetensors.torch import save_file

    from mnsp.encoder import Encoder, EncoderConfig
    alone = {k: v for k, v in mae_file[1].items() if not k.startswith(('decoder', 'mask'))}
    torch.save(dict(model=alone), tmp_path/'words.pth')
    save_file(alone, tmp_path/'words.safetensors')
    for name in 'words.pth', 'words.safetensors':
        assert from_published(tmp_path/name, encoder_heads=2).cfg.grid() == (4, 16)
    photo = Encoder(EncoderConfig((224, 224), (16, 16), dim=192, depth=1, heads=3, stored_positions=True))
    torch.save(dict(model=published_state(photo.state_dict(), 'mae encoder')), tmp_path/'mae_pretrain_vit.pth')
    found = load_model(tmp_path/'mae_pretrain_vit.pth', 'Encoder').cfg
    assert (found.img_size, found.grid()) == ((224, 224), (14, 14))


# On the command line

def mnsp(*args):
    done = subprocess.run([sys.executable, '-m', 'mnsp', *map(str, args)], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def test_the_command_line_takes_columns_and_patterns_and_refuses_foreign_labels(tmp_path):
    pictures(tmp_path/'names', [f'{w}_{k}.png' for k, w in enumerate(WORDS)])
    code, out, err = mnsp('data', 'check', tmp_path/'names', '--pattern', r'(.+)_\d+', '--workers', 0)
    assert code == 0 and 'labelled' in out, err
    write(numbered(tmp_path/'table')/'labels.csv', 'file,a,b\n'+''.join(f'{k}.png,x,{w} 서\n' for k, w in enumerate(WORDS)))
    code, out, err = mnsp('finetune', '-d', tmp_path/'table', '--text-column', 'b', '-o', tmp_path/'out', '--workers', 0,
                          '--steps', 1)
    assert code == 1 and "6 of 6 labels hold characters outside the set: ' ' 6×, '서' 6×" in err, err
    assert not list((tmp_path/'out').rglob('*.safetensors'))


def test_layouts_are_told_apart_by_content_alone(tmp_path):
    for name, text in {'a.csv': '', 'b.txt': '{"a.png": "x"}\n', 'c.tsv': 'a.png\tb\n'}.items(): write(tmp_path/name, text)
    assert [layout_of_list(tmp_path/n).name for n in ('a.csv', 'b.txt', 'c.tsv')] == ['table', 'JSON document', 'file TAB text']
    with pytest.raises(DataError, match='lists no images'): ListedSource(Path(tmp_path/'a.csv'))
