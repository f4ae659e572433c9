import inspect
import pickle

import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from dpfc import DPFCClassifier
from dpfc.features import BackboneTransformer, UnreadableImageError, load_backbone
from dpfc.features.exceptions import OutOfDeviceMemoryError

SIDE = 32
GOOD, BAD = "the quiet clean room", "the noisy dirty bed"


def pictures(n, seed=0):
    """Bright images of class 1 and dark ones of class 0, in turn."""
    generator = np.random.default_rng(seed)
    noise = generator.integers(0, 60, (n, 40, 50, 3))
    return (noise + 180 * (np.arange(n) % 2)[:, None, None, None]).astype(np.uint8)


def red_share(image):
    """A tiny preparation: 4 x 4 pixels."""
    return np.asarray(image.resize((4, 4)), np.float32).transpose(2, 0, 1) / 255


@pytest.fixture(scope="module")
def small():
    """A loaded backbone of images: channel sums of a random projection."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 6))
    return load_backbone(module, prepare=red_share, device="cpu")


@pytest.fixture
def text_spec(make_model):
    folder, _ = make_model("bert")
    return f"hf:{folder}"


def classifier(**options):
    return DPFCClassifier(epsilon=50.0, classes=[0, 1], random_state=0, **options)


# -- in a pipeline ---------------------------------------------------------------------------------


def test_a_pipeline_fits_on_images(small):
    X, y = pictures(400), np.arange(400) % 2
    pipeline = Pipeline([("embed", BackboneTransformer(small)), ("classify", classifier())])
    pipeline.fit(list(X), y)
    assert pipeline.score(pictures(100, seed=1), np.arange(100) % 2) > 0.95
    assert pipeline.predict_proba([Image.fromarray(X[0])]).shape == (1, 2)


def test_a_pipeline_fits_on_strings(text_spec):
    texts, y = [GOOD, BAD] * 200, [1, 0] * 200
    embed = BackboneTransformer(text_spec, device="cpu")
    pipeline = Pipeline([("embed", embed), ("classify", classifier())])
    pipeline.fit(texts, y)
    assert pipeline.predict([BAD, GOOD, GOOD]).tolist() == [0, 1, 1]
    assert pipeline.predict(np.array([BAD, GOOD])).tolist() == [0, 1]


@pytest.mark.slow
def test_a_pipeline_fits_on_photographs_with_the_default_backbone():
    X, y = pictures(120), np.arange(120) % 2
    embed = BackboneTransformer(image_size=SIDE, device="cpu")
    pipeline = Pipeline([("embed", embed), ("classify", classifier())]).fit(X, y)
    assert pipeline.score(pictures(60, seed=1), np.arange(60) % 2) > 0.9


def test_nothing_is_learned_so_any_rows_give_the_same_transformer(text_spec):
    one = BackboneTransformer(text_spec, device="cpu").fit([GOOD])
    other = BackboneTransformer(text_spec, device="cpu").fit([BAD] * 50)
    assert np.array_equal(one.transform([GOOD, BAD]), other.transform([GOOD, BAD]))
    unfitted = BackboneTransformer(text_spec, device="cpu")
    assert np.array_equal(unfitted.transform([GOOD, BAD]), one.transform([GOOD, BAD]))
    check_is_fitted(unfitted)


# -- what a transformer must do --------------------------------------------------------------------


def test_parameters_are_those_of_the_constructor():
    names = list(inspect.signature(BackboneTransformer).parameters)
    embed = BackboneTransformer("st:x", batch_size=3, pooling="mean")
    assert sorted(embed.get_params()) == sorted(names)
    embed.set_params(pooling="class_token", device="cpu")
    assert embed.get_params()["pooling"] == "class_token"
    assert repr(clone(embed)) == repr(embed)


def test_a_clone_shares_the_network_and_a_changed_parameter_loads_another(text_spec, monkeypatch):
    loads = []

    def counted(spec, **options):
        loads.append(options["pooling"])
        return load_backbone(spec, **options)

    monkeypatch.setattr("dpfc.features.sklearn_transformer.load_backbone", counted)
    embed = BackboneTransformer(text_spec, device="cpu").fit([])
    first = embed.transform([GOOD])
    copy = clone(embed)
    assert np.array_equal(copy.transform([GOOD]), first)
    assert loads == ["auto"]
    copy.set_params(pooling="class_token")
    assert not np.array_equal(copy.transform([GOOD]), first)
    assert np.array_equal(embed.transform([GOOD]), first)
    assert loads == ["auto", "class_token"]


@pytest.mark.parametrize("kept", ["pickle", "joblib"])
def test_a_pipeline_comes_back_from_a_file_without_weights(text_spec, tmp_path, kept):
    embed = BackboneTransformer(text_spec, device="cpu")
    pipeline = Pipeline([("embed", embed), ("classify", classifier())])
    pipeline.fit([GOOD, BAD] * 100, [1, 0] * 100)
    if kept == "pickle":
        assert len(pickle.dumps(embed)) < 2000
        back = pickle.loads(pickle.dumps(pipeline))
    else:
        joblib.dump(pipeline, tmp_path / "pipeline.joblib")
        back = joblib.load(tmp_path / "pipeline.joblib")
    texts = [GOOD, BAD, "the room"]
    assert np.array_equal(back.predict_proba(texts), pipeline.predict_proba(texts))


def test_features_have_names(text_spec, small):
    embed = BackboneTransformer(small)
    names = embed.get_feature_names_out()
    assert names.tolist() == [f"backbone{i}" for i in range(6)]
    pandas = pytest.importorskip("pandas")
    frame = embed.set_output(transform="pandas").transform(pictures(3))
    assert frame.columns.tolist() == names.tolist()
    texts = pandas.Series([GOOD, BAD], index=[7, 3])
    plain = BackboneTransformer(text_spec, device="cpu")
    assert np.array_equal(plain.transform(texts), plain.transform([GOOD, BAD]))


# -- kinds of rows ---------------------------------------------------------------------------------


def test_images_may_be_arrays_pictures_or_paths(small, tmp_path):
    X = pictures(4)
    expected = small.embed(np.stack([red_share(Image.fromarray(x)) for x in X]))
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, x in zip(paths, X, strict=True):
        Image.fromarray(x).save(path)
    embed = BackboneTransformer(small)
    kinds = [X, list(X), [Image.fromarray(x) for x in X], paths, [str(p) for p in paths]]
    for kind in (*kinds, tuple(paths), np.array([str(p) for p in paths])):
        assert np.array_equal(embed.transform(kind), expected)
    gray = X[..., 0]
    same = np.repeat(gray[..., None], 3, axis=3)
    assert np.array_equal(embed.transform(list(gray)), embed.transform(same))


def test_a_picture_opened_by_the_caller_is_turned_upright_as_its_path_is(small, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, 10:] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    embed = BackboneTransformer(small)
    with Image.open(tmp_path / "x.png") as image:
        opened = embed.transform([image])
    assert np.array_equal(opened, embed.transform([tmp_path / "x.png"]))
    assert not np.array_equal(opened, embed.transform([pixels]))


def test_no_rows_give_no_features(small, text_spec):
    assert BackboneTransformer(small).transform([]).shape == (0, 6)
    assert BackboneTransformer(text_spec, device="cpu").transform([]).shape == (0, 32)


@pytest.mark.parametrize("batch_size", [1, 7, "auto"])
def test_the_batch_size_changes_nothing(small, batch_size):
    X = pictures(20)
    features = BackboneTransformer(small, batch_size=batch_size).transform(X)
    assert np.array_equal(features, BackboneTransformer(small).transform(X))
    assert features.dtype == np.float32


def test_a_batch_that_does_not_fit_is_halved(fake_backbone_class):
    short = fake_backbone_class(room=5)
    features = BackboneTransformer(short, batch_size=16).transform(pictures(20))
    assert np.array_equal(
        features, BackboneTransformer(fake_backbone_class()).transform(pictures(20))
    )
    assert max(short.passes) == 4
    with pytest.raises(OutOfDeviceMemoryError):
        BackboneTransformer(fake_backbone_class(room=0)).transform(pictures(2))


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("a path.png", "X must be a sequence of images, paths or strings, got str"),
        (b"bytes", "got bytes"),
        (3, "got int"),
        ({"a": 1}, "got dict"),
        ({"a.png"}, "got set"),
        (np.zeros((4, 8, 8), np.uint8), r"X must have shape \(n,\) or \(n, H, W, 3\)"),
        (np.array("one"), "X must have shape"),
        ([np.zeros((8, 8, 3), np.float32)], r"X\[0\] must be uint8 of shape"),
        ([np.zeros((8, 8, 4), np.uint8)], r"X\[0\] must be uint8 of shape"),
        ([np.zeros((0, 8, 3), np.uint8)], r"X\[0\] must be uint8 of shape"),
        ([None], r"X\[0\] must be an image, a path or an array, got NoneType"),
        ([b"bytes"], r"X\[0\] must be an image, a path or an array, got bytes"),
    ],
)
def test_rows_that_are_no_images_are_refused(small, X, message):
    with pytest.raises(ValueError, match=message):
        BackboneTransformer(small).transform(X)


def test_a_data_frame_is_refused_as_it_would_give_names_of_columns(text_spec):
    frame = pytest.importorskip("pandas").DataFrame({"text": [GOOD, BAD]})
    embed = BackboneTransformer(text_spec, device="cpu")
    with pytest.raises(ValueError, match="of a table give one column"):
        embed.transform(frame)
    assert embed.transform(frame["text"]).shape == (2, 32)


@pytest.mark.parametrize("bad", [None, 3.0, b"bytes", float("nan")])
def test_a_row_that_is_no_text_is_refused_by_its_position(text_spec, bad):
    embed = BackboneTransformer(text_spec, device="cpu")
    with pytest.raises(ValueError, match=r"X\[1\] must be a string, got"):
        embed.transform([GOOD, bad])


def test_an_image_that_cannot_be_read_is_named_by_its_position(small, tmp_path):
    (tmp_path / "secret-name.png").write_bytes(b"no image")
    embed = BackboneTransformer(small)
    for path in (tmp_path / "secret-name.png", tmp_path / "secret-missing.png"):
        with pytest.raises(UnreadableImageError, match=r"'X\[1\]'") as error:
            embed.transform([pictures(1)[0], path])
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"batch_size must be an int in \[1, inf\) or 'auto', got 0"),
        ({"batch_size": "big"}, r"batch_size must be an int in \[1, inf\) or 'auto', got 'big'"),
        ({"batch_size": 2.0}, "batch_size must be"),
        ({"pooling": "max"}, "pooling must be one of"),
        ({"device": "tpu"}, "device must be one of"),
        ({"backbone": "resnet"}, "spec must be"),
    ],
)
def test_parameters_are_checked_in_fit_and_not_before(options, message):
    embed = BackboneTransformer(**options)
    with pytest.raises(ValueError, match=message):
        embed.fit(["x"])
    with pytest.raises(ValueError, match=message):
        embed.transform([])
