"""Which reader a path is for."""

import numpy as np
import pytest

from realdex_jax.data import dexgraspnet, formats
from realdex_jax.errors import DatasetError


@pytest.fixture
def made_up(tmp_path):
    (tmp_path / "dataset").mkdir()
    np.save(tmp_path / "dataset" / "core-x-1.npy", np.zeros(1))
    return tmp_path


def test_readers_are_in_one_table_and_answer_alike(tmp_path):
    assert {"dexgraspnet", "unidexgrasp"} <= set(formats.known()) <= set(formats.READERS)
    assert formats.recognise(tmp_path) == ()
    assert formats.recognise(tmp_path / "nothing") == ()


def test_a_missing_reader_is_left_out(monkeypatch, made_up):
    monkeypatch.setattr(formats, "READERS", {**formats.READERS, "other": "realdex_jax.data.other"})
    assert "other" not in formats.known()
    assert formats.recognise(made_up) == ("dexgraspnet",)
    with pytest.raises(DatasetError, match=r"no layout 'other'; known: .*dexgraspnet"):
        formats.open_source(made_up, "other")


def test_sources_are_opened_by_layout_and_options(made_up):
    source = formats.open_source(made_up, options={"scales": [0.08]})
    assert isinstance(source, dexgraspnet.DexGraspNet)
    assert source.units == ("core-x-1@0.080",)
    with pytest.raises(DatasetError, match=r"options for dexgraspnet: .*size.*it knows scales"):
        formats.open_source(made_up, options={"size": 1})


@pytest.mark.parametrize("scales", [0.08, "0.08", {}, [], ["0.08"], [8.0], [0.08, float("nan")]])
def test_sizes_that_are_none_are_refused(scales):
    with pytest.raises(
        DatasetError, match=r"scales is .*; it must be a list of numbers from 0\.01"
    ):
        dexgraspnet.checked_scales(scales)


def test_sizes_are_checked_when_a_source_is_opened(tmp_path, made_up):
    with pytest.raises(DatasetError, match=r"scales is \[8\.0\]; it must be a list"):
        formats.open_source(made_up, "dexgraspnet", {"scales": [8.0]})
    (tmp_path / "poses" / "core" / "mug-1").mkdir(parents=True)
    (tmp_path / "poses" / "core" / "mug-1" / "00001.npz").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"scales is \[8\.0\]; it must be a list"):
        formats.open_source(tmp_path, "unidexgrasp", {"scales": [8.0]})


def test_what_no_reader_knows_is_refused_by_name(tmp_path, made_up):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty has no known layout; name one with --format"):
        formats.open_source(tmp_path / "empty")
    with pytest.raises(DatasetError, match="does not exist"):
        formats.open_source(tmp_path / "nothing")
    (made_up / "00001.npz").write_bytes(b"")
    with pytest.raises(DatasetError, match="looks like dexgraspnet and unidexgrasp"):
        formats.open_source(made_up)
