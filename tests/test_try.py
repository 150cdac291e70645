"""The site's page that reads words: resized to the grey level, and read, as by the package; loaded from nowhere else."""
import functools
import http.server
import io
import re
import shutil
import struct
import subprocess
import threading
import zlib
from base64 import b64encode
from math import inf

import numpy as np
import pytest
from PIL import Image, ImageCms

from mnsp import Recognizer
from mnsp.images import to_array
from mnsp.onnx import OnnxReader
from mnsp.reading import samples, to_picture
from mnsp.synth import SynthWords, demo_world

# Larger and smaller in both directions, in one, and not at all; one pixel; a step of thousands of pixels.
SIZES = [(128, 32), (300, 70), (61, 17), (128, 90), (400, 32), (1, 1), (2, 40), (1000, 3), (4001, 311)]
chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def noise(size, channels, seed=0):
    "Numbers of every size beside each other, which resampling must cut off."
    bands = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), np.uint8)
    return np.where(bands > 200, 255, np.where(bands < 50, 0, bands)).astype(np.uint8)


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def test_resizing_is_pillows(root):
    "Without a browser, by Node"
    if not shutil.which("node"): pytest.skip("no Node.js on this machine (apt-get install nodejs)")
    program = "const {resized} = require(process.argv[1]), [w, h] = process.argv.slice(2).map(Number); " \
              "process.stdout.write(resized(require('fs').readFileSync(0), w, h, 128, 32))"
    for seed, size in enumerate(SIZES):
        rgba = noise(size, 4, seed)
        done = subprocess.run(["node", "-e", program, str(root/"docs"/"_static"/"try.js"), *map(str, size)], check=True,
                              input=rgba.tobytes(), capture_output=True)
        found = np.frombuffer(done.stdout, np.uint8).reshape(3, 32, 128)
        assert (found == to_array(Image.fromarray(np.ascontiguousarray(rgba[..., :3])))).all(), size


@pytest.fixture(scope="module")
def site(root):
    "The built site, which has the reader"
    folder = root/"docs"/"_build"/"html"
    if not (folder/"try.html").exists(): pytest.skip("no site here: `make docs` builds it")
    if "was left out" in (folder/"_static"/"onnxruntime"/"ort.js").read_text(encoding="utf-8")[:200]:
        pytest.skip("onnxruntime-web could not be fetched: npm or its registry is missing")
    return folder


@pytest.fixture(scope="module")
def address(site):
    "The site on a free port, from a server that sends no headers of its own"
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args): super().__init__(*args, directory=site)
        def log_message(self, *args): pass
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright, a tool of development, is not installed")
    if not chromium: pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage",
                                                                    "--disable-background-networking"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(address, browser):
    "The page with its reader loaded, and in `page.asked` all that was requested"
    page = browser.new_page(viewport=dict(width=1100, height=900))
    page.set_default_timeout(60_000)                                  # a busy machine is slow
    page.asked = []
    page.on("request", lambda request: page.asked.append(request))
    page.goto(f"{address}/try.html")
    page.wait_for_function("document.querySelector('.try-status').textContent === 'Ready.'")
    page.evaluate("folder => { globalThis.loaded = loadReader(folder) }", f"{address}/_static/")
    return page


@pytest.fixture(scope="module")
def read(site):
    "The package's reading of pictures as the page does it: in float32, each seen once and as a whole"
    pytest.importorskip("onnxruntime")
    return functools.partial(OnnxReader(site/"_static"/"reader"/"reader.onnx").read, tta=False, tall=inf, long=inf)


LOOK = """async ([data, box]) => {
  const canvas = document.createElement("canvas"), file = await (await fetch(`data:;base64,${data}`)).blob();
  await draw(file, canvas);
  const bytes = bytesOf(canvas, await loaded, box ?? undefined);
  return { bytes: Array.from(bytes), ...await readBytes(await loaded, bytes) };
}"""


def look(page, data, box=None):
    "What the page makes of a file, and of a box in it: `bytes`, `text`, `confidence`, `letters`"
    found = page.evaluate(LOOK, [b64encode(data).decode(), box])
    return found | dict(bytes=np.array(found["bytes"], np.uint8).reshape(3, 32, 128))


def with_gamma(png, gamma):
    "A PNG that asks for another gamma, which the package does not apply: its chunk, after the header of 33 bytes"
    chunk = b"gAMA" + struct.pack(">I", round(100_000 * gamma))
    return png[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]


def files():
    "Name -> bytes of PNGs of every kind that says what its numbers are"
    rgb, grey = Image.fromarray(noise((300, 70), 3)), Image.fromarray(noise((90, 40), 1)[..., 0])
    # every value in every transparency
    fading = np.stack(np.broadcast_arrays(*np.ogrid[:256, :256], 77, 0), -1)[..., [0, 2, 0, 1]].astype(np.uint8)
    found = {f"RGB {size}": encoded(Image.fromarray(noise(size, 3))) for size in SIZES}
    found |= {"grey": encoded(grey), "1 bit": encoded(grey.convert("1")), "palette": encoded(rgb.quantize(50)),
              "RGBA": encoded(Image.fromarray(noise((200, 60), 4))), "fading": encoded(Image.fromarray(fading)),
              "grey with alpha": encoded(Image.fromarray(noise((200, 60), 2), "LA")),
              "transparent palette": encoded(rgb.quantize(50), transparency=7)}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in (b"rXYZ", b"...."), (b"bXYZ", b"rXYZ"), (b"....", b"bXYZ"):  # red is blue: not applied either
        assert old in profile
        profile = profile.replace(old, new)
    return found | {"profile": encoded(rgb, icc_profile=profile), "gamma": with_gamma(encoded(rgb), 1 / 1.5)}


def test_pictures_arrive_as_in_the_package(page):
    for name, data in files().items():
        assert (look(page, data)["bytes"] == to_array(to_picture(data))).all(), name


def test_photographs_are_turned_as_their_exif_says(page):
    "JPEG, whose decoders may round differently"
    smooth = Image.fromarray(noise((6, 4), 3)).resize((160, 100), Image.Resampling.BICUBIC)
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        data = encoded(smooth, "JPEG", exif=exif, quality=95)
        assert np.abs(look(page, data)["bytes"] - to_array(to_picture(data)).astype(int)).max() <= 3, turn


def test_a_box_is_what_the_package_crops(page):
    data = encoded(Image.fromarray(noise((300, 200), 3)))
    found = look(page, data, [20, 30, 150, 60])["bytes"]
    assert (found == to_array(to_picture(data).crop((20, 30, 170, 90)))).all()


def test_a_hundred_words_are_read_as_by_the_package(page, read):
    "Text, confidence, places"
    words = SynthWords(demo_world(), 100, seed=7)
    data = [encoded(words[i][0]) for i in range(100)]
    wanted, found = read(data), [look(page, one) for one in data]
    assert [f["text"] for f in found] == [w.text for w in wanted]
    packaged = Recognizer.from_pretrained().read(data, tta=False, tall=inf, long=inf)  # may be in half precision
    assert [w.text for w in wanted] == [p.text for p in packaged]
    assert sum(f["text"] == words[i][1] for i, f in enumerate(found)) > 70  # they are words, not noise
    for one, f, w in zip(data, found, wanted):
        assert f["confidence"] == pytest.approx(w.confidence, abs=1e-4)
        places = [(letter["x"], letter["y"]) for letter in f["letters"]] * np.array(to_picture(one).size)
        assert np.allclose(places, w.positions, atol=.2)


def test_a_picture_is_chosen_and_its_letters_shown(page, read, tmp_path):
    "As a person does it: file, example, broken file; a part of the picture"
    word, text = SynthWords(demo_world(), 5, seed=3)[4]
    word.save(tmp_path/"word.png")
    reading = read(word)
    page.locator("input[type=file]").first.set_input_files(tmp_path/"word.png")
    page.locator(".try-result").wait_for()
    assert page.locator(".try-text").inner_text() == reading.text
    assert f"{reading.confidence:.2f}" in page.locator(".try-confidence").inner_text()
    assert page.locator(".try-letter").all_inner_texts() == list(reading.text)
    canvas, dot = page.locator("canvas").bounding_box(), page.locator(".try-dot").first.bounding_box()
    x = (dot["x"] + dot["width"] / 2 - canvas["x"]) / canvas["width"] * word.width
    assert x == pytest.approx(reading.positions[0][0], abs=1)
    page.mouse.move(canvas["x"] + 1, canvas["y"] + 1)
    page.mouse.down()
    page.mouse.move(canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] - 1)
    page.mouse.up()
    page.locator(".try-box").wait_for()
    page.wait_for_function(f"document.querySelectorAll('.try-letter').length < {len(reading.text)}")

    page.locator(".try-open button").nth(1).click()
    wanted = read(samples()[1]).text
    page.wait_for_function("wanted => document.querySelector('.try-text').textContent === wanted", arg=wanted)
    (tmp_path/"broken.png").write_bytes(b"no picture")
    page.locator("input[type=file]").first.set_input_files(tmp_path/"broken.png")
    page.get_by_text("broken.png is no picture that this browser can open").wait_for()
    assert not page.locator(".try-result").is_visible()
    Image.new("RGB", (200, 60), "white").save(tmp_path/"blank.png")
    page.locator("input[type=file]").first.set_input_files(tmp_path/"blank.png")
    page.get_by_text("no letters were seen").wait_for()


def test_dropped_and_pasted(page, read):
    data = b64encode(samples()[2].read_bytes()).decode()
    wanted = read(samples()[2]).text
    for event, field in ("DragEvent('drop'", "dataTransfer"), ("ClipboardEvent('paste'", "clipboardData"):
        page.evaluate("document.querySelector('.try-text').textContent = ''")
        page.evaluate(f"""async data => {{
            const held = new DataTransfer(), bytes = await (await fetch(`data:;base64,${{data}}`)).arrayBuffer();
            held.items.add(new File([bytes], "word.png", {{ type: "image/png" }}));
            document.dispatchEvent(new {event}, {{ {field}: held, cancelable: true }}));
        }}""", data)
        page.wait_for_function("wanted => document.querySelector('.try-text').textContent === wanted", arg=wanted)


def test_nothing_leaves_and_nothing_else_is_loaded(page, address, site):
    "All that was asked in the tests above: files of the site, none with a body; together at most 25 MB"
    assert page.asked and all(request.url.startswith((f"{address}/", "data:", "blob:")) for request in page.asked)
    assert all(request.method == "GET" for request in page.asked)
    loaded = {request.url.removeprefix(address).partition("?")[0] for request in page.asked}
    assert {"/_static/onnxruntime/ort.wasm", "/_static/reader/reader.onnx"} <= loaded
    parts = [path for name in ("onnxruntime", "reader") for path in (site/"_static"/name).iterdir()]
    assert sum(path.stat().st_size for path in parts) < 25e6


def test_other_pages_load_no_reader(address, browser):
    page = browser.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/index.html", wait_until="networkidle")
    assert asked and not [url for url in asked if re.search("try.js|onnxruntime|reader/", url)]


def test_what_is_missing_is_said(address, browser, site):
    "Opened as a file; built without the reader; a file that is lost"
    page = browser.new_page()
    page.goto((site/"try.html").as_uri())
    page.get_by_text("opened as a file").wait_for()
    for name, answer, said in [("ort.js", "// left out", "built without the reader"), ("reader.onnx", None, "404")]:
        page = browser.new_page()
        how = dict(body=answer, content_type="text/javascript") if answer else dict(status=404)
        page.route(f"**/{name}", lambda route: route.fulfill(**how))  # noqa: B023
        page.goto(f"{address}/try.html")
        page.get_by_text(said).wait_for()
