"""Embeds images with an exported encoder and onnxruntime; needs onnxruntime, numpy and pillow.

protonce weights export RUN --to onnx --fold --out encoder.onnx
python examples/embed_onnxruntime.py encoder.onnx IMAGE...
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image


def load(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    wanted = session.get_modelmeta().custom_metadata_map
    mean, std = (np.fromstring(wanted[key], sep=",", dtype=np.float32) for key in ("mean", "std"))
    short, size = int(wanted["resize_short_side"]), int(wanted["center_crop"])

    def view(name):
        image = Image.open(name).convert("RGB")
        (w, h), s = image.size, min(image.size)
        image = image.resize((w * short // s, h * short // s), Image.Resampling.BILINEAR)
        left, top = round((image.width - size) / 2), round((image.height - size) / 2)
        pixels = np.asarray(image.crop((left, top, left + size, top + size)), np.float32) / 255
        return ((pixels - mean) / std).transpose(2, 0, 1)

    def embed(names):
        images = np.stack([view(name) for name in names]).astype(np.float32)
        return session.run(["features", "embedding"], {"images": images})

    return embed


if __name__ == "__main__":
    features, embedding = load(sys.argv[1])(sys.argv[2:])
    print(embedding @ embedding.T)
