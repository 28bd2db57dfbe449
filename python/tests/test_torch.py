"""What torch gets: tensors without a copy, and networks."""

import json
import struct

import numpy as np
import protonce
import pytest

torch = pytest.importorskip("torch")


def test_tensors_are_channels_last_and_writable(pictures):
    arrays = protonce.Loader(pictures, 16, 5, seed=1, output="numpy", local_views=1, local_size=8)
    tensors = protonce.Loader(pictures, 16, 5, seed=1, local_views=1, local_size=8)
    for (views, indices), (expected, expected_indices) in zip(tensors, arrays, strict=True):
        assert indices.dtype == torch.int64 and indices.tolist() == expected_indices.tolist()
        for view, array in zip(views, expected, strict=True):
            assert view.shape == (5, 3, array.shape[1], array.shape[1])
            assert view.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(view.permute(0, 2, 3, 1), torch.from_numpy(array))
            view.mul_(2)
            assert not view.requires_grad


def test_nothing_is_copied_on_the_way(pictures):
    [batch] = protonce.Loader(pictures, 16, 23)._pipeline.batches(0)
    for array in [*batch[0], batch[1]]:
        tensor, numpy = torch.from_dlpack(array), np.asarray(array)
        assert tensor.data_ptr() == numpy.ctypes.data == array.__array_interface__["data"][0]
    # NumPy's own way in, in both versions of the protocol.
    for form in ({}, {"max_version": (1, 0)}, {"max_version": (1, 2)}, {"max_version": (0, 8)}):
        capsule = batch[0][0].__dlpack__(**form)
        versioned = form.get("max_version", (0, 0)) >= (1, 0)
        assert ("dltensor_versioned" in repr(capsule)) == versioned
        # Nobody takes it: it frees itself.
        del capsule
    assert np.from_dlpack(batch[0][0]).ctypes.data == batch[0][0].__array_interface__["data"][0]
    for refused in ({"copy": True}, {"dl_device": (2, 0)}):
        with pytest.raises(BufferError):
            batch[0][0].__dlpack__(**refused)


def test_uint8_tensors(pictures):
    for (query, _), _ in protonce.Loader(pictures, 16, 5, dtype="uint8"):
        assert query.dtype == torch.uint8 and query.shape == (5, 3, 16, 16)


def test_ranks_come_from_torch_distributed(pictures, tmp_path):
    distributed = torch.distributed
    if not distributed.is_available():
        pytest.skip("torch was built without it")
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        loader = protonce.Loader(pictures, 8, 4)
        assert (loader.rank, loader.world_size) == (0, 1)
    finally:
        distributed.destroy_process_group()


def test_kmeans_takes_tensors():
    points = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    expected = protonce.KMeans(5, random_state=0).fit(points.numpy()).labels_
    for same in (points, points.double(), points.requires_grad_()):
        np.testing.assert_array_equal(protonce.KMeans(5, random_state=0).fit(same).labels_, expected)
    protonce.KMeans(5, random_state=0).fit(points.bfloat16())


ARCHITECTURES = [
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "resnext50_32x4d",
]


def network(arch, small, head, dim=16):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = getattr(torchvision.models, arch)(weights=None)
    width = model.fc.in_features
    linear = torch.nn.Linear
    if small:
        model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        model.maxpool = torch.nn.Identity()
    model.fc = {
        "linear": lambda: linear(width, dim),
        "mlp": lambda: torch.nn.Sequential(linear(width, width), torch.nn.ReLU(), linear(width, dim)),
        "mlp-bn": lambda: torch.nn.Sequential(
            linear(width, 64), torch.nn.BatchNorm1d(64), torch.nn.ReLU(), linear(64, dim)
        ),
    }[head]()
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm1d)):
            torch.nn.init.uniform_(module.running_var, 0.8, 1.5)
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
    return model.eval()


def save_safetensors(path, state, metadata):
    header, parts, offset = {"__metadata__": metadata} if metadata else {}, [], 0
    for name, tensor in state.items():
        data = tensor.numpy().tobytes()
        kind = {torch.float32: "F32", torch.int64: "I64"}[tensor.dtype]
        offsets = [offset, offset + len(data)]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": offsets}
        parts.append(data)
        offset += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_an_exported_network_is_loaded_whole(arch, tmp_path):
    number = ARCHITECTURES.index(arch)
    small, head = number % 2 == 0, ("linear", "mlp", "mlp-bn")[number % 3]
    model = network(arch, small, head)
    state = model.state_dict()
    images = torch.randn(2, 3, 32, 32)
    views = {"views": {"image-size": 32, "eval-resize": 36}}
    save_safetensors(tmp_path / "w.safetensors", state, {"protonce": json.dumps(views)})
    torch.save(state, tmp_path / "w.pth")
    (tmp_path / "w.pth.card.json").write_text(json.dumps(views))
    run = tmp_path / "run" / "checkpoints"
    for epoch in ("epoch-9999", "epoch-10000", "epoch-10000-step-000007"):
        (run / epoch).mkdir(parents=True)
    stale = {name: torch.zeros_like(value) for name, value in state.items()}
    save_safetensors(run / "epoch-9999" / "encoder.safetensors", stale, None)
    save_safetensors(run / "epoch-10000-step-000007" / "encoder.safetensors", state, None)
    with torch.no_grad():
        expected = model(images)
        for weights in ("w.safetensors", "w.pth", "run"):
            loaded = protonce.load(tmp_path / weights, head=True)
            assert torch.equal(loaded(images), expected)
            assert not loaded.training
            if weights != "run":
                assert loaded.views == {"image_size": 32, "eval_resize": 36}
        features = protonce.load(tmp_path / "w.pth")(images)
        model.fc = torch.nn.Identity()
        assert torch.equal(features, model(images))


def test_what_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        protonce.load(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="neither a run with a checkpoint"):
        protonce.load(tmp_path)
    model = network("resnet18", True, "linear")
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("fc.")}
    torch.save(state, tmp_path / "headless.pth")
    assert protonce.load(tmp_path / "headless.pth") is not None
    with pytest.raises(ValueError, match="has no projection head"):
        protonce.load(tmp_path / "headless.pth", head=True)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="holds no ResNet under torchvision's names"):
        protonce.load(tmp_path / "other.pth")
    del state["layer3.0.conv1.weight"]
    torch.save(state, tmp_path / "torn.pth")
    with pytest.raises(ValueError, match="is not torchvision's resnet18"):
        protonce.load(tmp_path / "torn.pth")
    for text, sentence in [
        (b"", "its header does not fit"),
        (struct.pack("<Q", 1 << 40) + b"{}", "its header does not fit"),
        (struct.pack("<Q", 2) + b"[]", "its header is damaged"),
        (struct.pack("<Q", 2) + b"xx", "its header is damaged"),
    ]:
        (tmp_path / "torn.safetensors").write_bytes(text)
        with pytest.raises(ValueError, match=sentence):
            protonce.load(tmp_path / "torn.safetensors")
