import numpy as np
import pytest

from sheafnet.errors import ConfigError, DatasetError

N = 200
RNG = np.random.default_rng(0)


def usable():
    """200 events of 4 classes in five shapes, row i recognisable by its number."""
    return {
        "a_vector": np.arange(N * 3.0).reshape(N, 3),
        "b_scalar": np.arange(N) * 2,
        "c_grey": (np.arange(N)[:, None, None] + np.zeros((4, 5))).astype(np.float16),
        "d_colour": RNG.normal(3, 2, (N, 2, 4, 5)).astype(np.float32),
        "labels": np.arange(N) // 50,
    }


@pytest.fixture
def folder(tmp_path):
    def write(**changed):
        for name, array in {**usable(), **changed}.items():
            if array is None:
                (tmp_path / f"{name}.npy").unlink(missing_ok=True)
            else:
                np.save(tmp_path / f"{name}.npy", array)
        return str(tmp_path)

    return write


def numbers(data, split, events):
    """Row numbers through the unstandardised scalar at node 1."""
    return (data.source(1).samples(split, events)[:, 0] / 2).astype(int)


def test_shapes_and_modalities(opened, folder):
    data = opened("arrays", path=folder(), nodes=5)
    assert [data.modality(n) for n in range(5)] == [
        "a_vector", "b_scalar", "c_grey", "d_colour", "a_vector",
    ]  # fmt: skip
    shapes = [(3,), (1,), (1, 4, 5), (2, 4, 5), (3,)]
    for node, shape in enumerate(shapes):
        source = data.source(node)
        view = source.samples("test", np.arange(6))
        assert source.shape == shape
        assert view.shape == (6, *shape)
        assert view.dtype == np.float32
    assert data.classes == 4
    assert not data.labels_per_edge


def test_own_split_is_stratified_and_disjoint(opened, folder):
    data = opened("arrays", path=folder(), standardise=False)
    sizes = {"train": 140, "validation": 20, "test": 40}
    rows = {s: numbers(data, s, np.arange(n)) for s, n in sizes.items()}
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(N))
    for split, size in sizes.items():
        assert data.distinct(split) == size
        assert data.size(split) == (None if split == "train" else size)
        assert np.bincount(rows[split] // 50).tolist() == [size // 4] * 4
        labels = data.source(0).labels(split, np.arange(size), 1)
        assert labels.dtype == np.int64
        assert np.array_equal(labels, rows[split] // 50)
    again = opened("arrays", path=folder(), standardise=False, seed=5)
    assert np.array_equal(numbers(again, "test", np.arange(40)), rows["test"])
    other = opened("arrays", path=folder(), standardise=False, split_seed=1)
    assert not np.array_equal(numbers(other, "test", np.arange(40)), rows["test"])


def test_epochs_are_shared_by_all_nodes(opened, folder):
    data = opened("arrays", path=folder(), standardise=False)
    events = np.arange(130, 300)
    rows = numbers(data, "train", events)
    assert np.array_equal(data.source(0).samples("train", events)[:, 0], rows * 3)
    assert np.array_equal(data.source(2).samples("train", events)[:, 0, 0, 0], rows)
    assert len(set(rows[10:150].tolist())) == 140


def test_given_splits_are_obeyed(opened, folder):
    splits = np.arange(N) % 5 % 3
    data = opened("arrays", path=folder(splits=splits), standardise=False)
    for number, split in enumerate(("train", "validation", "test")):
        expected = np.flatnonzero(splits == number)
        assert data.distinct(split) == len(expected)
        rows = numbers(data, split, np.arange(len(expected)))
        assert np.array_equal(np.sort(rows), expected)
    assert len(set((numbers(data, "test", np.arange(8)) // 50).tolist())) == 4


def test_standardised_per_feature_and_per_channel(opened, folder):
    raw = usable()
    constant = raw["a_vector"].copy()
    constant[:, 1] = 7
    data = opened("arrays", path=folder(a_vector=constant))
    vector, colour = (data.source(n).samples("train", np.arange(140)) for n in (0, 3))
    assert np.allclose(vector.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(vector.std(axis=0), [1, 0, 1], atol=1e-5)
    assert np.allclose(colour.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    assert np.allclose(colour.std(axis=(0, 2, 3)), 1, atol=1e-5)
    assert colour.mean(axis=0).std() > 0.01
    test = data.source(0).samples("test", np.arange(40))
    assert abs(test[:, 0].mean()) > 1e-3


def test_relative_paths_start_at_the_working_directory(opened, folder, tmp_path, monkeypatch):
    folder()
    monkeypatch.chdir(tmp_path.parent)
    assert opened("arrays", path=tmp_path.name).classes == 4


def spoiled(name, row, value):
    array = usable()[name].astype(float)
    array[row] = value
    return {name: array}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": None}, r"labels\.npy: no such file; write it with np\.save"),
        ({"b_scalar": np.arange(9)}, r"b_scalar\.npy: 9 events, but labels\.npy has 200"),
        (spoiled("a_vector", [7, 9], np.nan), r"a_vector\.npy: NaN in row 7, the first such"),
        (spoiled("c_grey", [199], -np.inf), r"c_grey\.npy: infinity .* in row 199"),
        (spoiled("b_scalar", 3, 1e300), r"b_scalar\.npy: .*beyond float32 in row 3"),
        ({"a_vector": np.array([{}] * N)}, r"a_vector\.npy: cannot be read as an array of num"),
        ({"a_vector": np.array(["x"] * N)}, r"a_vector\.npy: holds <U1, expected whole or float"),
        ({"a_vector": np.zeros(N, complex)}, r"a_vector\.npy: holds complex128"),
        ({"a_vector": np.zeros((N, 2, 2, 2, 2))}, r"a_vector\.npy: shape \(200, 2, 2, 2, 2\)"),
        ({"a_vector": np.zeros((N, 0))}, r"a_vector\.npy: shape \(200, 0\)"),
        ({"a_vector": np.float64(3)}, r"a_vector\.npy: is not an array with a first axis"),
        ({"labels": np.arange(N) / 50}, r"labels\.npy: shape \(200,\) of float64; expected one"),
        ({"labels": np.zeros((N, 1), int)}, r"labels\.npy: shape \(200, 1\)"),
        ({"labels": np.arange(N) % 4 - 1}, r"labels\.npy: label -1 in row 0"),
        ({"labels": np.arange(N) % 4 + 1}, r"no event has label 0, but some have 4"),
        ({"labels": np.repeat([0, 10**12], 100)}, "no event has label 1, but some have 10000000"),
        ({"labels": np.zeros(0, int)}, r"labels\.npy: holds no event"),
        ({"labels": np.repeat([0, 1], [197, 3])}, "class 1 has 3 events in all and none in valida"),
        ({"splits": np.zeros(N - 1, int)}, r"splits\.npy: shape \(199,\) of int64; expected"),
        ({"splits": np.zeros(N)}, r"splits\.npy: shape \(200,\) of float64"),
        ({"splits": np.arange(N) - 5}, r"splits\.npy: -5 in row 0; expected 0 train"),
        ({"splits": np.arange(N) % 4}, r"splits\.npy: 3 in row 3; expected 0 train"),
        ({"splits": np.arange(N) % 2}, r"no event is left for test; assign some to it in splits"),
        ({"splits": np.arange(N) // 50 % 3}, "class 1 has 50 events in all and none in train"),
    ],
)
def test_unusable_files_are_named(opened, folder, changed, message):
    with pytest.raises(DatasetError, match=message) as error:
        opened("arrays", path=folder(**changed))
    assert str(error.value).startswith(f"t: {folder()}")


def test_few_events_leave_an_empty_split(opened, folder):
    few = {name: array[:2] for name, array in usable().items()}
    with pytest.raises(
        DatasetError, match=r"no event is left for (validation|test); give about 10"
    ):
        opened("arrays", path=folder(**few))


def test_folder_without_arrays(opened, tmp_path):
    with pytest.raises(DatasetError, match=r"dataset\.path: .*nowhere is not a folder \(relative"):
        opened("arrays", path=str(tmp_path / "nowhere"))
    np.save(tmp_path / "labels.npy", np.arange(3))
    with pytest.raises(DatasetError, match=r"holds no <modality>\.npy"):
        opened("arrays", path=str(tmp_path))


def test_a_node_without_file(opened, folder):
    with pytest.raises(DatasetError, match=r"c_gray\.npy: no such file, but node n2.*'c_grey'"):
        opened("arrays", path=folder(), modalities={2: "c_gray"})
    with pytest.raises(DatasetError, match=r"labels\.npy: no such file, but node n0"):
        opened("arrays", path=folder(), modalities={0: "labels"})


def test_files_of_no_node_are_not_read(opened, folder):
    data = opened(
        "arrays",
        path=folder(broken=np.array(["x"])),
        modalities=dict.fromkeys(range(4), "b_scalar"),
    )
    assert data.source(0).shape == (1,)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"1,2,3\n", None])
def test_files_that_are_no_npy(opened, folder, tmp_path, content):
    path = folder()
    whole = (tmp_path / "a_vector.npy").read_bytes()
    (tmp_path / "a_vector.npy").write_bytes(whole[:-8] if content is None else content)
    with pytest.raises(DatasetError, match=r"a_vector\.npy: cannot be read as an array"):
        opened("arrays", path=path)


def test_the_path_is_required(opened):
    with pytest.raises(ConfigError, match=r"dataset\.path: is missing"):
        opened("arrays")
