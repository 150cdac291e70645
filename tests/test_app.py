"""The web page, clicked through in a real browser: a picture dropped, the answer read, nothing loaded from elsewhere."""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from mnsp import Recognizer
from mnsp.reading import samples
from mnsp.synth import SynthWords, demo_world

sync_api = pytest.importorskip('playwright.sync_api', reason='playwright, a tool of development, is not installed')
sync_api.expect.set_options(timeout=30_000)                           # a busy machine is slow
chromium = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


logs = {} # of each server's address


def log_of(address): return logs[address].read_text()


@pytest.fixture(scope='module')
def address(tmp_path_factory):
    "`mnsp app` on a free port; its address"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    log = (tmp_path_factory.mktemp('app') / 'log').open('w+')
    command = [sys.executable, '-m', 'mnsp', 'app', '--port', str(port), '--max-megabytes', '.5']
    process, address = subprocess.Popen(command, stdout=log, stderr=log), f'http://127.0.0.1:{port}'
    try:
        for _ in range(600):
            try: urllib.request.urlopen(address, timeout=60).read(); break
            except OSError: time.sleep(.2)
            assert process.poll() is None, log.seek(0) or log.read()
        logs[address] = Path(log.name)
        yield address
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope='module')
def browser():
    if not chromium: pytest.skip('no Chromium on this machine (apt-get install chromium)')
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
                                                                    '--disable-background-networking'])
        yield browser
        browser.close()


def drop(page, path):
    "Choose a file, as dropping it does"
    page.locator('#picture input[type=file]').first.set_input_files(str(path))


def test_drop_a_picture_see_what_it_says(address, browser, tmp_path):
    page = browser.new_page(viewport=dict(width=1100, height=900))
    page.set_default_timeout(30_000)
    hosts, troubles, asked = set(), [], []
    page.on('request', lambda r: hosts.add(urlsplit(r.url).netloc) if r.url.startswith('http') else None)
    page.on('request', lambda r: asked.append(r) if '/queue/join' in r.url else None)
    page.on('pageerror', lambda e: troubles.append(str(e)))
    page.goto(address)
    sync_api.expect(page.get_by_role('heading', name='Read a word')).to_be_visible()
    words, reader = SynthWords(demo_world(), 8, seed=3), Recognizer.from_pretrained()
    for i in (4, 6):                                                 # a second one after the first is cleared
        words[i][0].save(tmp_path / f'{i}.png')
        drop(page, tmp_path / f'{i}.png')
        expected = reader.read(tmp_path / f'{i}.png')
        sync_api.expect(page.locator('#text textarea')).to_have_value(expected.text)
        sync_api.expect(page.locator('#about textarea')).to_have_value(re.compile(f'confidence {expected.confidence:.2f}'))
        sync_api.expect(page.locator('#looks img')).to_be_visible()
        assert page.locator('#looks img').evaluate('e => e.decode().then(() => e.naturalWidth)') > 300
        page.screenshot(path=tmp_path / 'page.png', full_page=True)
        page.locator('#picture').get_by_label('Remove Image').first.click()
        sync_api.expect(page.locator('#text textarea')).to_have_value('')
    assert hosts == {urlsplit(address).netloc} and not troubles and len(asked) == 4


def test_each_picture_is_read_once(address, browser, tmp_path):
    "One after another without removing them; an example; a file that is no picture takes the old text away"
    page = browser.new_page()
    page.set_default_timeout(30_000)
    asked, words, reader = [], SynthWords(demo_world(), 8, seed=3), Recognizer.from_pretrained()
    page.on('request', lambda r: asked.append(r) if '/queue/join' in r.url else None)
    page.goto(address)
    for i in (4, 6):
        words[i][0].save(tmp_path / f'{i}.png')
        drop(page, tmp_path / f'{i}.png')
        sync_api.expect(page.locator('#text textarea')).to_have_value(reader.read(words[i][0]).text)
    page.locator('#examples button').first.click()
    sync_api.expect(page.locator('#text textarea')).to_have_value(reader.read(samples()[0]).text)
    (tmp_path / 'broken.png').write_bytes(b'no picture')
    drop(page, tmp_path / 'broken.png')
    sync_api.expect(page.get_by_text('This file: unreadable')).to_have_count(1)
    sync_api.expect(page.locator('#text textarea')).to_have_value('')
    page.wait_for_timeout(1000)                                      # what comes twice comes late
    assert len(asked) == 4 and 'Traceback' not in log_of(address)


def test_a_page_in_a_frame_of_another_site_stays_empty(address, browser):
    page = browser.new_page()
    page.set_content(f'<iframe src="{address}"></iframe>')
    page.wait_for_timeout(2000)
    assert all('Read a word' not in frame.content() for frame in page.frames)


def test_what_is_no_picture_is_refused(address, browser, tmp_path):
    page = browser.new_page()
    page.set_default_timeout(30_000)
    page.goto(address)
    (tmp_path / 'broken.png').write_bytes(b'no picture')
    drop(page, tmp_path / 'broken.png')
    sync_api.expect(page.get_by_text('This file: unreadable')).to_have_count(1)
    Image.effect_noise((1200, 900), 90).save(tmp_path / 'large.png')
    assert (tmp_path / 'large.png').stat().st_size > 2**19
    page.goto(address)
    drop(page, tmp_path / 'large.png')
    sync_api.expect(page.get_by_text(re.compile('maximum allowed size', re.I))).to_be_visible()


def test_a_taken_port_is_said(address):
    port = address.rpartition(':')[2]
    done = subprocess.run([sys.executable, '-m', 'mnsp', 'app', '--port', port], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and done.stderr.startswith('mnsp: cannot listen') and 'Traceback' not in done.stderr


def post(address, path, body, **headers):
    "Status and answer"
    request = urllib.request.Request(address + path, body, {'Content-Type': 'application/json'} | headers)
    for left in range(9, -1, -1):
        try: answer = urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as e: answer = e
        except urllib.error.URLError as e: # who is refused may find the line cut while still sending, and not see why
            if not left or not isinstance(e.reason, ConnectionError): raise
            continue
        with answer: return answer.status, answer.read()


def test_what_programs_send(address, tmp_path):
    "Files of the server, addresses, other sites, too much, nonsense: one line each, which says nothing about this machine"
    SynthWords(demo_world(), 1)[0][0].save(tmp_path / 'secret.png')
    upload, join, names = '/gradio_api/upload', '/gradio_api/queue/join', ['secret.png', 'missing.png']
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n%b\r\n--x--\r\n'
    multipart = {'Content-Type': 'multipart/form-data; boundary=x'}
    def asked(path, **more):
        data = [dict(path=str(path), meta=dict(_type='gradio.FileData')), 1]
        return json.dumps(dict(data=data, fn_index=0, session_hash='test') | more).encode()
    for status, why, *request in [
        *((400, b'not uploaded', join, asked(tmp_path / name)) for name in names),
        (400, b'not uploaded', join, asked('http://127.0.0.1:9/a.png')), (400, b'not what', join, asked('a', fn_index=9)),
        (400, b'no JSON', join, b'{'), (400, b'not what', join, b'{}'), (413, b'maximum', join, b' ' * 10**5),
        (413, b'maximum', upload, form % bytes(2**20), multipart), (400, b'', upload, b'{}'),
        (400, b'', upload, b'nonsense', multipart),
        (404, b'nothing', '/gradio_api/run/answer', asked('a')), (404, b'nothing', '/login', b''),
        (403, b'another site', upload, form % b'a', multipart | dict(Origin='https://evil.example')),
        (403, b'--name', upload, form % b'a', multipart | dict(Host='evil.example'))]:
        found, said = post(address, *request[:2], **dict(*request[2:]))
        assert found == status and why in said and os.getcwd().encode() not in said, (request[:2], found, said)
    for path in '/gradio_api/proxy=https://example.org/', '/gradio_api/file=https://example.org/', '/monitoring':
        assert post(address, path, None)[0] == 404
    assert post(address, upload, form % b'a', **multipart, Origin=address)[0] == 200
    assert 'Traceback' not in log_of(address)
