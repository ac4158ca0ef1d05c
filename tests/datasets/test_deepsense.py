import csv
import shutil

import numpy as np
import pytest
from PIL import Image

import sheafnet
from sheafnet.config import Config
from sheafnet.datasets.sequences import split_sequences
from sheafnet.errors import ConfigError, DatasetError

ROWS, DRIVES = 120, 12
BEAMS = np.arange(ROWS) % 10 * 7
"""The best beam from 0: every drive of ten rows passes from beam 0 to beam 63."""
DRIVE = np.arange(ROWS) // 10
SIZES = {"camera": (3, 6, 8), "power": (64,), "lidar": (1, 4, 8), "radar": (1, 4, 8)}
SMALL = {"image_size": [6, 8], "lidar_bins": [4, 8], "lidar_range": 20, "radar_bins": [4, 8]}


def power(row):
    """Beam 1 is the row's number by a thousand, so that rows can be told apart; see `rows_of`."""
    vector = np.full(64, 0.125)
    vector[1] = row / 1000
    vector[BEAMS[row]] += 0.5
    return vector


def write(folder):
    """120 rows of four sensors in the layout of a scenario, its csv as a list of mappings."""
    random = np.random.default_rng(0)
    table = []
    for name in ("camera", "mmWave", "lidar", "radar", "label"):
        (folder / f"unit1/{name}_data").mkdir(parents=True)
    for row in range(ROWS):
        files = {
            "unit1_rgb": f"./unit1/camera_data/image_{row}.png",
            "unit1_pwr_60ghz": f"./unit1/mmWave_data/mmWave_power_{row}.txt",
            "unit1_lidar": f"./unit1/lidar_data/lidar_data_{row}.npy",
            "unit1_radar": f"./unit1/radar_data/radar_data_{row}.npy",
            "unit1_blockage": f"./unit1/label_data/label_{row}.txt",
        }
        paths = {column: folder / cell for column, cell in files.items()}
        pixels = random.integers(0, 50, (6, 8, 3)).astype(np.uint8)
        pixels[:, BEAMS[row] // 8] += 200
        Image.fromarray(pixels).save(paths["unit1_rgb"])
        np.savetxt(paths["unit1_pwr_60ghz"], power(row))
        azimuth = (BEAMS[row] + 0.5) / 64 * 2 * np.pi - np.pi
        np.save(paths["unit1_lidar"], [[10.0, azimuth]] * (1 + row % 3))
        turns = np.arange(4) * (BEAMS[row] - 32) / 64
        moving = np.exp(2j * np.pi * (turns[:, None, None] + np.arange(6) / 6))
        np.save(paths["unit1_radar"], (moving + np.zeros((4, 8, 6))).astype(np.complex64))
        paths["unit1_blockage"].write_text(f"{row // 5 % 2}\n")
        values = {"unit1_beam_index": BEAMS[row] + 1, "seq_index": DRIVE[row] + 1}
        table.append({"index": row + 1, **files, **values})
    return table


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "scenario9"
    folder.mkdir()
    return folder, write(folder)


@pytest.fixture
def folder(scenario, tmp_path):
    """A copy of the scenario whose table is changed row by row before it is written."""
    copy = tmp_path / "scenario9"
    shutil.copytree(scenario[0], copy)

    def make(change=lambda row: row, without=(), name="scenario9.csv", keep=ROWS):
        rows = [change(dict(row)) for row in scenario[1][:keep]]
        columns = [column for column in rows[0] if column not in without]
        with (copy / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return str(copy)

    return make


SPLITS = ("train", "validation", "test")


def samples(data, node, split):
    return data.source(node).samples(split, np.arange(data.distinct(split)))


def rows_of(data, node=1):
    """The rows of each split, by the rank of what beam 1 of the power received."""
    parts = {split: samples(data, node, split)[:, 1] for split in SPLITS}
    order = np.sort(np.concatenate(list(parts.values())))
    assert len(set(order.tolist())) == len(order)
    return {split: np.searchsorted(order, part) for split, part in parts.items()}


def test_modalities_and_shapes(opened, folder):
    data = opened("deepsense", path=folder(), nodes=5, **SMALL)
    assert [data.modality(node) for node in range(5)] == [*SIZES, "camera"]
    for node, shape in enumerate(SIZES.values()):
        source = data.source(node)
        view = source.samples("train", np.array([5, 10**6, 5]))
        assert source.shape == shape
        assert view.shape == (3, *shape)
        assert view.dtype == np.float32
        assert view.flags.c_contiguous
        assert np.array_equal(view[0], view[2])
        with pytest.raises(IndexError):
            source.samples("test", np.array([-1]))
    assert data.classes == 8
    assert not data.labels_per_edge
    assert data.size("train") is None
    some = {"lidar_bins": [16, 32], "image_size": [36, 64], "colour": False}
    grey = opened("deepsense", path=folder(), **{**SMALL, **some})
    assert [grey.source(node).shape for node in (0, 2)] == [(1, 36, 64), (1, 16, 32)]


def test_values_are_the_files_standardised_by_training_rows(opened, folder):
    path = folder()
    data = opened("deepsense", path=path, **SMALL)
    rows = rows_of(data)
    raw = {
        "camera": np.stack(
            [
                np.asarray(Image.open(f"{path}/unit1/camera_data/image_{row}.png"))
                for row in range(ROWS)
            ]
        ).transpose(0, 3, 1, 2),
        "power": np.stack([power(row) for row in range(ROWS)]),
        "lidar": np.zeros((ROWS, 1, 4, 8)),
    }
    for row in range(ROWS):  # 10 of 20 m is range cell 2 of 4; the turn is cut into 8
        raw["lidar"][row, 0, 2, BEAMS[row] // 8] = np.log(2 + row % 3)
    for node, values in enumerate(raw.values()):
        axes = (0,) if values.ndim == 2 else (0, 2, 3)
        train = values[rows["train"]].astype(float)
        sd = train.std(axis=axes, keepdims=True)
        expected = (values - train.mean(axis=axes, keepdims=True)) / np.where(sd > 0, sd, 1)
        for split in SPLITS:
            assert np.allclose(samples(data, node, split), expected[rows[split]], atol=1e-4)
    radar = {split: samples(data, 3, split)[:, 0] for split in SPLITS}
    for split in SPLITS:  # the reflector stands at range 0, the angles begin at minus half a turn
        assert (radar[split].sum(axis=1).argmax(axis=1) == BEAMS[rows[split]] // 8).mean() > 0.5
        assert (radar[split].argmax(axis=1).max(axis=1) == 0).all()


def test_labels_are_sectors_of_beams(opened, folder):
    for beams in (2, 8, 64):
        data = opened("deepsense", path=folder(), beams=beams, **SMALL)
        rows = rows_of(data)
        sectors = np.unique(BEAMS * beams // 64)
        assert data.classes == len(sectors) == min(beams, 8 if beams == 8 else 10)
        for split in SPLITS:
            labels = data.source(0).labels(split, np.arange(data.distinct(split)), 2)
            assert labels.dtype == np.int64
            assert np.array_equal(sectors[labels], BEAMS[rows[split]] * beams // 64)


def from_zero(row):
    return {**row, "unit1_beam_index": row["unit1_beam_index"] - 1}


def as_float(row):
    return {**row, "unit1_beam_index": f" {row['unit1_beam_index']}.0 "}


def renamed(row):
    return {**row, "Unit1_Beam": row["unit1_beam_index"]}


def backslashes(row):
    return {name: str(cell).replace("./", "").replace("/", "\\") for name, cell in row.items()}


def rooted(row):
    return {name: str(cell).replace("./", "/") for name, cell in row.items()}


@pytest.mark.parametrize(
    ("change", "without"),
    [
        (from_zero, ()),
        (as_float, ()),
        (renamed, ("unit1_beam_index",)),
        (dict, ("unit1_beam_index",)),
        (backslashes, ()),
        (rooted, ()),
    ],
)
def test_ways_to_write_the_same(opened, folder, change, without):
    plain = opened("deepsense", path=folder(), **SMALL)
    other = opened("deepsense", path=folder(change, without), **SMALL)
    for split in SPLITS:
        assert np.array_equal(samples(plain, 2, split), samples(other, 2, split))
        events = np.arange(plain.distinct(split))
        seen, expected = (d.source(0).labels(split, events, 0) for d in (other, plain))
        assert np.array_equal(seen, expected)


@pytest.mark.parametrize("as_value", [False, True])
def test_blockage_labels(opened, folder, as_value):
    def change(row):
        return {**row, "unit1_blockage": (row["index"] - 1) // 5 % 2} if as_value else row

    data = opened("deepsense", path=folder(change), label="blockage", **SMALL)
    rows = rows_of(data)
    assert data.classes == 2
    for split in SPLITS:
        labels = data.source(3).labels(split, np.arange(data.distinct(split)), 0)
        assert np.array_equal(labels, rows[split] // 5 % 2)


def test_splits_are_whole_sequences(opened, folder):
    data = opened("deepsense", path=folder(), **SMALL)
    rows = rows_of(data)
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(ROWS))
    drives = {split: set((part // 10).tolist()) for split, part in rows.items()}
    assert sum(map(len, drives.values())) == DRIVES
    assert all(len(rows[split]) == 10 * len(drives[split]) for split in SPLITS)
    # A sequence is 8 percent of the rows: no split is further than that from its share.
    for split, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
        assert abs(len(rows[split]) - share * ROWS) <= 10
    again = rows_of(opened("deepsense", path=folder(), seed=3, **SMALL))
    other = rows_of(opened("deepsense", path=folder(), split_seed=1, **SMALL))
    assert np.array_equal(again["test"], rows["test"])
    assert set(other["test"].tolist()) != set(rows["test"].tolist())
    # The first events of a split show all classes, not the first seconds of a drive.
    assert len(set((BEAMS[rows["train"][:16]] // 8).tolist())) == 8


def test_without_sequences_splits_are_blocks_of_rows(opened, folder):
    data = opened("deepsense", path=folder(without=("seq_index",)), beams=2, **SMALL)
    blocks = {split: set((part // 6).tolist()) for split, part in rows_of(data).items()}
    assert sum(map(len, blocks.values())) == 20
    assert [len(blocks[split]) for split in SPLITS] == [14, 2, 4]


def test_a_rare_class_reaches_every_split():
    sequence = np.repeat(np.arange(30), 10)
    labels = np.isin(sequence, [3, 11, 25]).astype(np.int64)
    splits = split_sequences(sequence, labels, ["often", "rare"], 0)
    assert all(labels[rows].any() for rows in splits.values())
    with pytest.raises(DatasetError, match="rare: its 20 rows lie in 2 of 30 sequences, and "):
        split_sequences(sequence, labels * (sequence != 3), ["often", "rare"], 0)


def test_the_scan_without_clutter_is_preferred(opened, folder):
    path = folder(lambda row: {**row, "unit1_lidar_SCR": "unit1/scr.npy"})
    np.save(f"{path}/unit1/scr.npy", [[1.0, 0.0]])
    data = opened("deepsense", path=path, modalities=dict.fromkeys(range(4), "lidar"), **SMALL)
    view = samples(data, 0, "test")
    assert (view == view[0]).all()


def test_a_missing_beam_does_not_spoil_a_row(opened, folder):
    path = folder()
    with open(f"{path}/unit1/mmWave_data/mmWave_power_7.txt", "w") as file:
        file.write("\n".join("nan" if beam == 20 else f"{p}" for beam, p in enumerate(power(7))))
    assert np.isfinite(samples(opened("deepsense", path=path, **SMALL), 1, "train")).all()


def network(path):
    return {
        "name": "tower",
        "dataset": {"name": "deepsense", "path": path, **SMALL},
        "nodes": [
            {"id": "eye", "modality": "camera", "encoder": "conv"},
            {"id": "array", "modality": "power"},
            {"id": "laser", "modality": "lidar", "encoder": "conv"},
            {"id": "wave", "modality": "radar", "encoder": "conv"},
        ],
        "edges": [["eye", "array"], ["array", "laser"], ["laser", "wave"], ["wave", "eye"]],
        "defaults": {"node": {"embedding_dim": 16}},
        "training": {"rounds": 30, "batch_size": 20},
        "inference": {"rounds": 2, "batch_size": 10, "missing_probability": 0.3},
        "evaluation": {"gallery": "all", "support": 60},
        "run": {"backend": "local"},
    }


def test_a_run_aligns_the_sensors(folder, tmp_path):
    config = Config.model_validate(network(folder()))
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    assert summary.dataset == "deepsense"
    alignment = summary.alignment
    assert alignment.zero_shot_accuracy > 4 * alignment.chance.accuracy
    assert alignment.recall_at_1 > 3 * alignment.chance.recall_at_1


def spoil(name, content):
    """Write `content` to the file of row 30 of a sensor once the csv stands."""

    def change(path):
        with open(f"{path}/unit1/{name}", "wb") as file:
            file.write(content)

    return change


def cell(column, value, row=30):
    return lambda line: {**line, column: value} if line["index"] == row + 1 else line


PLACE = r"scenario9\.csv: line 32, column "


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (cell("unit1_rgb", ""), {}, PLACE + "unit1_rgb: empty; remove the line"),
        (cell("unit1_radar", "NaN"), {}, PLACE + "unit1_radar: NaN; remove the line"),
        (cell("seq_index", ""), {}, PLACE + "seq_index: empty"),
        (cell("unit1_beam_index", "nan"), {}, PLACE + "unit1_beam_index: nan"),
        (cell("unit1_beam_index", "3.5"), {}, PLACE + r"unit1_beam_index: '3\.5' is no label"),
        (cell("unit1_beam_index", "-1"), {}, PLACE + "unit1_beam_index: '-1' is no label"),
        (cell("unit1_beam_index", "inf"), {}, PLACE + "unit1_beam_index: 'inf' is no label"),
        (cell("unit1_beam_index", "left"), {}, PLACE + "unit1_beam_index: 'left' is no label"),
        (cell("unit1_beam_index", 65), {}, PLACE + "unit1_beam_index: beam 65; expected 1 to 64"),
        (
            lambda row: cell("unit1_beam_index", 64)(from_zero(row)),
            {},
            PLACE + "unit1_beam_index: beam 64; expected 0 to 63",
        ),
        (
            lambda row: {**row, "unit1_beam_index": 5},
            {},
            "all 120 rows are of beam sector 1 of 8; choose another dataset.label",
        ),
        (
            lambda row: {**row, "unit1_beam_index": 5 if row["seq_index"] < 12 else 60},
            {},
            r"beam sector 8 of 8: its 10 rows lie in 1 of 12 sequences, and \w+ has none of "
            r"them in the best of 200 ways .* choose fewer dataset\.beams, another",
        ),
        (
            lambda row: {**row, "seq_index": row["index"] // 90},
            {},
            r"csv: 2 sequences \(column seq_index\), but .* one each; remove the column to",
        ),
        (
            lambda row: {**row, "unit1_blockage": int(row["seq_index"] == 4)},
            {"label": "blockage"},
            r"csv: blockage 1: its 10 rows lie in 1 of 12 sequences, and \w+ has none of "
            r"them in the best of 200 ways to split \(column seq_index\); choose another data",
        ),
    ],
)
def test_a_faulty_csv_is_refused(opened, folder, change, options, message):
    with pytest.raises(DatasetError, match=message) as error:
        opened("deepsense", path=folder(change), **SMALL, **options)
    assert str(error.value).startswith("t: ")


@pytest.mark.parametrize(
    ("name", "content", "node", "message"),
    [
        (
            "camera_data/image_30.png",
            b"",
            0,
            r"unit1_rgb: .*image_30\.png: cannot be read as an im",
        ),
        (
            "mmWave_data/mmWave_power_30.txt",
            b"1\n2\n",
            1,
            r"unit1_pwr_60ghz: .*power_30\.txt: 2 values, but the first file has 64; remove",
        ),
        ("mmWave_data/mmWave_power_30.txt", b"nan", 1, r"power_30\.txt: holds no beam's power"),
        ("lidar_data/lidar_data_30.npy", b"1", 2, r"lidar_data_30\.npy: cannot be read as numbers"),
        ("radar_data/radar_data_30.npy", b"", 3, r"radar_data_30\.npy: cannot be read as numbers"),
    ],
)
def test_unreadable_files_are_named_when_read(opened, folder, name, content, node, message):
    path = folder()
    spoil(name, content)(path)
    data = opened("deepsense", path=path, **SMALL)
    with pytest.raises(DatasetError, match=PLACE + ".*" + message):
        data.source(node).samples("test", np.arange(2))


def test_a_run_reads_everything_before_its_first_round(folder, tmp_path):
    config = Config.model_validate(network(folder()))
    spoil("radar_data/radar_data_119.npy", b"")(config.dataset.options["path"])
    with pytest.raises(DatasetError, match=r"line 121, column unit1_radar: .*cannot be read"):
        sheafnet.simulate(config, run_dir=tmp_path / "run")
    run = sheafnet.RunDirectory.open(tmp_path / "run")
    assert not list(run.lines("rounds"))


def test_the_first_file_is_tried_at_opening(opened, folder):
    path = folder()
    spoil("radar_data/radar_data_0.npy", b"")(path)
    with pytest.raises(DatasetError, match=r"t: .*line 2, column unit1_radar: .*cannot be read"):
        opened("deepsense", path=path, **SMALL)
    some = dict(enumerate(["camera", "power", "lidar", "lidar"]))
    assert opened("deepsense", path=path, modalities=some, **SMALL).classes == 8


def test_labels_in_files_are_checked(opened, folder):
    path = folder()
    spoil("label_data/label_30.txt", b"blocked\n")(path)
    with pytest.raises(DatasetError, match=r"column unit1_blockage: .*label_30\.txt: 'blocked' is"):
        opened("deepsense", path=path, label="blockage", **SMALL)


def test_a_ragged_power_vector_without_beam_column(opened, folder):
    path = folder(without=("unit1_beam_index",))
    spoil("mmWave_data/mmWave_power_30.txt", b"1 2 3")(path)
    with pytest.raises(DatasetError, match=PLACE + r"unit1_pwr_60ghz: .*3 values, but the first"):
        opened("deepsense", path=path, modalities=dict.fromkeys(range(4), "camera"), **SMALL)


def test_missing_files_are_counted_and_named(opened, folder, tmp_path):
    path = folder()
    for row in (4, 9, 20, 30, 31):
        (tmp_path / f"scenario9/unit1/camera_data/image_{row}.png").unlink()
    with pytest.raises(
        DatasetError,
        match=r"column unit1_rgb: 5 of 120 files are missing: \./unit1/camera_data/image_4\.png "
        r"\(line 6\), .*image_9\.png \(line 11\), .*image_20\.png \(line 22\) and 2 more\. Unzip "
        r"every part of the scenario's download from https://www\.deepsense6g\.net into ",
    ):
        opened("deepsense", path=path, **SMALL)


def test_missing_columns_are_named(opened, folder):
    path = folder(without=("unit1_lidar", "unit1_blockage"))
    data = opened("deepsense", path=path, **SMALL)
    assert [data.modality(node) for node in range(4)] == ["camera", "power", "radar", "camera"]
    with pytest.raises(
        DatasetError,
        match=r"csv: no column unit1_lidar_SCR or unit1_lidar: node n2 has the modality lidar; "
        r"change the node, or take a scenario that has it\. Columns: index, unit1_rgb, ",
    ):
        opened("deepsense", path=path, modalities={2: "lidar"}, **SMALL)
    with pytest.raises(DatasetError, match="no column unit1_blockage or blockage: label: blockage"):
        opened("deepsense", path=path, label="blockage", **SMALL)
    with pytest.raises(
        ConfigError, match=r"node n1: modality = 'lidr': .*Known: camera, power, rad"
    ):
        opened("deepsense", path=path, modalities={1: "lidr"}, **SMALL)
    columns = ("unit1_beam_index", "unit1_pwr_60ghz")
    with pytest.raises(
        DatasetError, match=r"no column unit1_beam_index or .*unit1_pwr: label: beam"
    ):
        opened("deepsense", path=folder(without=columns), **SMALL)
    sensors = ("unit1_rgb", "unit1_pwr_60ghz", "unit1_lidar", "unit1_radar")
    with pytest.raises(
        DatasetError, match=r"no column unit1_rgb or .*the sensors that can be read"
    ):
        opened("deepsense", path=folder(without=sensors), **SMALL)


def test_one_csv_is_chosen(opened, folder, tmp_path):
    path = folder(name="scenario9_dev.csv")
    (tmp_path / "scenario9/notes.csv").write_text("a,b\n1,2\n")
    assert opened("deepsense", path=path, **SMALL).classes == 8
    folder(from_zero, name="Scenario9.CSV")
    with pytest.raises(
        DatasetError,
        match=r"holds 2 csv files \(Scenario9\.CSV, scenario9_dev\.csv\); name one of them, as "
        r"path: .*/Scenario9\.CSV",
    ):
        opened("deepsense", path=path, **SMALL)
    assert opened("deepsense", path=f"{path}/Scenario9.CSV", **SMALL).classes == 8


def test_a_folder_that_is_no_scenario(opened, tmp_path):
    with pytest.raises(
        DatasetError,
        match=r"dataset\.path: nowhere is not there \(relative paths start at .*\); download a "
        r"scenario from https://www\.deepsense6g\.net .* name the folder that holds its scenarioN",
    ):
        opened("deepsense", path="nowhere")
    with pytest.raises(DatasetError, match=r"holds no scenarioN\.csv; name the folder"):
        opened("deepsense", path=str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no row below its header"),
        (b"index,unit1_rgb\n\n", "holds no row below its header"),
        (b"index,index\n1,2\n", "column 'index' occurs twice"),
        (b"index,unit1_rgb\n1,a.png\n\n2\n", "line 4 has 1 cells, the header 2; mend or remove"),
        (b"\xff\xfe\x00", "cannot be read as a csv"),
    ],
)
def test_a_file_that_is_no_table(opened, tmp_path, content, message):
    (tmp_path / "scenario1.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=r"scenario1\.csv: " + message):
        opened("deepsense", path=str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"dataset\.path: is missing"),
        ({"path": "x", "label": "gps"}, r"dataset\.label = 'gps'"),
        ({"path": "x", "beams": 65}, r"dataset\.beams = 65"),
        ({"path": "x", "image_size": [36]}, r"dataset\.image_size"),
        ({"path": "x", "lidar_range": 0}, r"dataset\.lidar_range = 0"),
    ],
)
def test_wrong_options_are_named(opened, options, message):
    with pytest.raises(ConfigError, match=message):
        opened("deepsense", **options)
