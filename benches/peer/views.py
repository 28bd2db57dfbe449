"""Two-view images a second of other pipelines on one thread, as JSON.

views.py PIPELINE SIZE FILE.tar [FOLDER]    PIPELINE: decode, torchvision, tensors, albumentations
"""

import io
import json
import random
import sys
import tarfile
import time

import numpy as np
import torch
from PIL import Image, ImageFilter

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def blur(image):
    return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def pipeline(name, size):
    """Encoded bytes -> the two views of PCL v2."""
    if name == "decode":
        return lambda data: Image.open(io.BytesIO(data)).convert("RGB")
    if name == "torchvision":
        from torchvision import transforms as T

        view = T.Compose([
            T.RandomResizedCrop(size, scale=(0.2, 1.0)),
            T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            T.RandomGrayscale(p=0.2),
            T.RandomApply([T.Lambda(blur)], p=0.5),
            T.RandomHorizontalFlip(),
            T.ToTensor(),
            T.Normalize(MEAN, STD),
        ])
        load = lambda data: Image.open(io.BytesIO(data)).convert("RGB")
    elif name == "tensors":
        from torchvision.io import ImageReadMode, decode_jpeg
        from torchvision.transforms import v2 as T

        # Its blur's kernel covers three deviations of the largest sigma.
        view = T.Compose([
            T.RandomResizedCrop(size, scale=(0.2, 1.0), antialias=True),
            T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            T.RandomGrayscale(p=0.2),
            T.RandomApply([T.GaussianBlur(13, sigma=(0.1, 2.0))], p=0.5),
            T.RandomHorizontalFlip(),
            T.ToDtype(torch.float32, scale=True),
            T.Normalize(MEAN, STD),
        ])
        load = lambda data: decode_jpeg(
            torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB
        )
    elif name == "albumentations":
        import albumentations as A
        import cv2

        cv2.setNumThreads(1)
        steps = A.Compose([
            A.RandomResizedCrop(size=(size, size), scale=(0.2, 1.0)),
            A.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1), p=0.8),
            A.ToGray(p=0.2),
            A.GaussianBlur(blur_range=(0, 0), sigma_range=(0.1, 2.0), p=0.5),
            A.HorizontalFlip(p=0.5),
            A.Normalize(MEAN, STD),
        ])
        view = lambda image: steps(image=image)["image"]
        load = lambda data: cv2.cvtColor(
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
        )
    else:
        sys.exit(f"unknown pipeline {name}")

    def both(data):
        image = load(data)
        return view(image), view(image)

    return both


def main():
    name, size, path, *folder = sys.argv[1:]
    torch.set_num_threads(1)
    files = []
    with tarfile.open(path) as archive:
        for member in archive:
            inside = not folder or member.name.lstrip("./").startswith(folder[0] + "/")
            if member.isfile() and inside and len(files) < 2000:
                files.append(archive.extractfile(member).read())
    run = pipeline(name, int(size))
    best = 0.0
    for _ in range(3):
        begin, count = time.perf_counter(), 0
        for data in files:
            run(data)
            count += 1
            if time.perf_counter() - begin > 5:
                break
        best = max(best, count / (time.perf_counter() - begin))
    print(json.dumps({"pipeline": name, "images_per_second": best}))


if __name__ == "__main__":
    main()
