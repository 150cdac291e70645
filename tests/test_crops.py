"Photographs with boxes, as a user has them, through the command line"
import json
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from mnsp.boxes import read_boxes
from mnsp.crops import crop, likeness
from mnsp.labels import DataError
from mnsp.sources import open_source
from tests.test_cli import one_line_error, run


@pytest.fixture
def shop(tmp_path):
    "Two photographs, each with two bright words"
    (tmp_path/'photos').mkdir()
    for k in range(2):
        photo = Image.fromarray(np.random.default_rng(k).integers(0, 90, (120, 300, 3), np.uint8))
        for x in (20, 160): ImageDraw.Draw(photo).rectangle((x, 40, x+99, 69), (250, 240, 230))
        photo.save(tmp_path/f'photos/shop {k}.jpg', quality=95)
    return tmp_path


def label_txt(shop, texts=('OPEN', 'Café')):
    "PPOCRLabel's file"
    def word(x, text): return dict(transcription=text, points=[[x, 40], [x+100, 40], [x+100, 70], [x, 70]], difficult=False)
    lines = [f'photos/shop {k}.jpg\t'+json.dumps([word(20, texts[0]), word(160, texts[1])], ensure_ascii=False) for k in range(2)]
    (shop/'Label.txt').write_text('\n'.join(lines), encoding='utf-8')
    return shop/'Label.txt'


def test_photographs_to_crops_to_labels(shop):
    code, stdout, stderr = run('data', 'crop', label_txt(shop), '--out', shop/'crops')
    assert code == 0, stderr
    assert stdout.strip().endswith('4 crops of 2 photographs, with text')
    made = open_source(shop/'crops')
    assert [made.label(i) for i in range(4)] == ['OPEN', 'Café']*2 and {made[i][0].size for i in range(4)} == {(100, 30)}
    assert all(np.asarray(made[i][0])[3:-3, 3:-3].min() > 200 for i in range(4))           # nothing but the words
    rows = (shop/'crops/origin.tsv').read_text(encoding='utf-8').splitlines()
    assert rows[1].split('\t') == ['images/photos/shop 0/001.png', 'photos/shop 0.jpg',
                                   '[[160.0, 40.0], [260.0, 40.0], [260.0, 70.0], [160.0, 70.0]]', '0', 'Café']
    one_line_error(*run('data', 'crop', shop/'Label.txt', '--out', shop/'crops'), 'exists')


def test_some_words_without_text_stay(shop):
    made = crop(label_txt(shop, ('OPEN', '')), shop/'crops', bar=False)
    assert (made.n, made.labelled) == (4, 2)
    source = open_source(made.path)
    assert [source.label(i) for i in range(len(source))] == ['OPEN', None]*2


def test_texts_with_tabs_and_line_ends_stay_on_their_line(shop):
    made = crop(label_txt(shop, ('OP\tEN', 'Caf\u00e9\n\u2028au lait')), shop/'crops', bar=False)
    source = open_source(made.path)
    assert [source.label(i) for i in range(2)] == ['OP EN', 'Caf\u00e9 \u2028au lait'] and made.labelled == 4


def test_words_are_not_mirrored(shop):
    "COCO-Text's masks go round a word the other way"
    photo = Image.open(shop/'photos/shop 0.jpg')
    photo.paste((250, 0, 0), (20, 40, 60, 70)); photo.save(shop/'photos/shop 0.jpg', quality=95)
    word = dict(image_id=1, bbox=[20, 40, 100, 30], mask=[20, 40, 20, 70, 120, 70, 120, 40], utf8_string='OPEN')
    imgs = {'1': dict(file_name='shop 0.jpg', width=300, height=120)}
    (shop/'a.json').write_text(json.dumps(dict(imgs=imgs, anns={'1': word})))
    im = np.asarray(open_source(crop(shop/'a.json', shop/'crops', shop/'photos', bar=False).path)[0][0]).astype(int)
    assert im.shape[:2] == (30, 100)
    assert im[5:25, 5:35, 1].max() < 60 < 200 < im[5:25, 45:95, 1].min()                                # red only on the left


def test_photographs_that_were_uploaded(shop):
    "Label Studio puts digits before the name and an underscore for the blank; both commands find the photograph"
    def task(k):
        place = dict(id='a', type='rectangle', original_width=300, original_height=120,
                     value=dict(x=20/3, y=100/3, width=100/3, height=25, rotation=0))
        return dict(data=dict(ocr=f'/data/upload/1/1a2b3c4{k}-shop_{k}.jpg'), annotations=[dict(result=[place])])
    (shop/'a.json').write_text(json.dumps([task(0), task(1)]))
    assert crop(shop/'a.json', shop/'crops', shop/'photos', bar=False).n == 2
    code, out, err = run('read', shop/'photos/shop 1.jpg', '--boxes', shop/'a.json', '--json')
    assert code == 0, err
    assert np.allclose(json.loads(out)['box'], [[20, 40], [120, 40], [120, 70], [20, 70]])


@pytest.mark.parametrize('name, text', [
    ('Label.txt', 'photos/shop 0.jpg\t[{"transcription": "a"}]'), ('a.json', '{"a": 3}'), ('a.json', '[]'), ('a.json', 'null'),
    ('a.json', '{"shapes": [{"label": "a", "points": [[0, "x"], [1, 2]]}], "imagePath": "a.png"}'),
    ('a.xml', '<a><image/>'),
    ('gt_a.txt', 'some words\nand more\n'), ('a.json', '{"a": {"polygons": [[[0, 0], [1, 1], [2, 2]]]}}'), ('a.txt', '\xff\xfe'),
    ('a.json', '['*5000+']'*5000)])
def test_what_is_no_annotation_is_said(tmp_path, name, text):
    (tmp_path/name).write_text(text, encoding='latin-1')
    with pytest.raises(DataError, match=name): read_boxes(tmp_path/name)


def test_names_cannot_lead_out_of_the_folder(shop):
    (shop/'a.json').write_text(json.dumps({'../../evil': dict(polygons=[]), '/etc/evil.png': dict(polygons=[])}))
    with pytest.raises(DataError, match='no photograph found'): crop(shop/'a.json', shop/'crops', bar=False)
    doc = {f'../{shop.name}/photos/shop {k}.jpg': dict(polygons=[[[20, 40], [120, 40], [120, 70], [20, 70]]]) for k in range(2)}
    (shop/'inner').mkdir(); (shop/'inner/a.json').write_text(json.dumps(doc))
    made = crop(shop/'inner/a.json', shop/'crops', shop/'photos', bar=False)
    inside = {p for p in shop.rglob('000.png')}
    assert made.n == 2 and all(p.is_relative_to(made.path/'images') for p in inside)


def test_photographs_that_cannot_be_used_are_counted(shop):
    file = label_txt(shop)
    (shop/'photos/shop 1.jpg').write_bytes(b'no picture')
    made = crop(file, shop/'crops', bar=False)
    assert (made.n, made.broken) == (2, [('photos/shop 1.jpg', 'unreadable')])
    assert 'photographs left out: 1 unreadable' in str(made)


def test_what_came_to_nothing_is_tried_anew(shop):
    "Photographs that lay elsewhere are found once they lie there"
    file = label_txt(shop)
    for k in range(2): (shop/f'photos/shop {k}.jpg').rename(shop/f'{k}.jpg')
    (shop/'photos/other.jpg').write_bytes((shop/'0.jpg').read_bytes())
    file.write_text(file.read_text(encoding='utf-8')+'\nphotos/other.jpg\t[]', encoding='utf-8')
    with pytest.raises(DataError, match='left out: 2 missing'): crop(file, shop/'crops', bar=False)
    for k in range(2): (shop/f'{k}.jpg').rename(shop/f'photos/shop {k}.jpg')
    assert crop(file, shop/'crops', bar=False).n == 4


def test_reading_in_place_is_told(shop):
    "A word that nobody is asked to read is no failure; a picture that cannot be drawn is said before"
    file = label_txt(shop, ('###', 'Café'))
    code, out, err = run('read', shop/'photos/shop 0.jpg', '--boxes', file, '--json', '--draw', shop/'read.jpg')
    assert code == 0 and Image.open(shop/'read.jpg').format == 'JPEG', err
    assert [json.loads(line).get('error') for line in out.splitlines()] == ['not to be read', None]
    code, out, err = run('read', shop/'photos/shop 0.jpg', '--boxes', file)
    assert code == 0 and len(out.splitlines()) == 1 and 'cannot be read' not in err
    first = [line for line in file.read_text(encoding='utf-8').splitlines() if 'shop 0' in line]
    (shop/'first.txt').write_text(first[0], encoding='utf-8')
    code, out, err = run('read', shop/'photos/shop 0.jpg', shop/'photos/shop 1.jpg', '--boxes', shop/'first.txt')
    assert code == 1 and out and 'shop 1' not in out and 'no photograph is called shop 1' in err
    one_line_error(*run('data', 'crop', shop/'photos/shop 0.jpg', '--out', shop/'none'), 'is a picture')
    for drawing in shop/'read.txt', shop/'nowhere/read.png':
        one_line_error(*run('read', shop/'photos/shop 0.jpg', '--boxes', file, '--draw', drawing), 'give a .png file')
    one_line_error(*run('read', shop/'photos', '--boxes', file, '--draw', shop/'read.png'), 'takes one photograph')


def test_the_name_that_is_most_alike_counts():
    "A path before a name, a name before what it may have been; nobody takes the boxes that are more another's"
    def like(name, file): return likeness(name, f'photos/{file}')
    assert [like('photos/a 1.jpg', 'a 1.jpg'), like('a 1.jpg', 'a 1.jpg'), like('a 1', 'a 1.jpg'), like('a_1.jpg', 'a 1.jpg'),
            like('0a1b2c3d-a_1.jpg', 'a 1.jpg'), like('a 1.png', 'a 1.jpg'), like('a 2', 'a 1.jpg')] == [3, 2, 2, 1, 1, 1, 0]


def test_numbers_that_are_none(shop):
    "Infinite, huge and empty boxes are left out; none takes the memory"
    def box(*points): return [list(p) for p in points]
    polygons = [box((0, 0), (1e9, 0), (1e9, 1e9), (0, 1e9)), box((5, 5), (5, 5), (5, 5), (5, 5)),
                box((20, 40), (120, 41), (120, 70), (20, 70)),
                box((float('inf'), 0), (1, 0), (1, 1), (0, 1)), box((float('nan'), 0), (1, 0), (1, 1), (0, 1)),
                box((-1e7, 3), (1e7, 2), (1e7, 70), (-1e7, 75))]
    (shop/'a.json').write_text(json.dumps({'shop 0.jpg': dict(polygons=polygons)}))
    made = crop(shop/'a.json', shop/'crops', shop/'photos', bar=False)
    assert 1 <= made.n <= 3 and all(w*h <= 300*120*4 for w, h in (im.size for im, _ in open_source(made.path)))


# Photographs of 400 million pixels

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (1_200_000_000, resource.RLIM_INFINITY)) # the picture in RGB takes as much again
from mnsp.cli import main
main()
"""


@pytest.fixture(scope='module')
def vast(tmp_path_factory):
    "A word, 400 pixels high, in 20,000 × 20,000: as JPEG, as progressive JPEG and as PNG, with their boxes"
    folder = tmp_path_factory.mktemp('vast')
    font = ImageFont.truetype(f'{get_data_path()}/fonts/ttf/DejaVuSans.ttf', 400)
    im = Image.new('L', (20_000, 20_000), 255)
    ImageDraw.Draw(im).text((15_000, 12_000), 'street', 0, font)
    for name, how in (('photo.jpg', dict(quality=30)), ('slow.jpg', dict(quality=30, progressive=True)),
                      ('photo.png', dict(compress_level=1))):
        (folder / name).mkdir()
        im.save(folder / name / name, **how)
        box = dict(label='street', points=[[14_950, 12_000], [16_400, 12_480]], shape_type='rectangle')
        about = dict(imagePath=name, imageWidth=20_000, imageHeight=20_000, shapes=[box])
        (folder / name / 'boxes.json').write_text(json.dumps(about))
    return folder


def limited(*args):
    "Exit code, output and errors of a command that may not take much memory"
    done = subprocess.run([sys.executable, '-c', LIMITED, *map(str, args)], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(sys.platform != 'linux', reason='limits memory as Linux does')
def test_a_vast_photograph(vast, tmp_path):
    boxes = {name: vast / name / 'boxes.json' for name in ('photo.jpg', 'slow.jpg', 'photo.png')}
    code, out, err = limited('data', 'crop', boxes['photo.jpg'], '--out', tmp_path / 'crops')
    assert code == 0 and '1 crops of 1 photograph' in out, err
    assert '20,000 × 20,000 pixels, opened 4 times smaller; cut it into parts' in err
    assert Image.open(next((tmp_path / 'crops').rglob('*.png'))).size == (362, 120)
    files = [vast / name / name for name in boxes]
    code, out, err = limited('read', files[0], '--boxes', boxes['photo.jpg'])
    assert code == 0 and out.split('\t')[1] == 'street' and '4 times smaller' in err, err
    for name in ('slow.jpg', 'photo.png'):
        code, out, err = limited('read', files[1], files[2], '--boxes', boxes[name])  # one after the other, both told
        assert code == 1 and '20,000 × 20,000 pixels are too large' in err and 'cut it into parts' in err, err
        assert f'no photograph is called {"photo" if name == "slow.jpg" else "slow"}' in err, err
        code, _, err = limited('data', 'crop', boxes[name], '--out', tmp_path / name)
        assert code == 1 and 'too large' in err and 'cut it into parts' in err and 'Traceback' not in err, err
