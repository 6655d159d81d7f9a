"""The folder of items and the orders people see."""

import collections
import os
import pathlib
import random
import shutil
import zlib

import pytest
from PIL import Image, PngImagePlugin
from raters import COLOURS, make_film, make_items

from study import plan
from study.plan import PlanError


def test_a_folder_becomes_trials_of_all_methods(tmp_path: pathlib.Path) -> None:
    items = make_items(tmp_path / "items", samples=3)
    (items / ".DS_Store").write_bytes(b"x")
    (items / "mug" / "beta" / ".thumb").write_bytes(b"x")
    found = plan.read(items)
    assert found.methods == ("alpha", "beta", "gamma")
    assert found.notes == ()
    names = [(trial.object_name, trial.sample) for trial in found.trials]
    assert names == [(thing, str(s)) for thing in ("bottle", "mug") for s in range(3)]
    for trial in found.trials:
        assert [e.path.parent.name for e in trial.exhibits] == list(found.methods)
        assert {e.path.stem for e in trial.exhibits} == {trial.sample}
        assert {e.path.parent.parent.name for e in trial.exhibits} == {trial.object_name}
        assert {(e.media_type, e.size, e.moving) for e in trial.exhibits} == {
            ("image/png", (64, 48), False)
        }


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp", "PNG"])
def test_other_pictures(tmp_path: pathlib.Path, suffix: str) -> None:
    path = tmp_path / f"0.{suffix}"
    Image.new("RGB", (9, 7)).save(path)
    kind = {"jpg": "jpeg", "PNG": "png"}.get(suffix, suffix)
    assert plan.exhibit(path).media_type == f"image/{kind}"
    assert plan.exhibit(path).size == (9, 7)


@pytest.mark.parametrize(("name", "codec"), [("0.mp4", "libx264"), ("0.webm", "libvpx")])
def test_videos(tmp_path: pathlib.Path, name: str, codec: str) -> None:
    make_film(tmp_path / name, codec)
    found = plan.exhibit(tmp_path / name)
    assert found.moving
    assert found.media_type == f"video/{name[2:]}"
    assert found.size == (64, 48)


def test_a_video_that_browsers_do_not_play_is_refused(tmp_path: pathlib.Path) -> None:
    make_film(tmp_path / "0.mp4", "mpeg4")
    with pytest.raises(PlanError, match=r"0\.mp4: codec mpeg4; browsers play h264, av1, vp9"):
        plan.exhibit(tmp_path / "0.mp4")


def test_a_video_without_frames_is_refused(tmp_path: pathlib.Path) -> None:
    make_film(tmp_path / "whole.mp4")
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "0.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PlanError, match=r"0\.mp4: not a video"):
        plan.exhibit(tmp_path / "0.mp4")


def mutated(whole: bytes, rng: random.Random) -> bytes:
    """A file with a few bytes changed, lost, added or set to a number that may be a length."""
    data = bytearray(whole)
    at = rng.randrange(len(data))
    match rng.randrange(6):
        case 0:
            data[at] = rng.randrange(256)
        case 1:
            for _ in range(rng.randint(5, 60)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        case 2:
            del data[at:]
        case 3:
            data[at:at] = rng.randbytes(rng.randint(1, 9))
        case 4:
            data[at : at + 16] = bytes(len(data[at : at + 16]))
        case _:
            data[at : at + 4] = rng.choice([b"\xff" * 4, b"\x7f\xff\xff\xff", b"none", b"\0\0\0\1"])
    return bytes(data)


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("webm", "libvpx"), ("webm", "libvpx-vp9")]
)
def test_broken_videos_are_refused_by_name_or_shown(
    tmp_path: pathlib.Path, suffix: str, codec: str
) -> None:
    path = tmp_path / f"0.{suffix}"
    make_film(path, codec)
    whole, rng = path.read_bytes(), random.Random(0)
    refused: list[str] = []
    for _ in range(500):
        path.write_bytes(mutated(whole, rng))
        try:
            assert min(plan.exhibit(path).size) > 0
        except PlanError as error:
            refused.append(str(error))
    assert 50 < len(refused) < 450
    for message in refused:
        assert message.startswith(f"{path}: ")
        assert not message.endswith(": ")


def test_a_video_of_an_unknown_codec_is_refused(tmp_path: pathlib.Path) -> None:
    make_film(tmp_path / "0.mp4")
    whole = (tmp_path / "0.mp4").read_bytes()
    (tmp_path / "0.mp4").write_bytes(whole.replace(b"avc1", b"none"))
    with pytest.raises(PlanError, match=r"0\.mp4: codec unknown; browsers play h264, av1, vp9"):
        plan.exhibit(tmp_path / "0.mp4")


def test_a_pipe_is_not_waited_for(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "0.png")
    with pytest.raises(PlanError, match=r"0\.png: not a file"):
        plan.exhibit(tmp_path / "0.png")


def test_a_file_is_the_same_by_its_bytes(tmp_path: pathlib.Path) -> None:
    path, copy = tmp_path / "0.png", tmp_path / "copy"
    Image.new("RGB", (64, 48), COLOURS["alpha"]).save(path)
    shutil.copy2(path, copy)
    seen = plan.exhibit(path)
    assert plan.same(seen) is seen
    os.replace(copy, path)
    again = plan.same(seen)
    assert again.stamp != seen.stamp
    assert again.digest == seen.digest
    assert plan.same(again) is again
    # Another picture of the same length, whose file claims the same time.
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(0, seen.stamp[3]))
    with pytest.raises(PlanError, match=r"0\.png: another file than when the study was started"):
        plan.same(again)
    path.unlink()
    with pytest.raises(PlanError, match=r"0\.png: cannot be read any more: No such file"):
        plan.same(again)


def broken(change):
    return pytest.param(change, id=change.__name__)


def missing_method(items: pathlib.Path) -> str:
    for path in (items / "mug" / "beta").iterdir():
        path.unlink()
    (items / "mug" / "beta").rmdir()
    return "mug: no folder of method beta; every object needs alpha, beta, gamma"


def missing_sample(items: pathlib.Path) -> str:
    (items / "mug" / "beta" / "1.png").unlink()
    return "no sample 1; every method of an object needs 0, 1"


def no_samples(items: pathlib.Path) -> str:
    for method in ("alpha", "beta", "gamma"):
        for path in (items / "mug" / method).iterdir():
            path.unlink()
    return "mug: no samples"


def unknown_suffix(items: pathlib.Path) -> str:
    for method in ("alpha", "beta", "gamma"):
        (items / "mug" / method / "2.svg").write_text("<svg/>")
    return r"suffix '.svg'; known: .png, .jpg"


def not_a_picture(items: pathlib.Path) -> str:
    (items / "mug" / "beta" / "1.png").write_bytes(b"not a picture")
    return "1.png: not a PNG picture"


def cut_short(items: pathlib.Path) -> str:
    path = items / "mug" / "beta" / "1.png"
    Image.effect_noise((200, 200), 50).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    return "1.png: not a PNG picture"


def other_format(items: pathlib.Path) -> str:
    Image.new("RGB", (64, 48)).save(items / "mug" / "beta" / "1.png", format="JPEG")
    return "1.png: not a PNG picture"


def lying_header(items: pathlib.Path) -> str:
    path = items / "mug" / "beta" / "1.png"
    data = bytearray(path.read_bytes())
    data[16:24] = (100_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    path.write_bytes(data)
    return "1.png: .*pixels"


def too_large(items: pathlib.Path) -> str:
    with (items / "mug" / "beta" / "1.png").open("ab") as file:
        file.truncate(plan.MAX_PICTURE_BYTES + 1)
    return f"1.png: {plan.MAX_PICTURE_BYTES + 1} bytes; at most {plan.MAX_PICTURE_BYTES}"


def two_files_one_sample(items: pathlib.Path) -> str:
    Image.new("RGB", (64, 48)).save(items / "mug" / "beta" / "1.webp")
    return "are both sample 1"


def file_for_a_method(items: pathlib.Path) -> str:
    (items / "mug" / "notes.txt").write_text("x")
    return "notes.txt is a file where the folder of a method should be"


def picture_and_video(items: pathlib.Path) -> str:
    (items / "mug" / "beta" / "1.png").unlink()
    make_film(items / "mug" / "beta" / "1.mp4")
    return "sample 1 is a picture of one method and a video of another"


def unprintable_name(items: pathlib.Path) -> str:
    (items / "mug").rename(items / "mug\n")
    return "names are printable"


def one_method(items: pathlib.Path) -> str:
    for thing in ("bottle", "mug"):
        for method in ("beta", "gamma"):
            os.rename(items / thing / method, items / thing / f".{method}")
    return r"1 methods \(alpha\); 2 to 8"


def nothing(items: pathlib.Path) -> str:
    for thing in ("bottle", "mug"):
        os.rename(items / thing, items / f".{thing}")
    return "no objects; items lie in <object>/<method>/<sample>.png"


@pytest.mark.parametrize(
    "change",
    [
        broken(one)
        for one in (
            missing_method,
            missing_sample,
            no_samples,
            unknown_suffix,
            not_a_picture,
            cut_short,
            other_format,
            lying_header,
            too_large,
            two_files_one_sample,
            file_for_a_method,
            picture_and_video,
            unprintable_name,
            one_method,
            nothing,
        )
    ],
)
def test_what_is_wrong_is_named(tmp_path: pathlib.Path, change) -> None:
    items = make_items(tmp_path / "items")
    with pytest.raises(PlanError, match=change(items)):
        plan.read(items)


def test_a_folder_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(PlanError, match="nowhere: not a folder that can be read: No such file"):
        plan.read(tmp_path / "nowhere")


def test_different_sizes_are_noted(tmp_path: pathlib.Path) -> None:
    items = make_items(tmp_path / "items", samples=4)
    for sample in range(4):
        path = items / "mug" / "beta" / f"{sample}.png"
        Image.new("RGB", (32, 48), COLOURS["beta"]).save(path)
    notes = plan.read(items).notes
    assert notes[0] == (
        "mug 0: sizes differ between methods (64×48, 32×48, 64×48), which may tell them apart"
    )
    assert notes[-1] == "the same of 1 more trials"


def test_some_samples_are_drawn_the_same_way_every_time(tmp_path: pathlib.Path) -> None:
    items = make_items(tmp_path / "items", samples=10)
    found = plan.read(items, samples=3, seed=4)
    assert len(found.trials) == 6
    assert found == plan.read(items, samples=3, seed=4)
    chosen = {
        tuple(t.sample for t in plan.read(items, samples=3, seed=seed).trials) for seed in range(5)
    }
    assert len(chosen) > 1
    with pytest.raises(PlanError, match="10 samples of each method, but --samples 11"):
        plan.read(items, samples=11)
    with pytest.raises(PlanError, match="samples is 0"):
        plan.read(items, samples=0)


def test_the_digest_changes_with_a_file(tmp_path: pathlib.Path) -> None:
    items = make_items(tmp_path / "items")
    before = plan.read(items).digest()
    assert plan.read(items).digest() == before
    path = items / "mug" / "beta" / "1.png"
    note = PngImagePlugin.PngInfo()
    note.add_text("note", "changed")
    Image.new("RGB", (64, 48), COLOURS["beta"]).save(path, pnginfo=note)
    assert plan.read(items).digest() != before


def test_everybody_has_an_own_order_with_everything_in_it() -> None:
    orders = [plan.order(6, 3, 1, number) for number in range(1, 21)]
    for one in orders:
        assert sorted(trial for trial, _ in one) == list(range(6))
        assert all(sorted(methods) == [0, 1, 2] for _, methods in one)
    assert len(set(orders)) == 20
    assert orders[0] == plan.order(6, 3, 1, 1) != plan.order(6, 3, 2, 1)


def test_every_method_is_as_often_at_every_place() -> None:
    first = collections.Counter(
        methods[place] * 10 + place
        for number in range(1, 301)
        for _, methods in plan.order(10, 3, 0, number)
        for place in range(3)
    )
    # 3000 draws each of probability 1/3: four standard deviations are 103.
    assert all(abs(count - 1000) < 110 for count in first.values())
    assert len(first) == 9
