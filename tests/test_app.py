"""The web page, clicked through in a real browser: a picture dropped, the answer read, nothing loaded from elsewhere."""
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from urllib.parse import urlsplit

import pytest
from PIL import Image

from mnsp import Recognizer
from mnsp.synth import SynthWords, demo_world

sync_api = pytest.importorskip('playwright.sync_api', reason='playwright, a tool of development, is not installed')
sync_api.expect.set_options(timeout=30_000)                           # a busy machine is slow
chromium = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


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
    hosts, troubles = set(), []
    page.on('request', lambda r: hosts.add(urlsplit(r.url).netloc) if r.url.startswith('http') else None)
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
    assert hosts == {urlsplit(address).netloc} and not troubles


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


def test_only_what_was_uploaded_is_read(address, tmp_path):
    "A client that names a file of the server's gets an error, and does not learn whether there is one"
    def call(**data):
        body = json.dumps(data | dict(fn_index=0, session_hash='test')).encode()
        request = urllib.request.Request(f'{address}/gradio_api/queue/join', body, {'Content-Type': 'application/json'})
        urllib.request.urlopen(request, timeout=60).read()
        for line in urllib.request.urlopen(f'{address}/gradio_api/queue/data?session_hash=test', timeout=60):
            if line.startswith(b'data:') and (message := json.loads(line[5:]))['msg'] == 'process_completed': return message
    SynthWords(demo_world(), 1)[0][0].save(tmp_path / 'secret.png')
    for path in (tmp_path / 'secret.png', tmp_path / 'missing.png'):
        answer = call(data=[dict(path=str(path), meta=dict(_type='gradio.FileData')), 1])
        assert not answer['success'] and 'not uploaded' in answer['output']['error'], answer
