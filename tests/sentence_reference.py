"""The sentence encoder of frontend/examples/sentence_encoder.c in numpy, float64, with BERT's whole
tokeniser; compares embeddings.

    sentence_reference.py FOLDER OUT.bin SENTENCE...

FOLDER: model.safetensors, vocab.txt; OUT.bin: float32 [sentences, 384] from the example.
Fails when a cosine is below 0.9999.
"""
import json
import math
import struct
import sys
import unicodedata
from pathlib import Path

import numpy as np

LAYERS, HEADS = 6, 12


def safetensors(path):
    raw = Path(path).read_bytes()
    (n,) = struct.unpack("<Q", raw[:8])
    out = {}
    for name, t in json.loads(raw[8:8 + n]).items():
        if name != "__metadata__" and t["dtype"] == "F32":
            a, b = t["data_offsets"]
            out[name] = np.frombuffer(raw[8 + n + a:8 + n + b], np.float32).reshape(t["shape"]).astype(np.float64)
    return out


def punctuation(c):
    return 33 <= ord(c) <= 47 or 58 <= ord(c) <= 64 or 91 <= ord(c) <= 96 or 123 <= ord(c) <= 126 or unicodedata.category(c)[0] == "P"


def words(text):
    text = unicodedata.normalize("NFD", text.lower())
    out = ""
    for c in text:
        if unicodedata.category(c) == "Mn":
            continue
        out += f" {c} " if punctuation(c) or 0x4E00 <= ord(c) <= 0x9FFF else c
    return out.split()


def tokens(vocab, text):
    ids = [vocab["[CLS]"]]
    for w in words(text):
        at, pieces = 0, []
        while at < len(w):
            end = next((e for e in range(len(w), at, -1) if ("##" if at else "") + w[at:e] in vocab), None)
            if end is None or len(w) > 100:
                pieces = [vocab["[UNK]"]]
                break
            pieces.append(vocab[("##" if at else "") + w[at:end]])
            at = end
        ids += pieces
    return ids + [vocab["[SEP]"]]


def encode(w, ids):
    erf = np.vectorize(math.erf)

    def dense(x, name):
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12) * w[name + ".weight"] + w[name + ".bias"]

    t = len(ids)
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:t]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for i in range(LAYERS):
        p = f"encoder.layer.{i}."

        def heads(name):
            return dense(x, p + "attention.self." + name).reshape(t, HEADS, -1).transpose(1, 0, 2)

        q, k, v = heads("query"), heads("key"), heads("value")
        s = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        s = np.exp(s - s.max(-1, keepdims=True))
        s /= s.sum(-1, keepdims=True)
        a = (s @ v).transpose(1, 0, 2).reshape(t, -1)
        x = norm(x + dense(a, p + "attention.output.dense"), p + "attention.output.LayerNorm")
        a = dense(x, p + "intermediate.dense")
        a = a * (1 + erf(a / math.sqrt(2))) / 2
        x = norm(x + dense(a, p + "output.dense"), p + "output.LayerNorm")
    y = x.mean(0)
    return y / np.linalg.norm(y)


def main():
    folder, sentences = Path(sys.argv[1]), sys.argv[3:]
    w = safetensors(folder / "model.safetensors")
    vocab = {line: i for i, line in enumerate((folder / "vocab.txt").read_text(encoding="utf-8").split("\n"))}
    got = np.fromfile(sys.argv[2], np.float32).reshape(len(sentences), -1).astype(np.float64)
    bad = 0
    for text, v in zip(sentences, got):
        want = encode(w, tokens(vocab, text))
        cosine = v @ want / np.linalg.norm(v)
        ok = bool(cosine >= 0.9999) and abs(np.linalg.norm(v) - 1) < 1e-5
        bad += not ok
        print(f"{'ok   ' if ok else 'WRONG'} cosine {cosine:.7f}, largest difference {np.abs(v - want).max():.1e}: {text}")
    sys.exit(1 if bad else 0)


main()
