"""How fast recognisers read: `python experiments/reading_speed.py`, minutes; prints a table, writes a CSV.

The weights are random, so every word is made 7 steps long (6 letters and the end mark), for all but the released way of
decoding, which always takes 25. Published recognisers stand beside as they were measured earlier on 2 cores of the same
kind, together with the released way of decoding, which is therefore the unit of the last two columns.
"""
import argparse
import time
from pathlib import Path

import torch

from mnsp.decoding import rounded_weights
from mnsp.encoder import EncoderConfig
from mnsp.files import write_rows
from mnsp.machine import autocast, has_bf16
from mnsp.recognizer import Recognizer, RecognizerConfig, recognizer_fast, recognizer_small

STEPS, SIZES = 7, (1, 32)
# pictures/s at batch 1 and 32, measured earlier
EARLIER = {"released decoding": (2.6, 4.0), "PARSeq-S": (27.5, 47.2), "docTR PARSeq": (30.9, 28.8),
           "docTR ViTSTR-S": (35.9, 43.5), "docTR CRNN-VGG": (51.0, 83.0)}


@torch.inference_mode()
def released(model, images):
    "All layers over all 25 places, and the picture's keys and values anew, for each of 25 characters."
    memory = model.linear_norm(model.encoder(images))
    ids = torch.full((len(images), model.cfg.max_len), model.charset.pad)
    for t in range(model.cfg.max_len):
        pictures = [layer.enc_attn.keys_values(memory) for layer in model.layers]
        ids[:, t] = model.predict(pictures, ids)[:, t].argmax(-1)
    return ids


def cached(model, images): return model.generate(images, STEPS, stop_early=False)


def in_bfloat16(model, images):
    with autocast("cpu"): return cached(model, images)


def shape(depth, dim=384, encoder_depth=12):
    return recognizer_fast(depth=depth, encoder=EncoderConfig(patch_size=(4, 8), dim=dim, depth=encoder_depth, heads=dim // 64),
                           dim=dim, heads=dim // 64, ffn_dim=4 * dim)


VARIANTS = [  # name, configuration, way of reading, weights rounded beforehand?
    ("released decoding", recognizer_small(), released, False),
    ("cached, 7 steps", recognizer_small(), cached, False),
    ("cached, bfloat16, weights rounded anew", recognizer_small(), in_bfloat16, False),
    ("cached, bfloat16", recognizer_small(), in_bfloat16, True),
    ("fast", recognizer_fast(), cached, False),
    ("fast, bfloat16", recognizer_fast(), in_bfloat16, True),
    ("fast, decoder of 2 layers, bfloat16", shape(2), in_bfloat16, True),
]


def pictures_per_second(read, model, n, seconds):
    "The fastest repetition, after one to warm up: what the machine can do when nobody else uses it."
    images = torch.randint(0, 256, (n, 3, *model.cfg.encoder.img_size), dtype=torch.uint8)
    read(model, images[:1])
    times, started = [], time.perf_counter()
    while not times or time.perf_counter() - started < seconds:
        at = time.perf_counter()
        read(model, images)
        times.append(time.perf_counter() - at)
    return n / min(times)


def measure(name, cfg: RecognizerConfig, read, rounded, seconds):
    torch.manual_seed(0)
    model = Recognizer(cfg).eval()
    size = sum(p.numel() for p in model.parameters()) / 1e6
    if rounded: rounded_weights(model)
    return dict(reader=name, million_parameters=round(size, 1), steps=cfg.max_len if read is released else STEPS,
                **{f"batch_{n}": round(pictures_per_second(read, model, n, seconds), 1) for n in SIZES})


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5., help="per reader and batch size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for variant in VARIANTS:
        rows.append(measure(*variant, args.seconds))
        print(rows[-1], flush=True)
    rows += [dict(reader=f"{name} (earlier)", **{f"batch_{n}": v for n, v in zip(SIZES, values)})
             for name, values in EARLIER.items()]
    for row in rows:
        unit = dict(zip(SIZES, EARLIER["released decoding"])) if "earlier" in row["reader"] else {
            n: rows[0][f"batch_{n}"] for n in SIZES}
        row |= {f"times_released_{n}": round(row[f"batch_{n}"] / unit[n], 1) for n in SIZES}
    print(f"{args.threads} threads, bfloat16 in hardware: {has_bf16(torch.device('cpu'))}, torch {torch.__version__}")
    print(f"{'':40} {'M':>5} {'steps':>5} {'batch 1':>8} {'batch 32':>8}   × released")
    for r in rows:
        print(f"{r['reader']:40} {r.get('million_parameters', ''):>5} {r.get('steps', ''):>5} {r['batch_1']:8} {r['batch_32']:8} "
              f"{r['times_released_1']:6} {r['times_released_32']:6}")
    columns = dict.fromkeys(rows[0])
    write_rows(args.out, [columns | row for row in rows])


if __name__ == "__main__": main()
