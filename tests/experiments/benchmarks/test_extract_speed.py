"""The benchmark of extraction runs, small."""

import numpy as np
import pytest

from dpfc.experiments.benchmarks import extract_speed
from dpfc.features import open_dataset
from dpfc.features.backbones.row_independence import check_rows


class Backbone:
    spec, modality, device = "tiny", "image", "cpu"
    n_features, decode_size, best_batch_size = 3, 8, 4
    weights_sha256 = "0" * 64

    def __init__(self):
        self.preprocessing, self.rows = {}, 0
        self.preparer = np.asarray

    def embed(self, batch):
        self.rows += len(batch)
        return batch.reshape(len(batch), -1)[:, :3].astype(np.float32)


def test_parts_of_a_data_set_hold_its_rows_once():
    whole = open_dataset("digits:test")
    parts = [extract_speed.SomeRows(whole, *edges) for edges in ((0, 7), (7, 20))]
    ids = [item.id for part in parts for item in part]
    assert ids == [item.id for item in whole][:20]
    assert [item.id for item in parts[1].items(10)] == ids[17:]
    assert len({part.fingerprint for part in parts}) == 2


def test_both_speeds_come_from_the_same_number_of_images():
    bare = []

    def forward(batch):
        bare.append(len(batch))

    data = extract_speed.SomeRows(open_dataset("digits:test"), 0, 40)
    backbone = Backbone()
    check_rows(backbone, 4)  # on made-up rows, once; their number is not looked at here
    backbone.rows = 0
    passes = {"fours": (forward, 4, 1), "tens": (forward, 10, 2)}
    speed = extract_speed.measure(data, backbone, passes)
    assert backbone.rows == 40 + 4  # the first batch once more, before the clock starts
    assert set(bare) == {4, 10}
    assert speed.bare_setting in passes
    assert speed.ratio == pytest.approx(speed.end_to_end / speed.bare)


@pytest.mark.slow
def test_the_command_measures_onnx_runtime(capsys, strict_json):
    assert extract_speed.main(["--data", "digits:test", "--rows", "64", "--json"]) == 0
    report = strict_json(capsys.readouterr().out)
    assert report["rows"] == 64
    (result,) = report["results"]
    assert result["backbone"] == "efficientnet-lite0"
    assert "threads, batches of" in result["bare_setting"]
    assert min(result["end_to_end"], result["bare"], result["ratio"]) > 0


@pytest.mark.slow
def test_bare_passes_in_pytorch_keep_their_images_on_the_device():
    import torch

    seen = []

    class Network(torch.nn.Module):
        def forward(self, images):
            seen.append((images.dtype, tuple(images.shape), images.data_ptr()))

    passes = extract_speed._torch_passes(Network(), "cpu")
    forward, rows, _ = passes["batches of 128"]
    for _ in range(2):
        forward(np.zeros((rows, 8, 8, 3), np.uint8))
    assert seen[0] == seen[1]
    assert seen[0][:2] == (torch.bfloat16, (128, 3, 8, 8))
